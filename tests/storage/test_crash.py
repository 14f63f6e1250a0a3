"""Invariant: whatever the instant of a crash, everything acknowledged is found afterwards."""

import errno
import uuid
from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random

import pytest

from amsync.errors import DocumentDeleted, StorageError, VolumeError
from amsync.ids import DocumentId
from amsync.storage import Store, open_store
from support.fakecodec import FakeCodec, bodies_of, make_chunk
from support.memfs import KEEP_EVERYTHING, KEEP_NOTHING, MachineDown, MemoryFileSystem

from .conftest import ROOT
from .shapes import bodies, changes, commit, document, tombstone

ONE, TWO, THREE, FLAT = document(1), document(2), document(3), document(4)


class Ledger:
    """What was acknowledged to a caller, and what was begun.

    `may_fail`: a call may raise StorageError; nothing is acknowledged then, and life goes on.
    """

    def __init__(self, *, may_fail: bool = False) -> None:
        self.acknowledged: dict[DocumentId, set[bytes]] = {}
        self.deleting: set[DocumentId] = set()
        self.deleted: set[DocumentId] = set()
        self.kept: set[bytes] = set()
        self.position = 0
        self.attempted_position = 0
        self._may_fail = may_fail

    def attempt(self, call: Callable[[], object]) -> bool:
        """Call; tell whether it worked."""
        try:
            call()
        except (StorageError, VolumeError):
            if not self._may_fail:
                raise
            return False
        return True

    def commit(self, store: Store, document_id: DocumentId, body: bytes) -> None:
        self.attempted_position += 1
        batch = changes({document_id: [body]}, self.attempted_position)
        if self.attempt(lambda: commit(store, batch)):
            self.position = self.attempted_position
            self.acknowledged.setdefault(document_id, set()).add(body)

    def delete(self, document_id: DocumentId, call: Callable[[], object]) -> None:
        self.deleting.add(document_id)
        if self.attempt(call):
            self.deleted.add(document_id)

    def check(self, store: Store) -> None:
        for document_id, expected in self.acknowledged.items():
            if document_id in self.deleted:
                assert store.is_deleted(document_id)
            if document_id in self.deleting and store.is_deleted(document_id):
                with pytest.raises(DocumentDeleted):
                    store.load(document_id)
                assert document_id not in store.list_ids()
                continue
            assert bodies(store, document_id) >= expected
            assert document_id in store.list_ids()
        position = store.positions().get(3)
        found = 0 if position is None else int(position.entry.partition("-")[0])
        assert self.position <= found <= self.attempted_position


def open_memory(files: MemoryFileSystem) -> Store:
    # Ids from the count of calls: a failing crash point fails again.
    ids = Random(files.operations)
    return open_store(
        ROOT,
        codec=FakeCodec(),
        files=files,
        threaded=False,
        segment_bytes=150,
        new_uuid=lambda: uuid.UUID(int=ids.getrandbits(128), version=4),
    )


def life(files: MemoryFileSystem, ledger: Ledger) -> None:
    """One life of a volume that comes through every write path of the store."""
    opened: list[Store] = []
    for _ in range(3):
        if not opened:
            ledger.attempt(lambda: opened.append(open_memory(files)))
    if not opened:
        return
    (store,) = opened
    ledger.acknowledged.setdefault(FLAT, set()).add(b"flat")
    ledger.attempt(lambda: store.claim_shard(3))
    ledger.commit(store, ONE, b"a")
    ledger.commit(store, TWO, b"b")
    ledger.attempt(store.checkpoint)
    for body in (b"c", b"d" * 150, b"e"):
        ledger.commit(store, ONE, body)
    ledger.commit(store, THREE, b"f")
    ledger.attempt(store.checkpoint)
    ledger.attempt(lambda: store.compact_if_due(ONE))
    ledger.commit(store, ONE, b"g")
    ledger.delete(TWO, lambda: store.delete(TWO))
    ledger.delete(THREE, lambda: commit(store, tombstone(THREE)))
    ledger.attempt(store.checkpoint)
    loaded = store.load(ONE)
    torn = next((path for path in loaded.paths if path is not None), None)
    if torn is not None:
        kept = next(blob for blob in loaded.blobs)
        ledger.kept.add(kept)
        good = [make_chunk(body) for body in sorted(bodies(store, ONE))]
        if not ledger.attempt(lambda: store.bad_blob(ONE, torn, good, "torn")):
            ledger.kept.discard(kept)  # then it may be a file whose own writing had failed
    ledger.commit(store, ONE, b"h")
    ledger.attempt(store.checkpoint)
    if TWO in ledger.deleted or not store.is_deleted(TWO):
        ledger.commit(store, TWO, b"written after its deletion")
    ledger.attempt(store.close)


