"""Makes the servers of others: their packages are fetched and built in a cache folder, once.

A folder there is named after what it was made from, so that another lock file makes another one;
one that a broken attempt has left is made anew.
"""

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from amsync.bench.errors import BenchError

SOURCES = Path(__file__).parent / "servers"
BUILD_SECONDS = 1800.0

Say = Callable[[str], None]


def automerge_repo(cache: Path, say: Say) -> Path:
    """A folder with server.mjs and its installed packages.

    Raises:
        BenchError: node or npm is missing, or npm fails.
    """

    def make(folder: Path) -> None:
        _need("npm", "automerge-repo", "install Node.js 20 or newer with npm")
        say("installing the packages of the automerge-repo server")
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)

    _need("node", "automerge-repo", "install Node.js 20 or newer")
    return _made(cache, "automerge-repo", make)


def automerge_repo_with(node_modules: Path, folder: Path) -> Path:
    """A folder in which server.mjs finds packages that are installed elsewhere.

    Raises:
        BenchError: node or the packages are missing.
    """
    _need("node", "automerge-repo", "install Node.js 20 or newer")
    if not (node_modules / "@automerge" / "automerge-repo").is_dir():
        raise BenchError(f"{node_modules} holds no @automerge/automerge-repo; give a node_modules")
    shutil.copytree(SOURCES / "automerge-repo", folder)
    (folder / "node_modules").symlink_to(node_modules.resolve())
    return folder


def samod(cache: Path, say: Say) -> Path:
    """The samod server's program.

    Raises:
        BenchError: cargo is missing, or the build fails.
    """

    def make(folder: Path) -> None:
        _need("cargo", "samod", "install Rust 1.90 or newer")
        say("building the samod server (minutes the first time)")
        _run(["cargo", "build", "--quiet", "--release", "--locked"], folder)

    return _made(cache, "samod", make) / "target" / "release" / "amsync-bench-samod"


def version_of(folder: Path, package: str) -> str:
    """The version of a package in a lock file of either kind; `unknown` if it isn't there."""
    lock = folder / "Cargo.lock"
    if lock.exists():
        mark, quote = f'name = "{package}"\nversion = "', '"'
        text = lock.read_text()
    else:
        mark, quote = '"version": "', '"'
        manifest = folder / "node_modules" / package / "package.json"
        text = manifest.read_text() if manifest.exists() else ""
    return text.partition(mark)[2].partition(quote)[0] or "unknown"


def _made(cache: Path, name: str, make: Callable[[Path], None]) -> Path:
    source = SOURCES / name
    folder = cache / f"{name}-{_digest(source)}"
    done = folder / "complete"
    if done.exists():
        return folder
    try:
        shutil.rmtree(folder, ignore_errors=True)
        cache.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, folder)
        make(folder)
        done.touch()
    except OSError as error:
        raise BenchError(f"can't make the {name} server in {cache}: {error}") from error
    return folder


def _digest(source: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(source.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(source)} {file.stat().st_size}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _need(program: str, server: str, hint: str) -> None:
    if shutil.which(program) is None:
        raise BenchError(f"the {server} server needs {program}, which is not found; {hint}")


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - our own commands
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{command[0]} takes longer than {BUILD_SECONDS:g} s") from error
    if done.returncode:
        raise BenchError(
            f"{' '.join(command)} failed with status {done.returncode}:\n{done.stdout[-2000:]}"
        )
