"""The store: the one object through which a worker reads and writes the volume.

Not here: formats of files (`wal`, `documents`, `volume`), automerge (`codec`), timers. The
worker decides when to checkpoint and to compact, and runs the blocking methods in a thread.

Invariants: a commit that returned is found by `load` now and after a crash at any later
instant; a WAL segment is removed only after everything in it was written elsewhere, fsynced
and read back; nothing that did not load is deleted. Long because these three bind all of its
methods, and the order of their steps has to be read together.
"""

import contextlib
import threading
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from amsync.errors import DocumentDeleted, StorageBehind, StorageError, StorageFull
from amsync.ids import DocumentId
from amsync.storage.batch import Position, WalBatch
from amsync.storage.codec import ChunkCodec
from amsync.storage.commit import Commit, Done, GroupCommit, InlineCommit, Observe
from amsync.storage.compaction import Compactor
from amsync.storage.documents import DocumentFiles
from amsync.storage.files import FileSystem, RealFileSystem, list_names, storage_errors
from amsync.storage.findings import Finding
from amsync.storage.importer import import_flat_files
from amsync.storage.marks import ShardMarks
from amsync.storage.tail import TailSegment, WalTail
from amsync.storage.volume import Volume
from amsync.storage.wal import (
    SEGMENT_BYTES,
    SEGMENT_SUFFIX,
    WalWriter,
    list_segments,
    new_incarnation,
    read_segment,
)

CHECKPOINT_BYTES = 64 * 1024 * 1024
"""Tail bytes at which `checkpoint_due` asks for a checkpoint before its time."""

TAIL_LIMIT_BYTES = 256 * 1024 * 1024
"""Tail bytes at which commits are refused with StorageBehind: checkpoints fail or fall behind."""

_STRIPES = 64


@dataclass(frozen=True, slots=True)
class LoadedDocument:
    """Everything stored of one document.

    Attributes:
        blobs: Each with one or more chunks, in any order, duplicates possible; empty if the
            document is not stored. A blob of no bytes is possible and harmless.
        paths: For each blob its file, or None if it is in the WAL only.
    """

    blobs: tuple[bytes, ...]
    paths: tuple[Path | None, ...]


