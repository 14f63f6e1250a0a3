#!/bin/sh
# Makes sure that the browser test finds a Chromium: that of PATH, or Chrome; else Debian's package,
# with the libraries that this machine lacks, unpacked into .build/chromium, which leaves the
# system as it is.
#
#   tools/get-chromium.sh
#
# Downloading needs no rights; only renewing apt's lists, where they are old or missing, needs root.
# Exit status 1, with one line on standard error, if there is none.
set -eu
cd "$(dirname "$0")/.."

into=.build/chromium
program=$into/usr/lib/chromium/chromium

for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done
[ -x "$program" ] && exit 0

fetch() { # FOLDER: downloads what an installation would add to this machine
    missing=$(apt-get -s --no-install-recommends install chromium | sed -n 's/^Inst \([^ ]*\) .*/\1/p')
    # shellcheck disable=SC2086 # one word each
    [ -n "$missing" ] && (cd "$1" && apt-get -qq download $missing)
}

if command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1; then
    echo "unpacking Debian's chromium into $into"
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
            */libc6_* | */libgcc-s1_* | */libstdc++6_*) ;; # the system's own must be used
            *.deb) [ -f "$package" ] && dpkg -x "$package" "$into" ;;
        esac
    done
fi
[ -x "$program" ] && exit 0
echo "amsync's browser test needs chromium: not found; apt install chromium" >&2
exit 1
