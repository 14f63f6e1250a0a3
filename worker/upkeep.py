"""What keeps the volume in order: checkpoints, compaction behind them, sidecars beside documents.

Runs in a thread of its own. A failure is logged and counted, and costs nothing but the delay: the
WAL keeps everything. Not here: when it is due.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable

from amsync.errors import StorageError
from amsync.ids import DocumentId, shard_of
from amsync.metrics import Metrics
from amsync.storage import Snapshot, Store

log = logging.getLogger("amsync.worker")

SIDECAR_BYTES = 64 * 1024 * 1024
"""Sidecars that wait for the next checkpoint to be written, at the most."""

SIDECAR_SECONDS = 2.0
"""A checkpoint or a stop is not held up by them for longer; those that are left are made later."""


class Upkeep:
    """See the module's text.

    Args:
        compaction_bytes: So much is read for compaction after one checkpoint.
        is_ours: Tells whether a shard is certainly ours; from any thread.
        compacted: Told, in the thread, what a document was merged into.

    Attributes:
        has_failed: The last checkpoint could not be made.
        touched: Documents that were written since they were looked at for compaction; the loop's.
    """

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        compaction_bytes: int,
        *,
        is_ours: Callable[[int], bool],
        compacted: Callable[[DocumentId, Snapshot], None],
    ) -> None:
        self._store, self._metrics, self._compaction_bytes = store, metrics, compaction_bytes
        self._is_ours, self._compacted = is_ours, compacted
        self._sidecars: dict[DocumentId, bytes] = {}
        self._sidecar_bytes = 0
        self.has_failed = False
        self.touched: set[DocumentId] = set()

    def take_touched(self) -> set[DocumentId]:
        """The documents to look at next, which count as looked at from now on."""
        taken, self.touched = self.touched, set()
        return taken

    def add_sidecars(self, sidecars: Iterable[tuple[DocumentId, bytes]]) -> None:
        """Let these be written with the next checkpoint."""
        for document_id, sidecar in sidecars:
            if self._sidecar_bytes < SIDECAR_BYTES:  # else it is made when it is missed
                self._sidecars[document_id] = sidecar
                self._sidecar_bytes += len(sidecar)

    def keep_sidecars(self) -> None:
        """Write what is to be found beside documents that came as a whole. Blocking, for a while.

        They are caches, and named after the bytes that they belong to: before or after these is
        the same.
        """
        until = time.monotonic() + SIDECAR_SECONDS
        while self._sidecars and time.monotonic() < until:
            with contextlib.suppress(KeyError):  # another thread was faster
                document_id, sidecar = self._sidecars.popitem()
                self._store.keep_sidecar(document_id, sidecar)
        if not self._sidecars:
            self._sidecar_bytes = 0

    def checkpoint(self, touched: set[DocumentId]) -> set[DocumentId]:
        """Move the WAL's content into the document folders, compact what is due. Blocking.

        Returns the documents that are still to be looked at: commits come before compaction,
        and they are refused when checkpoints are late.
        """
        started = time.monotonic()
        self.keep_sidecars()
        self.has_failed = self._fails(self._store.checkpoint, "checkpoint")
        if self.has_failed:
            return touched
        self._metrics.checkpoint_seconds.observe(time.monotonic() - started)
        left = set(touched)
        budget = self._compaction_bytes
        while left and budget > 0 and not self._store.checkpoint_due():
            budget -= self._compact(left.pop())
        return left

    def _compact(self, document_id: DocumentId) -> int:
        """Merge a document's files if that is due; tell how many bytes they had.

        One that can't be merged costs itself alone: the store names it, and tries it again when
        it has grown to twice its size.
        """
        read_bytes = 0

        def compact() -> None:
            nonlocal read_bytes
            started = time.monotonic()
            found = self._store.compact_if_due(document_id, self._is_ours)
            if found is not None:
                read_bytes = found.read_bytes
                self._metrics.compaction_seconds.observe(time.monotonic() - started)
                self._metrics.compaction_read_bytes.inc(by=read_bytes)
                self._metrics.compaction_written_bytes.inc(by=len(found.snapshot.data))
                self._compacted(document_id, found.snapshot)

        if self._is_ours(shard_of(document_id, self._store.volume.shard_count)):
            self._fails(compact, "compact")
        return read_bytes

    def _fails(self, call: Callable[[], object], operation: str) -> bool:
        try:
            call()
        except Exception as error:
            self._metrics.storage_errors.inc(operation)
            expected = isinstance(error, StorageError)
            log.warning(
                "housekeeping failed; the WAL keeps everything",
                extra={"operation": operation, "error": str(error)},
                exc_info=None if expected else error,
            )
            return True
        return False
