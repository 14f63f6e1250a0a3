"""The store: the one object through which a worker reads and writes the volume.

Not here: formats of files (`wal`, `documents`, `volume`), automerge (`codec`), timers, and how
the WAL's content gets into the document folders (`checkpoint`). The worker decides when to
checkpoint and to compact, and runs the blocking methods in a thread.

Invariants: a commit that returned is found by `load` now and after a crash at any later
instant; nothing that did not load is deleted; a store that was opened for reading, or whose
volume was lost to another server, changes nothing. Long because these bind all of its methods,
and half of it is what they promise.
"""

import contextlib
import heapq
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from amsync.errors import (
    DocumentDeleted,
    StaleEpoch,
    StorageBehind,
    StorageError,
    StorageFull,
    VolumeLost,
)
from amsync.ids import DocumentId, shard_of
from amsync.storage.batch import Position, Tombstone, WalBatch
from amsync.storage.checkpoint import Checkpointer, DocumentLocks, carried_over
from amsync.storage.codec import ChunkCodec
from amsync.storage.commit import Commit, Done, GroupCommit, InlineCommit, Observe
from amsync.storage.compaction import Compacted, Compactor
from amsync.storage.documents import DocumentFiles, QuarantinedFile
from amsync.storage.epochs import ShardEpochs
from amsync.storage.findings import Finding
from amsync.storage.importer import FlatFiles
from amsync.storage.marks import ShardMarks
from amsync.storage.predecessors import Predecessors
from amsync.storage.sidecars import Sidecars
from amsync.storage.tail import TailSegment, WalTail
from amsync.storage.volume import Volume
from amsync.storage.wal import WalWriter, new_incarnation

CHECKPOINT_BYTES = 64 * 1024 * 1024
"""Tail bytes at which `checkpoint_due` asks for a checkpoint before its time."""

TAIL_LIMIT_BYTES = 256 * 1024 * 1024
"""Tail bytes at which commits are refused with StorageBehind: checkpoints fail or fall behind."""

EPOCH_TRIES = 100
"""Epochs of other machines that may be hidden from us when one is claimed."""


