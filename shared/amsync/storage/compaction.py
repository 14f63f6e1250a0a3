"""When a document's files are merged into one snapshot, and doing it.

Not here: locks (the store's duty) and merging itself (the codec's). Invariant: only files that
were read and are proved to be in the new snapshot are removed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from amsync.errors import InvalidDocument
from amsync.ids import DocumentId
from amsync.storage.codec import ChunkCodec, Snapshot
from amsync.storage.documents import DocumentFiles, StoredSize
from amsync.storage.findings import Findings
from amsync.storage.sidecars import Sidecars

LEAST_INCREMENTAL_BYTES = 4 * 1024
"""Less beside a snapshot is left there: merging takes three files' worth of fsyncs."""

MAX_DOCUMENT_FILES = 64
"""A document with more files is compacted whatever their sizes: opening is one read a file."""

CHEAP_BYTES, MAX_CHEAP_FILES = 64 * 1024, 8
"""The same for documents so small that merging costs next to nothing."""

REMEMBERED_REFUSALS = 4_096
"""Documents whose compaction failed and is tried again only at twice the size."""


def is_due(sizes: list[StoredSize]) -> bool:
    """Tell whether merging these files pays."""
    snapshot_bytes = sum(size.size_bytes for size in sizes if size.is_snapshot)
    incremental_bytes = sum(size.size_bytes for size in sizes if not size.is_snapshot)
    if not sizes or (len(sizes) == 1 and sizes[0].is_snapshot):
        return False
    is_cheap = snapshot_bytes + incremental_bytes < CHEAP_BYTES
    return incremental_bytes >= max(snapshot_bytes, LEAST_INCREMENTAL_BYTES) or len(sizes) > (
        MAX_CHEAP_FILES if is_cheap else MAX_DOCUMENT_FILES
    )


@dataclass(frozen=True, slots=True)
class Compacted:
    """A document's files were merged.

    Attributes:
        snapshot: What they were merged into.
        read_bytes: What they had.
    """

    snapshot: Snapshot
    read_bytes: int


class Compactor:
    """Compacts documents one by one; callers hold the document's lock."""

    def __init__(
        self,
        documents: DocumentFiles,
        sidecars: Sidecars,
        codec: ChunkCodec,
        findings: Findings,
    ) -> None:
        self._documents = documents
        self._sidecars = sidecars
        self._codec = codec
        self._findings = findings
        self._refused_bytes: dict[DocumentId, int] = {}

    def compact_if_due(
        self, document_id: DocumentId, may_remove: Callable[[], bool] | None = None
    ) -> Compacted | None:
        """Merge a document's files if that pays; None if it was not done.

        `may_remove` is asked before the files go; if it says no they stay beside the snapshot.

        Raises:
            StorageError, StorageFull: Nothing is lost.
        """
        sizes = self._documents.sizes(document_id)
        total_bytes = sum(size.size_bytes for size in sizes)
        if not is_due(sizes) or total_bytes < 2 * self._refused_bytes.get(document_id, 0):
            return None
        stored = self._documents.read(document_id)
        try:
            snapshot = self._codec.compact([blob.data for blob in stored if blob.data])
        except InvalidDocument as error:
            self._refuse(document_id, total_bytes, str(error))
            return None
        self._refused_bytes.pop(document_id, None)
        inputs = [blob.path for blob in stored]
        if not self._documents.replace(
            document_id, snapshot.data, snapshot.heads, inputs, may_remove
        ):
            return None
        if snapshot.sidecar:
            self._sidecars.write(document_id, snapshot.sidecar)
        return Compacted(snapshot, sum(len(blob.data) for blob in stored))

    def _refuse(self, document_id: DocumentId, total_bytes: int, why: str) -> None:
        if len(self._refused_bytes) >= REMEMBERED_REFUSALS:
            self._refused_bytes.clear()
        self._refused_bytes[document_id] = total_bytes
        self._findings.add("compaction_refused", self._documents.folder(document_id), why)
