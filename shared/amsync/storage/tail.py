"""What is in the WAL and not yet in the document folders, in memory.

Not here: files. Invariant: a batch is added before its commit is acknowledged, and dropped
only after everything in its segment is durable elsewhere; so folders read after the tail hold
whatever the tail no longer shows.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from amsync.ids import DocumentId
from amsync.storage.batch import Position, WalBatch

SEQUENCE_BYTES = 48
"""Counted for each gateway in a position: a tail may have nothing but positions."""

RECORD_BYTES = 64
"""Counted for each batch and item beside its chunks: a tail of many small ones is long too."""


@dataclass(slots=True)
class TailSegment:
    """The content of one WAL segment.

    Attributes:
        path: The segment's file.
        fault: None, or why the file must be kept in quarantine.
        chunks: Chunks of each document, each with the epoch of its shard's lease, in order.
        deleted: Documents with a tombstone in this segment.
        positions: The last position of each shard.
        size_bytes: Of all chunks, `RECORD_BYTES` for each batch and item, and positions.
        look: 0 for what was appended here, or read when the volume was opened; else which look
            at other workers' segments has found it.
    """

    path: Path
    fault: str | None = None
    chunks: dict[DocumentId, list[tuple[int, bytes]]] = field(default_factory=dict)
    deleted: set[DocumentId] = field(default_factory=set)
    positions: dict[int, Position] = field(default_factory=dict)
    size_bytes: int = 0
    look: int = 0


class WalTail:
    """The segments that are not checkpointed, oldest first. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._segments: dict[tuple[Path, int], TailSegment] = {}
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Bytes held, as in `TailSegment.size_bytes`."""
        return self._size_bytes

    def add(
        self, path: Path, batches: Iterable[WalBatch], fault: str | None = None, look: int = 0
    ) -> None:
        """Add what was appended to, or found in, a segment."""
        with self._lock:
            segment = self._segments.setdefault((path, look), TailSegment(path, look=look))
            segment.fault = segment.fault or fault
            for batch in batches:
                for item in batch.changes:
                    chunks = segment.chunks.setdefault(item.document_id, [])
                    epoch = item.epoch
                    chunks.extend([(epoch, chunk) for chunk in item.chunks])
                segment.positions.update(batch.positions)
                segment.deleted.update(item.document_id for item in batch.tombstones)
                size = batch.size_bytes + RECORD_BYTES * (1 + batch.item_count)
                size += SEQUENCE_BYTES * sum(
                    len(position.sequences) for position in batch.positions.values()
                )
                segment.size_bytes += size
                self._size_bytes += size

    def segments(self) -> list[TailSegment]:
        """List the segments; those that are sealed don't change any more."""
        with self._lock:
            return list(self._segments.values())

    def drop(self, segments: Sequence[TailSegment]) -> None:
        """Forget segments whose content is durable elsewhere."""
        with self._lock:
            for segment in segments:
                if self._segments.pop((segment.path, segment.look), None) is not None:
                    self._size_bytes -= segment.size_bytes

    def chunks(self, document_id: DocumentId) -> list[bytes]:
        """Copy the list of a document's chunks, those of lower epochs first."""
        with self._lock:
            return in_order(
                chunk
                for segment in self._segments.values()
                for chunk in segment.chunks.get(document_id, ())
            )

    def has(self, document_id: DocumentId) -> bool:
        """Tell whether any chunk of a document is here."""
        with self._lock:
            return any(document_id in segment.chunks for segment in self._segments.values())

    def ids(self) -> set[DocumentId]:
        """Ids of all documents with chunks here."""
        with self._lock:
            return {name for segment in self._segments.values() for name in segment.chunks}


def in_order(chunks: Iterable[tuple[int, bytes]]) -> list[bytes]:
    """Sort chunks by (epoch, place).

    Should two owners have accepted different changes with the same actor and sequence, the one
    that comes first is kept, and it must be the same one everywhere.
    """
    return [chunk for _, chunk in sorted(chunks, key=lambda each: each[0])]
