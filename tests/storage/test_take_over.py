"""Invariant: what a server on another machine acknowledged is found, however late its names show.

The next server opens on a machine that goes on not seeing its predecessor's last names for a
minute; meanwhile it serves, commits, checkpoints and compacts, and may be killed itself.
"""

import contextlib
import errno
from dataclasses import replace
from pathlib import Path

import pytest

from amsync.errors import DocumentDeleted, StaleEpoch, StorageError, VolumeLost
from amsync.ids import DocumentId
from amsync.storage import RESCAN_SECONDS, Store, WalBatch, open_store, predecessors
from amsync.storage.epochs import KEPT, ShardEpochs
from amsync.storage.files import Entry, RealFileSystem
from support.fakecodec import FakeCodec, make_chunk
from support.memfs import KEEP_EVERYTHING, KEEP_NOTHING, MachineDown

from .conftest import ROOT
from .machines import Machines
from .shapes import bodies, changes, commit, document, tombstone

ONE, TWO, THREE = document(1), document(2), document(3)


def wal_files(machines: Machines) -> list[str]:
    return [name for name in machines.disk.tree(ROOT) if name.endswith(".wal")]


def test_segments_that_show_up_late_are_found_by_the_second_look() -> None:
    machines = Machines()
    old = machines.open("a")
    commit(old, changes({ONE: [b"early"]}))
    machines.disk.now += 60
    commit(old, changes({ONE: [b"in an old segment"]}))
    old._writer.rotate()
    commit(old, changes({ONE: [b"late"], TWO: [b"new"]}))
    machines.kill("a")

    new = machines.open("b")
    assert bodies(new, ONE) == {b"early", b"in an old segment"}
    assert bodies(new, TWO) == set()
    commit(new, changes({ONE: [b"meanwhile"]}))
    new.checkpoint()
    new.compact_if_due(ONE)
    assert len(wal_files(machines)) == 2, "nothing of a predecessor is removed before"
    machines.wait(RESCAN_SECONDS)

    assert new.rescan() == {ONE, TWO}
    assert bodies(new, ONE) == {b"early", b"in an old segment", b"late", b"meanwhile"}
    assert bodies(new, TWO) == {b"new"}
    assert not new.rescan_is_due
    new.checkpoint()
    assert wal_files(machines) == []
    assert bodies(new, TWO) == {b"new"}


def test_a_second_look_that_fails_half_way_forgets_nothing() -> None:
    machines = Machines()
    old = machines.open("a")
    machines.disk.now += 60
    for document_id in (ONE, TWO):
        old._writer.rotate()
        commit(old, changes({document_id: [b"late"]}))
    machines.kill("a")
    new = machines.open("b")
    assert bodies(new, ONE) == bodies(new, TWO) == set()
    machines.wait(RESCAN_SECONDS)
    machines.disk.fault = lambda operation, path: (
        errno.EIO if operation == "fsync" and path.name == "00000002.wal" else None
    )

    with pytest.raises(StorageError):
        new.rescan()
    machines.disk.fault = None

    assert new.rescan_is_due
    assert new.rescan() == {ONE, TWO}
    assert bodies(new, ONE) == bodies(new, TWO) == {b"late"}


def test_files_that_show_up_late_in_a_folder_are_found_by_the_second_look() -> None:
    machines = Machines()
    old = machines.open("a")
    commit(old, changes({ONE: [b"early"]}))
    old.checkpoint()
    machines.disk.now += 60
    commit(old, changes({ONE: [b"late"], TWO: [b"unread"]}))
    old.checkpoint()
    machines.kill("a")

    new = machines.open("b")
    assert bodies(new, ONE) == {b"early"}
    commit(new, changes({ONE: [b"own"], THREE: [b"own"]}))
    assert bodies(new, THREE) == {b"own"}
    new.checkpoint()
    machines.wait(RESCAN_SECONDS)

    assert new.rescan() == {ONE}, "what was not shown needs no second look, nor do our own files"
    assert bodies(new, ONE) == {b"early", b"late", b"own"}
    assert bodies(new, TWO) == {b"unread"}


