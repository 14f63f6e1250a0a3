"""The store of one of several workers that hold a volume together, each owning some shards.

Not here: leases. The worker says which shards it has, and under which epoch; it commits,
publishes, compacts and puts into quarantine only while its leases last, which it checks itself.
Everything else is as in `Store`.

Invariants: documents of a shard are read and written only between `take_over` and `release` of
it; what was read of another worker's WAL is never removed from there by us before it is in the
folders, its shard's mark says so, and that worker is dead. Writing a document's files needs no
lease: they are only added, and named by what they hold.
"""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from amsync.errors import StaleEpoch, StorageError, StorageFull, VolumeLost
from amsync.ids import DocumentId
from amsync.storage.batch import Position, WalBatch
from amsync.storage.codec import ChunkCodec
from amsync.storage.commit import Observe
from amsync.storage.members import Shared
from amsync.storage.predecessors import RESCAN_SECONDS
from amsync.storage.store import Store
from amsync.storage.takeover import Seen, Takeover
from amsync.storage.volume import Volume


@dataclass(frozen=True, slots=True)
class TakenOver:
    """What came of taking shards over.

    Attributes:
        positions: Of shards that are ours now, where the bus in use is to be read on; a shard
            is missing if it isn't known, or if the bus was emptied since.
        refused: Shards that are not ours, with the highest epoch that opened them.
    """

    positions: Mapping[int, Position] = field(default_factory=dict)
    refused: Mapping[int, int] = field(default_factory=dict)


class SharedStore(Store):
    """See the module. Made by `open_store` with `shared`. Thread-safe."""

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
        shared: Shared,
        monotonic: Callable[[], float],
    ) -> None:
        super().__init__(
            volume,
            codec,
            threaded=threaded,
            observe=observe,
            segment_bytes=segment_bytes,
            checkpoint_bytes=checkpoint_bytes,
            tail_limit_bytes=tail_limit_bytes,
        )
        assert volume.members is not None
        assert volume.member is not None
        self._member = volume.member
        self._bus_id = shared.bus_id
        seconds = shared.rescan_seconds
        if volume.files.is_networked(volume.control):
            seconds = max(seconds, RESCAN_SECONDS)
        self._watch_lock = threading.Lock()
        self._seen: Seen = {}
        self._takeover = Takeover(
            volume,
            volume.members,
            self._marks,
            self._documents,
            self._wal,
            self._own,
            self._take_found,
            rescan_seconds=seconds,
            monotonic=monotonic,
        )

    def set_bus_id(self, bus_id: str) -> None:
        """Go on with another bus: the one in use was emptied. Blocking.

        Raises:
            StorageError: Other workers may not know it yet; call again.
        """
        self._bus_id = bus_id
        self._member.set_bus_id(bus_id)

    def take_over(self, shards: Mapping[int, int]) -> TakenOver:
        """Open shards whose leases were just acquired, with all that others left. Blocking.

        Makes the epoch files, then reads what is in other workers' WALs, of dead ones and of
        living ones. `rescan` must be called when `rescan_due` says so. Taking a shard back under
        the same epoch is no error.

        Args:
            shards: Shard -> epoch of its lease, 1 or more.

        Raises:
            VolumeLost: This worker was taken for dead.
            StorageError: None of the shards is ours; call again.
        """
        self._check_ours()
        taken: dict[int, int] = {}
        refused: dict[int, int] = {}

        def claim(shard: int) -> None:
            try:
                self._claim(shard, shards[shard])
            except StaleEpoch:
                refused[shard] = self._epochs.highest(shard)
            else:
                taken[shard] = shards[shard]

        self._checkpointer.each(claim, sorted(shards))
        if taken:
            self._takeover.take_over(taken)
            with self._watch_lock:
                self._predecessors.watch(True)
        positions = {shard: self._position(shard, self._bus_id) for shard in taken}
        return TakenOver(
            {shard: position for shard, position in positions.items() if position is not None},
            refused,
        )

    def release(self, shards: Collection[int]) -> None:
        """Give shards up; what was committed of them is still brought into the folders by us."""
        self._takeover.release(shards)
        self._forget(shards)

    def rescan_due(self) -> bool:
        """Tell whether `rescan` should be called now: cheap, never blocks for long."""
        return self._takeover.rescan_due()

    def rescan(self) -> set[DocumentId]:
        """Look again for what old owners wrote of shards taken over. Blocking.

        Returns:
            Documents of which there is more than `load` gave, or that were deleted: load them
            again.

        Raises:
            VolumeLost: This worker was taken for dead.
            StorageError: Call again.
        """
        self._member.beat()
        shards, found = self._takeover.rescan()
        found |= self._predecessors.outdated(lambda name: self._shard(name) in shards)
        self._takeover.settle(shards, found)
        self._forget(shards)
        with self._watch_lock:
            if not self._takeover.are_pending:
                self._predecessors.watch(False)
        return {name for name in found if self._takeover.owns(self._shard(name))}

    @property
    def tail_bytes(self) -> int:
        """As in `Store`, and more while there are marks to be written."""
        return super().tail_bytes + self._takeover.uncovered_count

    def _claim(self, shard: int, epoch: int) -> None:
        if self._claimed.get(shard) == epoch:
            if self._epochs.highest(shard) > epoch:
                raise StaleEpoch(f"epoch {epoch} of shard {shard} was passed by another")
            return
        try:
            self._epochs.claim(shard, epoch)
        except StorageFull as error:
            # The lease says that it is ours, and its documents should be readable.
            self.volume.findings.add("epoch_not_kept", self.volume.control, str(error))
        self._claimed[shard] = epoch

    def _position(self, shard: int, bus_id: str | None = None) -> Position | None:
        """The last position of a shard, of others or our own: of one bus, or of any."""
        found = self._takeover.position(shard, bus_id)
        own = self.positions().get(shard)
        if own is None or (bus_id is not None and own.cluster_epoch != bus_id):
            return found
        return own if found is None or not own.is_behind(found) else found

    def _forget(self, shards: Collection[int]) -> None:
        names = self._predecessors.shown
        self._predecessors.forget([name for name in names if self._shard(name) in shards])

    def _take_found(self, path: Path, batches: Sequence[WalBatch], look: int) -> None:
        self._tail.add(path, batches, look=look)
        self._deleted.update(item.document_id for batch in batches for item in batch.tombstones)

    def _recover(self) -> None:
        if self.volume.is_alone:
            self._flat_files.take_in(self._checkpointer.each)

    def _checkpoint(self) -> None:
        # First: all of it is in the tail by then, or was and is written out.
        self._seen = self._takeover.seen()
        super()._checkpoint()
        try:
            self._takeover.sweep()
        except VolumeLost:
            raise
        except StorageError as error:
            self.volume.findings.add("wal_not_swept", self._wal, str(error))

    def _mark(self, positions: Mapping[int, Position]) -> None:
        covered = self._takeover.to_cover(self._seen)
        # What is covered may go, with the positions in it.
        known = {shard: self._position(shard) for shard in covered}
        kept = {shard: position for shard, position in known.items() if position is not None}
        self._marks.write({**kept, **positions}, covered)
        self._takeover.covered(self._seen)
