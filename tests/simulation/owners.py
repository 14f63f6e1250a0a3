"""Who owns which shard of a simulated cluster: leases, and the loop that moves shards.

Stands for `amsync.cluster.ownership`. A worker that is stopped keeps its leases for a while, and
goes on under its old epochs when it is continued, until it looks. What it commits although its
lease is gone is read again by the owner some time later, as from a volume that hides it at first.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from amsync.bus import Position, gateway_stream, shard_stream
from amsync.ids import DocumentId, shard_of

from .clock import Pause

if TYPE_CHECKING:
    from .cluster import Server, SimulatedGateway, SimulatedWorker

PREFIX = "sim"
LEASE_SECONDS = 2.0
HIDDEN_SECONDS = 3.0


class SimulatedTenure:
    """`Tenure` by the table of the leases: exact when asked, and old a moment later."""

    def __init__(self, owners: "Owners", worker: "SimulatedWorker") -> None:
        self._owners, self._worker = owners, worker

    @property
    def cluster_epoch(self) -> str:
        return self._owners.server.bus.cluster_epoch

    def lost(self, shards: Iterable[int]) -> list[int] | None:
        if self._owners.random.random() < 0.1:
            return None
        return [number for number in shards if not self._owners.holds(self._worker, number)]

    async def find_lost(self, shards: Sequence[int]) -> list[int]:
        while True:
            await Pause(self._owners.random.random() * 0.3)
            lost = self.lost(shards)
            if lost is not None:
                return lost

    async def trim(self, positions: Mapping[int, Position]) -> None:
        for number, position in positions.items():
            if self._owners.holds(self._worker, number):
                await self._owners.server.bus.trim(shard_stream(PREFIX, number), position)


class Owners:
    """The workers of one life of a cluster, and what each owns.

    Attributes:
        late: Documents that somebody committed to without a lease.
        gateways: Incarnations that live.
    """

    def __init__(self, server: "Server") -> None:
        self.server, self.random = server, server.random
        self.leases: dict[int, tuple[SimulatedWorker, int]] = {}
        self.late: set[DocumentId] = set()
        self.gateways: set[str] = set()
        self._gone: set[str] = set()
        self._moving: set[tuple[int, object]] = set()
        self._epochs: Counter[int] = Counter()
        self._shard_count = server.store.volume.shard_count
        self._names = 0

    def next_name(self, kind: str) -> str:
        """An incarnation that no life of the cluster had before."""
        self._names += 1
        return f"{kind}{self._names}-{self.random.getrandbits(32):x}"

    def holds(self, worker: "SimulatedWorker", number: int) -> bool:
        """The worker has the lease under the epoch that it goes by."""
        shard = worker._by_number.get(number)
        return shard is not None and self.leases.get(number) == (worker, shard.epoch)

    def running(self) -> list["SimulatedWorker"]:
        return [worker for worker in self.server.workers if worker.is_running]

    def tick(self) -> None:
        """Once a second: place what nobody has, greet gateways, forget those that are gone."""
        now = self.server.clock.now
        for number in range(self._shard_count):
            worker, _ = self.leases.get(number, (None, 0))
            alive = worker is not None and not worker.is_dead
            if worker is None or not (alive and now - worker.stopped_at < LEASE_SECONDS):
                self.place(number)
        for name in self._gone:
            self.server.bus.streams.delete(gateway_stream(PREFIX, name))
        for worker in self.running():
            heard = {name for shard in worker.shards for name in shard.gateways()}
            if heard - self.gateways:
                worker.forget_gateways(sorted(heard - self.gateways))
            worker.greet(sorted(self.gateways))

    def place(self, number: int) -> None:
        """Give a shard to a worker that can take it, under a new epoch."""
        running = self.running()
        if not running:
            return
        worker = self.random.choice(running)
        self._epochs[number] += 1
        epoch = self._epochs[number]
        self.leases[number] = (worker, epoch)
        self.server.say("shard", number, "goes to", worker.name, "epoch", epoch)
        worker.later(self.random.random() * 0.3, lambda: self._open(worker, number, epoch))

    def _open(self, worker: "SimulatedWorker", number: int, epoch: int) -> None:
        if self.leases.get(number) != (worker, epoch):
            return
        if worker.is_stepping:
            worker.later(0.01, lambda: self._open(worker, number, epoch))
            return
        position = self.server.store.positions().get(number)
        known = position is not None and position.cluster_epoch == self.server.bus.cluster_epoch
        worker._close_shard(number)
        worker.open_shard(number, epoch, position.sequences if position and known else {})
        worker.greet(sorted(self.gateways))

    def hand_over(self, worker: "SimulatedWorker", number: int) -> None:
        """Move a shard in good order; once at a time, as `ownership` does."""
        lease = self.leases.get(number)
        if (number, lease) in self._moving:
            return
        self._moving.add((number, lease))

        async def move() -> None:
            worker.stop_reading([number])
            await Pause(self.random.random() * 0.1)
            await worker.save_positions()
            await worker.drop_shards([number])

        def moved() -> None:
            if lease is not None and self.leases.get(number) == lease:
                del self.leases[number]
                self.place(number)

        worker.drive(move(), moved)

    def committed(self, worker: "SimulatedWorker", document_ids: Iterable[DocumentId]) -> None:
        """A commit has succeeded; without a lease it is found later."""
        for document_id in document_ids:
            number = shard_of(document_id, self._shard_count)
            if not self.holds(worker, number):
                self.late.add(document_id)
                self.server.later(HIDDEN_SECONDS, lambda name=document_id: self._found(name))

    def _found(self, document_id: DocumentId) -> None:
        number = shard_of(document_id, self._shard_count)
        owners = [worker for worker in self.running() if self.holds(worker, number)]
        if owners:
            owners[0].found([document_id])
        else:
            self.server.later(1.0, lambda: self._found(document_id))

    def forget_gateway(self, gateway: "SimulatedGateway") -> None:
        """All workers take a gateway for dead; it notices a little later."""
        if gateway.name not in self.gateways:
            return
        self.gateways.discard(gateway.name)
        for worker in self.running():
            worker.forget_gateways([gateway.name])

        def again() -> None:
            self._gone.add(gateway.name)
            gateway.name = self.next_name("gateway")
            self.gateways.add(gateway.name)
            gateway._router.begin_again(gateway.name)

        self.server.later(self.random.random() * 3.0, again)

    def lose_bus(self) -> None:
        """The bus has lost everything, and some of the leases with it."""
        self.server.bus.lose_everything()
        for number in list(self.leases):
            if self.random.random() < 0.5:
                del self.leases[number]
        for gateway in self.server.gateways:
            delay = self.random.random() * 2.0
            self.server.later(delay, gateway._router.hand_over_all)
