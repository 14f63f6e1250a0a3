"""Batches and documents that the storage tests share."""

from collections.abc import Mapping

from amsync.ids import DocumentId, base58check_encode, shard_of
from amsync.storage import DocumentChunks, Position, Store, Tombstone, WalBatch
from support.fakecodec import bodies_of, make_chunk


def document(number: int) -> DocumentId:
    return DocumentId(base58check_encode(number.to_bytes(16, "big", signed=False)))


def changes(bodies: Mapping[DocumentId, list[bytes]], position: int | None = None) -> WalBatch:
    return WalBatch(
        changes=tuple(
            DocumentChunks(
                shard_of(document_id, 64), 1, document_id, tuple(make_chunk(body) for body in more)
            )
            for document_id, more in bodies.items()
        ),
        positions={}
        if position is None
        else {3: Position("e1", f"{position}-0", {"g1": position})},
    )


def tombstone(document_id: DocumentId) -> WalBatch:
    return WalBatch(tombstones=(Tombstone(0, 1, document_id),))


def commit(store: Store, batch: WalBatch) -> None:
    """Commit on a store that is not threaded."""
    errors: list[BaseException | None] = []
    store.submit(batch, errors.append)
    if errors[0] is not None:
        raise errors[0]


def bodies(store: Store, document_id: DocumentId) -> set[bytes]:
    return {body for blob in store.load(document_id).blobs for body in bodies_of(blob)}
