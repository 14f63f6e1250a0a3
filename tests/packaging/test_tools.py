"""tools/check-tools.sh: each missing or too old tool gives one line, and nothing else happens."""

import os
import shutil
from pathlib import Path

import pytest

from support.program import run_to_end

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "check-tools.sh"
ALL = ("python", "compiler", "cargo", "rust-lint", "node", "docker")
NEW_ENOUGH = {
    "python3": "Python 3.11.2",
    "cc": "cc (Debian 12.2.0-14) 12.2.0",
    "cargo": "cargo 1.90.0 (840b83a10 2025-07-30)",
    "node": "v20.0.0",
    "npm": "9.2.0",
    "docker": "Docker version 20.10.24+dfsg1, build 297e128",
}


def found(tool: str) -> str:
    """Where a tool is that every machine has on which `make test` runs."""
    path = shutil.which(tool)
    assert path is not None, f"{tool} is missing"
    return path


class Machine:
    """A PATH of stand-ins that answer `--version` with one line and do nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for needed in ("mktemp", "rm"):
            (folder / needed).symlink_to(found(needed))
        for name, answer in NEW_ENOUGH.items():
            self.install(name, f"echo '{answer}'")

    def install(self, name: str, body: str) -> None:
        tool = self.folder / name
        tool.write_text(f"#!/bin/sh\n{body}\n")
        tool.chmod(0o755)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()

    def check(self, *tools: str) -> tuple[int, list[str]]:
        """Run the script; return its exit status and its lines on standard error."""
        env = {"PATH": str(self.folder), "TMPDIR": str(self.folder)}
        run = run_to_end(["/bin/sh", SCRIPT, *tools], environment=env)
        return run.returncode, run.stderr.splitlines()

    def complaint(self, *tools: str) -> str:
        """Run the script, which must fail with one line; returns the line."""
        status, lines = self.check(*tools)
        assert status == 1
        assert len(lines) == 1, lines
        return lines[0]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_tools_that_are_just_new_enough_pass_silently(machine: Machine) -> None:
    assert machine.check(*ALL) == (0, [])


@pytest.mark.parametrize(
    ("name", "tool", "wanted", "how"),
    [
        ("python3", "python", "python3 >= 3.11", "apt install python3"),
        ("cc", "compiler", "C compiler", "apt install gcc"),
        ("cargo", "cargo", "cargo >= 1.90", "rustup"),
        ("node", "node", "node >= 20", "nodejs"),
        ("npm", "node", "npm >= 9", "nodejs"),
        ("docker", "docker", "docker >= 20.10", "Docker Engine"),
    ],
)
def test_missing_tool_gives_one_line_with_name_version_and_how_to_get_it(
    machine: Machine, name: str, tool: str, wanted: str, how: str
) -> None:
    machine.remove(name)

    line = machine.complaint(tool)

    assert wanted in line
    assert "not found" in line
    assert how in line


@pytest.mark.parametrize(
    ("name", "tool", "answer", "found"),
    [
        ("python3", "python", "Python 3.10.14", "3.10.14"),
        ("python3", "python", "Python 2.7.18", "2.7.18"),
        ("cargo", "cargo", "cargo 1.89.0 (c24e10642 2025-06-23)", "1.89.0"),
        ("cargo", "cargo", "cargo 0.66.0", "0.66.0"),
        ("node", "node", "v18.20.4", "18.20.4"),
        ("npm", "node", "8.19.4", "8.19.4"),
        ("docker", "docker", "Docker version 19.03.15, build 99e3ed8919", "19.03.15"),
        ("cargo", "cargo", "something odd", "no version"),
    ],
)
def test_old_tool_gives_one_line_with_the_version_found(
    machine: Machine, name: str, tool: str, answer: str, found: str
) -> None:
    machine.install(name, f"echo '{answer}'")

    line = machine.complaint(tool)

    assert found in line
    assert " >= " in line


@pytest.mark.parametrize("answer", ["Python 3.14.0", "Python 3.12.0rc1", "Python 4.0.1"])
def test_newer_python_passes(machine: Machine, answer: str) -> None:
    machine.install("python3", f"echo '{answer}'")

    assert machine.check("python") == (0, [])


def test_python_without_venv_names_the_package_that_has_it(machine: Machine) -> None:
    machine.install("python3", '[ "$1" = --version ] && echo "Python 3.11.2"')

    line = machine.complaint("python")

    assert "venv module" in line
    assert "apt install python3-venv" in line


def test_stand_in_without_a_chosen_version_gives_one_line(machine: Machine) -> None:
    machine.install("cargo", "echo 'error: no toolchain' >&2; echo 'help: ...' >&2; exit 1")

    line = machine.complaint("cargo")

    assert "cargo >= 1.90" in line


def test_compiler_that_cannot_link_gives_one_line(machine: Machine) -> None:
    machine.install("cc", "echo 'ld: cannot find crt1.o' >&2; exit 1")

    line = machine.complaint("compiler")

    assert "libc6-dev" in line


@pytest.mark.parametrize(
    ("failing", "said"), [("compose", "docker compose"), ("info", "a running Docker engine")]
)
def test_docker_without_plugin_or_engine_gives_one_line(
    machine: Machine, failing: str, said: str
) -> None:
    answer = NEW_ENOUGH["docker"]
    machine.install("docker", f"[ \"$1\" != {failing} ] && echo '{answer}'")

    assert said in machine.complaint("docker")


def test_all_that_is_missing_is_named_at_once(machine: Machine) -> None:
    for name in NEW_ENOUGH:
        machine.remove(name)

    status, lines = machine.check(*ALL)

    assert status == 1
    assert len(lines) == len(NEW_ENOUGH)


def test_missing_lint_component_without_rustup_gives_one_line(machine: Machine) -> None:
    machine.install("cargo", '[ "$1" != clippy ] && echo "cargo 1.90.0"')

    line = machine.complaint("cargo", "rust-lint")

    assert "cargo clippy" in line


def test_missing_lint_component_is_added_by_rustup(machine: Machine) -> None:
    added = machine.folder / "added"
    machine.install("cargo", '[ "$1" != fmt ] && echo "cargo 1.90.0"')
    machine.install("rustup", f"echo \"$*\" > '{added}'")

    assert machine.check("cargo", "rust-lint") == (0, [])

    assert added.read_text() == "component add rustfmt\n"


def test_make_stops_before_building_when_a_tool_is_missing(
    machine: Machine, tmp_path: Path
) -> None:
    """A tree of its own: `make serve` with no cargo says so, and makes no environment."""
    make = found("make")
    tree = tmp_path / "tree"
    (tree / "tools").mkdir(parents=True)
    (tree / "shared" / "native").mkdir(parents=True)
    (tree / "shared" / "amsync").mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "tools/check-tools.sh"):
        shutil.copy(ROOT / name, tree / name)
    for needed in ("sh", "cksum", "cut", "find", "echo", "touch", "mkdir"):
        (machine.folder / needed).symlink_to(found(needed))
    machine.remove("cargo")

    run = run_to_end(
        [make, "serve"],
        directory=tree,
        environment={**os.environ, "PATH": str(machine.folder)},
    )

    assert run.returncode != 0
    said = [line for line in run.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1
    assert "cargo >= 1.90" in said[0]
    assert not (tree / ".venv").exists()