class Store:
    """Documents, WAL and identity of one volume. Made by `open_store`. Thread-safe.

    Attributes:
        volume: Identity: `storage_id` (None if ephemeral), `peer_id`, `cluster_id`,
            `shard_count`.
    """

    def __init__(
        self,
        volume: Volume,
        codec: ChunkCodec,
        *,
        threaded: bool,
        observe: Observe | None,
        segment_bytes: int,
        checkpoint_bytes: int,
        tail_limit_bytes: int,
    ) -> None:
        self.volume = volume
        self._codec = codec
        self._checkpoint_bytes = checkpoint_bytes
        self._tail_limit_bytes = tail_limit_bytes
        self._wal = volume.control / "wal"
        self._documents = DocumentFiles(volume)
        self._compactor = Compactor(self._documents, codec, volume.findings)
        self._marks = ShardMarks(volume)
        self._tail = WalTail()
        directory = new_incarnation(volume.files, self._wal, volume.owner)
        self._writer = WalWriter(volume.files, volume.durable, directory, segment_bytes)
        self._deleted: set[DocumentId] = set()
        self._positions: dict[int, Position] = {}
        self._wal_directories = [directory]
        # Held over append and tail.add, and over rotate: else a checkpoint could remove a
        # segment whose last batch is acknowledged but not in the tail yet.
        self._append_lock = threading.Lock()
        self._checkpoint_lock = threading.Lock()
        self._document_locks = tuple(threading.Lock() for _ in range(_STRIPES))
        self._closed = False
        make = GroupCommit if threaded else InlineCommit
        self._recover()
        self._commit: Commit = make(self._append, observe)

    async def commit(self, batch: WalBatch) -> None:
        """Make a batch durable; return only after data and directory entries are fsynced.

        Batches of concurrent callers share one fsync. When the caller is cancelled the commit
        goes on. Keep at most one commit in flight per shard: after a failure a later batch
        may be durable without the earlier one.

        Raises:
            StorageError: It may or may not be on disk, and is not acknowledged: drop what the
                batch changed in memory and load again.
            StorageFull: The same, for want of space.
            StorageBehind: Nothing was written; the WAL tail is at its limit until a checkpoint.
        """
        await self._commit.commit(batch)

    def submit(self, batch: WalBatch, done: Done) -> None:
        """Commit without a loop: `done(None)` or `done(error)` is called, as in `commit`.

        `done` may run in the commit thread; it must be quick and must not raise.
        """
        self._commit.submit(batch, done)

    def load(self, document_id: DocumentId) -> LoadedDocument:
        """Read everything stored of a document. Blocking.

        Raises:
            DocumentDeleted: It has a tombstone.
            StorageError: The volume could not be read; this says nothing about the document.
        """
        if document_id in self._deleted:
            raise DocumentDeleted(f"document {document_id} was deleted")
        # The tail first: what leaves it meanwhile is in the folder by then.
        chunks = self._tail.chunks(document_id)
        stored = self._documents.read(document_id)
        return LoadedDocument(
            blobs=(*(blob.data for blob in stored), *chunks),
            paths=(*(blob.path for blob in stored), *(None for _ in chunks)),
        )

    def exists(self, document_id: DocumentId) -> bool:
        """Tell whether a document is stored and not deleted. Blocking.

        Raises:
            StorageError
        """
        if document_id in self._deleted:
            return False
        return self._tail.has(document_id) or self._documents.exists(document_id)

    def is_deleted(self, document_id: DocumentId) -> bool:
        """Tell whether a document was deleted; from memory, never blocks."""
        return document_id in self._deleted

    def list_ids(self) -> list[DocumentId]:
        """List all stored documents, sorted. Blocking; walks the whole volume.

        Raises:
            StorageError
        """
        waiting = self._tail.ids()
        return sorted((waiting | set(self._documents.ids())) - self._deleted)

    def delete(self, document_id: DocumentId) -> None:
        """Delete a document for good, stored or not. Blocking.

        The tombstone is durable before anything is removed; a crash in between is made good
        at the next start. Changes of a deleted document that are committed later are dropped.

        Raises:
            StorageError, StorageFull: It may be deleted already; deleting again is harmless.
        """
        with self._open_document(document_id):
            try:
                self._documents.delete(document_id)
            finally:
                if self._documents.is_deleted(document_id):
                    self._deleted.add(document_id)

    @property
    def tail_bytes(self) -> int:
        """Chunk bytes that are in the WAL only."""
        return self._tail.size_bytes

    def checkpoint_due(self) -> bool:
        """Tell whether the tail is so long that a checkpoint should not wait for its time."""
        return self._tail.size_bytes >= self._checkpoint_bytes

    def checkpoint(self) -> None:
        """Move the WAL's content into the document folders; drop its segments. Blocking.

        Commits go on meanwhile, into new segments.

        Raises:
            StorageError, StorageFull: Nothing is lost; the segments stay, and calling again
                continues.
        """
        with self._checkpoint_lock:
            if self._closed:
                raise StorageError("the store is closed")
            self._checkpoint()

    def compact_if_due(self, document_id: DocumentId) -> bool:
        """Merge a document's files into one snapshot, if that pays; tell whether it was done.

        Due like in automerge-repo: the snapshots are under 1024 bytes or the incrementals as
        large as they; or there are more than 64 files. Blocking; for a large document seconds.
        A file that does not load, or changes that wait for a dependency, stop it.

        Raises:
            StorageError, StorageFull: Nothing is lost.
        """
        with self._open_document(document_id):
            if document_id in self._deleted:
                return False
            return self._compactor.compact_if_due(document_id)

    def bad_blob(
        self, document_id: DocumentId, path: Path | None, good: Sequence[bytes], why: str
    ) -> None:
        """Put a file that the engine found bad into quarantine, whole. Blocking.

        Args:
            document_id: Its document.
            path: As `load` gave it; None (a chunk in the WAL) is only reported.
            good: The chunks of it that did load; they are written afresh first.
            why: What is wrong, without document bytes.

        Raises:
            StorageError, StorageFull: The file may stand where it was.
        """
        if path is None:
            self.volume.findings.add("bad_record", self._wal, f"{document_id}: {why}")
            return
        with self._open_document(document_id):
            if document_id in self._deleted:
                return
            if good:
                self._documents.write_incremental(document_id, b"".join(good))
            self._documents.quarantine(path, why)

    def positions(self) -> dict[int, Position]:
        """Copy the last durable position of each shard that has one."""
        with self._append_lock:
            return dict(self._positions)

    def report(self) -> list[Finding]:
        """List what was found wrong since the volume was opened, oldest first, bounded."""
        return self.volume.findings.newest()

    def close(self) -> None:
        """Commit what waits, checkpoint everything, give the volume back. Blocking.

        Afterwards automerge-repo can open the directory. A second call does nothing.

        Raises:
            StorageError, StorageFull: The volume is given back, but part of its documents is
                in the WAL still; the next start takes it from there.
        """
        with self._checkpoint_lock:
            if self._closed:
                return
            self._closed = True
        try:
            self._commit.close()
            with self._checkpoint_lock:
                self._checkpoint()
            for directory in self._wal_directories:
                self._remove_wal(directory)
        finally:
            # Whoever is in the middle of a compaction ends it before another server may open.
            for lock in self._document_locks:
                lock.acquire()
                lock.release()
            self.volume.close()

    @contextlib.contextmanager
    def _open_document(self, document_id: DocumentId) -> Iterator[None]:
        with self._document_lock(document_id):
            if self._closed:
                raise StorageError("the store is closed")
            yield

    def _document_lock(self, document_id: DocumentId) -> threading.Lock:
        return self._document_locks[zlib.crc32(document_id.encode()) % _STRIPES]

    def _append(self, batches: Sequence[WalBatch]) -> None:
        with self._append_lock:
            if self._tail.size_bytes >= self._tail_limit_bytes:
                raise StorageBehind(
                    f"{self._tail.size_bytes} bytes wait for a checkpoint, at most "
                    f"{self._tail_limit_bytes} may; see why checkpoints fail"
                )
            self._tail.add(self._writer.append(batches), batches)
            for batch in batches:
                self._positions.update(batch.positions)
                self._deleted.update(item.document_id for item in batch.tombstones)

    def _checkpoint(self) -> None:
        with self._append_lock:
            self._writer.rotate()
            segments = self._tail.segments()
        self._flush(segments)

    def _flush(self, segments: Sequence[TailSegment]) -> None:
        """Write the content of sealed segments elsewhere, then drop them."""
        chunks: dict[DocumentId, list[bytes]] = {}
        positions: dict[int, Position] = {}
        for segment in segments:
            for document_id, more in segment.chunks.items():
                chunks.setdefault(document_id, []).extend(more)
            positions.update(segment.positions)
        for document_id in {name for segment in segments for name in segment.deleted}:
            with self._document_lock(document_id):
                self._documents.delete(document_id)
        for document_id, more in chunks.items():
            with self._document_lock(document_id):
                if document_id not in self._deleted:
                    self._documents.write_incremental(document_id, b"".join(more))
        self._marks.write(positions)
        # One by one, oldest first: should an older segment outlive a newer one, the positions
        # in it would win over the marks (test_every_acknowledged_chunk_survives_...).
        for segment in segments:
            if segment.fault is not None:
                self._documents.quarantine(segment.path, segment.fault)
            else:
                self.volume.durable.remove([segment.path])
        self._tail.drop(segments)

    def _recover(self) -> None:
        """Take over what earlier processes left, whatever the instant at which they died."""
        self._deleted = self._documents.tombstones()
        for document_id in self._deleted:
            self._documents.remove_deleted(document_id)
        self._positions = self._marks.read()
        for path in list_segments(self.volume.files, self._wal):
            # A killed process may have left records that it never fsynced; what we are about
            # to serve must not depend on them.
            with storage_errors("fsync", path):
                self.volume.durable.ensure_directory(path.parent)
                self.volume.files.fsync_file(path)
                self.volume.files.fsync_directory(path.parent)
            segment = read_segment(self.volume.files, path)
            if segment.fault is not None:
                self.volume.findings.add("bad_record", path, segment.fault)
            self._tail.add(path, segment.batches, segment.fault)
            for batch in segment.batches:
                self._positions.update(batch.positions)
                self._deleted.update(item.document_id for item in batch.tombstones)
            if path.parent not in self._wal_directories:
                self._wal_directories.append(path.parent)
            if self.checkpoint_due():
                self._flush_at_start()
        self._flush_at_start()
        if not self._tail.segments():
            for directory in self._wal_directories:
                self._remove_wal(directory)
            self._wal_directories = self._wal_directories[:1]
        import_flat_files(self.volume, self._documents, self._codec)

    def _flush_at_start(self) -> None:
        # A full disk must not keep the documents from being read: the segments stay where
        # they are and are served from memory.
        try:
            self._flush(self._tail.segments())
        except StorageFull as error:
            self.volume.findings.add("checkpoint_failed", self._wal, str(error))

    def _remove_wal(self, directory: Path) -> None:
        """Remove an incarnation's directory and what failed appends left in it.

        Only when its content is durable elsewhere.
        """
        with storage_errors("remove", directory):
            left = list_names(self.volume.files, directory)
        self.volume.durable.remove(
            [directory / entry.name for entry in left if entry.name.endswith(SEGMENT_SUFFIX)]
        )
        self.volume.durable.remove_empty_directory(directory)