def test_a_deletion_that_shows_up_late_wins() -> None:
    machines = Machines()
    old = machines.open("a")
    commit(old, changes({ONE: [b"a"], TWO: [b"b"]}))
    old.checkpoint()
    machines.disk.now += 60
    old.delete(ONE)
    machines.kill("a")

    new = machines.open("b")
    with contextlib.suppress(DocumentDeleted):
        bodies(new, ONE)
    commit(new, changes({ONE: [b"written on"]}))
    machines.wait(RESCAN_SECONDS)

    assert ONE in new.rescan()
    assert new.is_deleted(ONE)
    new.checkpoint()
    folder = f"{ONE[:2]}/{ONE[2:]}"
    assert not [name for name in machines.disk.tree(ROOT) if name.startswith(folder)]
    assert bodies(new, TWO) == {b"b"}


def test_a_server_that_did_not_look_twice_leaves_the_look_to_the_next() -> None:
    machines = Machines()
    old = machines.open("a")
    commit(old, changes({ONE: [b"a"]}))
    machines.kill("a")
    machines.open("b")
    machines.kill("b")

    third = machines.open("b")

    assert third.rescan_is_due
    machines.wait(RESCAN_SECONDS)
    third.rescan()
    assert bodies(third, ONE) == {b"a"}
    machines.kill("b")
    assert not machines.open("b").rescan_is_due


def test_a_volume_made_a_moment_ago_by_another_machine_is_not_made_again() -> None:
    machines = Machines()
    first = machines.open("a")
    machines.kill("a")

    second = machines.open("b")

    assert second.volume.cluster_id == first.volume.cluster_id
    assert second.volume.storage_id == first.volume.storage_id


@pytest.mark.parametrize("then", [KEEP_NOTHING, KEEP_EVERYTHING])
def test_whatever_the_instant_of_death_the_next_machine_has_everything_in_the_end(
    then: str,
) -> None:
    boundary, crashed = 0, True
    while crashed:
        boundary += 1
        machines = Machines()
        acknowledged: dict[DocumentId, set[bytes]] = {}
        machines.disk.put(ROOT / ONE[:2] / ONE[2:] / "snapshot" / "s", make_chunk(b"moved in"))
        machines.disk.now += 100
        machines.disk.crash_at = boundary
        try:
            _live(machines, acknowledged)
            crashed = False
        except MachineDown:
            pass
        machines.alive.clear()
        machines.disk.restart_process(then)

        new = machines.open("b", segment_bytes=150)
        shown = _go_on(new, acknowledged)
        machines.wait(RESCAN_SECONDS)
        found = new.rescan()

        for document_id, expected in acknowledged.items():
            assert bodies(new, document_id) >= expected
        assert shown >= acknowledged[ONE] or ONE in found
        new.close()
        assert not wal_files(machines)
    assert boundary > 80


def _live(machines: Machines, acknowledged: dict[DocumentId, set[bytes]]) -> None:
    store = machines.open("a", segment_bytes=150)
    for number, document_id in enumerate((ONE, TWO, ONE, ONE, THREE, ONE, TWO)):
        machines.wait(15)
        body = b"%d" % number
        commit(store, changes({document_id: [body]}))
        acknowledged.setdefault(document_id, set()).add(body)
        if number in (2, 4):
            store.checkpoint()
            store.compact_if_due(ONE)


def _go_on(store: Store, acknowledged: dict[DocumentId, set[bytes]]) -> set[bytes]:
    """What a server does before its second look, with what it can see; returns what that was."""
    shown = bodies(store, ONE)
    for document_id in (ONE, TWO):
        body = b"by the next"
        commit(store, changes({document_id: [body]}))
        acknowledged.setdefault(document_id, set()).add(body)
    store.checkpoint()
    for document_id in (ONE, TWO, THREE):
        store.compact_if_due(document_id)
    return shown | {b"by the next"}


def test_epochs_grow_over_machines_crashes_and_hidden_names() -> None:
    machines = Machines()
    first = machines.open("a")
    machines.wait(60)
    assert [first.claim_shard(7), first.claim_shard(8)] == [1, 1]
    machines.kill("a")
    machines.disk.restart_process(KEEP_NOTHING)

    second = machines.open("b")

    assert second.claim_shard(7) == 2, "its name was hidden, not free"
    machines.disk.now += 60
    names = [name for name in machines.disk.tree(ROOT) if "/shards/007/" in name]
    assert names == [".amsync/shards/007/1", ".amsync/shards/007/2"]
    for epoch in range(3, 40):
        assert second.claim_shard(7) == epoch
    names = [name for name in machines.disk.tree(ROOT) if "/shards/007/" in name]
    assert len(names) == KEPT