def new_machine() -> MemoryFileSystem:
    files = MemoryFileSystem()
    files.put(Path("/data/other"), b"")
    files.put(ROOT / f"{FLAT}.automerge", make_chunk(b"flat"))
    return files


def boundaries() -> int:
    files = new_machine()
    life(files, Ledger())
    return files.operations


KEEPS: dict[str, Callable[[int], str | Random]] = {
    "power loss": lambda _: KEEP_NOTHING,
    "kill -9": lambda _: KEEP_EVERYTHING,
    "power loss, some written back": Random,
}


@pytest.mark.parametrize("keep", KEEPS.values(), ids=KEEPS.keys())
def test_every_acknowledged_chunk_survives_a_crash_at_any_boundary(
    keep: Callable[[int], str | Random],
) -> None:
    for crash_at in range(1, boundaries() + 1):
        files, ledger = new_machine(), Ledger()
        files.crash_at = crash_at
        with pytest.raises(MachineDown):
            life(files, ledger)
        files.restart(keep(crash_at))

        store = open_memory(files)

        ledger.check(store)
        store.close()
        check_clean(files, ledger)


def test_a_killed_process_followed_by_a_power_loss_loses_nothing() -> None:
    for crash_at in range(1, boundaries() + 1):
        files, ledger = new_machine(), Ledger()
        files.crash_at = crash_at
        with pytest.raises(MachineDown):
            life(files, ledger)
        files.restart(KEEP_EVERYTHING)
        store = open_memory(files)
        seen = {name: bodies(store, name) for name in store.list_ids()}
        positions = store.positions()

        files.restart(KEEP_NOTHING)

        # What a server has shown to clients must be durable, acknowledged or not.
        store = open_memory(files)
        ledger.check(store)
        for document_id, shown in seen.items():
            assert bodies(store, document_id) >= shown
        assert store.positions() == positions
        store.close()


def test_a_second_crash_during_recovery_loses_nothing() -> None:
    last = boundaries()
    for seed in range(400):
        random = Random(seed)
        files, ledger = new_machine(), Ledger()
        files.crash_at = random.randint(last // 4, last)
        with pytest.raises(MachineDown):
            life(files, ledger)
        files.restart(random)
        for _ in range(2):
            files.crash_at = files.operations + random.randint(1, 60)
            try:
                open_memory(files).close()
            except MachineDown:
                files.restart(random)

        files.restart(random)
        store = open_memory(files)

        ledger.check(store)
        store.close()
        check_clean(files, ledger)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("keep", KEEPS.values(), ids=KEEPS.keys())
def test_a_write_or_fsync_that_fails_once_loses_nothing_acknowledged(
    keep: Callable[[int], str | Random], error: int
) -> None:
    """A failed write leaves half of its bytes; a failed fsync loses them for good."""
    for boundary in range(1, boundaries() + 1):
        files, ledger = new_machine(), Ledger(may_fail=True)
        calls = count(1)
        files.fault = lambda *_, at=boundary, calls=calls: error if next(calls) == at else None
        life(files, ledger)
        files.restart(keep(boundary))

        store = open_memory(files)

        ledger.check(store)
        store.close()
        check_clean(files, ledger)


def test_a_disk_that_fails_more_and_more_loses_nothing_acknowledged() -> None:
    for seed in range(300):
        random = Random(seed)
        files, ledger = new_machine(), Ledger(may_fail=True)
        badness = random.choice((0.003, 0.02, 0.1))
        files.fault = lambda *_, random=random, badness=badness: (
            random.choice((errno.EIO, errno.ENOSPC)) if random.random() < badness else None
        )
        life(files, ledger)
        files.restart(random)

        store = open_memory(files)

        ledger.check(store)
        store.close()
        check_clean(files, ledger)


def check_clean(files: MemoryFileSystem, ledger: Ledger) -> None:
    """After a clean stop automerge-repo finds every document, and no half file."""
    tree = files.tree(ROOT)
    assert ledger.kept <= set(tree.values()), "a file in quarantine is gone"
    assert not [name for name in tree if name.startswith((".amsync/wal", ".amsync/tmp"))]
    for document_id, expected in ledger.acknowledged.items():
        folder = f"{document_id[:2]}/{document_id[2:]}/"
        blobs = [data for name, data in tree.items() if name.startswith(folder)]
        found = {body for blob in blobs for body in bodies_of(blob)}
        if document_id in ledger.deleted:
            assert not found
        elif document_id not in ledger.deleting:
            assert found >= expected
