"""Invariant: what a start costs depends on the last checkpoint, not on the age of the volume."""

import pytest

from amsync.storage import Store
from support.memfs import KEEP_EVERYTHING, MemoryFileSystem

from .conftest import ROOT, OpenStore
from .shapes import bodies, changes, commit, document, tombstone


def grow(store: Store, documents: int) -> None:
    """Years of use: documents come, change, are compacted and deleted."""
    for number in range(documents):
        for body in (b"a", b"b" * 2_000):
            commit(store, changes({document(number): [body]}))
            store.checkpoint()
        store.compact_if_due(document(number))
        if number % 2:
            store.delete(document(number))
    store.checkpoint()


def claim_all(store: Store) -> None:
    for shard in range(store.volume.shard_count):
        store.claim_shard(shard)


def cost_of_a_start(memory: MemoryFileSystem, open_memory: OpenStore) -> int:
    before = memory.operations + memory.reads
    claim_all(open_memory())
    return memory.operations + memory.reads - before


@pytest.mark.parametrize("is_clean", [True, False], ids=["clean stop", "kill -9"])
def test_a_start_costs_the_same_however_old_the_volume_is(
    memory: MemoryFileSystem, open_memory: OpenStore, is_clean: bool
) -> None:
    costs = []
    for documents in (4, 80):
        memory.restart()
        store = open_memory()
        claim_all(store)
        grow(store, documents)
        if is_clean:
            store.close()
        else:
            commit(store, changes({document(0): [b"not in a folder yet"]}))
            memory.restart(KEEP_EVERYTHING)

        costs.append(cost_of_a_start(memory, open_memory))

    assert costs[0] == costs[1]


def test_a_start_after_kill_9_serves_before_it_writes_documents(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    store = open_memory()
    for number in range(50):
        commit(store, changes({document(number): [b"a"]}))
    memory.restart(KEEP_EVERYTHING)
    memory.log.clear()

    store = open_memory()

    assert bodies(store, document(7)) == {b"a"}
    assert not [path for _, path in memory.log if "incremental" in path.parts]
    assert store.tail_bytes > 0, "so that a checkpoint will come"
    store.checkpoint()
    assert store.tail_bytes == 0


def test_every_kill_leaves_nothing_that_stays(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    sizes = set()
    for _ in range(5):
        store = open_memory()
        commit(store, changes({document(1): [b"a"]}))
        commit(store, tombstone(document(2)))
        store.checkpoint()
        store.compact_if_due(document(1))
        sizes.add(len(memory.tree(ROOT)))
        memory.restart(KEEP_EVERYTHING)

    assert len(sizes) == 1
    assert len(memory.list_directory(ROOT / ".amsync" / "wal")) == 1


def test_a_log_of_deletions_and_positions_alone_comes_to_a_checkpoint_too(
    open_memory: OpenStore,
) -> None:
    store = open_memory(checkpoint_bytes=10_000)
    for number in range(200):
        commit(store, tombstone(document(number)))

    assert store.checkpoint_due()
