"""Workers of one cluster on one simulated disk, in one thread: who lives, and who owns what.

Leases are what this says they are: the owner of a shard is whoever took it over last, and an old
owner may go on appending for `TTL_SECONDS`, which is acknowledged like anything else.
"""

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from amsync.errors import DocumentDeleted
from amsync.ids import DocumentId, shard_of
from amsync.storage import (
    DocumentChunks,
    Position,
    Shared,
    SharedStore,
    Tombstone,
    WalBatch,
    open_shared_store,
    open_store,
)
from support.fakecodec import FakeCodec, make_chunk
from support.memfs import MachineDown, MemoryFileSystem

from .conftest import ROOT
from .shapes import bodies, commit, document

TTL_SECONDS = 5.0
SHARDS = 4
DOCUMENTS = tuple(document(number) for number in range(8))


def shard(document_id: DocumentId) -> int:
    return shard_of(document_id, SHARDS)


class Workers:
    """See the module.

    Attributes:
        disk: The volume's disk.
        alive: Stores by the names of their workers.
        owners: Shard -> (name, epoch) of who took it over last.
        acknowledged: Bodies of each document.
        late: Those of them that a former owner committed, or that may not show yet.
        deleted: Documents whose deletion was acknowledged.
        deleting: Documents that somebody tried to delete.
        is_network: The workers are on machines of their own, and names show late.
    """

    def __init__(self, *, is_network: bool = False) -> None:
        self.disk = MemoryFileSystem()
        self.disk.put(ROOT.parent / "other", b"")
        self.disk.is_network = is_network
        self.disk.locks = "own" if is_network else "all"
        self.disk.name_delay_seconds = 60.0 if is_network else 0.0
        self.alive: dict[str, SharedStore] = {}
        self.owners: dict[int, tuple[str, int]] = {}
        self.former: list[tuple[str, int, int, float]] = []
        self.acknowledged: dict[DocumentId, set[bytes]] = {}
        self.late: set[bytes] = set()
        self.deleted: set[DocumentId] = set()
        self.deleting: set[DocumentId] = set()
        self.bus_id = "e1"
        self.entry = 0
        self.positions: dict[int, int] = {}
        self._numbers = iter(range(1, 1_000_000))
        self._actor = ""
        self._victim: tuple[str, int] | None = None
        self.disk.fault = self._fault

    def _fault(self, _operation: str, _path: Path) -> int | None:
        if self._victim is not None and self._victim[0] == self._actor:
            name, left = self._victim
            if left <= 0:
                raise MachineDown
            self._victim = name, left - 1
        return None

    def doom(self, name: str, operations: int) -> None:
        """Kill a worker before one of its next file operations."""
        self._victim = (name, operations)

    @contextlib.contextmanager
    def acting(self, name: str) -> Iterator[None]:
        """What is done in here is done by this worker; it may die of it."""
        self._actor = name
        try:
            yield
        except MachineDown:
            if self._victim is None:
                raise  # the whole machine
            self.kill(name)
        finally:
            self._actor = ""

    def open(self, name: str, **options: object) -> None:
        ids = Random(next(self._numbers))
        with self.acting(name):
            self.alive[name] = open_shared_store(
                ROOT,
                codec=FakeCodec(),
                files=self.disk.machine(name),
                shared=Shared(self.bus_id),
                shard_count=SHARDS,
                threaded=False,
                segment_bytes=200,
                new_uuid=lambda: uuid.UUID(int=ids.getrandbits(128), version=4),
                monotonic=lambda: self.disk.now,
                pause=self.wait,
                **options,  # type: ignore[arg-type]
            )

    def wait(self, seconds: float) -> None:
        """Let time pass; whoever lives beats."""
        self.disk.now += seconds
        for store in self.alive.values():
            assert store.volume.hold is not None
            store.volume.hold.beat()

    def kill(self, name: str) -> None:
        """kill -9; the kernel gives its locks back."""
        if self._victim is not None and self._victim[0] == name:
            self._victim = None
        self.alive.pop(name, None)
        self.disk.kill(name)
        self.owners = {
            each: ("" if owner == name else owner, epoch)
            for each, (owner, epoch) in self.owners.items()
        }
        self.former = [each for each in self.former if each[0] != name]

    def take_over(self, name: str, shards: list[int]) -> None:
        """Take shards over from whoever has them, who may go on for a while."""
        if name not in self.alive:
            return
        for each in shards:
            if each in self.owners:
                before, epoch = self.owners[each]
                if before in self.alive and before != name:
                    self.former.append((before, each, epoch, self.disk.now + TTL_SECONDS))
        epochs = {each: self.owners.get(each, ("", 0))[1] + 1 for each in shards}
        self.owners |= {each: (name, epochs[each]) for each in shards}
        with self.acting(name):
            taken = self.alive[name].take_over(epochs)
            assert not taken.refused
            for each in shards:
                position = taken.positions.get(each)
                found = 0 if position is None else int(position.entry.partition("-")[0])
                assert found >= self.positions.get(each, 0) or self.disk.is_network
        if name not in self.alive:
            return
        for former, each, _, _ in self.former:
            if each in shards and former in self.alive and former != name:
                self.alive[former].release([each])

    def owner(self, document_id: DocumentId) -> SharedStore | None:
        name, _ = self.owners.get(shard(document_id), ("", 0))
        return self.alive.get(name)

    def commit(self, document_id: DocumentId, former: tuple[str, int] | None = None) -> None:
        """Commit a new body by the owner, or by a former one under its old epoch."""
        name, epoch = former or self.owners.get(shard(document_id), ("", 0))
        if name not in self.alive or document_id in self.deleting:
            return
        body = b"%d" % next(self._numbers)
        self.entry += 1
        position = Position(self.bus_id, f"{self.entry}-0", {"g": self.entry}, epoch)
        chunks = DocumentChunks(shard(document_id), epoch, document_id, (make_chunk(body),))
        with self.acting(name):
            commit(self.alive[name], WalBatch((chunks,), {shard(document_id): position}))
            self.acknowledged.setdefault(document_id, set()).add(body)
            if former is not None or self.disk.is_network:
                self.late.add(body)
            if former is None:
                self.positions[shard(document_id)] = self.entry

    def delete(self, document_id: DocumentId) -> None:
        name, epoch = self.owners.get(shard(document_id), ("", 0))
        if name in self.alive:
            self.deleting.add(document_id)
            with self.acting(name):
                tombstone = Tombstone(shard(document_id), epoch, document_id)
                commit(self.alive[name], WalBatch(tombstones=(tombstone,)))
                self.deleted.add(document_id)

    def run(self, name: str, call: Callable[[SharedStore], object]) -> None:
        """Let a worker do something, if it lives."""
        if name in self.alive:
            with self.acting(name):
                call(self.alive[name])

    def power_fails(self, keep: str | Random) -> None:
        """All workers are gone, with what was not fsynced."""
        self._victim = None
        self.disk.restart(keep)
        for name in list(self.alive):
            self.kill(name)
        self.disk.fault = self._fault

    def check(self) -> None:
        """Every owner finds all that was acknowledged of its documents."""
        for document_id in DOCUMENTS:
            store = self.owner(document_id)
            if store is not None:
                self.check_document(document_id, lambda each, store=store: bodies(store, each))

    def check_document(
        self, document_id: DocumentId, read: Callable[[DocumentId], set[bytes]]
    ) -> None:
        try:
            found = read(document_id)
        except DocumentDeleted:
            assert document_id in self.deleting
            return
        assert document_id not in self.deleted or self.late
        assert found >= self.acknowledged.get(document_id, set()) - self.late

    def settle(self) -> None:
        """Let somebody own everything, wait until all looked twice, and check."""
        self._victim = None
        if not self.alive:
            self.open("z")
        for number, each in enumerate(range(SHARDS)):
            if self.owners.get(each, ("", 0))[0] not in self.alive:
                self.take_over(sorted(self.alive)[number % len(self.alive)], [each])
        for _ in range(2):
            self.wait(70)
            for store in self.alive.values():
                store.rescan()
        self.late.clear()
        self.check()

    def checkpoint_all(self) -> None:
        """Until nothing is left to be done."""
        for _ in range(8):
            for store in self.alive.values():
                store.checkpoint()
            self.wait(70)

    def check_alone(self) -> None:
        """All of it is found by a server of its own too."""
        store = open_store(
            ROOT,
            codec=FakeCodec(),
            files=self.disk.machine("alone"),
            threaded=False,
            monotonic=lambda: self.disk.now,
            pause=self.wait,
        )
        self.disk.now += 70
        store.rescan()
        for document_id in DOCUMENTS:
            self.check_document(document_id, lambda each: bodies(store, each))
        store.close()

    def wal_files(self) -> list[str]:
        return [name for name in self.disk.tree(ROOT) if name.startswith(".amsync/wal/")]