def open_store(
    root: Path,
    *,
    codec: ChunkCodec,
    storage_id: str | None = None,
    ephemeral: bool = False,
    shard_count: int = 64,
    files: FileSystem | None = None,
    threaded: bool = True,
    observe: Observe | None = None,
    segment_bytes: int = SEGMENT_BYTES,
    checkpoint_bytes: int = CHECKPOINT_BYTES,
    tail_limit_bytes: int = TAIL_LIMIT_BYTES,
    new_uuid: Callable[[], uuid.UUID] = uuid.uuid4,
) -> Store:
    """Open a volume or make it, recover its WAL, take in flat files. Blocking.

    Args:
        root: The data directory; made with its parents if missing.
        codec: The engine, as far as storage needs it; called from any thread.
        storage_id: To use and keep; None takes the kept one, automerge-repo's, or a new UUID.
        ephemeral: Advertise no storage id; documents are kept all the same.
        shard_count: For a new volume; an existing one keeps its own.
        files: The file system; None is the real one.
        threaded: False commits in the caller's thread, for single-threaded simulations.
        observe: Called with (seconds, chunk bytes) after each fsync, in the commit thread; must
            not raise.
        segment_bytes: See `SEGMENT_BYTES`.
        checkpoint_bytes: See `CHECKPOINT_BYTES`.
        tail_limit_bytes: See `TAIL_LIMIT_BYTES`.
        new_uuid: Source of ids, for reproducible simulations.

    Raises:
        ConfigError: An option is not possible, or another storage id is in use here.
        VolumeBusy: Another live server holds the directory.
        VolumeError: The directory can't be used as it is.
        StorageError, StorageFull: Recovery could not read or write. Nothing is lost.
    """
    volume = Volume.open(
        root.absolute(),
        files=files or RealFileSystem(),
        storage_id=storage_id,
        ephemeral=ephemeral,
        shard_count=shard_count,
        new_uuid=new_uuid,
    )
    with contextlib.ExitStack() as on_error:
        on_error.callback(volume.close)
        store = Store(
            volume,
            codec,
            threaded=threaded,
            observe=observe,
            segment_bytes=segment_bytes,
            checkpoint_bytes=checkpoint_bytes,
            tail_limit_bytes=tail_limit_bytes,
        )
        on_error.pop_all()
    return store
