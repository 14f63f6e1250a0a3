"""From connections to shard streams, and from the gateway's stream back.

Items of one loop turn become one entry per shard. What was appended counts against its
connection until the shard reports that it is dealt with (`Progress`); so a connection whose
input is not digested stops being read, and nobody else.

In a cluster shards change hands and entries can be lost. Then all that concerns a shard is
handed over to its present owner (DESIGN 4): under a new epoch, when an entry of the owner is
missing here (so its states of our peers are wrong), and when it says that one of ours is missing
there. Until the owner's `Welcome` to that very hand-over nothing is delivered that it says, for
it was made in states that are no longer true.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from amsync.bus import Bus, Position, gateway_stream, shard_stream
from amsync.bus.port import START
from amsync.errors import BusError, BusFull
from amsync.metrics import Metrics
from amsync.protocol.envelope import (
    ITEM_BYTES,
    Entry,
    HandedOver,
    HandOver,
    Inbound,
    Owned,
    Progress,
    Reply,
    Resync,
    Stamped,
    Welcome,
    unpack_outbound,
)
from amsync.turns import Routine, Turns

log = logging.getLogger("amsync.gateway")

READ_BYTES = 8 * 1024 * 1024
ENTRY_ITEMS = 5_000
"""In one entry at the most: a hand-over has one for each document of each connection."""

NUDGE_SECONDS = 2.0
"""A shard that leaves an entry undigested for so long is sent an empty one: should the last one
have been lost, the owner sees it now. Then after as long again as it has been leaving them, up to
`MOST_NUDGE_SECONDS`: where there is no worker for days, they would fill Redis and our memory."""

MOST_NUDGE_SECONDS = 60.0

FULL_STREAM_WAIT_SECONDS = 0.02
AWAY_WAIT_SECONDS = 0.1
GATHER_SECONDS = 0.05
"""So long answers wait for others and for the next edit: each wake of a worker costs far more."""

FAR_GATHER_SECONDS = 0.3
"""The same where a worker is another process: between the edits of somebody who types."""

MOST_WAITING = 3
"""Answers of one connection; with so many nothing waits longer than for a worker in this process.
The worker holds back what is new from who has left eight messages unanswered, and those which wait
here count there."""


Sizes = list[tuple[int, int]]
"""Bytes of each connection."""


@dataclass(slots=True)
class _Outgoing:
    """What one shard is to get, and what it has got and not dealt with.

    Attributes:
        in_flight: Entries not dealt with, as (sequence, time of the append, sizes).
        settled: Our last entry that was dealt with, as far as we have heard.
        owner: Incarnation of the worker that spoke last for the shard.
        generation: Counts our hand-overs of the shard.
        is_welcome: The owner has begun with the last of them.
    """

    items: list[Inbound] = field(default_factory=list)
    sizes: Sizes = field(default_factory=list)
    packed: tuple[Entry, Sizes] | None = None
    in_flight: deque[tuple[int, float, Sizes]] = field(default_factory=deque)
    epoch: int = 0
    sequence: int = 0
    settled: int = 0
    owner: str = ""
    generation: int = 0
    is_welcome: bool = True


class Router:
    """See the module's text.

    Args:
        credit: Called with (connection, bytes) when input was dealt with.
        deliver: Called with every item that comes back for a connection or a caller.
        hand_over: What the owner of a shard has to know of our connections; its argument says
            that something which they said may be lost. None: shards don't change hands.
        trim_bytes: So much of what was taken may stay on the bus, less than a stream may have.
        turns: Of the loop; those of a bus in the same process, so that a message's way is short.

    Attributes:
        refusal: Why the bus, though connected, does not take what waits; "" if it does.
    """

    def __init__(
        self,
        bus: Bus,
        metrics: Metrics,
        *,
        prefix: str,
        incarnation: str,
        credit: Callable[[int, int], None],
        deliver: Callable[[Stamped], None],
        turns: Turns,
        hand_over: Callable[[int, bool], Sequence[Inbound]] | None = None,
        trim_bytes: int = 0,
    ) -> None:
        self._bus, self._metrics, self._prefix = bus, metrics, prefix
        self._incarnation, self._stream = incarnation, gateway_stream(prefix, incarnation)
        self._credit, self._deliver, self._hand_over = credit, deliver, hand_over
        self._workers: dict[str, int] = {}
        self._shards: dict[int, _Outgoing] = {}
        self._dirty: set[int] = set()
        self._streams: dict[int, str] = {}
        self._wake = Routine(turns, self._append_all)
        self._flushed = asyncio.Event()
        self._gather_seconds = GATHER_SECONDS if hand_over is None else FAR_GATHER_SECONDS
        self._gathering: asyncio.TimerHandle | None = None
        self._gathers_since = self._gathers_until = 0.0
        self._waiting: dict[int, int] = {}
        self.refusal = self._refused_now = ""
        self._reading = Routine(turns, self._read)
        self._trim_bytes = trim_bytes
        self._untrimmed, self._untrimmed_bytes = START, 0
        self._reader = bus.reader()
        self._reader.on_ready = self._reading.set
        self._reader.follow(self._stream, START)
        self._positions: dict[int, Position] = {}

    def forward(
        self, shard: int, item: Inbound, connection: int, size: int, may_wait: bool = False
    ) -> None:
        """Send an item to a shard, behind everything sent there before.

        One that `may_wait` is sent with the next one that may not, or a moment later.
        """
        outgoing = self._shards.get(shard) or self._outgoing(shard)
        outgoing.items.append(item)
        if size:
            outgoing.sizes.append((connection, size))
        self._dirty.add(shard)
        if not may_wait:
            self._wake.set()
        else:
            self._gather(connection)

    def _gather(self, connection: int) -> None:
        count = self._waiting[connection] = self._waiting.get(connection, 0) + 1
        if self._gathering is None:
            self._gathers_since = time.monotonic()
            self._gather_for(self._gather_seconds)
        elif count >= MOST_WAITING and self._gathers_until > self._gathers_since + GATHER_SECONDS:
            self._gathering.cancel()
            self._gather_for(GATHER_SECONDS)

    def _gather_for(self, seconds: float) -> None:
        """Wait so long, counted from the first that waits."""
        self._gathers_until = self._gathers_since + seconds
        wait = max(0.0, self._gathers_until - time.monotonic())
        self._gathering = self._later(wait, self._wake.set)

    def _later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, call)

    def _end_gathering(self) -> None:
        """What waits is sent now; what comes later waits for a time of its own."""
        self._waiting.clear()
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None

    def _outgoing(self, shard: int) -> _Outgoing:
        self._streams[shard] = shard_stream(self._prefix, shard)
        outgoing = self._shards[shard] = _Outgoing(is_welcome=self._hand_over is None)
        return outgoing

    @property
    def stream(self) -> str:
        """Name of the stream that the workers write for this gateway."""
        return self._stream

    async def flush(self) -> dict[int, Position]:
        """Wait until everything is appended; returns the last position of each shard."""
        while self._dirty:
            self._wake.set()
            self._flushed.clear()
            await self._flushed.wait()
        return dict(self._positions)

    async def run(self) -> None:
        """Move items both ways until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._wake.run())
            group.create_task(self._reading.run())

    # -- out

    async def _append_all(self) -> None:
        shards = list(self._dirty)
        self._end_gathering()
        self._refused_now = ""
        if self._hand_over is not None and len(shards) > 1:
            # Together: one way to Redis and back for all, not one for each.
            appended = await asyncio.gather(*map(self._append, shards))
        else:
            appended = [await self._append(shard) for shard in shards]
        self.refusal = self._refused_now
        full = not all(appended)
        if not self._dirty:
            self._flushed.set()
        if full:
            # Connections stop being read as their own bounds are reached.
            is_away = not self._bus.is_connected
            await asyncio.sleep(AWAY_WAIT_SECONDS if is_away else FULL_STREAM_WAIT_SECONDS)
            self._wake.set()

    async def _append(self, shard: int) -> bool:
        """Append what waits for a shard; False if that can't be done now."""
        outgoing = self._shards[shard]
        if outgoing.packed is None:
            outgoing.packed = self._pack(outgoing)
        packed = outgoing.packed
        entry, sizes = packed
        try:
            position = await self._bus.append(self._streams[shard], entry)
        except BusError as error:
            # It is tried again, under its sequence: nobody knows whether it was appended.
            if not isinstance(error, BusFull):
                self._refused(error)
            return False
        if outgoing.packed is not packed:  # we became another one meanwhile
            return True
        outgoing.packed = None
        self._positions[shard] = position
        if entry.sequence <= outgoing.settled:  # its answer was faster than the bus's
            for connection, size in sizes:
                self._credit(connection, size)
        elif sizes or self._hand_over is not None:
            outgoing.in_flight.append((entry.sequence, time.monotonic(), sizes))
        if outgoing.items:
            self._wake.set()
        else:
            self._dirty.discard(shard)
        return True

    def _refused(self, error: BusError) -> None:
        self._metrics.count("appends_repeated", "inbound")
        if self._bus.is_connected:
            self._refused_now = str(error)
            if not self.refusal:
                log.error("the bus takes no entry; tried again", extra={"error": str(error)})
                self.refusal = self._refused_now

    def _pack(self, outgoing: _Outgoing) -> tuple[Entry, Sizes]:
        items, sizes = outgoing.items, outgoing.sizes
        outgoing.items, outgoing.sizes = items[ENTRY_ITEMS:], []
        items = items[:ENTRY_ITEMS] if outgoing.items else items
        outgoing.sequence += 1
        size = ITEM_BYTES * len(items) + sum(size for _, size in sizes)
        sequence = outgoing.sequence
        return Entry(self._incarnation, sequence, time.time(), items, size_bytes=size), sizes

    def nudge(self, now: float) -> None:
        """Have owners look again that leave something undigested for long; see NUDGE_SECONDS."""
        for shard, outgoing in self._shards.items():
            if not outgoing.in_flight:
                continue
            first, last = outgoing.in_flight[0][1], outgoing.in_flight[-1][1]
            if now - last > min(max(NUDGE_SECONDS, last - first), MOST_NUDGE_SECONDS):
                self._dirty.add(shard)
                self._wake.set()

    # -- in

    async def _read(self) -> None:
        for entry in self._reader.take(READ_BYTES):
            if entry.stream != self._stream:  # we became another one meanwhile
                continue
            try:
                decoded = unpack_outbound(entry.data)
            except BusError as error:
                self._metrics.count("bad_entries", "outbound")
                log.error("an entry of the bus is skipped", extra={"error": str(error)})
            else:
                self.take(decoded)
            self._untrimmed = entry.position
            self._untrimmed_bytes += entry.size_bytes
            if self._untrimmed_bytes >= self._trim_bytes:
                await self._trim()
        if self._reader.has_entries:
            self._reading.set()

    async def _trim(self) -> None:
        self._untrimmed_bytes = 0
        with contextlib.suppress(BusError):  # what comes later trims it too
            await self._bus.trim(self._stream, self._untrimmed)

    def take(self, entry: Entry) -> None:
        """Deal with one entry of a worker."""
        for _ in range(entry.unknown):
            self._metrics.count("unknown_items", "outbound")
        last = self._workers.get(entry.sender, 0)
        if entry.sequence <= last:
            self._metrics.count("repeated_entries", "outbound")
            return
        self._workers[entry.sender] = entry.sequence
        if entry.sequence != last + 1 and self._hand_over is not None:
            self._lost_of(entry.sender)
        for stamped in entry.items:
            self._take(entry.sender, stamped)

    def _lost_of(self, worker: str) -> None:
        """Something that a worker has sent is missing: its states of our peers are wrong."""
        self._metrics.count("gaps", "outbound")
        for shard, outgoing in list(self._shards.items()):
            if outgoing.owner == worker:
                self._begin(shard, outgoing, "gap")

    def _take(self, worker: str, stamped: Stamped) -> None:
        item = stamped.item
        if isinstance(item, Owned):
            for shard, epoch in item.shards:
                self._spoke(worker, shard, epoch)
            return
        outgoing = self._spoke(worker, stamped.shard, stamped.epoch)
        if outgoing is None:
            self._metrics.count("items_of_old_epochs")
        elif isinstance(item, Progress):
            self._progress(outgoing, item)
        elif isinstance(item, Welcome):
            outgoing.is_welcome = outgoing.is_welcome or item.generation == outgoing.generation
        elif isinstance(item, Resync):
            self._begin(stamped.shard, outgoing, "asked_by_worker", may_be_lost=True)
        elif outgoing.is_welcome or isinstance(item, Reply):
            self._deliver(stamped)
        else:
            self._metrics.count("items_before_welcome")

    def _spoke(self, worker: str, shard: int, epoch: int) -> _Outgoing | None:
        """An owner has spoken under an epoch; None if that is over."""
        outgoing = self._shards.get(shard) or self._outgoing(shard)
        if epoch < outgoing.epoch:
            return None
        outgoing.owner = worker
        if epoch > outgoing.epoch:
            outgoing.epoch = epoch
            if self._hand_over is not None:
                self._begin(shard, outgoing, "new_epoch")
        return outgoing

    def _progress(self, outgoing: _Outgoing, progress: Progress) -> None:
        outgoing.settled = max(outgoing.settled, progress.sequence)
        while outgoing.in_flight and outgoing.in_flight[0][0] <= progress.sequence:
            for connection, size in outgoing.in_flight.popleft()[2]:
                self._credit(connection, size)

    # -- handing over

    @property
    def known_shards(self) -> int:
        """Shards of which an owner is known."""
        return sum(outgoing.epoch > 0 for outgoing in self._shards.values())

    def owner(self, shard: int) -> str:
        """The worker that spoke last for a shard; "" if none has."""
        outgoing = self._shards.get(shard)
        return "" if outgoing is None else outgoing.owner

    def owners(self) -> set[str]:
        """Every worker that spoke last for a shard."""
        return {outgoing.owner for outgoing in self._shards.values() if outgoing.owner}

    def forget_workers(self, living: Collection[str]) -> None:
        """Forget the numbers of workers that are gone and own nothing."""
        owners = {outgoing.owner for outgoing in self._shards.values()}
        for worker in self._workers.keys() - owners.union(living):
            del self._workers[worker]

    def hand_over_all(self) -> None:
        """Hand everything over again: whatever was on the bus may be lost."""
        for shard, outgoing in list(self._shards.items()):
            if outgoing.epoch:
                self._begin(shard, outgoing, "begun_again", may_be_lost=True)
            elif self._hand_over is not None:
                self._hand_over(shard, True)  # remembered for the first owner

    def begin_again(self, incarnation: str, *, forgets_epochs: bool = False) -> None:
        """Go on under another incarnation: the workers took the present one for dead.

        `forgets_epochs`: the bus was emptied. Epochs go on then above those of the volume, which
        may be an older one that somebody has brought back.
        """
        self._reader.unfollow(self._stream)
        self._incarnation, self._stream = incarnation, gateway_stream(self._prefix, incarnation)
        self._reader.follow(self._stream, START)
        self._untrimmed, self._untrimmed_bytes = START, 0
        self._workers.clear()
        for outgoing in self._shards.values():
            if forgets_epochs:
                outgoing.epoch, outgoing.owner, outgoing.is_welcome = 0, "", False
            sizes = [each for _, _, sizes in outgoing.in_flight for each in sizes]
            sizes += outgoing.sizes + (outgoing.packed[1] if outgoing.packed else [])
            outgoing.in_flight.clear()
            outgoing.items, outgoing.sizes, outgoing.packed = [], [], None
            outgoing.sequence = outgoing.settled = 0
            for connection, size in sizes:
                self._credit(connection, size)
        self.hand_over_all()

    def _begin(
        self, shard: int, outgoing: _Outgoing, reason: str, *, may_be_lost: bool = False
    ) -> None:
        """Hand our connections over; `reason` is for metrics."""
        assert self._hand_over is not None
        outgoing.generation += 1
        outgoing.is_welcome = False
        outgoing.items += (
            HandOver(0, outgoing.epoch, outgoing.generation, may_be_lost),
            *self._hand_over(shard, may_be_lost),
            HandedOver(0, outgoing.generation),
        )
        self._metrics.count("hand_overs", reason)
        self._dirty.add(shard)
        self._wake.set()