@dataclass(frozen=True, slots=True)
class LoadedDocument:
    """Everything stored of one document.

    Attributes:
        blobs: Each with one or more chunks, in any order, duplicates possible; empty if the
            document is not stored. A blob of no bytes is possible and harmless.
        paths: For each blob its file, or None if it is in the WAL only.
        is_damaged: Files of it are in quarantine.
        sidecar: What was kept beside its snapshot, if anything; it may be of another one.
    """

    blobs: tuple[bytes, ...]
    paths: tuple[Path | None, ...]
    is_damaged: bool = False
    sidecar: bytes | None = None


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
        self._sidecars = Sidecars(volume)
        self._compactor = Compactor(self._documents, self._sidecars, codec, volume.findings)
        self._marks = ShardMarks(volume)
        self._epochs = ShardEpochs(volume)
        self._claimed: dict[int, int] = {}
        self._tail = WalTail()
        self._locks = DocumentLocks()
        own = new_incarnation(volume.files, self._wal, volume.owner)
        self._writer = WalWriter(volume.files, volume.durable, own, segment_bytes)
        self._predecessors = Predecessors(volume, self._documents, self._wal, own)
        self._checkpointer = Checkpointer(
            volume,
            self._documents,
            codec,
            self._tail,
            self._locks,
            threaded=threaded,
        )
        self._own = own
        self._kept: list[TailSegment] = []
        self._flat_files = FlatFiles(volume, self._documents, codec)
        self._taken_late: set[DocumentId] = set()
        self._deleted: set[DocumentId] = set()
        self._doubtful: set[DocumentId] = set()
        self._positions: dict[int, Position] = {}
        # Held over append and tail.add, and over rotate: else a checkpoint could remove a
        # segment whose last batch is acknowledged but not in the tail yet.
        self._append_lock = threading.Lock()
        self._checkpoint_lock = threading.Lock()
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
            VolumeLost: Another server has the volume; nothing can be committed any more.
        """
        await self._commit.commit(batch)

    def submit(self, batch: WalBatch, done: Done) -> None:
        """Commit without a loop: `done(None)` or `done(error)` is called, as in `commit`.

        `done` may run in the commit thread; it must be quick and must not raise.
        """
        self._commit.submit(batch, done)

    def commit_blocking(self, batch: WalBatch) -> None:
        """Commit from a thread that has no loop, and wait.

        Raises:
            StorageError, StorageFull, StorageBehind, VolumeLost: As `commit`.
        """
        done = threading.Event()
        errors: list[BaseException] = []

        def finish(error: BaseException | None) -> None:
            if error is not None:
                errors.append(error)
            done.set()

        self._commit.submit(batch, finish)
        done.wait()
        if errors:
            raise errors[0]

    def load(self, document_id: DocumentId) -> LoadedDocument:
        """Read everything stored of a document. Blocking.

        Raises:
            DocumentDeleted: It has a tombstone.
            StorageError: The volume could not be read; this says nothing about the document.
        """
        # The tail first: what leaves it meanwhile is in the folder by then.
        self._predecessors.begin_load(document_id)
        chunks = self._tail.chunks(document_id)
        stored = [*self._documents.read(document_id), *self._flat_files.blobs(document_id)]
        self._predecessors.note_load(document_id, frozenset(blob.path for blob in stored))
        if self.is_deleted(document_id):
            if stored:
                self._remove_what_came_back(document_id)
            raise DocumentDeleted(f"document {document_id} was deleted")
        return LoadedDocument(
            blobs=(*(blob.data for blob in stored), *chunks),
            paths=(*(blob.path for blob in stored), *(None for _ in chunks)),
            is_damaged=self._documents.has_quarantined(document_id),
            sidecar=self._sidecars.read(document_id) if stored else None,
        )

    def keep_sidecar(self, document_id: DocumentId, sidecar: bytes) -> None:
        """Keep what the next `load` should give beside the blobs, if that works. Blocking."""
        with contextlib.suppress(StorageError), self._open_document(document_id):
            if not self.is_deleted(document_id):
                self._sidecars.write(document_id, sidecar)

    def _remove_what_came_back(self, document_id: DocumentId) -> None:
        # automerge-repo had the directory meanwhile, and knows no tombstones.
        with contextlib.suppress(StorageError), self._open_document(document_id):
            self._documents.remove_deleted(document_id)

    def exists(self, document_id: DocumentId) -> bool:
        """Tell whether a document is stored and not deleted. Blocking.

        Raises:
            StorageError
        """
        is_stored = (
            self._tail.has(document_id)
            or document_id in self._flat_files.shown
            or bool(self._documents.paths(document_id))
        )
        return is_stored and not self.is_deleted(document_id)

    def is_deleted(self, document_id: DocumentId) -> bool:
        """Tell whether a document was deleted. Blocking.

        Raises:
            StorageError
        """
        return document_id in self._deleted or self._documents.is_deleted(document_id)

    def list_ids(self) -> list[DocumentId]:
        """List all stored documents, sorted. Blocking; walks the whole volume.

        Raises:
            StorageError
        """
        waiting = self._tail.ids() | self._flat_files.shown.keys()
        found = waiting | set(self._documents.ids())
        return sorted(found - self._documents.tombstones() - self._deleted)

    def list_page(
        self, prefix: str, after: str, limit: int, *, is_wanted: Callable[[DocumentId], bool]
    ) -> list[DocumentId]:
        """List the first `limit` stored documents behind `after`, sorted. Blocking.

        Reads the folders of these alone, and the names of those beside them.

        Args:
            prefix: Only ids that begin with this text.
            after: Only ids behind it; "" for all.
            limit: 1 or more.
            is_wanted: Says whether an id counts.

        Raises:
            StorageError
        """
        # The tail first, as in `load`.
        waiting = sorted(
            name
            for name in self._tail.ids() | self._flat_files.shown.keys()
            if name > after and name.startswith(prefix) and is_wanted(name)
        )
        found: list[DocumentId] = []
        for name in heapq.merge(waiting, self._documents.ids_after(prefix, after, is_wanted)):
            if (found and name == found[-1]) or self.is_deleted(name):
                continue
            found.append(name)
            if len(found) == limit:
                break
        return found

    def delete(self, document_id: DocumentId) -> None:
        """Delete a document for good, stored or not. Blocking.

        The tombstone is durable in the WAL before anything is removed; a crash in between, or a
        failed removal, is made good by the next checkpoint. Changes of a deleted document that
        are committed later are dropped.

        Raises:
            StorageError, StorageFull: If `is_deleted` says so now, it may be on disk, and the
                next checkpoint makes sure of it; else nothing has happened.
        """
        shard = self._shard(document_id)
        tombstone = Tombstone(shard, self._claimed.get(shard, 1), document_id)
        self.commit_blocking(WalBatch(tombstones=(tombstone,)))
        with contextlib.suppress(StorageError), self._open_document(document_id):
            self._documents.delete(document_id)
        self._sidecars.remove(document_id)

    def claim_shard(self, shard: int, epoch: int | None = None) -> int:
        """Open a shard under an epoch, before anything of it is read; return the epoch. Blocking.

        Args:
            shard: 0 to shard_count - 1.
            epoch: Of the lease. None, where the volume has one holder: one above the highest.

        Raises:
            StaleEpoch: This epoch or a higher one has opened the shard already.
            StorageError, StorageFull: It could not be made durable.
        """
        self._check_ours()
        if epoch is not None:
            self._epochs.claim(shard, epoch)
            self._claimed[shard] = epoch
            return epoch
        first = self._epochs.highest(shard) + 1
        for number in range(first, first + EPOCH_TRIES):
            try:
                self._epochs.claim(shard, number)
            except StaleEpoch:
                continue
            except StorageFull as error:
                # Nobody else can hold the shard, and its documents should be readable.
                self.volume.findings.add("epoch_not_kept", self.volume.control, str(error))
            self._claimed[shard] = number
            return number
        raise StorageError(f"no epoch from {first} on could be claimed for shard {shard}")

    @property
    def tail_bytes(self) -> int:
        """Bytes that are in the WAL only, roughly."""
        return self._tail.size_bytes + len(self._doubtful)

    @property
    def waiting_bytes(self) -> int:
        """Chunk bytes that wait for the disk."""
        return self._commit.waiting_bytes

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

    def check_held(self) -> None:
        """Make sure that no other server is known to have taken the volume; never blocks.

        Raises:
            VolumeLost
        """
        if self.volume.hold is not None:
            self.volume.hold.check_known()

    @property
    def rescan_is_due(self) -> bool:
        """Other machines' last writes may have been hidden; `rescan` after RESCAN_SECONDS."""
        return self._predecessors.are_hidden

    def rescan(self) -> set[DocumentId]:
        """Look again for what predecessors on other machines wrote. Blocking.

        Returns:
            Documents of which there is more than `load` gave, or that were deleted: load them
            again.

        Raises:
            StorageError: Call again; nothing of predecessors is removed before it worked.
        """
        with self._checkpoint_lock:
            if self._closed:
                raise StorageError("the store is closed")
            if self.volume.hold is not None:
                self.volume.hold.beat()
            self._take_segments()
            found = self._taken_late | self._predecessors.outdated()
            self._predecessors.all_seen()
            self._taken_late = set()
            return found

    def compact_if_due(
        self, document_id: DocumentId, still_ours: Callable[[int], bool] | None = None
    ) -> Compacted | None:
        """Merge a document's files into one snapshot, if that pays; None if it was not done.

        Due like in automerge-repo: the snapshots are under 1024 bytes or the incrementals as
        large as they; or there are more than 64 files. Blocking; for a large document seconds.
        A file that does not load, or changes that wait for a dependency, stop it.

        Args:
            document_id: The document.
            still_ours: Asked with its shard when the snapshot is written, before what it was
                made of is removed; None: nobody else can have the shard.

        Raises:
            StorageError, StorageFull: Nothing is lost.
        """
        with self._open_document(document_id):
            if self.is_deleted(document_id):
                return None
            may_remove = None
            if still_ours is not None:
                may_remove = partial(still_ours, self._shard(document_id))
            return self._compactor.compact_if_due(document_id, may_remove)

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
            if self.is_deleted(document_id):
                return
            if good and self._documents.write_incremental(document_id, b"".join(good)) == path:
                return  # it holds these chunks and nothing else
            self._documents.quarantine(path, why)

    def positions(self) -> dict[int, Position]:
        """Copy the last durable position of each shard that has one."""
        with self._append_lock:
            return dict(self._positions)

    def report(self) -> list[Finding]:
        """List what was found wrong since the volume was opened, oldest first, bounded."""
        return self.volume.findings.newest()

    def quarantined(self, limit: int) -> tuple[int, list[QuarantinedFile]]:
        """How many files are in quarantine, and the newest of them. Blocking.

        Raises:
            StorageError
        """
        names = self._documents.quarantined()
        newest = (self._documents.quarantined_file(name) for name in names[: -limit - 1 : -1])
        return len(names), [each for each in newest if each is not None]

    @property
    def quarantined_count(self) -> int:
        """Files in quarantine, also those of earlier openings."""
        return self._documents.quarantined_count

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
            if self.volume.hold is not None:
                with self._checkpoint_lock:
                    self._checkpoint()
                    if self._tail.size_bytes:
                        raise StorageError(
                            "not all documents could be written into their folders; see what was "
                            "found. They stay in the WAL, and the next start takes them from there"
                        )
                    self._checkpointer.remove_wal(self._own)
        finally:
            # Whoever is in the middle of a compaction ends it before another server may open.
            self._locks.wait_for_all()
            self.volume.close()

    def _check_ours(self) -> None:
        if self.volume.hold is None:
            raise StorageError(f"{self.volume.root} was opened for reading only")
        self.volume.hold.check()

    @contextlib.contextmanager
    def _open_document(self, document_id: DocumentId) -> Iterator[None]:
        with self._locks.of(document_id):
            if self._closed:
                raise StorageError("the store is closed")
            self._check_ours()
            yield

    def _append(self, batches: Sequence[WalBatch]) -> None:
        with self._append_lock:
            if self._tail.size_bytes >= self._tail_limit_bytes:
                raise StorageBehind(
                    f"{self._tail.size_bytes} bytes wait for a checkpoint, at most "
                    f"{self._tail_limit_bytes} may; see why checkpoints fail"
                )
            self._check_ours()
            try:
                path = self._writer.append(batches)
                # Again: if the process stood still meanwhile, somebody else may have read the WAL.
                self._check_ours()
            except StorageError:
                # A tombstone that may be on disk beats whatever comes after it, so the document
                # counts as deleted from here on (test_a_deletion_that_failed_...).
                doubtful = {item.document_id for batch in batches for item in batch.tombstones}
                self._deleted |= doubtful
                self._doubtful |= doubtful
                raise
            self._take(path, batches)

    def _take(self, path: Path, batches: Sequence[WalBatch], fault: str | None = None) -> None:
        self._tail.add(path, batches, fault)
        for batch in batches:
            for shard, position in batch.positions.items():
                known = self._positions.get(shard)
                if known is None or not position.is_behind(known):
                    self._positions[shard] = position
            self._deleted.update(item.document_id for item in batch.tombstones)

    def _checkpoint(self) -> None:
        self._check_ours()
        with self._append_lock:
            self._writer.rotate()
            segments = self._tail.segments()
            latest = dict(self._positions)
            doubtful = set(self._doubtful)
        # A position that is behind came from a predecessor's segment; a later one is durable.
        positions = {
            shard: position
            for segment in segments
            for shard, position in segment.positions.items()
            if not position.is_behind(latest[shard])
        }
        failed = self._checkpointer.write_out(segments, doubtful)
        self._check_ours()
        with self._append_lock:
            self._carry_over(segments, failed)
            self._doubtful -= doubtful - failed
        # Last: others go by the marks when they remove segments that we have read.
        self._mark(positions)
        for segment in segments:
            if segment.look:
                continue
            if self._predecessors.are_hidden and segment.path.parent != self._own:
                if segment not in self._kept:
                    self._kept.append(segment)
            else:
                self._checkpointer.remove(segment)
        self._tail.drop(segments)
        if not self._predecessors.are_hidden and self._predecessors.directories:
            while self._kept:
                self._checkpointer.remove(self._kept[0])
                del self._kept[0]
            # What is not empty has segments of a failed append; they hold nothing of worth, but
            # nobody has read them either.
            for directory in self._predecessors.directories:
                self.volume.durable.remove_empty_directory(directory)
            self._predecessors.directories.clear()

    def _mark(self, positions: Mapping[int, Position]) -> None:
        """Write the marks, when all that was in the tail is elsewhere."""
        self._marks.write(positions, {})

    def _carry_over(self, segments: Sequence[TailSegment], failed: set[DocumentId]) -> None:
        """Write what could not be brought into its folder into the WAL again.

        So one document that can't be written doesn't keep the segments of all others.
        """
        batches = carried_over(segments, failed, self.volume.shard_count)
        if batches:
            self._tail.add(self._writer.append(batches), batches)

    def _shard(self, document_id: DocumentId) -> int:
        return shard_of(document_id, self.volume.shard_count)

    def _recover(self) -> None:
        """Take over what earlier processes left, whatever the instant at which they died."""
        self._positions = self._marks.read()
        self._take_segments()
        self._taken_late = set()  # this was the first look
        if self.volume.hold is None:
            self._flat_files.show()
            return
        # A full disk must not keep the documents from being read: the segments stay where they
        # are and are served from memory.
        if self.checkpoint_due():
            try:
                self._checkpoint()
            except VolumeLost:
                raise
            except StorageError as error:
                self.volume.findings.add("checkpoint_failed", self._wal, str(error))
        self._flat_files.take_in(self._checkpointer.each)

    def _take_segments(self) -> None:
        for segment in self._predecessors.segments():
            with self._append_lock:
                self._take(segment.path, segment.batches, segment.fault)
            # Kept until a look comes to its end: one that fails is not repeated from the start.
            for batch in segment.batches:
                self._taken_late.update(item.document_id for item in batch.changes)
                self._taken_late.update(item.document_id for item in batch.tombstones)
