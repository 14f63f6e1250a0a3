#!/bin/sh
# Renews the lock files: the newest versions that pyproject.toml and each package.json allow.
#
#   tools/lock.sh        (make lock)
#
# constraints.txt gets name==version lines only, and covers the extras dev, fuzz and fuzz-api.
# Each package-lock.json keeps versions and checksums, but no addresses: `resolved` is left out by
# .npmrc, `funding` (addresses of persons) here. tests/packaging/test_locks.py holds all of it.
set -eu
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/python" - pyproject.toml >"$scratch/wanted.txt" <<'END'
import sys, tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"]
print(*project["dependencies"], *extras["dev"], *extras["fuzz"], *extras["fuzz-api"], sep="\n")
END
PIP_CONSTRAINT='' "$scratch/venv/bin/pip" install --quiet -r "$scratch/wanted.txt"
{
    echo "# Made by tools/lock.sh. What make installs; users of the package are not bound by it."
    "$scratch/venv/bin/pip" freeze --exclude pip --exclude setuptools
} >"$scratch/constraints.txt"
mv "$scratch/constraints.txt" constraints.txt

# Beside no node_modules: npm would take the packages of this platform alone from it.
for folder in tests/js shared/amsync/bench/servers/automerge-repo; do
    rm -rf "$scratch/js"
    mkdir "$scratch/js"
    cp "$folder/package.json" tests/js/.npmrc "$scratch/js/"
    (
        cd "$scratch/js"
        npm install --package-lock-only --silent
        node --input-type=module --eval '
import { readFileSync, writeFileSync } from "node:fs"
const lock = JSON.parse(readFileSync("package-lock.json", "utf8"))
for (const found of Object.values(lock.packages)) delete found.funding
writeFileSync("package-lock.json", JSON.stringify(lock, null, 2) + "\n")
'
    )
    mv "$scratch/js/package-lock.json" "$folder/"
done
