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
    Inbound,
    Progress,
    Stamped,
    pack_inbound,
    unpack_outbound,
)

log = logging.getLogger("amsync.gateway")

READ_BYTES = 8 * 1024 * 1024
FULL_STREAM_WAIT_SECONDS = 0.02


@dataclass
class _Outgoing:
    """What one shard is to get, and what it has got and not dealt with."""

    items: list[Inbound] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    packed: tuple[bytes, list[tuple[int, int]]] | None = None
    in_flight: deque[tuple[Position, list[tuple[int, int]]]] = field(default_factory=deque)
    epoch: int = 0
    sequence: int = 0


class Router:
    """See the module's text.

    Args:
        credit: Called with (connection, bytes) when input was dealt with.
        deliver: Called with every item that comes back, but `Progress`.
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
    ) -> None:
        self._bus, self._metrics, self._prefix = bus, metrics, prefix
        self._incarnation, self._stream = incarnation, stream
        self._credit, self._deliver = credit, deliver
        self._shards: dict[int, _Outgoing] = {}
        self._dirty: set[int] = set()
        self._wake = asyncio.Event()
        self._flushed = asyncio.Event()
        self._reader = bus.reader()
        self._reader.follow(stream, START)
        self._positions: dict[int, Position] = {}

    def forward(self, shard: int, item: Inbound, connection: int, size: int) -> None:
        """Send an item to a shard, behind everything sent there before."""
        outgoing = self._shards.setdefault(shard, _Outgoing())
        outgoing.items.append(item)
        if size:
            outgoing.sizes.append((connection, size))
        self._dirty.add(shard)
        self._wake.set()

    async def flush(self) -> dict[int, Position]:
        """Wait until everything is appended; returns the last position of each shard."""
        while self._dirty:
            self._flushed.clear()
            await self._flushed.wait()
        return dict(self._positions)

    async def run(self) -> None:
        """Move items both ways until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._append_all())
            group.create_task(self._read())

    async def _append_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
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
            data = pack_inbound(self._incarnation, outgoing.sequence, time.time(), items)
            outgoing.packed = (data, sizes)
        data, sizes = outgoing.packed
        try:
            position = await self._bus.append(shard_stream(self._prefix, shard), data)
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
        while True:
            for entry in await self._reader.read(READ_BYTES):
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

    def _take(self, stamped: Stamped) -> None:
        outgoing = self._shards.setdefault(stamped.shard, _Outgoing())
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
