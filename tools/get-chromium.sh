#!/bin/sh
# Makes sure that the browser test finds a Chromium: that of PATH, or Chrome; else Debian's package,
# with the libraries that this machine lacks, unpacked into .build/chromium.
#
#   tools/get-chromium.sh
#
# Exit status 1, with one line on standard error, if there is none.
set -eu
cd "$(dirname "$0")/.."
. tools/debian.sh

into=.build/chromium
program=$into/usr/lib/chromium/chromium

for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done
[ -x "$program" ] && exit 0

fetch() { # FOLDER: downloads what an installation would add to this machine
    missing=$(apt-get -s --no-install-recommends install chromium | sed -n 's/^Inst \([^ ]*\) .*/\1/p')
    # shellcheck disable=SC2086 # one word each
    [ -n "$missing" ] && (cd "$1" && apt-get -qq download $missing) || return 1
    rm -f "$1"/libstdc++6_* # the system's own must be used
}

unpack chromium "$into"
[ -x "$program" ] && exit 0
echo "amsync's browser test needs chromium: not found; apt install chromium" >&2
exit 1
