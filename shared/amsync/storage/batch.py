"""What one commit holds, and the form in which the WAL keeps it.

Not here: files. Invariant: a reader skips fields that it does not know, so a volume written by
a newer server of the same layout version stays readable.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgpack

from amsync.errors import InvalidDocumentId, StorageError
from amsync.ids import DocumentId, parse_document_id
from amsync.values import cheap

BUFFER_BYTES = 4 * 1024

KNOWN_IDS = 65_536
"""Ids that need not be parsed again: that is half of reading a log of small changes."""


@cheap
@dataclass(frozen=True, slots=True)
class DocumentChunks:
    """New self-contained chunks of one document, in an order in which they can be loaded.

    Attributes:
        shard: The shard that owns the document.
        epoch: The shard lease under which the chunks were accepted; 1 or more.
        document_id: Canonical id.
        chunks: Automerge chunks; not copied.
    """

    shard: int
    epoch: int
    document_id: DocumentId
    chunks: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Position:
    """How far a shard's inbound stream is in the WAL.

    Attributes:
        cluster_epoch: The random key that shows whether the bus lost everything.
        entry: The last stream id taken.
        sequences: Gateway incarnation -> last sequence seen; the worker prunes dead gateways.
        epoch: Of the shard's lease; 0 in a volume of a server of its own.
    """

    cluster_epoch: str
    entry: str
    sequences: Mapping[str, int] = field(default_factory=dict)
    epoch: int = 0

    def is_behind(self, other: "Position") -> bool:
        """Tell whether the other one is of a later lease, or further on the same bus."""
        if self.epoch != other.epoch:
            return self.epoch < other.epoch
        return self.cluster_epoch == other.cluster_epoch and self._key() < other._key()

    def _key(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.entry.split("-") if part.isdecimal())


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A document that was deleted, for good."""

    shard: int
    epoch: int
    document_id: DocumentId


@cheap
@dataclass(frozen=True, slots=True)
class WalBatch:
    """Everything that one group commit makes durable together, or not at all.

    A tombstone beats changes of the same document in the same batch and in all later ones.
    `padding` means nothing: it tries out whether so much can be written.
    """

    changes: tuple[DocumentChunks, ...] = ()
    positions: Mapping[int, Position] = field(default_factory=dict)
    tombstones: tuple[Tombstone, ...] = ()
    padding: bytes = b""

    @property
    def size_bytes(self) -> int:
        """Bytes of all chunks, without framing."""
        return sum(len(chunk) for item in self.changes for chunk in item.chunks)

    @property
    def item_count(self) -> int:
        """Documents changed or deleted, and positions."""
        return len(self.changes) + len(self.positions) + len(self.tombstones)


def encode_batch(batch: WalBatch) -> bytes:
    """Encode a batch as the payload of one WAL record."""
    payload: dict[str, object] = {}
    if batch.changes:
        payload["changes"] = [
            [item.shard, item.epoch, item.document_id, list(item.chunks)] for item in batch.changes
        ]
    if batch.positions:
        payload["positions"] = {
            shard: [
                position.cluster_epoch,
                position.entry,
                dict(position.sequences),
                position.epoch,
            ]
            for shard, position in batch.positions.items()
        }
    if batch.tombstones:
        payload["tombstones"] = [
            [item.shard, item.epoch, item.document_id] for item in batch.tombstones
        ]
    if batch.padding:
        payload["padding"] = batch.padding
    # By default each call takes a buffer of 256 KiB, and gives it back to the kernel.
    options: Any = {"use_bin_type": True, "buf_size": BUFFER_BYTES}
    packed: bytes = msgpack.packb(payload, **options)
    return packed


def decode_batch(payload: bytes) -> WalBatch:
    """Decode the payload of one WAL record whose checksum was right.

    Raises:
        StorageError: It is not a batch. A server of another layout wrote it, or a bug did.
    """
    try:
        # The limits are the payload's own length: a record was written whole by ourselves.
        fields = msgpack.unpackb(payload, raw=False, strict_map_key=False)
        return WalBatch(
            changes=tuple(
                DocumentChunks(int(item[0]), int(item[1]), _document_id(item[2]), _chunks(item[3]))
                for item in fields.get("changes", ())
            ),
            positions={
                int(shard): Position(
                    str(item[0]), str(item[1]), dict(item[2]), int(item[3]) if item[3:] else 0
                )
                for shard, item in fields.get("positions", {}).items()
            },
            tombstones=tuple(
                Tombstone(int(item[0]), int(item[1]), _document_id(item[2]))
                for item in fields.get("tombstones", ())
            ),
        )
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        InvalidDocumentId,
        msgpack.UnpackException,
    ) as error:
        raise StorageError(f"WAL record is not a batch: {type(error).__name__}") from error


@lru_cache(maxsize=KNOWN_IDS)
def _document_id(text: object) -> DocumentId:
    if not isinstance(text, str):
        raise TypeError("document id is not text")
    return parse_document_id(text)


def _chunks(items: object) -> tuple[bytes, ...]:
    if not isinstance(items, list) or not {bytes}.issuperset(map(type, items)):
        raise TypeError("chunks are not a list of bytes")
    return tuple(items)
