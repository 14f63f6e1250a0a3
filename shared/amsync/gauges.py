"""Gauges of what lies outside of the loop's memory, brought up to date when somebody scrapes.

Holds: a volume or a Redis that hangs makes a scrape wait for `LOOK_SECONDS` and no longer, and
takes one thread at the most; what could not be looked at is NaN.
"""

import asyncio
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from amsync.bus import Bus
from amsync.errors import BusError
from amsync.metrics import Metrics
from amsync.storage import Store
from amsync.storage.space import UNKNOWN, Space, space_of
from amsync.threads import DaemonThreads

if TYPE_CHECKING:  # a single process has no Redis, and doesn't load what speaks to it
    from amsync.bus.redis import RedisBus

LOOK_SECONDS = 1.0


class StoreGauges:
    """What is said of a store and its volume. `close` it."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store, self._metrics = store, metrics
        self._threads = DaemonThreads(1, "amsync-space")
        self._looking: asyncio.Task[Space] | None = None

    async def refresh(self) -> None:
        """Bring the gauges up to date."""
        metrics, store = self._metrics, self._store
        metrics.quarantined.set(store.quarantined_count)
        metrics.findings.set(store.volume.findings.count)
        metrics.wal_bytes.set(store.tail_bytes)
        metrics.commit_queue_bytes.set(store.waiting_bytes)
        space = await self._space()
        metrics.volume_size_bytes.set(space.size_bytes)
        metrics.volume_free_bytes.set(space.free_bytes)
        metrics.volume_inodes.set(space.inodes)
        metrics.volume_free_inodes.set(space.free_inodes)

    async def _space(self) -> Space:
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        looking = self._looking
        await asyncio.wait([looking], timeout=LOOK_SECONDS)
        if not looking.done():
            return UNKNOWN  # it is waited for by the next scrape, too
        self._looking = None
        return UNKNOWN if looking.cancelled() else looking.result()

    async def _look(self) -> Space:
        try:
            return await self._threads.run(partial(space_of, self._store.volume.root))
        except OSError:
            return UNKNOWN

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._looking is not None:
            self._looking.cancel()
        self._threads.close()


async def refresh_streams(bus: Bus, metrics: Metrics, streams: Sequence[str]) -> None:
    """Bring up to date what is said of the streams that this process reads."""
    metrics.inbox_bytes.set(bus.unread_bytes)
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            metrics.stream_bytes.set(await bus.held_bytes(streams))
    except (BusError, TimeoutError):
        metrics.stream_bytes.set(math.nan)


async def refresh_redis(bus: "RedisBus", metrics: Metrics) -> None:
    """Bring up to date what Redis says of itself."""
    memory = None
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            memory = await bus.memory()
    except (BusError, TimeoutError):
        pass
    used, most, keeps = math.nan, math.nan, math.nan
    if memory is not None:
        used, most, keeps = memory.used_bytes, memory.max_bytes, memory.keeps_entries
    metrics.redis_memory_used_bytes.set(used)
    metrics.redis_memory_max_bytes.set(most)
    metrics.redis_keeps_entries.set(keeps)
