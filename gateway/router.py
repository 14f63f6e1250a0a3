"""From connections to shard streams, and from the gateway's stream back.

Items of one loop turn become one entry per shard. What was appended counts against its
connection until the shard reports that it is dealt with (`Progress`); so a connection whose
input is not digested stops being read, and nobody else.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from amsync.bus import Bus, Position, shard_stream
from amsync.bus.port import START
from amsync.errors import BusError, BusFull
from amsync.metrics import Metrics
from amsync.protocol.envelope import (
    ITEM_BYTES,
    Entry,
    Inbound,
    Progress,
    Stamped,
    unpack_outbound,
)
from amsync.turns import Routine, Turns

log = logging.getLogger("amsync.gateway")

READ_BYTES = 8 * 1024 * 1024
FULL_STREAM_WAIT_SECONDS = 0.02
GATHER_SECONDS = 0.05
"""So long answers wait for others and for the next edit: each wake of a worker costs far more."""


@dataclass(slots=True)
class _Outgoing:
    """What one shard is to get, and what it has got and not dealt with."""

    items: list[Inbound] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    packed: tuple[Entry, list[tuple[int, int]]] | None = None
    in_flight: deque[tuple[Position, list[tuple[int, int]]]] = field(default_factory=deque)
    epoch: int = 0
    sequence: int = 0


class Router:
    """See the module's text.

    Args:
        credit: Called with (connection, bytes) when input was dealt with.
        deliver: Called with every item that comes back, but `Progress`.
        turns: Of the loop; those of a bus in the same process, so that a message's way is short.
    """

    def __init__(
        self,
        bus: Bus,
        metrics: Metrics,
        *,
        prefix: str,
        incarnation: str,
        stream: str,
        credit: Callable[[int, int], None],
        deliver: Callable[[Stamped], None],
        turns: Turns,
    ) -> None:
        self._bus, self._metrics, self._prefix = bus, metrics, prefix
        self._incarnation, self._stream = incarnation, stream
        self._credit, self._deliver = credit, deliver
        self._shards: dict[int, _Outgoing] = {}
        self._dirty: set[int] = set()
        self._streams: dict[int, str] = {}
        self._wake = Routine(turns, self._append_all)
        self._flushed = asyncio.Event()
        self._is_waiting = False
        self._reading = Routine(turns, self._read)
        self._reader = bus.reader()
        self._reader.on_ready = self._reading.set
        self._reader.follow(stream, START)
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
        elif not self._is_waiting:
            self._is_waiting = True
            self._later(GATHER_SECONDS, self._gathered)

    def _gathered(self) -> None:
        self._is_waiting = False
        if self._dirty:
            self._wake.set()

    def _outgoing(self, shard: int) -> _Outgoing:
        self._streams[shard] = shard_stream(self._prefix, shard)
        outgoing = self._shards[shard] = _Outgoing()
        return outgoing

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, call)

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

    async def _append_all(self) -> None:
        full = False
        for shard in list(self._dirty):
            full = not await self._append(shard) or full
        if not self._dirty:
            self._flushed.set()
        if full:
            # Connections stop being read as their own bounds are reached.
            await asyncio.sleep(FULL_STREAM_WAIT_SECONDS)
            self._wake.set()

    async def _append(self, shard: int) -> bool:
        outgoing = self._shards[shard]
        if outgoing.packed is None:
            items, sizes = outgoing.items, outgoing.sizes
            outgoing.items, outgoing.sizes = [], []
            outgoing.sequence += 1
            size = ITEM_BYTES * len(items) + sum(size for _, size in sizes)
            entry = Entry(self._incarnation, outgoing.sequence, time.time(), items, size_bytes=size)
            outgoing.packed = (entry, sizes)
        entry, sizes = outgoing.packed
        try:
            position = await self._bus.append(self._streams[shard], entry)
        except BusFull:
            return False  # the packed entry is tried again, under its sequence
        outgoing.packed = None
        self._positions[shard] = position
        if sizes:
            outgoing.in_flight.append((position, sizes))
        if outgoing.items:
            self._wake.set()
        else:
            self._dirty.discard(shard)
        return True

    async def _read(self) -> None:
        for entry in self._reader.take(READ_BYTES):
            try:
                decoded = unpack_outbound(entry.data)
            except BusError as error:
                self._metrics.count("bad_entries", "outbound")
                log.error("an entry of the bus is skipped", extra={"error": str(error)})
                continue
            if decoded.unknown:
                self._metrics.count("unknown_items", "outbound")
            for stamped in decoded.items:
                self._take(stamped)
            await self._bus.trim(self._stream, entry.position)
        if self._reader.has_entries:
            self._reading.set()

    def _take(self, stamped: Stamped) -> None:
        outgoing = self._shards.get(stamped.shard) or self._outgoing(stamped.shard)
        if stamped.epoch < outgoing.epoch:
            self._metrics.count("items_of_old_epochs", "")
            return
        outgoing.epoch = stamped.epoch
        if isinstance(stamped.item, Progress):
            self._progress(outgoing, stamped.item)
        else:
            self._deliver(stamped)

    def _progress(self, outgoing: _Outgoing, progress: Progress) -> None:
        first, second = progress.position
        while outgoing.in_flight and outgoing.in_flight[0][0] <= (first, second):
            for connection, size in outgoing.in_flight.popleft()[1]:
                self._credit(connection, size)
