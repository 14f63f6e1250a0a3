"""Shards taken over from other workers: what these left in their WALs, read and looked at again.

Not here: leases, and what is done with what was read (`shared`). A worker that takes shards over
reads the WALs of all other incarnations, dead ones and living ones, since an old owner may still
have appended to its own; once more when that can't be any more; and after that as soon as an
incarnation is dead, in case it appended all the same.

Invariants: a record is durable (fsynced by ourselves) before anything of it is served; `seen`
names only what was handed to the store before; a segment of another is removed only when it is
of a dead incarnation and each shard in it is covered by its mark up to its last record there.
"""

import math
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from amsync.errors import StorageError
from amsync.ids import DocumentId
from amsync.storage.batch import Position, WalBatch
from amsync.storage.documents import DocumentFiles
from amsync.storage.files import list_names, storage_errors
from amsync.storage.marks import Mark, Place, ShardMarks
from amsync.storage.members import Members
from amsync.storage.volume import Volume
from amsync.storage.wal import Segment, is_gone, list_segments, read_segment

Take = Callable[[Path, Sequence[WalBatch], int], None]
"""Called with a segment's path, what was found in it, and the number of the look."""

Seen = Mapping[int, tuple[int, Mapping[str, Place]]]
"""Shard -> (epoch, incarnation -> place up to which the shard's records were taken)."""


@dataclass(frozen=True, slots=True)
class _Index:
    """Which shards appear in a segment of some size, each with the end of its last record."""

    size_bytes: int
    fault: str | None
    ends: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class _Look:
    """A second look that is to come, and the epochs of the shards taken over at the first."""

    due_at: float
    shards: Mapping[int, int]


