"""Invariant: a volume is held by one server alone or by workers of one cluster, never by both."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from amsync.errors import ConfigError, StorageError, VolumeBusy, VolumeLost
from amsync.storage import Shared, SharedStore, Store, members, open_shared_store, open_store
from amsync.storage.hold import SILENT_SECONDS
from amsync.storage.members import UNSEEN_SECONDS
from support.fakecodec import FakeCodec

from .conftest import ROOT, OpenStore
from .shapes import bodies, document
from .workers import DOCUMENTS, SHARDS, Workers

ONE = DOCUMENTS[0]


@pytest.fixture(params=["one machine", "all", "own", "none"])
def workers(request: pytest.FixtureRequest) -> Workers:
    """On one machine, or on several by who sees a lock."""
    made = Workers(is_network=request.param != "one machine")
    if request.param != "one machine":
        made.disk.locks = request.param
    return made


def open_alone(workers: Workers, *, read_only: bool = False) -> Store:
    return open_store(
        ROOT,
        codec=FakeCodec(),
        files=workers.disk.machine("alone"),
        threaded=False,
        monotonic=lambda: workers.disk.now,
        pause=workers.wait,
        read_only=read_only,
    )


@pytest.mark.parametrize("read_only", [False, True], ids=["server", "reader"])
def test_who_wants_a_volume_alone_is_refused_while_a_worker_lives(
    workers: Workers, read_only: bool
) -> None:
    workers.open("a")
    workers.open("b")
    for _ in range(2):
        with pytest.raises(VolumeBusy, match=r"held by workers of a cluster \(process \d+ on "):
            open_alone(workers, read_only=read_only)
        workers.wait(70)

    workers.kill("a")
    with pytest.raises(VolumeBusy):
        open_alone(workers, read_only=read_only)
    workers.kill("b")
    open_alone(workers, read_only=read_only).close()


def test_a_worker_is_refused_while_a_server_of_its_own_lives(workers: Workers) -> None:
    alone = open_alone(workers)
    beat = alone.volume.hold
    assert beat is not None

    def wait(seconds: float) -> None:
        workers.disk.now += seconds
        beat.beat()

    workers.wait = wait  # type: ignore[method-assign]
    with pytest.raises(VolumeBusy, match=r"a server of its own, process \d+ on "):
        workers.open("a")

    alone.close()
    del workers.wait
    workers.open("a")
    assert workers.alive


def test_workers_of_another_cluster_are_refused(workers: Workers) -> None:
    workers.open("a")
    workers.wait(70)
    workers.bus_id = "e2"
    before = workers.disk.now

    with pytest.raises(VolumeBusy, match="bus e1"):
        workers.open("b")

    assert workers.disk.now - before >= SILENT_SECONDS
    workers.kill("a")
    workers.open("b")


def test_an_emptied_bus_of_the_same_cluster_is_not_refused(workers: Workers) -> None:
    workers.open("a")
    workers.wait(70)
    workers.bus_id = "e2"
    plain = workers.wait

    def notice(seconds: float) -> None:
        plain(seconds)
        workers.alive["a"].set_bus_id("e2")

    workers.wait = notice  # type: ignore[method-assign]
    before = workers.disk.now
    workers.open("b")

    assert set(workers.alive) == {"a", "b"}
    assert workers.disk.now - before < SILENT_SECONDS


def test_a_worker_whose_name_is_not_shown_yet_is_found(workers: Workers) -> None:
    """One machine does not see another's new names for a minute; the lock file tells them."""
    workers.open("a")
    workers.open("b")

    with pytest.raises(VolumeBusy):
        open_alone(workers)
    with pytest.raises(VolumeBusy):
        open_alone(workers)
    workers.bus_id = "e2"
    with pytest.raises(VolumeBusy):
        workers.open("c")


def test_what_dead_workers_left_is_removed_by_the_next() -> None:
    workers = Workers()
    for name in ("a", "b"):
        workers.open(name)
        workers.disk.put(ROOT / ".amsync" / "tmp" / f"left by {name}", b"half")
        workers.kill(name)

    workers.open("c")

    names = [name for name in workers.disk.tree(ROOT) if "/members/" in name]
    assert names == [f".amsync/members/{workers.alive['c'].volume.owner}"]
    assert not [name for name in workers.disk.tree(ROOT) if "left by" in name]


