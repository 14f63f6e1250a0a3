# Unpacks Debian's packages into a folder of the tree, which leaves the system as it is and starts
# no service; for the scripts beside this one, which source it.
#
# Downloading needs no rights; only renewing apt's lists, where they are old or missing, needs root.

unpack() { # NAME FOLDER: what the caller's `fetch SCRATCH` downloads; nothing where there is no Debian
    command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1 || return 0
    echo "unpacking Debian's $1 into $2"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    if ! fetch "$scratch" >/dev/null 2>&1; then
        [ "$(id -u)" != 0 ] || apt-get -qq update >/dev/null 2>&1 || true
        fetch "$scratch" >/dev/null 2>&1 || true
    fi
    rm -f "$scratch"/libc6_* "$scratch"/libgcc-s1_* # the system's own must be used
    rm -rf "$2"
    mkdir -p "$2"
    for package in "$scratch"/*.deb; do
        [ -f "$package" ] && dpkg -x "$package" "$2"
    done
    return 0
}
