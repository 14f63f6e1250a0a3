"""The HTTP port for operators: /healthz, /readyz, /metrics, and what is mounted beside them.

`/healthz` says that the process runs its loop, `/readyz` that it should get traffic; both say
why not. Not here: what changes anything (`adminapi`), and the operator's page (`gateway.page`).
"""

import logging
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from amsync.metrics import OPENMETRICS, Metrics
from amsync.version import API_PATH

log = logging.getLogger("amsync.admin")

SHUTDOWN_SECONDS = 5.0
"""So long `stop` waits for requests that are being answered."""


class _Http(logging.Logger):
    """What aiohttp logs: the caller's faults are counted, not a traceback in the log for each."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__("amsync.admin", logging.DEBUG)  # some of them it holds for no more
        self._metrics, self.parent = metrics, log

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether it is to be logged."""
        if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
            self._metrics.count("bad_admin_requests")
            return False
        return log.isEnabledFor(record.levelno)


class AdminServer:
    """Serves the port; `reasons` returns what speaks against readiness, empty if ready.

    `refresh` brings the gauges up to date, before each scrape; it takes no longer than a scrape
    may, and doesn't raise. `routes` are served beside these, and `calls` below `API_PATH`.
    """

    def __init__(
        self,
        metrics: Metrics,
        reasons: Callable[[], list[str]],
        refresh: Callable[[], Awaitable[None]],
        routes: Sequence[web.RouteDef] = (),
        calls: web.Application | None = None,
    ) -> None:
        self._metrics, self._reasons, self._refresh = metrics, reasons, refresh
        application = web.Application()
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._get_metrics)
        application.router.add_routes(routes)
        if not any(route.path == "/" for route in routes):
            application.router.add_get("/", self._no_page)
        if calls is not None:
            application.add_subapp(API_PATH, calls)
        self._runner = web.AppRunner(
            application,
            logger=_Http(metrics),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=SHUTDOWN_SECONDS,
        )

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port.

        Raises:
            OSError: The address can't be listened on.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            text = f"admin port {port} of {host}: {error.strerror or error}"
            raise OSError(error.errno, text) from error
        address: tuple[str, int] = self._runner.addresses[0][:2]
        return address[1]

    async def stop(self) -> None:
        """Close the port."""
        await self._runner.cleanup()

    async def _no_page(self, _request: web.Request) -> web.Response:
        text = "No page here: open the admin port of a gateway. /readyz and /metrics are here.\n"
        return web.Response(text=text, status=404)

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        reasons = self._reasons()
        status = "not ready" if reasons else "ready"
        return web.json_response(
            {"status": status, "reasons": reasons}, status=503 if reasons else 200
        )

    async def _get_metrics(self, request: web.Request) -> web.Response:
        await self._refresh()
        body, content_type = self._metrics.exposition(request.headers.get("Accept", OPENMETRICS))
        return web.Response(body=body, headers={"Content-Type": content_type})
