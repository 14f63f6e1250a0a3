"""Invariant: of a data directory's servers, on one machine or several, one at most acknowledges."""

import json
import threading
from pathlib import Path

import pytest

from amsync.errors import StorageError, VolumeBusy, VolumeLost
from amsync.storage.files import RealFileSystem, file_system_of
from amsync.storage.hold import LATE_SECONDS, RECORD_BYTES, SILENT_SECONDS, Hold, claim
from amsync.storage.volume import Volume

from .conftest import ROOT
from .machines import Machines
from .shapes import bodies, changes, commit, document

ONE, TWO = document(1), document(2)
LOCK = ROOT / ".amsync" / "lock"


@pytest.fixture(params=["all", "own", "none"])
def machines(request: pytest.FixtureRequest) -> Machines:
    """By who sees a lock."""
    return Machines(locks=request.param)


def test_a_server_that_lives_on_another_machine_is_found(machines: Machines) -> None:
    machines.open("a")

    for _ in range(3):
        with pytest.raises(VolumeBusy, match=r"process \d+ on "):
            machines.open("b")
        machines.wait(60)

    machines.alive["a"].close()


def test_a_second_server_on_the_same_machine_is_refused_at_once() -> None:
    machines = Machines(locks="own")
    machines.open("a")

    with pytest.raises(VolumeBusy):
        machines.open("a")

    assert machines.waited == 0


def test_a_killed_server_is_waited_for_on_another_machine_and_not_on_its_own() -> None:
    machines = Machines(locks="own")
    commit(machines.open("a"), changes({ONE: [b"a"]}))
    machines.kill("a")
    commit(machines.open("a"), changes({ONE: [b"b"]}))
    assert machines.waited == 0
    machines.kill("a")

    store = machines.open("b")

    assert machines.waited >= SILENT_SECONDS
    machines.disk.now += 60
    store.rescan()
    assert bodies(store, ONE) == {b"a", b"b"}


def test_a_server_that_has_stopped_is_not_waited_for(machines: Machines) -> None:
    first = machines.open("a")
    machines.wait(60)
    first.close()
    machines.stop("a")
    before = machines.waited

    machines.open("b")

    assert machines.waited - before < SILENT_SECONDS


def test_on_a_local_file_system_nothing_is_waited_for_and_nothing_beats() -> None:
    machines = Machines(locks="own")
    machines.disk.is_network = False
    commit(machines.open("a"), changes({ONE: [b"a"]}))
    machines.kill("a")

    store = machines.open("after a reboot")

    assert machines.waited == 0
    assert not store.rescan_is_due
    machines.disk.log.clear()
    machines.disk.now += 1_000
    commit(store, changes({ONE: [b"b"]}))
    assert "overwrite" not in [operation for operation, _ in machines.disk.log]


def test_a_server_that_stood_still_while_another_took_over_acknowledges_nothing(
    machines: Machines,
) -> None:
    machines.disk.locks = "own" if machines.disk.locks == "all" else machines.disk.locks
    old = machines.open("a")
    commit(old, changes({ONE: [b"a"]}))
    machines.stop("a")
    new = machines.open("b")
    commit(new, changes({ONE: [b"b"]}))
    tree = {name: data for name, data in machines.disk.tree(ROOT).items() if "lock" not in name}

    with pytest.raises(VolumeLost, match="taken over by process"):
        commit(old, changes({ONE: [b"late"]}))
    for forbidden in (old.checkpoint, old.close, lambda: old.delete(ONE)):
        with pytest.raises(StorageError):
            forbidden()
    with pytest.raises(VolumeLost):
        old.check_held()

    assert tree.items() <= machines.disk.tree(ROOT).items()
    assert b"late" not in bodies(new, ONE)
    machines.wait(1)  # the one that took over goes on
    commit(new, changes({ONE: [b"c"]}))


def test_a_commit_that_stood_still_in_its_middle_is_not_acknowledged_and_not_lost() -> None:
    machines = Machines(locks="own")
    old = machines.open("a")
    commit(old, changes({TWO: [b"first"]}))

    def stop_and_lose(operation: str, path: Path) -> int | None:
        if operation == "fsync" and path.suffix == ".wal" and "a" in machines.alive:
            machines.stop("a")
            machines.open("b")
        return None

    machines.disk.fault = stop_and_lose
    with pytest.raises(VolumeLost):
        commit(old, changes({ONE: [b"a"]}))

    new = machines.alive["b"]
    machines.wait(65)
    new.rescan()
    assert bodies(new, ONE) == {b"a"}


