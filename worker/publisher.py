"""What a worker says to the gateways: one numbered entry for each of them after every step.

Not here: what is said, and that it is durable (`worker`). The gateway's stream is the order; an
append whose outcome is not known is repeated under its number, and a gateway that misses a number
asks for everything afresh. So where gateways come and go one that takes nothing loses what is
for it, rather than hold up all others.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping

from amsync.bus import Bus
from amsync.errors import BusError, BusFull
from amsync.metrics import Metrics
from amsync.protocol.envelope import ITEM_BYTES, Entry, Owned, Progress, Reply, Stamped
from amsync.worker.ports import Effects
from amsync.worker.shard import Shard

log = logging.getLogger("amsync.worker")

ENTRY_BYTES = 8 * 1024 * 1024
PROGRESS_BYTES = 64 * 1024
"""Input after which gateways are told how much of theirs was dealt with, and at every tick."""

FULL_STREAM_WAIT_SECONDS = 0.02
FULL_STREAM_SECONDS = 1.0
"""A gateway whose stream stays full for longer loses what is for it, and has to ask again."""

BUS_AWAY_SECONDS = 0.05

EVERY_SHARD = -1
"""In place of a shard's number, of what is said of no shard."""


class Publisher:
    """See the module's text.

    Args:
        shards: Those that are open, by number; the caller's, always up to date.
        incarnation: Of the worker; stamps every entry.
        stream_of: Turns a gateway's incarnation into the name of its stream.
        gives_up: Gateways come and go, and the bus may be out of reach for a while.
    """

    def __init__(
        self,
        bus: Bus,
        metrics: Metrics,
        shards: Mapping[int, Shard],
        *,
        incarnation: str,
        stream_of: Callable[[str], str],
        gives_up: bool,
    ) -> None:
        self._bus, self._metrics, self._shards = bus, metrics, shards
        self._incarnation, self._stream_of, self._gives_up = incarnation, stream_of, gives_up
        self._sequences: dict[str, int] = {}
        self._owed: dict[str, dict[int, int]] = {}
        self._owed_bytes = 0
        self._to_greet: set[str] = set()
        self._stalled: set[str] = set()
        self._is_refused = False

    def owe(self, gateway: str, shard: int, sequence: int, size_bytes: int) -> None:
        """An entry of a gateway was taken: it is to hear when that is dealt with."""
        self._owed.setdefault(gateway, {})[shard] = sequence
        self._owed_bytes += size_bytes

    def report_progress(self) -> None:
        """Tell every gateway with the next step what of its own was dealt with."""
        self._owed_bytes = max(self._owed_bytes, PROGRESS_BYTES)

    def greet(self, gateways: Collection[str]) -> None:
        """Tell gateways with the next step which shards are ours."""
        self._to_greet.update(gateways)

    def close_shard(self, number: int) -> None:
        """A shard is ours no more."""
        for owed in self._owed.values():
            owed.pop(number, None)

    def forget(self, gateway: str) -> None:
        """A gateway is gone."""
        self._owed.pop(gateway, None)
        self._sequences.pop(gateway, None)
        self._to_greet.discard(gateway)
        self._stalled.discard(gateway)

    async def publish(self, effects: Mapping[int, Effects]) -> None:
        """Append what a step has to say."""
        outbound: dict[str, list[Stamped]] = {}
        for each in effects.values():
            for gateway, items in each.outbound.items():
                outbound.setdefault(gateway, []).extend(items)
        if self._owed_bytes >= PROGRESS_BYTES:
            self._owed_bytes = 0
            for gateway in self._owed:
                outbound.setdefault(gateway, [])
        if self._to_greet:
            owned = [[shard.number, shard.epoch] for shard in self._shards.values()]
            for gateway in sorted(self._to_greet):
                outbound.setdefault(gateway, []).append(Stamped(EVERY_SHARD, 0, Owned(owned)))
            self._to_greet = set()
        for gateway, items in outbound.items():
            items.extend(self._progress(gateway))
        if self._gives_up and len(outbound) > 1:
            # Together: one way to Redis and back for all, not one for each.
            await asyncio.gather(*(self._send(*each) for each in outbound.items()))
        else:
            for gateway, items in outbound.items():
                await self._send(gateway, items)

    async def _send(self, gateway: str, items: list[Stamped]) -> None:
        for part, size_bytes in _parts(items):
            await self._append(gateway, part, size_bytes)

    def _progress(self, gateway: str) -> list[Stamped]:
        owed = self._owed.get(gateway, {})
        items = []
        for number, sequence in list(owed.items()):
            shard = self._shards[number]
            settled = shard.settled_sequences.get(gateway, 0)
            items.append(Stamped(number, shard.epoch, Progress(settled)))
            if settled >= sequence:
                del owed[number]
        if not owed:
            self._owed.pop(gateway, None)
        return items

    async def _append(self, gateway: str, items: list[Stamped], size_bytes: int) -> None:
        sequence = self._sequences[gateway] = self._sequences.get(gateway, 0) + 1
        entry = Entry(self._incarnation, sequence, time.time(), items, size_bytes=size_bytes)
        until = time.monotonic() + FULL_STREAM_SECONDS
        while True:
            try:
                await self._bus.append(self._stream_of(gateway), entry)
            except BusFull:
                is_late = gateway in self._stalled or time.monotonic() > until
                if self._gives_up and is_late:
                    self._stalled.add(gateway)
                    self._metrics.count("outbound_dropped")
                    return
                await asyncio.sleep(FULL_STREAM_WAIT_SECONDS)
            except BusError as error:
                if not self._gives_up:
                    raise
                # Not known whether it was appended: again, under its number.
                self._refused(error)
                await asyncio.sleep(BUS_AWAY_SECONDS)
            else:
                self._stalled.discard(gateway)
                self._is_refused = False
                return

    def _refused(self, error: BusError) -> None:
        self._metrics.count("appends_repeated", "outbound")
        if not self._is_refused and self._bus.is_connected:
            log.error("the bus takes no entry; tried again", extra={"error": str(error)})
            self._is_refused = True


def _parts(items: list[Stamped]) -> list[tuple[list[Stamped], int]]:
    """Cut a publication into entries of about ENTRY_BYTES, each with its size."""
    parts: list[tuple[list[Stamped], int]] = []
    part: list[Stamped] = []
    size = 0
    for stamped in items:
        item = stamped.item
        data = item.payload if isinstance(item, Reply) else getattr(item, "data", b"")
        length = len(data) + ITEM_BYTES
        if part and size + length > ENTRY_BYTES:
            parts.append((part, size))
            part, size = [], 0
        part.append(stamped)
        size += length
    return [*parts, (part, size)]
