#!/bin/sh
# Checks for the tools that building and testing amsync need.
#
#   tools/check-tools.sh [python|compiler|cargo|rust-lint|node|docker]...
#
# Each missing or too old tool gives one line on standard error: its name, the version needed,
# what was found and how to get it. Exit status 1 if there was any, else 0.
# Only shell built-ins but for mktemp and rm: tests/packaging/test_tools.py runs it with little
# else in PATH. PYTHON and CC choose other commands than python3 and cc.
set -u

python=${PYTHON:-python3}
compiler=${CC:-cc}
python_hint="apt install python3 python3-venv (Debian 12 and later), or set PYTHON=python3.12"
cargo_hint="install rustup (apt install rustup, or see rustup.rs), then: rustup default stable"
docker_hint="install Docker Engine 20.10 or newer with its compose plugin, or see docker.com"
node_hint="apt install nodejs npm (Debian 13 and later), or see nodejs.org"
status=0

missing() { # NAME-AND-VERSION FOUND HINT
    printf 'amsync needs %s: %s; %s\n' "$1" "$2" "$3" >&2
    status=1
}

version_of() { # TEXT: sets version, major and minor to the first thing like 1.2 or v1.2 in it
    version='' major=0 minor=0
    for word in $1; do
        word=${word#v}
        case $word in
            [0-9]*.[0-9]*)
                version=$word major=${word%%.*} minor=${word#*.}
                minor=${minor%%[!0-9]*}
                return
                ;;
        esac
    done
}

require() { # COMMAND MAJOR MINOR HINT: fails, having said why, if it is not there and new enough
    if [ "$3" = 0 ]; then wanted="$1 >= $2"; else wanted="$1 >= $2.$3"; fi
    if ! command -v "$1" >/dev/null 2>&1; then
        missing "$wanted" "not found" "$4"
        return 1
    fi
    # A rustup or pyenv stand-in is found, but fails when no version is chosen.
    if ! answer=$("$1" --version 2>/dev/null); then
        missing "$wanted" "found, but '$1 --version' fails" "$4"
        return 1
    fi
    version_of "$answer"
    if [ "$major" -lt "$2" ] || { [ "$major" -eq "$2" ] && [ "$minor" -lt "$3" ]; }; then
        missing "$wanted" "found ${version:-no version}" "$4"
        return 1
    fi
}

check_python() {
    require "$python" 3 11 "$python_hint" || return
    # Debian splits ensurepip out of Python: the venv module imports, and then fails half way.
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        missing "the venv module of $python" "not found" "apt install python3-venv"
}

check_compiler() {
    hint="apt install gcc libc6-dev"
    if ! command -v "$compiler" >/dev/null 2>&1; then
        missing "a C compiler ($compiler, the linker of Rust)" "not found" "$hint"
        return
    fi
    # gcc without the headers and start files of libc is found, and then cannot link.
    program=$(mktemp) || return
    echo 'int main(void) { return 0; }' | "$compiler" -x c -o "$program" - >/dev/null 2>&1 ||
        missing "a C compiler ($compiler, the linker of Rust)" "it cannot link a program" "$hint"
    rm -f "$program"
}

check_rust_lint() {
    command -v cargo >/dev/null 2>&1 || return
    for part in clippy fmt; do
        cargo "$part" --version >/dev/null 2>&1 && continue
        component=$part
        [ "$part" = fmt ] && component=rustfmt
        # rustup's minimal profile leaves both out; its own components need no choice by a person.
        if command -v rustup >/dev/null 2>&1; then
            echo "adding $component to the Rust toolchain"
            rustup component add "$component" >/dev/null 2>&1 && continue
        fi
        missing "cargo $part" "not found" "rustup component add $component"
    done
}

check_docker() {
    require docker 20 10 "$docker_hint" || return
    if ! docker compose version >/dev/null 2>&1; then
        missing "docker compose" "not found" "$docker_hint"
        return
    fi
    docker info >/dev/null 2>&1 ||
        missing "a running Docker engine" "'docker info' fails" "start it, or set DOCKER_HOST"
}

for tool in "$@"; do
    case $tool in
        python) check_python ;;
        compiler) check_compiler ;;
        cargo) require cargo 1 90 "$cargo_hint" ;;
        rust-lint) check_rust_lint ;;
        node)
            require node 20 0 "$node_hint"
            require npm 9 0 "$node_hint"
            ;;
        docker) check_docker ;;
        *)
            echo "usage: $0 [python|compiler|cargo|rust-lint|node|docker]..." >&2
            exit 2
            ;;
    esac
done
exit "$status"
