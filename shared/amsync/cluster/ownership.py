"""A worker's shards: which it should own, has leases for, takes over, hands over, and loses.

Tasks on the loop that does the work, so that a worker whose loop hangs renews nothing: one says
that we live and renews leases; one moves shards towards their place (`worker.placement`); one
looks again at what old owners have left. Not here: what an epoch is good for (the storage's
epoch files), and what is said to gateways (`worker.worker`).

A shard comes: lease, epoch file, the WALs of lower epochs, then its stream. It goes: the stream
is read no further, what was taken is committed with its position, then the lease is given back;
what is still in our WAL the next owner reads there. It is lost when another has the lease;
whatever was not committed by then never happened.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from amsync.bus import Position, shard_stream
from amsync.bus.redis import Cluster, Lease, Leases, Member, RedisBus
from amsync.bus.redis.wire import ReplyError
from amsync.cluster import record
from amsync.cluster.info import WorkerInfo
from amsync.errors import BusError, StaleLease, StorageError, VolumeLost
from amsync.metrics import Metrics
from amsync.status import WorkerMeter
from amsync.storage import SharedStore
from amsync.turns import STEP_MARGIN_SECONDS, seconds_to_step
from amsync.version import __version__
from amsync.worker.leasebook import RENEW_SECONDS, TTL_SECONDS, LeaseBook
from amsync.worker.placement import share_of
from amsync.worker.worker import Worker

log = logging.getLogger("amsync.cluster")

LOOK_SECONDS = 0.2
"""Between two looks at leases that we want: so long a shard that was given back lies idle."""

LOOK_AGAIN_SECONDS = 1.0
BEAT_SECONDS = 1.0
HERALD_SECONDS = BEAT_SECONDS + LOOK_SECONDS
"""So long a worker that leaves goes on: then the others know it, and wait for its leases."""

DEAD_SECONDS = 3.0
"""A worker that was not heard of for so long gets no shards."""

GATEWAY_DEAD_SECONDS = 10.0
"""A gateway that was not heard of for so long is gone, with its connections."""

CALM_SECONDS = 2.0
"""After Redis was emptied or out of reach, so long everybody may come back before shards are
placed anew."""

RETRY_SECONDS = 1.0
"""Between two tries to take shards over from a volume that fails: each makes an epoch file."""

SETTLE_LOOK_SECONDS = 0.01
SETTLE_LOOKS = 50
"""What was taken of a stream is finished before the shard goes, if it takes no longer."""


class Ownership:
    """`Tenure` of a worker in a cluster; see the module's text.

    Args:
        worker_id: The worker's incarnation.
        cluster_epoch: Under which the cluster's record was found, and the volume is held.

    Attributes:
        worker: Set before `run`.
        is_settled: We have every shard that we should have.
    """

    worker: Worker

    def __init__(
        self,
        bus: RedisBus,
        store: SharedStore,
        metrics: Metrics,
        *,
        worker_id: str,
        prefix: str,
        cluster_epoch: str,
    ) -> None:
        self._bus, self._store, self._metrics = bus, store, metrics
        self._me, self._prefix = worker_id, prefix
        self._meter = WorkerMeter(metrics)
        self._leases = Leases(bus.client, prefix)
        self._cluster = Cluster(bus.client, prefix)
        self._book = LeaseBook()
        self._epoch = self._known_epoch = cluster_epoch
        self._renewed = asyncio.Event()
        self._workers: set[str] = set()
        self._gateways: set[str] = set()
        self._missing: dict[str, float] = {}
        self._next_beat = self._next_renewal = self._calm_until = 0.0
        self._beaten_at = self._back_at = self._next_move = 0.0
        self._dropping: Counter[int] = Counter()  # drops under way; none of these is taken
        self._min_epochs: dict[int, int] = {}
        self._is_leaving = False
        self._hurried = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self.is_settled = False
        self._misplaced = asyncio.Event()

    # -- Tenure

    @property
    def cluster_epoch(self) -> str:
        """Of the bus under which the leases are."""
        return self._epoch

    def lost(self, shards: Iterable[int]) -> Collection[int] | None:
        """See `Tenure`."""
        return self._book.lost(shards, time.monotonic())

    async def find_lost(self, shards: Sequence[int]) -> Collection[int]:
        """See `Tenure`."""
        self._metrics.count("leases_overdue")
        self._renew_soon()
        while (lost := self.lost(shards)) is None:
            self._renewed.clear()
            await self._renewed.wait()
        return lost

    async def trim(self, positions: Mapping[int, Position]) -> None:
        """See `Tenure`; a stream of somebody else is left alone."""
        epochs = self._book.epochs()
        await asyncio.gather(
            *(
                self._trim(shard, position, epochs[shard])
                for shard, position in positions.items()
                if shard in epochs
            )
        )

    async def _trim(self, shard: int, position: Position, epoch: int) -> None:
        lease = Lease(shard, self._me, epoch, True, 0.0)
        try:
            await self._bus.trim(shard_stream(self._prefix, shard), position, lease)
        except StaleLease:  # a Redis that was emptied knows no lease either
            self._renew_soon()
        except BusError:
            pass  # what can't be trimmed now goes with the next position

    # -- life

    async def run(self) -> None:
        """Own what should be ours, until cancelled.

        Raises:
            VolumeLost: This worker counts as dead to the others; it must end.
            ConfigError: Redis belongs to another cluster now.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again_and_again(self._keep, self._wait_to_keep))
            group.create_task(self._again_and_again(self._move, self._wait_to_move))
            group.create_task(self._again_and_again(self._look_again, self._wait_to_look_again))

    def look_now(self) -> None:
        """Something may have changed that is not to wait for the next beat."""
        self._hurried.set()

    async def leave(self) -> None:
        """Give every shard away; the worker must still run.

        Raises:
            BusError: Redis is out of reach; the leases run out by themselves.
        """
        self._is_leaving = True
        await self._beat(time.monotonic())
        if self._workers:
            await asyncio.sleep(HERALD_SECONDS)
        await self._hand_over(self._book.epochs().keys() - self._dropping.keys())
        await self._cluster.leave("worker", self._me)

    async def _again_and_again(
        self, step: Callable[[float], Awaitable[None]], wait: Callable[[], Awaitable[None]]
    ) -> None:
        """Do a step whenever it is time to.

        What goes wrong is tried again, and logged when it is something else than before.
        """
        trouble = ""
        while True:
            await wait()
            try:
                await step(time.monotonic())
            except ReplyError as error:
                self.is_settled = False
                if str(error) != trouble:
                    trouble = str(error)
                    log.error("Redis refuses our commands; tried again", extra={"error": trouble})
            except BusError:  # its client says so
                self.is_settled = False
            except VolumeLost:
                raise
            except StorageError as error:
                self._metrics.storage_errors.inc("take_over")
                if str(error) != trouble:
                    trouble = str(error)
                    log.error("shards can't be taken over; tried again", extra={"error": trouble})
                self._next_move = time.monotonic() + RETRY_SECONDS
            else:
                trouble = ""

    async def _wait_to_keep(self) -> None:
        """Until the next beat or renewal; while anything is out of place, only for a moment."""
        seconds = min(self._next_beat, self._next_renewal) - time.monotonic()
        if seconds <= 0 or not self._is_in_place():
            seconds = LOOK_SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()
        self._hurried.clear()

    async def _wait_to_move(self) -> None:
        """Until `_keep` finds something out of place."""
        await self._misplaced.wait()
        self._misplaced.clear()

    async def _wait_to_look_again(self) -> None:
        await asyncio.sleep(seconds_to_step(LOOK_AGAIN_SECONDS))

    def _is_in_place(self) -> bool:
        has_ours = self.is_settled and self._wanted() == self._book.epochs().keys()
        return has_ours and self._bus.cluster_epoch == self._epoch

    def _renew_soon(self) -> None:
        self._next_renewal = 0.0
        self._hurried.set()

    # -- staying alive

    async def _keep(self, now: float) -> None:
        if self._bus.cluster_epoch != self._epoch:
            await self._bus_was_emptied(now)
        soon = now + STEP_MARGIN_SECONDS
        if soon >= self._next_renewal:
            await self._renew(now)
        if soon >= self._next_beat and not self._is_leaving:
            await self._beat(now)
        if not self.is_settled or self._wanted() != self._book.epochs().keys():
            self._misplaced.set()

    async def _beat(self, now: float) -> None:
        self._next_beat = now + seconds_to_step(BEAT_SECONDS)
        trouble = self.worker.storage_trouble
        info = WorkerInfo(
            version=__version__,
            host=socket.gethostname(),
            is_leaving=self._is_leaving,
            shards={
                str(number): (shard.epoch, len(shard.documents), shard.waiting_count)
                for number, shard in self.worker.shards.items()
            },
            trouble="" if trouble is None else str(trouble),
            figures=asdict(self._meter.read(self.worker.document_bytes)),
        )
        self.worker.greet(self._gateways)  # Redis has to wake up for the beat anyway
        beat = await self._cluster.beat("worker", self._me, info.pack())
        if beat.cluster_epoch != self._bus.cluster_epoch:
            await self._bus.look_for_epoch()
        self._look_after_absence(now)
        await self._note(beat.members, now)

    def _look_after_absence(self, now: float) -> None:
        """Who can't be heard because Redis was out of reach is not dead: wait for their word."""
        if self._beaten_at and now - self._beaten_at > DEAD_SECONDS:
            self._back_at = now
            self._calm_until = max(self._calm_until, now + CALM_SECONDS)
        self._beaten_at = now

    async def _note(self, members: Sequence[Member], now: float) -> None:
        known = self._workers
        self._workers = {
            each.incarnation
            for each in members
            if each.kind == "worker"
            and each.age_seconds < DEAD_SECONDS
            and not WorkerInfo.unpack(each.info).is_leaving
        }
        self._workers.discard(self._me)
        if not self._is_leaving:
            self._workers.add(self._me)
        silent = {
            each.incarnation: each.age_seconds
            for each in members
            if each.incarnation in known and each.age_seconds >= DEAD_SECONDS
        }
        if silent and now >= self._calm_until:
            log.warning("workers are gone", extra={"worker_ids": sorted(silent)})
        gateways = [each for each in members if each.kind == "gateway"]
        may_judge = now - self._back_at > GATEWAY_DEAD_SECONDS
        stale = {
            each.incarnation
            for each in gateways
            if may_judge and each.age_seconds > GATEWAY_DEAD_SECONDS
        }
        greeted = self._gateways
        self._gateways = {each.incarnation for each in gateways} - stale
        if self._gateways - greeted:
            self.worker.greet(self._gateways - greeted)
        for name in stale:
            # First, so that it begins anew if it comes back: its numbers are forgotten next.
            await self._cluster.expel("gateway", name)
        self._forget_gateways(stale, now)

    def _forget_gateways(self, stale: set[str], now: float) -> None:
        """Forget those that said nothing for long; a new one may not be among the members yet."""
        heard = {name for shard in self.worker.shards.values() for name in shard.gateways()}
        absent = (heard - self._gateways) | stale
        self._missing = {name: self._missing.get(name, now) for name in absent}
        dead = {
            name
            for name, since in self._missing.items()
            if name in stale or now - since > GATEWAY_DEAD_SECONDS
        }
        if dead & stale:
            log.warning("gateways are gone", extra={"gateway_ids": sorted(dead & stale)})
        if dead - stale:  # in good order, or expelled by another worker
            log.info("gateways have left", extra={"gateway_ids": sorted(dead - stale)})
        if dead:
            for _ in dead:
                self._metrics.count("gateways_forgotten")
            self.worker.forget_gateways(dead)

    async def _renew(self, now: float) -> None:
        self._next_renewal = now + seconds_to_step(RENEW_SECONDS)
        epochs = dict(self._book.epochs())
        asked_at = time.monotonic()
        try:
            kept = await self._leases.renew_all(epochs, self._me, TTL_SECONDS)
        except BusError:
            self._metrics.lease_renewals.inc("failed", by=len(epochs))
            self._next_renewal = 0.0
            raise
        lost = [shard for shard, is_kept in zip(epochs, kept, strict=True) if not is_kept]
        for shard in epochs.keys() - lost:
            if self._book.epochs().get(shard) == epochs[shard]:
                self._book.granted(shard, epochs[shard], asked_at)
        self._metrics.lease_renewals.inc("kept", by=len(epochs) - len(lost))
        self._metrics.lease_renewals.inc("lost", by=len(lost))
        if lost:
            log.warning("shards were lost to others", extra={"shards": sorted(lost)})
        self._lose(lost)
        self._renewed.set()

    def _lose(self, shards: Collection[int]) -> None:
        for shard in shards:
            self._book.gone(shard)
        self._renewed.set()
        if shards:
            self._dropping.update(shards)
            self._soon(self._drop(tuple(shards)))

    async def _drop(self, shards: Collection[int]) -> None:
        await self.worker.drop_shards(shards)
        self._store.release(shards)
        self._dropping.subtract(shards)
        self._dropping = +self._dropping

    async def _bus_was_emptied(self, now: float) -> None:
        """Redis has forgotten everything: leases, streams, members. Only the volume knows."""
        epoch = (await record.publish(self._cluster, self._store.volume)).epoch
        await self._bus.look_for_epoch()
        log.warning("the bus lost everything; all shards are taken anew")
        self._metrics.count("bus_emptied")
        self._epoch = epoch
        self._calm_until = now + CALM_SECONDS
        for shard, known in self._book.epochs().items():
            self._min_epochs[shard] = max(known, self._min_epochs.get(shard, 0))
        self._lose(tuple(self._book.epochs()))
        await self._tell_volume()

    async def _tell_volume(self) -> None:
        """Say there with which life of Redis we work; who comes would take us for strangers."""
        epoch = self._epoch
        await asyncio.to_thread(self._store.set_bus_id, epoch)
        self._known_epoch = epoch

    def _soon(self, work: Coroutine[Any, Any, object]) -> None:
        async def do() -> None:
            with contextlib.suppress(BusError):
                await work

        task = asyncio.create_task(do())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # -- moving shards

    async def _move(self, now: float) -> None:
        if now < max(self._calm_until, self._next_move) or not self._workers or self._is_leaving:
            return
        wanted = self._wanted()
        surplus = self._book.epochs().keys() - wanted - self._dropping.keys()
        if surplus:
            await self._hand_over(surplus)
        missing = wanted - self._book.epochs().keys() - self._dropping.keys()
        if missing:
            await self._take(missing)
        self.is_settled = not wanted - self._book.epochs().keys()

    def _wanted(self) -> frozenset[int]:
        return share_of(self._me, frozenset(self._workers), self._store.volume.shard_count)

    async def _take(self, shards: Collection[int]) -> None:
        asked_at = time.monotonic()
        leases = await self._leases.acquire_all(
            {shard: self._min_epochs.get(shard, 0) for shard in shards}, self._me, TTL_SECONDS
        )
        ours = {lease.shard: lease.epoch for lease in leases if lease.is_ours}
        for shard, epoch in ours.items():
            self._book.granted(shard, epoch, asked_at)
        if not ours:
            return
        started = time.monotonic()
        try:
            taken = await asyncio.to_thread(self._store.take_over, ours)
        except BaseException:
            await self._give_back(ours)
            raise
        self._min_epochs.update(taken.refused)  # the volume knows higher ones than Redis
        await self._give_back({shard: ours.pop(shard) for shard in taken.refused})
        known = self._book.epochs()
        kept = [shard for shard, epoch in ours.items() if known.get(shard) == epoch]
        if self._is_leaving:  # told so meanwhile: nobody would give these away
            await self._give_back({shard: ours[shard] for shard in kept})
            kept = []
        self._store.release(ours.keys() - kept)
        for shard in kept:
            position = taken.positions.get(shard)
            self.worker.open_shard(shard, ours[shard], position.sequences if position else {})
        self.worker.greet(self._gateways)
        self._metrics.take_over_seconds.observe(time.monotonic() - started)
        if kept:
            log.info("shards taken over", extra={"count": len(kept)})

    async def _look_again(self, _now: float) -> None:
        """Take what old owners wrote last, when they can't write any more and nothing is hidden."""
        if self._known_epoch != self._epoch:  # could not be written when it was due
            await self._tell_volume()
        if self._store.rescan_due():
            found = await asyncio.to_thread(self._store.rescan)
            for _ in found:
                self._metrics.count("documents_found_late")
            self.worker.found(found)

    async def _give_back(self, epochs: Mapping[int, int]) -> None:
        for shard in epochs:
            self._book.gone(shard)
        if epochs:
            await self._leases.release_all(epochs, self._me)

    async def _hand_over(self, shards: Collection[int]) -> None:
        """Give shards away in good order."""
        shards = set(shards)
        self.worker.stop_reading(shards)
        for _ in range(SETTLE_LOOKS):
            if self._are_settled(shards):
                break
            await asyncio.sleep(SETTLE_LOOK_SECONDS)
        await self.worker.save_positions()
        epochs = {shard: epoch for shard, epoch in self._book.epochs().items() if shard in shards}
        self._dropping.update(shards)
        await self._drop(shards)
        await self._give_back(epochs)
        log.info("shards handed over", extra={"count": len(epochs)})

    def _are_settled(self, shards: Iterable[int]) -> bool:
        known = self.worker.shards
        return all(known[shard].is_settled for shard in shards if shard in known)