def test_a_holder_that_is_late_looks_before_it_acknowledges() -> None:
    machines = Machines(locks="own")
    store = machines.open("a")
    commit(store, changes({ONE: [b"a"]}))
    machines.disk.log.clear()

    commit(store, changes({ONE: [b"b"]}))
    assert "overwrite" not in [operation for operation, _ in machines.disk.log]
    machines.disk.now += LATE_SECONDS + 1
    commit(store, changes({ONE: [b"c"]}))
    assert "overwrite" in [operation for operation, _ in machines.disk.log]


def test_a_holder_that_can_not_look_acknowledges_nothing_until_it_can() -> None:
    machines = Machines(locks="own")
    store = machines.open("a")
    machines.disk.now += LATE_SECONDS + 1
    machines.disk.fault = lambda operation, _: 5 if operation == "overwrite" else None

    with pytest.raises(StorageError) as caught:
        commit(store, changes({ONE: [b"a"]}))
    assert not isinstance(caught.value, VolumeLost)

    machines.disk.fault = None
    commit(store, changes({ONE: [b"a"]}))


def test_of_two_that_claim_at_once_without_locks_one_is_refused() -> None:
    machines = Machines(locks="none")
    machines.open("b").close()
    machines.stop("b")
    machines.disk.now += 60
    other = json.loads(machines.disk.read(LOCK)) | {"owner": "b" * 32, "has_stopped": False}

    def claimed_too(_: float) -> None:
        machines.disk.put(LOCK, json.dumps(other).encode())

    with pytest.raises(VolumeBusy, match="process"):
        claim(machines.disk.machine("a"), LOCK, "a" * 32, monotonic=lambda: 0.0, pause=claimed_too)
    assert json.loads(machines.disk.read(LOCK)) == other


@pytest.mark.parametrize("torn", [b"", b'{"owner": "', b"null", b"[]", b"\xff" * 600])
def test_a_record_that_is_being_written_is_no_take_over(torn: bytes) -> None:
    machines = Machines(locks="own")
    store = machines.open("a")
    record = machines.disk.read(LOCK)
    machines.disk.put(LOCK, torn)
    machines.disk.now += LATE_SECONDS + 1

    commit(store, changes({ONE: [b"a"]}))

    assert len(record) == RECORD_BYTES
    assert json.loads(record)["has_stopped"] is False


def test_a_record_that_can_not_be_read_is_watched_like_any_other() -> None:
    machines = Machines(locks="own")
    machines.open("a")
    machines.wait(60)
    machines.kill("a")
    record = machines.disk.read(LOCK)
    machines.disk.put(LOCK, record[:40])

    def write_on(seconds: float) -> None:
        machines.disk.now += seconds
        machines.disk.put(LOCK, record)

    with pytest.raises(VolumeBusy):
        claim(
            machines.disk.machine("b"),
            LOCK,
            "b" * 32,
            monotonic=lambda: machines.disk.now,
            pause=write_on,
        )


def test_it_beats_by_itself_on_a_network_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mounted(RealFileSystem):
        def is_networked(self, path: Path) -> bool:
            return True

    monkeypatch.setattr("amsync.storage.hold.BEAT_SECONDS", 0.01)
    beaten = threading.Event()
    real = Hold.beat

    def beat(self: Hold) -> None:
        real(self)
        if self._beat > 2:
            beaten.set()

    monkeypatch.setattr(Hold, "beat", beat)
    volume = Volume.open(tmp_path, files=Mounted())
    assert beaten.wait(30)
    volume.close()
    assert json.loads((tmp_path / ".amsync" / "lock").read_bytes())["has_stopped"] is True


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:26 / /mnt/with\\040space rw - nfs4 server:/export rw,vers=4.2
31 22 0:27 / /mnt rw - xfs /dev/sdb rw
32 31 0:28 / /mnt/data rw master:1 shared:2 - ext4 /dev/sdc rw
33 32 0:29 / /mnt/data rw - nfs server:/data rw
nonsense
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/x", "ext4"),
        ("/mnt/with space/data", "nfs4"),
        ("/mnt/other", "xfs"),
        ("/mnt/data/deep/er", "nfs"),
        ("/mnt/database", "xfs"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    assert file_system_of(MOUNTS, Path(path)) == kind


def test_the_file_system_of_no_mounts_is_unknown() -> None:
    assert file_system_of("", Path("/x")) is None
