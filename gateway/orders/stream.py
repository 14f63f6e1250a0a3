"""How orders reach every gateway: one stream, read from its beginning, then as it is pushed.

Holds:
- Before a gateway lets anybody in it has read everything that is there: it writes a `Mark` and
  reads up to it.
- What is over at the stream's beginning is trimmed. Should a long one stand before many short
  ones, it is written again behind them.
- What the bus has lost is written again, by any gateway that remembers it.
- Entries may be read again, and orders may be there twice: they have ids.
"""

import asyncio
import logging
import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amsync.bus import Bus, Position, Reader, StreamEntry
from amsync.bus.port import START
from amsync.errors import BusError
from amsync.gateway.orders.standing import StandingOrders
from amsync.metrics import Metrics
from amsync.protocol.orders import Cut, Lift, Mark, Order, Refresh, pack_order, unpack_order

log = logging.getLogger("amsync.gateway")

READ_BYTES = 1024 * 1024
MARK_SECONDS = 5.0
RETRY_SECONDS = 0.5
TRIM_SECONDS = 10.0
MOMENT_SECONDS = 60.0
"""So long a momentary order stays on the bus, for gateways that are behind."""

UNKNOWN_SECONDS = 24 * 3600.0
SPARE_ENTRIES = 1_000
MOVES_AT_ONCE = 100
MISSING_SECONDS = 2.0
"""After a loss, until what is not read again counts as lost; up to twice that, by chance."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """An entry on the bus; of a kind that we don't know, `order` is None."""

    position: Position
    order: Order | None
    ends_at: float


class OrderStream:
    """See the module's text. `open`, then `run`; `tick` about once a second.

    Args:
        take: Called with every order that is read.
        wall: Seconds since 1970.
    """

    def __init__(
        self,
        bus: Bus,
        stream: str,
        standing: StandingOrders,
        take: Callable[[Order], object],
        metrics: Metrics,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._bus, self._stream, self._standing = bus, stream, standing
        self._take, self._metrics, self._wall = take, metrics, wall
        self._reader: Reader | None = None
        self._entries: deque[_Kept] = deque()
        self._latest: dict[tuple[str, bool], Position] = {}
        self._position = START
        self._awaited_mark = ""
        self._pending: deque[Order] = deque()
        self._wake = asyncio.Event()
        self._check_at: float | None = None
        self._chance = random.random

    async def open(self) -> None:
        """Read everything that is there; waits for the bus. Raises BusError: it was closed."""
        self._reader = reader = self._bus.reader()
        reader.follow(self._stream, START)
        while True:
            mark = Mark(uuid.uuid4().hex, self._wall())
            self._awaited_mark = mark.id
            try:
                async with asyncio.timeout(MARK_SECONDS):  # a bus may lose it
                    if await self._try_to_append(mark):
                        while self._awaited_mark:
                            self._read(await reader.read(READ_BYTES))
                        return
            except TimeoutError:
                continue
            await asyncio.sleep(RETRY_SECONDS)

    async def run(self) -> None:
        """Read what comes, and write what has to be, until cancelled."""
        if self._reader is None:
            await self.open()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read_on())
            group.create_task(self._write())
            group.create_task(self._trim_often())

    async def append(self, order: Order) -> None:
        """Give an order to all gateways.

        Raises:
            BusFull: There is no room for it.
            BusError: Not known whether they get it now; they do when the bus is back.
        """
        try:
            await self._bus.append(self._stream, pack_order(order))
        except BusError:
            self._pending.append(order)
            self._wake.set()
            raise

    def bus_was_emptied(self) -> None:
        """Nothing of what was there is there any more, but what others have written again."""
        self._forget_entries()

    def tick(self) -> None:
        """Find out what has to be written again."""
        now = self._wall()
        if self._check_at is not None and now >= self._check_at:
            self._check_at = None
            for order in self._standing.all():
                if (order.id, isinstance(order, Lift)) not in self._latest:
                    self._metrics.count("access_orders_written_again")
                    self._pending.append(order)
            self._wake.set()

    async def _trim_often(self) -> None:
        while True:
            await asyncio.sleep(TRIM_SECONDS)
            await self.trim()

    async def trim(self) -> None:
        """Have the bus forget what is over."""
        now, through = self._wall(), None
        while self._entries and self._is_over(self._entries[0], now):
            kept = self._entries.popleft()
            through = kept.position
            if kept.order is not None:
                name = kept.order.id, isinstance(kept.order, Lift)
                if self._latest.get(name) == through:
                    del self._latest[name]
        if through is not None:
            try:
                await self._bus.trim(self._stream, through)
            except BusError:
                return  # what comes later trims it too
        if len(self._entries) > 2 * len(self._standing) + SPARE_ENTRIES and self._chance() < 0.1:
            first = [self._entries[i] for i in range(MOVES_AT_ONCE)]
            self._pending.extend(
                kept.order
                for kept in first
                if kept.order is not None and not self._is_over(kept, now)
            )
            self._wake.set()

    def _is_over(self, kept: _Kept, now: float) -> bool:
        order = kept.order
        if kept.ends_at <= now:
            return True
        if order is None or isinstance(order, Cut | Refresh | Mark):
            return False
        is_lift = isinstance(order, Lift)
        if not is_lift and self._standing.is_lifted(order.id):
            return True
        return self._latest.get((order.id, is_lift)) != kept.position

    # -- in

    async def _read_on(self) -> None:
        assert self._reader is not None
        while True:
            self._read(await self._reader.read(READ_BYTES))

    def _read(self, entries: Sequence[StreamEntry]) -> None:
        for entry in entries:
            self._read_one(entry)

    def _read_one(self, entry: StreamEntry) -> None:
        if entry.position <= self._position:
            self._forget_entries()  # the reader begins again
        self._position = entry.position
        data = entry.data if isinstance(entry.data, bytes) else entry.data.pack()
        try:
            order = unpack_order(data)
        except BusError as error:
            self._metrics.count("bad_entries", "orders")
            log.error("an order on the bus is skipped", extra={"error": str(error)})
            order = None
        if order is None:
            ends_at = self._wall() + UNKNOWN_SECONDS
        elif isinstance(order, Cut | Refresh | Mark):
            ends_at = order.at + MOMENT_SECONDS
        else:
            ends_at = order.until
            self._latest[order.id, isinstance(order, Lift)] = entry.position
        self._entries.append(_Kept(entry.position, order, ends_at))
        if isinstance(order, Mark):
            if order.id == self._awaited_mark:
                self._awaited_mark = ""
        elif order is not None:
            self._take(order)

    def _forget_entries(self) -> None:
        self._entries.clear()
        self._latest.clear()
        self._position = START
        self._check_at = self._wall() + MISSING_SECONDS * (1 + self._chance())

    # -- out

    async def _try_to_append(self, order: Order) -> bool:
        try:
            await self._bus.append(self._stream, pack_order(order))
        except BusError:
            return False
        return True

    async def _write(self) -> None:
        while True:
            self._wake.clear()
            while self._pending:
                if await self._try_to_append(self._pending[0]):
                    self._pending.popleft()
                else:
                    await asyncio.sleep(RETRY_SECONDS)
            await self._wake.wait()
