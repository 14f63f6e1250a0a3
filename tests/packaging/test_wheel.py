"""What a user gets: the wheel and the source distribution hold the package and nothing else.

gateway/ and worker/ reach the package through symlinks, so they are easily left out, doubled or
packed as packages of their own; and a pattern without a suffix would pack compiled files.
"""

import os
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from support.program import run_to_end

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "shared" / "amsync"
SUFFIXES = {
    *(".py", ".pyi", ".html", ".css", ".js", ".svg", ".lua"),
    *(".mjs", ".json", ".rs", ".toml", ".lock"),
}
DIST_INFO = "amsync_server-{version}.dist-info"
VERSION = "0.1.0"
BUILD_SECONDS = 600.0


def package_files() -> set[str]:
    """Paths of the package's files below shared/, symlinked folders included."""
    found = {"amsync/py.typed"}
    for folder, folders, names in os.walk(PACKAGE, followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        paths = (Path(folder, name) for name in names)
        found |= {str(p.relative_to(ROOT / "shared")) for p in paths if p.suffix in SUFFIXES}
    return found


def wheel_files() -> set[str]:
    info = DIST_INFO.format(version=VERSION)
    names = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    return package_files() | {"amsync/_automerge.abi3.so"} | {f"{info}/{name}" for name in names}


def sdist_files() -> set[str]:
    native = ROOT / "shared" / "native"
    sources = {f"shared/native/{p.relative_to(native)}" for p in (native / "src").rglob("*.rs")}
    return (
        {f"shared/{name}" for name in package_files()}
        | sources
        | {"shared/native/Cargo.toml", "shared/native/Cargo.lock"}
        | {"PKG-INFO", "LICENSE", "README.md", "pyproject.toml"}
    )


def maturin(*arguments: str) -> None:
    run = run_to_end(
        [sys.executable, "-m", "maturin", *arguments], directory=ROOT, timeout=BUILD_SECONDS
    )
    assert run.returncode == 0, run.stderr


def contents(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def make_sdist(folder: Path) -> Path:
    maturin("sdist", "--out", str(folder))
    (sdist,) = folder.glob("*.tar.gz")
    return sdist


@pytest.mark.timeout(
    BUILD_SECONDS + 60
)  # a cold build of the engine takes a minute, more on a busy machine
def test_wheel_holds_exactly_the_package(tmp_path: Path) -> None:
    maturin("build", "--release", "--locked", "--out", str(tmp_path))

    (wheel,) = tmp_path.glob("*.whl")

    names = contents(wheel)
    assert sorted(names) == sorted(wheel_files())
    assert f"amsync_server-{VERSION}-cp311-abi3-" in wheel.name


def test_gateway_and_worker_are_in_the_package_by_relative_links() -> None:
    for name in ("gateway", "worker"):
        link = PACKAGE / name
        assert link.is_symlink()
        assert str(link.readlink()) == f"../../{name}"
        assert f"amsync/{name}/__init__.py" in package_files()


def test_source_distribution_holds_exactly_what_the_wheel_is_built_from(tmp_path: Path) -> None:
    sdist = make_sdist(tmp_path)

    with tarfile.open(sdist) as archive:
        members = archive.getmembers()

    assert all(member.isfile() for member in members), "a link would dangle where it is unpacked"
    assert sorted(m.name.partition("/")[2] for m in members) == sorted(sdist_files())


OURS = ("VIRTUAL_ENV", "PYTHONPATH", "PIP_CONSTRAINT")
"""Of the environment that runs the tests; an installation elsewhere must do without."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_source_distribution_builds_the_same_wheel_and_it_works(tmp_path: Path) -> None:
    """What `pip install` does without a wheel: an isolated build, from nothing but the sdist."""
    sdist = make_sdist(tmp_path)
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    # Nothing of the environment that runs the tests may help.
    clean = {k: v for k, v in os.environ.items() if k not in OURS}

    def run(*arguments: str) -> str:
        done = run_to_end(
            [python, *arguments], directory=tmp_path, environment=clean, timeout=BUILD_SECONDS
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(sdist))
    (wheel,) = tmp_path.glob("*.whl")
    assert sorted(contents(wheel)) == sorted(wheel_files())

    run("-m", "pip", "install", "--quiet", str(wheel))
    where = run(
        "-c", "import amsync, amsync._automerge as e; print(amsync.__file__, e.__version__)"
    )
    assert str(environment) in where
    assert "serve" in run("-m", "amsync", "--help")
