"""Moving the WAL's content into the document folders.

Not here: when (the worker), and which segments (`store`). Invariants: a segment is removed only
after everything in it is elsewhere, fsynced and read back; segments go oldest first; writers of
one document take turns.
"""

import contextlib
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from amsync.errors import StorageError, StorageFull
from amsync.ids import DocumentId, shard_of
from amsync.storage.batch import DocumentChunks, Tombstone, WalBatch
from amsync.storage.codec import ChunkCodec
from amsync.storage.documents import DocumentFiles
from amsync.storage.files import list_names, path_exists, storage_errors
from amsync.storage.tail import TailSegment, WalTail, in_order
from amsync.storage.volume import Volume
from amsync.storage.wal import SEGMENT_SUFFIX

WRITERS = 16
"""Threads that write documents at once, at the most: fsyncs share the commits of the journal."""

SAMPLE = 8
"""Documents that are written one by one, to see how long the disk lets one wait."""

_STRIPES = 64

T = TypeVar("T")


class DocumentLocks:
    """A lock for each document, shared with a few others."""

    def __init__(self) -> None:
        self._locks = tuple(threading.Lock() for _ in range(_STRIPES))

    def of(self, document_id: DocumentId) -> threading.Lock:
        """The lock of a document."""
        return self._locks[zlib.crc32(document_id.encode()) % _STRIPES]

    def wait_for_all(self) -> None:
        """Return when everybody who has a lock now has given it back."""
        for lock in self._locks:
            with lock:
                pass


class Checkpointer:
    """Writes what the tail holds into the folders; the store lets one call run at a time."""

    def __init__(
        self,
        volume: Volume,
        documents: DocumentFiles,
        codec: ChunkCodec,
        tail: WalTail,
        locks: DocumentLocks,
        *,
        threaded: bool,
    ) -> None:
        self._volume, self._documents = volume, documents
        self._codec, self._tail, self._locks = codec, tail, locks
        self._threaded = threaded
        self._known_bad: set[DocumentId] = set()

    def write_out(
        self,
        segments: Sequence[TailSegment],
        doubtful: Collection[DocumentId],
    ) -> set[DocumentId]:
        """Write the content of sealed segments into the folders.

        Args:
            segments: Oldest first.
            doubtful: Documents that are to be deleted besides those in the segments.

        Returns:
            Documents that could not be written, while others could.

        Raises:
            StorageError, StorageFull: Nothing is lost; call again.
        """
        errors: dict[DocumentId, StorageError] = {}
        chunks: dict[DocumentId, list[tuple[int, bytes]]] = {}
        for segment in segments:
            for document_id, more in segment.chunks.items():
                chunks.setdefault(document_id, []).extend(more)

        def delete(document_id: DocumentId) -> None:
            with self._noting(errors, document_id), self._locks.of(document_id):
                self._documents.delete(document_id)

        def write(document_id: DocumentId) -> None:
            with self._noting(errors, document_id), self._locks.of(document_id):
                if not self._documents.is_deleted(document_id):
                    blob = b"".join(in_order(chunks[document_id]))
                    # What came as a whole need not be made one again.
                    if self._codec.is_snapshot(blob):
                        self._documents.write_whole(document_id, blob)
                    else:
                        self._documents.write_incremental(document_id, blob)

        deleted = {name for segment in segments for name in segment.deleted}.union(doubtful)
        self.each(delete, sorted(deleted))
        self.each(write, [name for name in chunks if name not in errors])
        if errors and errors.keys() >= deleted.union(chunks):
            raise next(iter(errors.values()))  # it is not about one of them
        return set(errors)

    @contextlib.contextmanager
    def _noting(
        self, errors: dict[DocumentId, StorageError], document_id: DocumentId
    ) -> Iterator[None]:
        try:
            yield
        except StorageFull:
            raise
        except StorageError as error:
            errors[document_id] = error
            if document_id not in self._known_bad:
                self._known_bad.add(document_id)
                folder = self._documents.folder(document_id)
                self._volume.findings.add("document_unwritable", folder, str(error))
        else:
            self._known_bad.discard(document_id)

    def remove(self, segment: TailSegment) -> None:
        """Remove a segment that was written out, or put it aside if it is damaged.

        Oldest first, one by one: should an older segment outlive a newer one, the positions in
        it would win over the marks (test_every_acknowledged_chunk_survives_...). The folder
        goes with its last segment.

        Raises:
            StorageError, StorageFull
        """
        if segment.fault is not None:
            self._documents.quarantine(segment.path, segment.fault)
        else:
            self._volume.durable.remove([segment.path])

    def each(self, call: Callable[[T], None], items: Iterable[T]) -> None:
        """Run a call for each item; raises the first error, after all that had begun have ended.

        In as many threads as the disk makes one wait times longer than it works: on a fast disk
        more of them would only contend with the event loop for the interpreter.
        """
        items = list(items)
        waited, worked = time.perf_counter(), time.thread_time()
        for item in items[:SAMPLE]:
            call(item)
        waited, worked = time.perf_counter() - waited, time.thread_time() - worked
        writers = min(WRITERS, int(waited / max(worked, 1e-6))) if self._threaded else 1
        if writers < 2 or len(items) <= SAMPLE:
            for item in items[SAMPLE:]:
                call(item)
            return
        waiting = iter(items[SAMPLE:])

        def work() -> None:
            try:
                for item in waiting:  # a list's iterator gives each item to one thread
                    call(item)
            except BaseException:
                for _ in waiting:  # the others come to an end, too
                    pass
                raise

        # Not a task for each item: with ten thousands of them these take more than what is written.
        with ThreadPoolExecutor(writers, thread_name_prefix="amsync-write") as pool:
            tasks = [pool.submit(work) for _ in range(writers)]
        for task in tasks:
            task.result()

    def remove_wal(self, directory: Path) -> None:
        """Remove our own incarnation's directory and what failed appends left in it.

        Only when its content is durable elsewhere.

        Raises:
            StorageError, StorageFull
        """
        files = self._volume.files
        with storage_errors("remove", directory):
            if not path_exists(files, directory):
                return
            names = [entry.name for entry in list_names(files, directory)]
        left = [directory / name for name in names if name.endswith(SEGMENT_SUFFIX)]
        self._volume.durable.remove(left)
        self._volume.durable.remove_empty_directory(directory)


def carried_over(
    segments: Sequence[TailSegment], failed: Collection[DocumentId], shard_count: int
) -> list[WalBatch]:
    """Collect what segments hold of some documents, for another segment."""
    batches = [
        WalBatch(
            changes=tuple(
                DocumentChunks(shard_of(name, shard_count), epoch, name, (chunk,))
                for name in sorted(segment.chunks.keys() & failed)
                for epoch, chunk in segment.chunks[name]
            ),
            tombstones=tuple(
                Tombstone(shard_of(name, shard_count), 1, name)
                for name in sorted(segment.deleted.intersection(failed))
            ),
        )
        for segment in segments
    ]
    return [batch for batch in batches if batch.item_count]
