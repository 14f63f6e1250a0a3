"""What storage needs of the sync engine, as a port.

Not here: any knowledge of automerge's formats. `amsync.worker.engine` implements the port, so
that storage imports neither the engine nor the worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ChunkInfo:
    """What one blob holds.

    Attributes:
        heads: Change hashes, 32 bytes each, sorted.
        change_count: Changes in the blob, without orphans.
        orphan_count: Changes that wait for a dependency outside the blob.
    """

    heads: tuple[bytes, ...]
    change_count: int
    orphan_count: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One saved document that is proved to hold every change of the blobs it was made of.

    Attributes:
        data: A document chunk.
        heads: Change hashes, 32 bytes each, sorted.
        sidecar: What the engine wants to find beside it when it loads it; empty for nothing.
    """

    data: bytes
    heads: tuple[bytes, ...]
    sidecar: bytes = b""


@dataclass(frozen=True, slots=True)
class BlobFault:
    """What is wrong with one of several blobs.

    Attributes:
        index: Of the blob.
        why: What is wrong, without document bytes.
        good_count: Changes in it that do load, with those that wait for a dependency.
        is_chunk: It begins as a chunk; else it is something foreign.
        is_conflict: Alone it loads whole; it contradicts the other blobs.
    """

    index: int
    why: str
    good_count: int
    is_chunk: bool
    is_conflict: bool


@dataclass(frozen=True, slots=True)
class Examination:
    """What the blobs of one document hold together.

    Attributes:
        heads: Change hashes, 32 bytes each, sorted.
        change_count: Different changes, without orphans.
        orphan_count: Changes that wait for a dependency which is in none of the blobs.
        faults: At most one for each blob, by index.
    """

    heads: tuple[bytes, ...]
    change_count: int
    orphan_count: int
    faults: tuple[BlobFault, ...]


class ChunkCodec(Protocol):
    """Reads and merges blobs of automerge chunks; called from any thread."""

    def is_snapshot(self, blob: bytes) -> bool:
        """Tell whether a blob is one saved document and nothing else; cheap."""
        ...

    def inspect(self, blob: bytes) -> ChunkInfo:
        """Check one blob whole.

        Raises:
            InvalidDocument: Some part of it does not load.
        """
        ...

    def compact(self, blobs: Sequence[bytes]) -> Snapshot:
        """Merge blobs into one snapshot and prove that nothing is missing.

        Raises:
            InvalidDocument: A blob has a bad part, a change waits for a dependency, or the
                proof failed. The caller deletes nothing then.
        """
        ...

    def examine(self, blobs: Sequence[bytes]) -> Examination:
        """Load all blobs of a document as far as they load, and tell what is wrong with which.

        Raises:
            InvalidDocument: Together they can't be loaded at all.
        """
        ...