def test_an_unfinished_file_of_a_living_worker_is_left_alone() -> None:
    workers = Workers()
    workers.open("a")
    workers.disk.put(ROOT / ".amsync" / "tmp" / "of a", b"half")

    workers.open("b")

    assert workers.disk.read(ROOT / ".amsync" / "tmp" / "of a") == b"half"


def test_a_worker_that_was_taken_for_dead_acknowledges_nothing() -> None:
    workers = Workers(is_network=True)
    workers.open("a")
    workers.take_over("a", list(range(SHARDS)))
    workers.commit(ONE)
    old = workers.alive.pop("a")  # SIGSTOP
    workers.open("b")
    owner = old.volume.owner
    files = workers.alive["b"].volume.members
    assert files is not None
    assert not files.is_dead(owner)
    workers.wait(UNSEEN_SECONDS + 1)
    assert not files.is_dead(owner), "first it must be told"
    assert files.is_dead(owner)

    workers.alive["a"] = old
    with pytest.raises(VolumeLost):
        workers.commit(ONE)
    with pytest.raises(StorageError):
        old.checkpoint()


def test_a_worker_that_beats_late_and_was_not_missed_goes_on() -> None:
    workers = Workers(is_network=True)
    workers.open("a")
    workers.take_over("a", list(range(SHARDS)))
    workers.disk.now += 1_000

    workers.commit(ONE)

    assert bodies(workers.alive["a"], ONE) == workers.acknowledged[ONE]


def test_a_shard_count_that_was_asked_for_must_be_the_one_that_is() -> None:
    workers = Workers()
    workers.open("a")

    with pytest.raises(ConfigError, match=r"shard_count=8 .* 4"):
        open_shared_store(
            ROOT,
            codec=FakeCodec(),
            shared=Shared("e1"),
            files=workers.disk.machine("b"),
            threaded=False,
            shard_count=8,
            strict_shard_count=True,
        )

    workers.open("b", strict_shard_count=True)


CHILD = """
import sys
from pathlib import Path
from support.fakecodec import FakeCodec
from amsync.storage import Shared, open_shared_store
from storage.shapes import changes, document

store = open_shared_store(Path(sys.argv[1]), codec=FakeCodec(), shared=Shared("e1"))
store.take_over(dict.fromkeys(range(64), 1))
number = 0
for line in sys.stdin:
    if line.startswith("bus"):
        store.set_bus_id(line.split()[1])
    else:
        store.commit_blocking(changes({document(0): [b"%d" % number]}))
        number += 1
    print(number, flush=True)
"""


class Process:
    """A worker in a process of its own, with all shards under epoch 1."""

    def __init__(self, root: Path) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def say(self, text: str) -> int:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(text + "\n")
        self.child.stdin.flush()
        return int(self.child.stdout.readline())

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.child.send_signal(signal.SIGKILL)
        self.child.communicate()


def test_kill_9_of_one_of_two_processes_loses_nothing(tmp_path: Path, open_real: OpenStore) -> None:
    root = tmp_path / "data"
    with Process(root) as process:
        assert process.say("commit") == 1
        with pytest.raises(VolumeBusy, match=f"process {process.child.pid} on"):
            open_real()
        store = open_shared_store(root, codec=FakeCodec(), shared=Shared("e1"))
        assert not store.take_over({5: 1}).positions
        assert process.say("commit") == 2

    taken = store.take_over(dict.fromkeys(range(64), 2))

    assert not taken.refused
    assert bodies(store, document(0)) == {b"0", b"1"}
    with pytest.raises(VolumeBusy, match="held by workers of a cluster"):
        open_real()
    store.close()
    alone = open_real()
    assert bodies(alone, document(0)) == {b"0", b"1"}
    with pytest.raises(VolumeBusy, match="a server of its own"):
        open_shared_store(root, codec=FakeCodec(), shared=Shared("e1"))
    assert alone.report() == []


def test_two_processes_with_two_buses_and_one_that_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "SILENT_SECONDS", 1.0)
    root = tmp_path / "data"

    def open_it() -> SharedStore:
        return open_shared_store(root, codec=FakeCodec(), shared=Shared("e2"))

    with Process(root) as process:
        process.say("commit")
        with pytest.raises(VolumeBusy, match="bus e1"):
            open_it()
        process.say("bus e2")
        store = open_it()
        (other,) = [
            json.loads(path.read_bytes())
            for path in (root / ".amsync" / "members").iterdir()
            if path.name != store.volume.owner
        ]
        assert (other["pid"], other["bus_id"]) == (process.child.pid, "e2")
        store.close()
