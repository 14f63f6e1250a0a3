"""A worker as a process of its own: a volume shared with others, and the shards that it owns."""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from amsync.bus import gateway_stream
from amsync.cluster import record
from amsync.cluster.member import ClusterMember
from amsync.cluster.ownership import Ownership
from amsync.errors import BusError
from amsync.gauges import StoreGauges
from amsync.options import WorkerNodeOptions
from amsync.process import close_store, open_in_thread, store_arguments
from amsync.storage import Shared, SharedStore, open_shared_store
from amsync.storage.volume import SHARD_COUNT
from amsync.worker.leasebook import TTL_SECONDS
from amsync.worker.worker import Worker

log = logging.getLogger("amsync.cluster")

RESCAN_MARGIN_SECONDS = 5.0
CHECKPOINT_BYTES = 16 * 1024 * 1024
"""So much of a worker that dies its heirs have to read, a second's work, before they go on."""

LEAVE_SECONDS = 20.0
"""Shards are given away in this time at the most; the leases of the others then run out."""


class WorkerNode(ClusterMember):
    """See the module's text."""

    def __init__(self, options: WorkerNodeOptions) -> None:
        super().__init__(options, "worker")
        self.options = options
        self.store: SharedStore | None = None
        self._worker: Worker | None = None
        self._ownership: Ownership | None = None
        self._store_gauges: StoreGauges | None = None

    async def _start(self) -> None:
        epoch = await record.insist(self._epoch)
        self.store = store = await self._open_store(epoch)
        self._store_gauges = StoreGauges(store, self.metrics)
        found = await record.insist(lambda: record.publish(self.cluster, store.volume))
        if found.epoch != epoch:  # emptied meanwhile
            await asyncio.to_thread(store.set_bus_id, found.epoch)
        await record.insist(self.bus.look_for_epoch)
        prefix = self.options.prefix
        self._ownership = Ownership(
            self.bus,
            store,
            self.metrics,
            worker_id=self.incarnation,
            prefix=prefix,
            cluster_epoch=found.epoch,
        )
        self._worker = self._ownership.worker = Worker(
            self.bus,
            store,
            self.metrics,
            self.options.worker_options(),
            incarnation=self.incarnation,
            prefix=prefix,
            gateway_stream=partial(gateway_stream, prefix),
            tenure=self._ownership,
        )
        self._begin("worker", self._worker.run, self._ownership.run)

    async def _epoch(self) -> str:
        await record.read(self.cluster)  # of another version? then nothing is touched
        return await record.epoch_of(self.cluster)

    async def _open_store(self, epoch: str) -> SharedStore:
        count = self.options.shard_count
        return await open_in_thread(
            partial(
                open_shared_store,
                Path(self.options.data_dir),
                shard_count=count or SHARD_COUNT,
                strict_shard_count=count is not None,
                checkpoint_bytes=CHECKPOINT_BYTES,
                shared=Shared(epoch, rescan_seconds=TTL_SECONDS + RESCAN_MARGIN_SECONDS),
                **store_arguments(self.options, self.metrics),
            )
        )

    async def _drain(self) -> None:
        assert self._ownership is not None
        try:
            async with asyncio.timeout(self.options.drain_seconds or LEAVE_SECONDS):
                await self._ownership.leave()
        except BusError:
            log.warning("Redis is out of reach; the leases run out by themselves")

    async def _release(self) -> None:
        if self._store_gauges is not None:
            self._store_gauges.close()
        if self._worker is not None:
            await asyncio.to_thread(self._worker.keep_sidecars)
        if self.store is not None and not await close_store(self.store):
            self.left_behind = True

    def _bus_changed(self) -> None:
        super()._bus_changed()
        if self._ownership is not None:
            self._ownership.look_now()

    def hurry(self) -> None:
        """There are no pauses."""

    def reasons_not_ready(self) -> list[str]:
        """What speaks against readiness; empty if nothing."""
        reasons = []
        if not self.is_running or self._closing is not None:
            reasons.append("not running")
        if not self.bus.is_connected:
            reasons.append("Redis is out of reach")
        elif self._ownership is not None and not self._ownership.is_settled:
            reasons.append("shards are still to be taken over")
        if self._worker is not None and self._worker.storage_trouble is not None:
            reasons.append(f"storage: {self._worker.storage_trouble}")
        return reasons

    def _streams(self) -> Sequence[str]:
        return () if self._worker is None else self._worker.streams

    async def _refresh_more(self) -> None:
        if self._worker is not None:
            self._worker.refresh_metrics()
        if self._store_gauges is not None:
            await self._store_gauges.refresh()
