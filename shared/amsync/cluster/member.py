"""What gateways and workers of a cluster have in common: the bus, the port for operators, an end.

`start` once; it belongs to the loop on which it is awaited.
"""

import asyncio
import contextlib
import logging
import uuid
from abc import abstractmethod
from collections.abc import Mapping, Sequence

from aiohttp import web

from amsync.admin import AdminServer
from amsync.bus.redis import Cluster, Kind, RedisBus
from amsync.gauges import refresh_redis, refresh_streams
from amsync.metrics import Metrics
from amsync.options import BusOptions
from amsync.process import Life, url_of
from amsync.version import __version__
from amsync.worker.engine import AUTOMERGE_VERSION

log = logging.getLogger("amsync.cluster")


class ClusterMember(Life):
    """One process of a cluster.

    Attributes:
        bus: Of the cluster.
        cluster: Its record and members.
        incarnation: Random, new for every start.
    """

    def __init__(self, options: BusOptions, kind: Kind) -> None:
        super().__init__()
        options.check()
        self._kind = kind
        self._bus_options = options
        self.metrics = Metrics(kind)
        self.metrics.build.info({"version": __version__, "automerge": AUTOMERGE_VERSION})
        self.incarnation = uuid.uuid4().hex
        self.bus = RedisBus(
            options.redis, prefix=options.prefix, name=f"amsync-{kind}-{self.incarnation[:8]}"
        )
        self.bus.on_change = self._bus_changed
        self.cluster = Cluster(self.bus.client, options.prefix)
        self.admin_port = 0
        self._was_connected = self._is_away = False
        self._admin: AdminServer | None = None

    async def start(self) -> None:
        """Find the cluster and take part.

        Raises:
            ConfigError, VolumeError, OSError: Nothing is left open.
        """
        try:
            if self._bus_options.admin_port is not None:
                self._admin = AdminServer(
                    self.metrics,
                    self.reasons_not_ready,
                    self._refresh,
                    self._admin_routes(),
                    self._admin_calls(),
                )
                self.admin_port = await self._admin.start(
                    self._bus_options.admin_host, self._bus_options.admin_port
                )
            await self.bus.open()
            await self._start()
        except BaseException:
            await self.close()
            raise

    def _admin_routes(self) -> list[web.RouteDef]:
        """What the admin port serves beside what everybody's does."""
        return []

    def _admin_calls(self) -> web.Application | None:
        """Calls of the admin port, if it has any."""
        return None

    @abstractmethod
    async def _start(self) -> None:
        """Take part, now that the bus is there; ends with `_begin`."""

    @abstractmethod
    async def _drain(self) -> None:
        """Give away what we have, while everything still runs."""

    @abstractmethod
    async def _release(self) -> None:
        """Let go of everything else, when nothing runs any more."""

    @abstractmethod
    def reasons_not_ready(self) -> list[str]:
        """What speaks against readiness; empty if nothing."""

    async def _refresh(self) -> None:
        """Bring the gauges up to date."""
        await asyncio.gather(
            refresh_streams(self.bus, self.metrics, self._streams()),
            refresh_redis(self.bus, self.metrics),
            self._refresh_more(),
        )

    async def _refresh_more(self) -> None:
        """The same for what this kind of process has besides."""

    @abstractmethod
    def _streams(self) -> Sequence[str]:
        """Those that this process reads."""

    def _bus_changed(self) -> None:
        is_connected = self.bus.is_connected
        self.metrics.bus_connected.set(is_connected)
        if is_connected and self._is_away:
            self.metrics.bus_reconnects.inc()
        self._was_connected |= is_connected
        self._is_away = self._was_connected and not is_connected

    @abstractmethod
    def hurry(self) -> None:
        """Let a `close` that takes its time go on without pauses."""

    async def _close(self) -> None:
        if self.is_running:
            try:
                await self._drain()
            except TimeoutError:
                self.left_behind = True
                log.error("not everything could be given away in time; the others will notice")
        await self._end()
        await self._release()
        if self._admin is not None:
            await self._admin.stop()
        with contextlib.suppress(OSError):
            await self.bus.close()

    @property
    def log_fields(self) -> Mapping[str, object]:
        """What names this process in each line of the log."""
        return {"role": self._kind, f"{self._kind}_id": self.incarnation}

    @property
    def is_running(self) -> bool:
        """Started, and no part of it has failed."""
        return self._is_alive

    @property
    def admin_url(self) -> str:
        """Where /healthz, /readyz and /metrics are."""
        return url_of("http", self._bus_options.admin_host, self.admin_port)
