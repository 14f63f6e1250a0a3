#!/bin/sh
# Makes sure that the tests find promtool: that of PATH; or the one of Debian's package prometheus
# (19 MB), unpacked into .build/promtool.
#
#   tools/get-promtool.sh
#
# Exit status 1, with one line on standard error, if there is none.
set -eu
cd "$(dirname "$0")/.."
. tools/debian.sh

into=.build/promtool
program=$into/bin/promtool

command -v promtool >/dev/null 2>&1 && exit 0
[ -x "$program" ] && exit 0

fetch() { # FOLDER
    (cd "$1" && apt-get -qq download prometheus)
}

unpack prometheus "$into"
if [ -x "$into/usr/bin/promtool" ]; then
    mkdir -p "$into/bin"
    mv "$into/usr/bin/promtool" "$program"
    rm -rf "$into/usr" "$into/etc" "$into/lib" "$into/var" # the server, which nobody needs
    exit 0
fi
echo "amsync's tests need promtool: not found; apt install prometheus" >&2
exit 1
