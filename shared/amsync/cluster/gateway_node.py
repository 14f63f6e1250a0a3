"""A gateway as a process of its own: sockets on one side, the bus on the other, no documents."""

import asyncio
import contextlib
import logging
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from aiohttp import web

from amsync.cluster import record
from amsync.cluster.info import GatewayInfo
from amsync.cluster.member import ClusterMember
from amsync.cluster.record import ClusterRecord
from amsync.cluster.status import QUIET_SECONDS, look
from amsync.errors import BusError, ConfigError
from amsync.front import Front
from amsync.gateway.gateway import Gateway
from amsync.gateway.limits import Limits
from amsync.options import GatewayNodeOptions
from amsync.process import url_of
from amsync.status import GatewayMeter
from amsync.turns import seconds_to_step
from amsync.version import __version__

log = logging.getLogger("amsync.cluster")

BEAT_SECONDS = 1.0
SETTLE_SECONDS = 10.0
TRIM_BYTES = 256 * 1024
"""Each trim is a call to Redis."""

ENTRY_PART = 4
"""An entry may take this part of Redis's memory: it stands there in up to three copies."""

AWAY_SECONDS = 60.0
"""Redis may be out of reach for so long before clients are sent away."""


class GatewayNode(ClusterMember):
    """See the module's text."""

    def __init__(self, options: GatewayNodeOptions) -> None:
        super().__init__(options, "gateway")
        self.options = options
        self.port = 0
        self.identity: ClusterRecord | None = None
        self._gateway: Gateway | None = None
        self._front = Front(options, self.metrics)
        self._meter = GatewayMeter(self.metrics)
        self._is_leaving = False
        self._has_beaten = False
        self._epoch = ""
        self._refusal = ""

    @property
    def limits(self) -> Limits:
        """The bounds in force, once it has started."""
        return self._front.limits

    def _admin_routes(self) -> list[web.RouteDef]:
        return self._front.admin_routes(self._look)

    def _admin_calls(self) -> web.Application | None:
        return self._front.admin_calls(self._look)

    async def _look(self) -> Mapping[str, Any]:
        if not self.bus.is_connected:
            raise BusError("the bus is out of reach")
        found = await look(self.bus.client, self.options.prefix, self.incarnation)
        if found is None:
            raise BusError("Redis has lost the cluster; its workers will bring it back")
        return asdict(found)

    async def _start(self) -> None:
        self.identity = identity = await record.wait_for(self.cluster)
        self._epoch = identity.epoch
        self._gateway = await self._front.open(
            self.bus,
            server_peer_id=identity.peer_id,
            storage_id=identity.storage_id,
            shard_count=identity.shard_count,
            prefix=self.options.prefix,
            incarnation=self.incarnation,
            hands_over=True,
            trim_bytes=TRIM_BYTES,
            entry_bytes=await self._entry_bytes(),
        )
        self.port = await self._gateway.listen()
        self._begin("gateway", self._gateway.run, self._beats, self._front.run)

    async def _entry_bytes(self) -> int | None:
        try:
            memory = await self.bus.memory()
        except BusError as error:
            log.warning("Redis does not tell how much it may hold", extra={"error": str(error)})
            return None
        return memory.max_bytes // ENTRY_PART if memory and memory.max_bytes else None

    async def _beats(self) -> None:
        """Say that we live, and find out whether the others know that.

        Raises:
            ConfigError: Redis belongs to another cluster now.
        """
        assert self._gateway is not None
        away_since: float | None = None
        loop = asyncio.get_running_loop()
        while not self._is_leaving:
            try:
                await self._beat()
                self._refusal = self._gateway.bus_refusal
            except BusError as error:
                self._refusal = str(error)
            self._bus_changed()
            if not self._refusal:
                away_since = None
            elif away_since is None:
                away_since = loop.time()
            elif loop.time() - away_since > AWAY_SECONDS:
                self._gateway.send_away()
            await asyncio.sleep(seconds_to_step(BEAT_SECONDS))

    async def _beat(self) -> None:
        assert self._gateway is not None
        beat = await self.cluster.beat("gateway", self.incarnation, self._info())
        if beat.cluster_epoch != self.bus.cluster_epoch:
            await self.bus.look_for_epoch()
        if self._has_beaten and not beat.was_known:
            await self._begin_again(is_emptied=beat.cluster_epoch != self._epoch)
        self._has_beaten = True
        self._gateway.note_workers(
            {each.incarnation for each in beat.members},
            {each.incarnation for each in beat.members if each.age_seconds > QUIET_SECONDS},
        )
        if beat.cluster_epoch not in ("", self._epoch):
            await self._check_identity()
            self._epoch = beat.cluster_epoch

    async def _begin_again(self, *, is_emptied: bool) -> None:
        """We counted as dead, or Redis has lost everything: whatever is on the bus is void."""
        assert self._gateway is not None
        log.warning("the cluster has forgotten this gateway; it begins anew, with its clients")
        self.metrics.count("begun_again")
        before, self.incarnation = self.incarnation, uuid.uuid4().hex
        self._gateway.begin_again(self.incarnation, forgets_epochs=is_emptied)
        self._has_beaten = False  # as this one: should Redis fail now, its first beat is to come
        await self.cluster.leave("gateway", before)
        await self.cluster.beat("gateway", self.incarnation, self._info())

    async def _check_identity(self) -> None:
        found = await record.read(self.cluster)
        if found is None or self.identity is None:
            return  # no worker has come back yet
        if replace(found, epoch=self.identity.epoch) != self.identity:
            raise ConfigError(
                f"Redis belongs to cluster {found.cluster_id} now, and this gateway to"
                f" {self.identity.cluster_id}; it must be started anew"
            )

    def _info(self) -> bytes:
        assert self._gateway is not None
        return GatewayInfo(
            version=__version__,
            host=socket.gethostname(),
            address=self.url,
            is_draining=not self._gateway.is_accepting,
            connections=self._gateway.connection_count,
            figures=asdict(self._meter.read(self._gateway.loop_lag_seconds)),
        ).pack()

    def _bus_changed(self) -> None:
        super()._bus_changed()
        if self._gateway is not None:
            self._gateway.bus_is_away(not self.bus.is_connected or bool(self._refusal))

    async def _drain(self) -> None:
        assert self._gateway is not None
        async with asyncio.timeout(self.options.drain_seconds + SETTLE_SECONDS):
            await self._gateway.drain(self.options.drain_seconds)
        self._is_leaving = True  # or the next beat would find us unknown
        with contextlib.suppress(BusError):
            await self.cluster.leave("gateway", self.incarnation)

    async def _release(self) -> None:
        await self._front.close()
        await self._front.release()

    def hurry(self) -> None:
        """Close the sockets that are left without pauses."""
        if self._gateway is not None:
            self._gateway.hurry()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return url_of("wss" if self.options.tls else "ws", self.options.host, self.port)

    def reasons_not_ready(self) -> list[str]:
        """What speaks against sending clients here; empty if nothing."""
        reasons = []
        if not self.bus.is_connected:
            reasons.append("Redis is out of reach")
        elif self._refusal:
            reasons.append(self._refusal)
        if self._gateway is None or self.identity is None:
            reasons.append("no worker has ever served this cluster")
        elif not self.is_running or not self._gateway.is_accepting:
            reasons.append("not accepting connections")
        elif self._gateway.known_shards < self.identity.shard_count:
            reasons.append("not every shard has an owner")
        return reasons

    def _streams(self) -> Sequence[str]:
        return () if self._gateway is None else (self._gateway.stream,)

    async def _refresh_more(self) -> None:
        if self._gateway is not None:
            self._gateway.refresh_metrics()
