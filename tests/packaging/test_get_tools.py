"""tools/get-*.sh: find Redis, Chromium, promtool, or say in one line what to install.

They never fail silently.
"""

import shutil
from pathlib import Path

import pytest

from support.program import run_to_end

TOOLS = Path(__file__).parents[2] / "tools"
REDIS, CHROMIUM, PROMTOOL = "get-redis.sh", "get-chromium.sh", "get-promtool.sh"
SHARED = "debian.sh"
NEEDED = ("dirname", "mktemp", "rm", "mkdir", "mv", "id", "chmod", "ln", "sed")


class Machine:
    """A copy of the script with a PATH of its own, in which nothing downloads."""

    def __init__(self, folder: Path, script: str) -> None:
        self.folder = folder
        self.script = folder / "tools" / script
        self.programs = folder / "bin"
        self.script.parent.mkdir()
        self.programs.mkdir()
        shutil.copy(TOOLS / script, self.script)
        shutil.copy(TOOLS / SHARED, self.script.parent)
        for name in NEEDED:
            found = shutil.which(name)
            assert found is not None
            (self.programs / name).symlink_to(found)

    def install(self, name: str, body: str) -> None:
        program = self.programs / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)

    def run(self) -> tuple[int, list[str], list[str]]:
        """Exit status, lines said, lines complained."""
        environment = {"PATH": str(self.programs), "TMPDIR": str(self.folder)}
        run = run_to_end(["/bin/sh", self.script], environment=environment)
        return run.returncode, run.stdout.splitlines(), run.stderr.splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, REDIS)


@pytest.fixture
def other(tmp_path: Path) -> Machine:
    return Machine(tmp_path, CHROMIUM)


@pytest.fixture
def third(tmp_path: Path) -> Machine:
    return Machine(tmp_path, PROMTOOL)


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_server_of_the_path_is_enough(machine: Machine, name: str) -> None:
    machine.install(name, "exit 0")

    assert machine.run() == (0, [], [])
    assert not (machine.folder / ".build").exists()


def test_unpacked_server_is_taken_again(machine: Machine) -> None:
    unpacked = machine.folder / ".build" / "redis" / "usr" / "bin"
    unpacked.mkdir(parents=True)
    (unpacked / "redis-server").symlink_to("/bin/sh")

    assert machine.run() == (0, [], [])


def test_debian_packages_are_unpacked_beside_the_system(machine: Machine) -> None:
    machine.install("apt-cache", "echo '  Depends: libjemalloc2'; echo '  Depends: adduser'")
    machine.install("apt-get", 'shift 2; for name in "$@"; do echo >"${name}_1.deb"; done')
    machine.install(
        "dpkg",
        'echo "$2" >>"$3/names"; mkdir -p "$3/usr/bin"; ln -sf /bin/sh "$3/usr/bin/redis-server"',
    )

    status, said, complained = machine.run()

    assert (status, len(said), complained) == (0, 1, [])
    names = (machine.folder / ".build" / "redis" / "names").read_text().split()
    assert sorted(Path(name).name.partition("_")[0] for name in names) == [
        "libjemalloc2", "redis-sentinel", "redis-server", "redis-tools",
    ]  # fmt: skip


def test_machine_where_nothing_can_be_had_is_told_what_to_install(machine: Machine) -> None:
    for name in ("apt-cache", "apt-get", "python3"):
        machine.install(name, "exit 1")
    machine.install("dpkg", "exit 1")

    status, _, complained = machine.run()

    assert status == 1
    assert len(complained) == 1
    assert "apt install redis-server" in complained[0]


@pytest.mark.parametrize("name", ["chromium", "chromium-browser", "google-chrome"])
def test_browser_of_the_path_is_enough(other: Machine, name: str) -> None:
    other.install(name, "exit 0")

    assert other.run() == (0, [], [])
    assert not (other.folder / ".build").exists()


def test_unpacked_browser_is_taken_again(other: Machine) -> None:
    unpacked = other.folder / ".build" / "chromium" / "usr" / "lib" / "chromium"
    unpacked.mkdir(parents=True)
    (unpacked / "chromium").symlink_to("/bin/sh")

    assert other.run() == (0, [], [])


def test_browser_is_unpacked_with_what_the_machine_lacks(other: Machine) -> None:
    other.install(
        "apt-get",
        'if [ "$1" = -s ]; then echo "Inst libopus0 (1.3)"; echo "Inst libc6 (2.36)"\n'
        'echo "Inst chromium (156)"; echo "Conf chromium (156)"; else\n'
        'shift 2; for name in "$@"; do echo >"${name}_1.deb"; done; fi',
    )
    other.install(
        "dpkg",
        'echo "$2" >>"$3/names"; mkdir -p "$3/usr/lib/chromium"\n'
        'ln -sf /bin/sh "$3/usr/lib/chromium/chromium"',
    )

    status, said, complained = other.run()

    assert (status, len(said), complained) == (0, 1, [])
    names = (other.folder / ".build" / "chromium" / "names").read_text().split()
    assert sorted(Path(name).name.partition("_")[0] for name in names) == ["chromium", "libopus0"]


def test_machine_where_no_browser_can_be_had_is_told_what_to_install(other: Machine) -> None:
    for name in ("apt-get", "dpkg"):
        other.install(name, "exit 1")

    status, _, complained = other.run()

    assert status == 1
    assert len(complained) == 1
    assert "apt install chromium" in complained[0]


def test_promtool_of_the_path_is_enough(third: Machine) -> None:
    third.install("promtool", "exit 0")

    assert third.run() == (0, [], [])
    assert not (third.folder / ".build").exists()


def test_promtool_is_all_that_is_kept_of_its_package(third: Machine) -> None:
    third.install("apt-get", 'shift 2; for name in "$@"; do echo >"${name}_2.deb"; done')
    third.install(
        "dpkg",
        'mkdir -p "$3/usr/bin"; echo >"$3/usr/bin/prometheus"\n'
        'ln -sf /bin/sh "$3/usr/bin/promtool"',
    )

    assert third.run()[0] == 0
    assert [each.name for each in (third.folder / ".build/promtool").iterdir()] == ["bin"]
    assert third.run() == (0, [], [])


def test_machine_where_no_promtool_can_be_had_is_told_what_to_install(third: Machine) -> None:
    status, _, complained = third.run()

    assert status == 1
    assert len(complained) == 1
    assert "apt install prometheus" in complained[0]