def test_an_old_listing_of_epochs_gives_no_old_epoch(tmp_path: Path) -> None:
    class Stale(RealFileSystem):
        def list_directory(self, path: Path) -> list[Entry]:
            return [Entry("1", False)] if path.name == "003" else super().list_directory(path)

    store = open_store(tmp_path, codec=FakeCodec(), threaded=False)
    assert [store.claim_shard(3) for _ in range(3)] == [1, 2, 3]
    store.close()

    stale = open_store(tmp_path, codec=FakeCodec(), threaded=False, files=Stale())

    assert stale.claim_shard(3) == 4
    stale.close()


def test_a_server_that_stood_still_leaves_the_volume_to_its_successor_at_its_second_look() -> None:
    machines = Machines()
    commit(machines.open("first"), changes({ONE: [b"1"]}))
    machines.kill("first")
    old = machines.open("a")
    machines.stop("a")
    new = machines.open("b")
    commit(new, changes({ONE: [b"b"]}))
    machines.wait(60)

    with pytest.raises(VolumeLost):
        old.rescan()
    with pytest.raises(VolumeLost):
        commit(old, changes({ONE: [b"late"]}))

    machines.wait(1)
    commit(new, changes({ONE: [b"c"]}))


def test_a_segment_that_is_listed_and_gone_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path, codec=FakeCodec(), threaded=False)
    commit(store, changes({ONE: [b"a"]}))
    gone = store._own / "00000099.wal"
    store.volume.close()
    listed = predecessors.list_segments
    monkeypatch.setattr(
        predecessors, "list_segments", lambda files, wal: [*listed(files, wal), gone]
    )

    store = open_store(tmp_path, codec=FakeCodec(), threaded=False)

    assert bodies(store, ONE) == {b"a"}
    store.close()


def test_a_document_that_can_not_be_looked_at_again_is_loaded_again() -> None:
    machines = Machines()
    commit(machines.open("a"), changes({ONE: [b"a"], TWO: [b"b"]}))
    machines.kill("a")
    new = machines.open("b")
    bodies(new, ONE)
    new._predecessors.begin_load(TWO)
    machines.wait(RESCAN_SECONDS)

    def unreadable(_: DocumentId) -> list[Path]:
        raise StorageError("EIO")

    new._documents.paths = unreadable  # type: ignore[method-assign]

    assert new.rescan() >= {ONE, TWO}
    assert not new.rescan_is_due


def test_an_epoch_that_was_passed_is_refused() -> None:
    store = Machines().open("a")
    assert store.claim_shard(3, 5) == 5

    for epoch in (1, 4, 5):
        with pytest.raises(StaleEpoch):
            store.claim_shard(3, epoch)

    assert store.claim_shard(3, 6) == 6
    assert store.claim_shard(3) == 7


def test_names_that_are_no_epochs_are_passed_over() -> None:
    machines = Machines()
    store = machines.open("a")
    for name in ("mark", "x", "-3", "²", ".nfs0001"):
        machines.disk.put(ROOT / ".amsync" / "shards" / "003" / name, b"")

    assert ShardEpochs(store.volume).highest(3) == 0
    assert store.claim_shard(3) == 1


def test_of_two_owners_changes_the_lower_epoch_comes_first() -> None:
    """The engine keeps the first of two changes with the same actor and sequence."""
    machines = Machines()
    store = machines.open("a")
    high, low = changes({ONE: [b"high"]}), changes({ONE: [b"low"]})
    store._tail.add(Path("/1"), [_with_epoch(high, 7)])
    store._tail.add(Path("/2"), [_with_epoch(low, 6)])

    assert store.load(ONE).blobs == (make_chunk(b"low"), make_chunk(b"high"))


def _with_epoch(batch: WalBatch, epoch: int) -> WalBatch:
    return replace(batch, changes=tuple(replace(item, epoch=epoch) for item in batch.changes))


def test_tombstone_of_a_predecessor_that_shows_up_late() -> None:
    machines = Machines()
    old = machines.open("a")
    commit(old, changes({ONE: [b"a"]}))
    machines.disk.now += 60
    old._writer.rotate()
    commit(old, tombstone(ONE))
    machines.kill("a")

    new = machines.open("b")
    assert bodies(new, ONE) == {b"a"}
    machines.wait(RESCAN_SECONDS)

    assert new.rescan() == {ONE}
    with pytest.raises(DocumentDeleted):
        new.load(ONE)