class Takeover:
    """The other incarnations' WALs, as the owner of some shards sees them. Thread-safe.

    Args of the constructor:
        wal: The folder of all incarnations.
        own: The one that this opening writes.
        take: Called with what was found, before it counts as seen.
        rescan_seconds: From a take-over to the second look.
        monotonic: A clock in seconds.
    """

    def __init__(
        self,
        volume: Volume,
        members: Members,
        marks: ShardMarks,
        documents: DocumentFiles,
        wal: Path,
        own: Path,
        take: Take,
        *,
        rescan_seconds: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._volume, self._members, self._marks = volume, members, marks
        self._documents, self._wal, self._own, self._take = documents, wal, own, take
        self._rescan_seconds, self._monotonic = rescan_seconds, monotonic
        self._is_networked = volume.files.is_networked(volume.control)
        self._lock = threading.Lock()
        """Guards what follows; never held over a call of the file system."""
        self._owned: dict[int, int] = {}
        self._seen: dict[int, dict[str, Place]] = {}
        self._written: dict[int, dict[str, Place]] = {}
        self._settled: set[int] = set()
        self._pending: list[_Look] = []
        self._late: set[DocumentId] = set()
        self._positions: dict[int, dict[str, Position]] = {}
        self._look_lock = threading.Lock()
        """One look at a time."""
        self._looks = 0
        self._index: dict[Path, _Index] = {}
        self._dead: set[str] = set()

    def owns(self, shard: int) -> bool:
        """Tell whether a shard was taken over and not released."""
        return shard in self._owned

    def take_over(self, shards: Mapping[int, int]) -> None:
        """Read what others left for shards whose epochs were claimed.

        Raises:
            StorageError: None of the shards is ours; call again.
        """
        with self._look_lock:
            marks = {shard: self._marks.read_shard(shard) for shard in shards}
            with self._lock:
                for shard, mark in marks.items():
                    if self._owned.get(shard) != shards[shard]:
                        self._seen[shard] = dict(mark.covered)
                        self._written[shard] = dict(mark.covered)
                        self._settled.discard(shard)
                    self._owned[shard] = shards[shard]
                look = _Look(self._monotonic() + self._rescan_seconds, dict(shards))
                self._pending.append(look)
                for shard, mark in marks.items():
                    self._note(shard, mark.position)
            try:
                self._read(shards)
            except BaseException:
                self.release(shards)
                raise

    def position(self, shard: int, cluster_epoch: str | None = None) -> Position | None:
        """The last position found of a shard that is ours: of a life of the bus, or of any."""
        with self._lock:
            known = self._positions.get(shard, {})
            if cluster_epoch is not None:
                return known.get(cluster_epoch)
            return max(known.values(), key=lambda each: each.epoch, default=None)

    def release(self, shards: Iterable[int]) -> None:
        """Forget shards; what was read of them and taken stays with who took it."""
        with self._lock:
            for shard in shards:
                self._owned.pop(shard, None)
                self._seen.pop(shard, None)
                self._written.pop(shard, None)
                self._positions.pop(shard, None)
                self._settled.discard(shard)
            self._pending = [look for look in self._pending if self._still(look)]

    @property
    def are_pending(self) -> bool:
        """A second look is to come."""
        return bool(self._pending)

    def rescan_due(self) -> bool:
        """Tell whether `rescan` has something to do now."""
        with self._lock:
            now = self._monotonic()
            return bool(self._late) or any(look.due_at <= now for look in self._pending)

    def rescan(self) -> tuple[set[int], set[DocumentId]]:
        """Look again at what is due.

        Returns:
            The shards looked at, for `settle`, and documents of which more was found.

        Raises:
            StorageError: Call again.
        """
        with self._look_lock:
            with self._lock:
                now = self._monotonic()
                due = [look for look in self._pending if look.due_at <= now]
                shards = {shard for look in due for shard in self._still(look)}
            found = self._read(shards) if shards else set()
            with self._lock:
                self._late |= found  # kept until it is told, also if what follows fails
                return shards, set(self._late)

    def settle(self, shards: Collection[int], told: Collection[DocumentId]) -> None:
        """Shards were looked at for the second time, and the documents found are known."""
        with self._lock:
            self._settled |= self._owned.keys() & set(shards)
            self._late -= set(told)
            self._pending = [
                look for look in self._pending if not set(self._still(look)) <= self._settled
            ]

    def seen(self) -> Seen:
        """Up to where the shards that were looked at twice were taken."""
        with self._lock:
            return {shard: (self._owned[shard], dict(self._seen[shard])) for shard in self._settled}

    @property
    def uncovered_count(self) -> int:
        """Shards whose marks should say more than they do."""
        with self._lock:
            return sum(self._seen[shard] != self._written[shard] for shard in self._settled)

    def to_cover(self, seen: Seen) -> dict[int, dict[str, Place]]:
        """What the marks should say, of what was seen and is in the folders by now.

        Only of shards that are still ours, and where it is something new.

        Raises:
            StorageError
        """
        with storage_errors("list", self._wal):
            folders = {entry.name for entry in list_names(self._volume.files, self._wal)}
        with self._lock:
            return {
                shard: {name: place for name, place in places.items() if name in folders}
                for shard, (epoch, places) in seen.items()
                if self._owned.get(shard) == epoch and places != self._written.get(shard)
            }

    def covered(self, seen: Seen) -> None:
        """The marks say so."""
        with self._lock:
            for shard, (epoch, places) in seen.items():
                if self._owned.get(shard) == epoch:
                    self._written[shard] = dict(places)

    def sweep(self) -> None:
        """Remove what dead incarnations left and every shard's owner has taken and written out.

        Raises:
            StorageError: Call again.
        """
        files = self._volume.files
        with self._look_lock:
            with storage_errors("list", self._wal):
                names = [entry.name for entry in list_names(files, self._wal)]
            dead = {name for name in names if name != self._own.name and self._is_dead(name)}
            if not dead:
                return
            with self._lock:
                owned = set(self._settled)
            found = self._read(owned, dead)
            with self._lock:
                self._late |= found
            self._remove_covered(dead)
            for name in dead:
                self._volume.durable.remove_empty_directory(self._wal / name)

    def _is_dead(self, incarnation: str) -> bool:
        is_dead = self._members.is_dead(incarnation.partition("-")[2])
        if is_dead and incarnation not in self._dead:
            # Its last size may be an old one where other machines' writes show late.
            self._dead.add(incarnation)
            if self._is_networked:
                self._index = {
                    path: index
                    for path, index in self._index.items()
                    if path.parent.name != incarnation
                }
        return is_dead

    def _remove_covered(self, dead: Collection[str]) -> None:
        marks: dict[int, Mark] = {}
        for path in list_segments(self._volume.files, self._wal):
            index = self._index.get(path)
            if path.parent.name not in dead or index is None:
                continue
            for shard in index.ends:
                if shard not in marks:
                    marks[shard] = self._marks.read_shard(shard)
                    self._compare(shard, marks[shard])
            if not all(
                _place(path, end) <= marks[shard].covered.get(path.parent.name, (0, 0))
                for shard, end in index.ends.items()
            ):
                continue
            if index.fault is not None:
                self._documents.quarantine(path, index.fault)
            else:
                self._volume.durable.remove([path])
            del self._index[path]

    def _compare(self, shard: int, mark: Mark) -> None:
        # Somebody who did not see our mark yet may have written an older one over it.
        with self._lock:
            if shard in self._settled:
                self._written[shard] = dict(mark.covered)

    def _still(self, look: _Look) -> list[int]:
        return [shard for shard, epoch in look.shards.items() if self._owned.get(shard) == epoch]

    def _read(
        self, shards: Collection[int], incarnations: Collection[str] | None = None
    ) -> set[DocumentId]:
        """Take what is new of some shards; return the documents."""
        self._looks += 1
        found: set[DocumentId] = set()
        for path, segment in self._segments(shards, incarnations):
            batches = []
            after = {shard: self._seen_in(path, shard) for shard in shards}
            for batch, end in zip(segment.batches, segment.ends, strict=True):
                with self._lock:
                    for shard in batch.positions.keys() & after.keys():
                        self._note(shard, batch.positions[shard])
                part = _part(batch, end, after)
                if part.item_count:
                    batches.append(part)
                    found.update(item.document_id for item in part.changes)
                    found.update(item.document_id for item in part.tombstones)
            if batches:
                self._take(path, batches, self._looks)
            ends = self._index[path].ends
            with self._lock:
                for shard in ends.keys() & self._seen.keys() & set(shards):
                    place = _place(path, ends[shard])
                    before = self._seen[shard].get(path.parent.name, (0, 0))
                    self._seen[shard][path.parent.name] = max(place, before)
        return found

    def _note(self, shard: int, position: Position | None) -> None:
        if position is not None and shard in self._owned:
            known = self._positions.setdefault(shard, {})
            before = known.get(position.cluster_epoch)
            if before is None or not position.is_behind(before):
                known[position.cluster_epoch] = position

    def _seen_in(self, path: Path, shard: int) -> float:
        """Offset up to which a shard's records in a segment were taken."""
        number, offset = self._seen.get(shard, {}).get(path.parent.name, (0, 0))
        here = _place(path, 0)[0]
        return offset if number == here else math.inf if number > here else 0

    def _segments(
        self, shards: Collection[int], incarnations: Collection[str] | None
    ) -> Iterator[tuple[Path, Segment]]:
        """Read segments that have, or may have, something new of some shards, oldest first."""
        files = self._volume.files
        for path in list_segments(files, self._wal):
            name = path.parent.name
            if path.parent == self._own or (incarnations is not None and name not in incarnations):
                continue
            try:
                with storage_errors("read", path):
                    size = files.stat(path).size_bytes
                known = self._index.get(path)
                if known is not None and known.size_bytes == size:
                    ends = known.ends
                    if all(ends.get(shard, 0) <= self._seen_in(path, shard) for shard in shards):
                        continue
                self._make_durable(path)
                segment = read_segment(files, path)
            except StorageError as error:
                if is_gone(error):  # its worker has written it out
                    continue
                raise
            if segment.fault is not None and (known is None or known.fault is None):
                self._volume.findings.add("bad_record", path, segment.fault)
            self._index[path] = _Index(size, segment.fault, _ends(segment))
            yield path, segment

    def _make_durable(self, path: Path) -> None:
        # Its worker may have been killed, or be about to fail, between write and fsync; what we
        # serve must not depend on that.
        with storage_errors("fsync", path):
            self._volume.durable.ensure_directory(path.parent)
            self._volume.files.fsync_file(path)
            self._volume.files.fsync_directory(path.parent)


def _place(path: Path, offset: int) -> Place:
    return (int(path.stem) if path.stem.isdecimal() else 0, offset)


def _part(batch: WalBatch, end: int, after: Mapping[int, float]) -> WalBatch:
    changes, tombstones = batch.changes, batch.tombstones
    return WalBatch(
        changes=tuple(each for each in changes if end > after.get(each.shard, math.inf)),
        tombstones=tuple(each for each in tombstones if end > after.get(each.shard, math.inf)),
    )


def _ends(segment: Segment) -> dict[int, int]:
    ends: dict[int, int] = {}
    for batch, end in zip(segment.batches, segment.ends, strict=True):
        ends.update((item.shard, end) for item in batch.changes)
        ends.update((item.shard, end) for item in batch.tombstones)
        for shard in batch.positions:
            ends[shard] = end
    return ends
