"""Invariant: what workers of one cluster acknowledge is found by whoever owns the shard next."""

from amsync.ids import DocumentId, shard_of
from amsync.storage import (
    DocumentChunks,
    Position,
    Shared,
    SharedStore,
    Tombstone,
    WalBatch,
    open_shared_store,
    open_store,
)
from support.fakecodec import FakeCodec, make_chunk
from support.memfs import MemoryFileSystem

from .conftest import ROOT
from .shapes import bodies, commit, document

ONE, TWO, THREE = document(1), document(2), document(3)
ALL = range(64)


def shard(document_id: DocumentId) -> int:
    return shard_of(document_id, 64)


def test_a_shard_changes_hands_and_the_volume_goes_back_to_a_server_of_its_own() -> None:
    files = MemoryFileSystem()
    files.put(ROOT.parent / "other", b"")

    def open_it(bus: str = "e1") -> SharedStore:
        return open_shared_store(
            ROOT,
            codec=FakeCodec(),
            files=files,
            threaded=False,
            shared=Shared(bus),
            monotonic=lambda: files.now,
        )

    a = open_it()
    b = open_it()
    assert a.take_over(dict.fromkeys(ALL, 1)).positions == {}
    commit(
        a,
        WalBatch(
            changes=(DocumentChunks(shard(ONE), 1, ONE, (make_chunk(b"a"),)),),
            positions={shard(ONE): Position("e1", "5-0", {"g": 3}, 1)},
        ),
    )
    taken = b.take_over({shard(ONE): 2, shard(TWO): 1})
    assert taken.positions == {shard(ONE): Position("e1", "5-0", {"g": 3}, 1)}
    assert taken.refused == {shard(TWO): 1}
    assert bodies(b, ONE) == {b"a"}
    commit(a, WalBatch(tombstones=(Tombstone(shard(TWO), 1, TWO),)))
    files.now += 11
    assert b.rescan_due()
    assert b.rescan() == set()
    a.close()
    b.checkpoint()
    b.close()
    store = open_store(ROOT, codec=FakeCodec(), files=files, threaded=False)
    assert bodies(store, ONE) == {b"a"}
    assert store.is_deleted(TWO)
    store.close()
