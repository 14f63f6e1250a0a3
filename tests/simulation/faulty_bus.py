"""A bus that takes time, loses entries, and leaves its writers in doubt, when it is told to.

Not here: what a real bus does to its connections.
"""

from collections import deque
from random import Random
from typing import Any

from amsync.bus import MemoryBus, Position
from amsync.bus.port import Parcel
from amsync.errors import BusError

from .clock import Pause

SLOW_SHARE = 0.2
SLOW_SECONDS = 0.05
GREETING_BYTES = 150


class FaultyBus:
    """Stands for the bus of a cluster.

    Attributes:
        to_lose: So many appends are still to get lost, among the next ones.
        to_fail: So many raise; half of them after the entry was added.
    """

    def __init__(self, bus: MemoryBus, random: Random) -> None:
        self._bus, self._random = bus, random
        self.to_lose = self.to_fail = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def append(self, stream: str, data: bytes | Parcel) -> Position:
        if self._random.random() < SLOW_SHARE:
            await Pause(self._random.random() * SLOW_SECONDS)
        if self.to_lose and self._is_lost(data):
            self.to_lose -= 1
            self._bus.streams._last += 1
            return (0, self._bus.streams._last)
        if self.to_fail and self._random.random() < 0.5:
            self.to_fail -= 1
            if self._random.random() < 0.5:
                await self._bus.append(stream, data)
            raise BusError("nobody knows")
        return await self._bus.append(stream, data)

    def _is_lost(self, data: bytes | Parcel) -> bool:
        """Rather what carries sync messages than the second's greetings."""
        size = len(data if isinstance(data, bytes) else data.pack())
        return self._random.random() < (0.6 if size > GREETING_BYTES else 0.1)

    def lose_everything(self) -> None:
        """Empty all streams; what is on its way to a reader still comes, or not."""
        for name, stream in self._bus.streams._streams.items():
            stream.entries.clear()
            stream.bytes = 0
            for reader in stream.readers:
                if self._random.random() < 0.5:
                    reader._queue = deque(e for e in reader._queue if e.stream != name)
        self._bus._epoch = f"{self._random.getrandbits(64):x}"
