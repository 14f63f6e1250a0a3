import asyncio
import contextlib
import errno
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from amsync.errors import DocumentDeleted, StorageError, StorageFull, VolumeBusy
from amsync.storage import Position, Snapshot, WalBatch
from amsync.storage.compaction import LEAST_INCREMENTAL_BYTES
from amsync.storage.files import path_exists
from support.fakecodec import FakeCodec, bodies_of, make_chunk, make_snapshot
from support.memfs import KEEP_EVERYTHING, MachineDown, MemoryFileSystem

from .conftest import ROOT, OpenStore
from .shapes import bodies, changes, commit, document, tombstone

ONE, TWO = document(1), document(2)
MANY = [b"a" * LEAST_INCREMENTAL_BYTES, b"b"]


def folder(memory: MemoryFileSystem) -> dict[str, bytes]:
    try:
        return memory.tree(ROOT / ONE[:2] / ONE[2:])
    except FileNotFoundError:
        return {}


def segments(memory: MemoryFileSystem) -> list[str]:
    return [name for name in memory.tree(ROOT) if name.endswith(".wal")]


def test_a_commit_is_loaded_from_the_wal_and_after_a_checkpoint_from_the_folder(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    store = open_memory()
    assert store.load(ONE).blobs == ()
    assert not store.exists(ONE)

    commit(store, changes({ONE: [b"a", b"b"]}))
    assert store.load(ONE).paths == (None, None)
    assert store.exists(ONE)
    assert store.list_ids() == [ONE]
    assert folder(memory) == {}

    store.checkpoint()
    assert [path is None for path in store.load(ONE).paths] == [False]
    assert bodies(store, ONE) == {b"a", b"b"}
    assert store.tail_bytes == 0
    assert segments(memory) == []


def test_a_failed_commit_is_not_loaded(memory: MemoryFileSystem, open_memory: OpenStore) -> None:
    store = open_memory()
    commit(store, changes({ONE: [b"a"]}, position=1))
    memory.fault = lambda operation, _: errno.EIO if operation == "fsync" else None

    with pytest.raises(StorageError):
        commit(store, changes({ONE: [b"b"]}, position=2))

    memory.fault = None
    assert bodies(store, ONE) == {b"a"}
    assert store.positions()[3].entry == "1-0"
    commit(store, changes({ONE: [b"c"]}, position=3))
    assert bodies(store, ONE) == {b"a", b"c"}


def test_positions_survive_a_clean_stop_and_a_crash(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    store = open_memory()
    commit(store, changes({}, position=1))
    store.close()
    store = open_memory()
    assert store.positions() == {3: Position("e1", "1-0", {"g1": 1})}

    commit(store, changes({}, position=2))
    memory.restart()

    assert open_memory().positions() == {3: Position("e1", "2-0", {"g1": 2})}


def test_a_clean_stop_leaves_folders_only(memory: MemoryFileSystem, open_memory: OpenStore) -> None:
    store = open_memory()
    commit(store, changes({ONE: [b"a"], TWO: [b"b"]}))

    store.close()
    store.close()

    tree = memory.tree(ROOT)
    blobs = {name: data for name, data in tree.items() if not name.startswith((".amsync", "st/"))}
    assert sorted(blobs.values()) == [make_chunk(b"a"), make_chunk(b"b")]
    assert not [name for name in tree if "/wal/" in name or "/tmp/" in name]
    with pytest.raises(StorageError, match="closed"):
        commit(store, changes({ONE: [b"c"]}))
    for late in (
        store.checkpoint,
        lambda: store.compact_if_due(ONE),
        lambda: store.delete(ONE),
    ):
        with pytest.raises(StorageError, match="closed"):
            late()


def test_commits_go_on_during_a_checkpoint(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    store = open_memory()
    commit(store, changes({ONE: [b"before"]}))

    def commit_meanwhile(operation: str, path: Path) -> None:
        if operation == "rename":
            memory.fault = None
            commit(store, changes({ONE: [b"meanwhile"]}))

    memory.fault = commit_meanwhile
    store.checkpoint()

    assert bodies(store, ONE) == {b"before", b"meanwhile"}
    memory.restart()
    assert bodies(open_memory(), ONE) == {b"before", b"meanwhile"}


def test_a_failed_checkpoint_loses_nothing_and_can_be_repeated(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    store = open_memory()
    commit(store, changes({ONE: [b"a"], TWO: [b"b"]}))
    memory.fault = lambda operation, path: (
        errno.ENOSPC if operation == "rename" and path.parent.name == "tmp" else None
    )

    with pytest.raises(StorageFull):
        store.checkpoint()

    memory.fault = None
    commit(store, changes({ONE: [b"c"]}))
    assert bodies(store, ONE) == {b"a", b"c"}
    store.checkpoint()
    assert segments(memory) == []
    assert bodies(store, ONE) == {b"a", b"c"}
    assert bodies(store, TWO) == {b"b"}


def test_a_tail_at_its_limit_refuses_commits_until_a_checkpoint(open_memory: OpenStore) -> None:
    store = open_memory(checkpoint_bytes=10, tail_limit_bytes=20)
    commit(store, changes({ONE: [b"x" * 30]}))
    assert store.checkpoint_due()

    with pytest.raises(StorageFull, match="wait for a checkpoint"):
        commit(store, changes({ONE: [b"y"]}))

    store.checkpoint()
    assert not store.checkpoint_due()
    commit(store, changes({ONE: [b"y"]}))


def test_a_start_on_a_full_disk_serves_what_is_there(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    store = open_memory()
    commit(store, changes({ONE: [b"a"]}))
    memory.restart()
    memory.fault = lambda operation, path: (
        errno.ENOSPC
        if operation in ("write", "create", "overwrite")
        or (operation == "make_directory" and not path_exists(memory, path))
        else None
    )

    store = open_memory(checkpoint_bytes=1)
    epoch = store.claim_shard(0)

    assert bodies(store, ONE) == {b"a"}
    assert epoch == 1
    assert [finding.kind for finding in store.report()] == [
        "self_test_skipped",
        "checkpoint_failed",
        "epoch_not_kept",
    ]
    memory.fault = None
    commit(store, changes({ONE: [b"b"]}))
    store.close()
    assert segments(memory) == []
    assert {body for blob in folder(memory).values() for body in bodies_of(blob)} == {b"a", b"b"}


@pytest.mark.parametrize("acknowledged", [0, 1])
def test_what_a_killed_process_did_not_fsync_is_made_durable_before_it_is_served(
    memory: MemoryFileSystem, open_memory: OpenStore, acknowledged: int
) -> None:
    store = open_memory()
    for _ in range(acknowledged):
        commit(store, changes({ONE: [b"a"]}))
    memory.restart()

    boundary = 0
    while memory.crash_at is None:
        boundary += 1
        store = open_memory()
        memory.crash_at = memory.operations + boundary
        body = b"unacknowledged %d" % boundary
        with contextlib.suppress(MachineDown):
            [commit(store, changes({ONE: [body]})) for _ in range(acknowledged + 1)]
            break
        memory.restart(KEEP_EVERYTHING)
        memory.fault = lambda name, path: (
            errno.ENOSPC if name == "write" and "-test-" not in path.name else None
        )
        shown = bodies(open_memory(), ONE)

        memory.restart()

        assert bodies(open_memory(), ONE) >= shown
        memory.restart()
    assert boundary > 4


def test_damage_in_the_wal_is_reported_and_the_segment_kept(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    store = open_memory()
    commit(store, changes({ONE: [b"aaaaaaaa"]}))
    commit(store, changes({ONE: [b"b"]}))
    path = ROOT / segments(memory)[0]
    damaged = memory.read(path).replace(b"aaaaaaaa", b"aaaaXaaa")
    memory.restart()
    memory.put(path, damaged)

    store = open_memory()

    assert bodies(store, ONE) == {b"b"}
    store.checkpoint()
    assert bodies(store, ONE) == {b"b"}
    assert [finding.kind for finding in store.report()] == ["bad_record", "quarantined"]
    assert damaged in memory.tree(ROOT / ".amsync" / "quarantine").values()
    assert segments(memory) == [".amsync/quarantine/000001-00000001.wal"]


def test_a_deleted_document_stays_deleted(memory: MemoryFileSystem, open_memory: OpenStore) -> None:
    store = open_memory()
    commit(store, changes({ONE: [b"a"], TWO: [b"b"]}))
    store.delete(ONE)
    commit(store, tombstone(TWO))

    for document_id in (ONE, TWO):
        assert store.is_deleted(document_id)
        assert not store.exists(document_id)
        with pytest.raises(DocumentDeleted):
            store.load(document_id)
    commit(store, changes({ONE: [b"late"], TWO: [b"late"]}))
    assert store.list_ids() == []

    store.close()
    store = open_memory()
    assert store.is_deleted(ONE)
    assert store.is_deleted(TWO)
    assert folder(memory) == {}


def test_compaction_merges_files_and_keeps_later_ones(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    store = open_memory()
    assert not store.compact_if_due(ONE)
    for body in MANY:
        commit(store, changes({ONE: [body]}))
        store.checkpoint()
    commit(store, changes({ONE: [b"in the wal"]}))

    assert store.compact_if_due(ONE)
    assert not store.compact_if_due(ONE)

    assert list(folder(memory).values()) == [make_snapshot(MANY)]
    assert bodies(store, ONE) == {*MANY, b"in the wal"}


@pytest.mark.parametrize(
    ("snapshot_bytes", "incremental_bytes", "due"),
    [
        (500, [10], False),
        (500, [2_000, 2_000], False),
        (500, [2_000, 2_100], True),
        (5_000, [10], False),
        (5_000, [5_000], True),
        (5_000, [1] * 7, False),
        (5_000, [1] * 8, True),
        (100_000, [1] * 63, False),
        (100_000, [1] * 64, True),
    ],
)
def test_compaction_is_due_when_it_pays(
    memory: MemoryFileSystem,
    open_memory: OpenStore,
    snapshot_bytes: int,
    incremental_bytes: list[int],
    due: bool,
) -> None:
    at = ROOT / ONE[:2] / ONE[2:]
    memory.put(at / "snapshot" / "aa", make_chunk(b"s" * snapshot_bytes))
    for number, size in enumerate(incremental_bytes):
        memory.put(at / "incremental" / f"{number:02d}", make_chunk(bytes([number]) * size))
    store = open_memory()
    before = bodies(store, ONE)

    assert (store.compact_if_due(ONE) is not None) == due
    assert bodies(store, ONE) == before


@pytest.mark.parametrize("bad", [b"torn", make_chunk(b"orphan")], ids=["torn", "orphan"])
def test_files_that_do_not_load_or_have_orphans_are_never_removed(
    memory: MemoryFileSystem, open_memory: OpenStore, bad: bytes
) -> None:
    at = ROOT / ONE[:2] / ONE[2:] / "incremental"
    memory.put(at / "aa", make_chunk(MANY[0]))
    memory.put(at / "bb", bad)
    store = open_memory()
    before = folder(memory)

    assert not store.compact_if_due(ONE)
    assert not store.compact_if_due(ONE)

    assert folder(memory) == before
    assert [finding.kind for finding in store.report()] == ["compaction_refused"]


def test_a_bad_file_goes_to_quarantine_and_its_good_part_stays(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    path = ROOT / ONE[:2] / ONE[2:] / "incremental" / "aa"
    torn = make_chunk(b"good") + make_chunk(b"torn")[:-1]
    memory.put(path, torn)
    store = open_memory()

    store.bad_blob(ONE, path, [make_chunk(b"good")], "torn chunk")
    store.bad_blob(ONE, path, [make_chunk(b"good")], "torn chunk")
    store.bad_blob(ONE, None, [], "bad chunk in the WAL")

    assert bodies(store, ONE) == {b"good"}
    assert torn in memory.tree(ROOT / ".amsync" / "quarantine").values()
    assert [finding.kind for finding in store.report()] == ["quarantined", "bad_record"]


class CompactionObserver(FakeCodec):
    """Runs a callback in the middle of a compaction."""

    def __init__(self) -> None:
        self.during = lambda: None

    def compact(self, blobs: Sequence[bytes]) -> Snapshot:
        self.during()
        return super().compact(blobs)


def test_load_during_compaction_sees_every_chunk(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    store = open_memory()
    for body in (b"a", b"b", b"c"):
        commit(store, changes({ONE: [body]}))
        store.checkpoint()
    list_directory = memory.list_directory
    for after in range(1, 6):
        calls = iter(range(100))

        def compact_between_two_listings(
            path: Path, after: int = after, calls: "object" = calls
        ) -> object:
            if next(calls) == after:  # type: ignore[call-overload]
                memory.list_directory = list_directory  # type: ignore[method-assign]
                store.compact_if_due(ONE)
            return list_directory(path)

        memory.list_directory = compact_between_two_listings  # type: ignore[method-assign, assignment]
        seen = bodies(store, ONE)
        memory.list_directory = list_directory  # type: ignore[method-assign]
        assert seen >= {b"a", b"b", b"c"}
        commit(store, changes({ONE: [b"more %d" % after]}))
        store.checkpoint()


def test_close_waits_for_a_compaction_that_is_under_way(open_real: OpenStore) -> None:
    codec = CompactionObserver()
    store = open_real(codec=codec)
    asyncio.run(store.commit(changes({ONE: MANY})))
    store.checkpoint()
    under_way, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        under_way.set()
        assert go_on.wait(10)

    codec.during = wait
    compaction = threading.Thread(target=store.compact_if_due, args=(ONE,))
    compaction.start()
    assert under_way.wait(10)
    closing = threading.Thread(target=store.close)
    closing.start()

    with pytest.raises(VolumeBusy):
        open_real()
    go_on.set()

    closing.join(10)
    compaction.join(10)
    assert bodies(open_real(), ONE) == {*MANY}


def test_threads_commit_load_checkpoint_and_compact_at_once(open_real: OpenStore) -> None:
    store = open_real(segment_bytes=2_000)
    stop = threading.Event()
    faults: list[BaseException] = []

    def repeat(work: object) -> None:
        try:
            while not stop.is_set():
                work()  # type: ignore[operator]
        except BaseException as error:
            faults.append(error)

    def maintain() -> None:
        store.checkpoint()
        store.compact_if_due(ONE)

    def read_back() -> None:
        acknowledged = count
        assert bodies(store, ONE) >= {b"%d" % n for n in range(acknowledged)}

    count = 0
    threads = [threading.Thread(target=repeat, args=(work,)) for work in (maintain, read_back)]
    for thread in threads:
        thread.start()

    async def write() -> None:
        nonlocal count
        for number in range(400):
            await store.commit(changes({ONE: [b"%d" % number], TWO: [b"%d" % number]}))
            count = number + 1

    asyncio.run(write())
    stop.set()
    for thread in threads:
        thread.join(30)
    assert faults == []
    store.close()
    assert bodies(open_real(), TWO) == {b"%d" % number for number in range(400)}


def test_an_empty_batch_is_fine(open_memory: OpenStore) -> None:
    store = open_memory()

    commit(store, WalBatch())

    assert store.list_ids() == []


def test_a_document_that_can_not_be_written_at_the_end_stays_in_the_log(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    store = open_memory()
    commit(store, changes({ONE: [b"a"], TWO: [b"b"]}))
    folder = ROOT / ONE[:2] / ONE[2:]
    memory.fault = lambda _, path: errno.EIO if path.is_relative_to(folder) else None

    with pytest.raises(StorageError, match="not all documents"):
        store.close()
    memory.fault = None

    store = open_memory()
    assert bodies(store, ONE) == {b"a"}
    assert bodies(store, TWO) == {b"b"}
    store.close()
