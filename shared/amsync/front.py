"""A gateway with all that it needs beside the bus: access, authentication, a certificate.

The same for the embedded server and the gateways of a cluster.
"""

import json
import logging
from dataclasses import replace

from aiohttp import web

from amsync.adminapi import describe, make_application
from amsync.auth import Authenticator
from amsync.bus import Bus
from amsync.gateway import page
from amsync.gateway.access import AccessPolicy, parse_share
from amsync.gateway.api import Look, all_calls
from amsync.gateway.gateway import Gateway, GatewayOptions
from amsync.metrics import Metrics
from amsync.options import ListenOptions
from amsync.tls import Certificates
from amsync.turns import Turns

log = logging.getLogger("amsync")


class Front:
    """See the module's text; `open` once, `close` and `release` at the end.

    Raises:
        ConfigError: The certificate, or that of the webhook, can't be used.
    """

    def __init__(self, options: ListenOptions, metrics: Metrics) -> None:
        self._options, self._metrics = options, metrics
        self.limits = options.limits_in_force()
        self._policy = AccessPolicy(parse_share(options.share), metrics, options.access)
        self._authenticator = (
            Authenticator(options.auth, count=metrics.count) if options.auth is not None else None
        )
        self._certificates = (
            Certificates(
                options.tls, reloaded=metrics.tls_reloads.inc, expires=metrics.tls_expires.set
            )
            if options.tls is not None
            else None
        )
        self.gateway: Gateway | None = None

    def admin_routes(self, look: Look) -> list[web.RouteDef]:
        """What the admin port serves without a token: the page, and the description of the calls.

        `look` is as in `admin_calls`.
        """
        described = json.dumps(describe(all_calls(self._find, look))).encode()

        async def openapi(_request: web.Request) -> web.Response:
            return web.Response(body=described, content_type="application/json")

        return [*page.routes(), web.get("/openapi.json", openapi)]

    def admin_calls(self, look: Look) -> web.Application | None:
        """Calls for the admin port; None without an admin token.

        `look` reads the state of the whole cluster.
        """
        token = self._options.admin_token
        if token is None:
            return None
        return make_application(all_calls(self._find, look), token, self._metrics)

    def _find(self) -> Gateway | None:
        return self.gateway

    async def open(
        self,
        bus: Bus,
        *,
        server_peer_id: str,
        storage_id: str | None,
        shard_count: int,
        prefix: str,
        incarnation: str,
        turns: Turns | None = None,
        hands_over: bool = False,
        trim_bytes: int = 0,
        entry_bytes: int | None = None,
    ) -> Gateway:
        """Make the gateway; it doesn't listen yet. Waits until it knows all orders.

        `entry_bytes`: the largest entry that the bus could take; None for any.
        """
        self._fit(entry_bytes)
        if self._authenticator is not None:
            await self._authenticator.start()
        self.gateway = Gateway(
            bus,
            self._metrics,
            self._policy,
            GatewayOptions(
                host=self._options.host,
                port=self._options.port,
                server_peer_id=server_peer_id,
                storage_id=storage_id,
                shard_count=shard_count,
                limits=self.limits,
                admission=self._options.admission(),
                prefix=prefix,
                incarnation=incarnation,
                tls=self._certificates.context if self._certificates is not None else None,
                hands_over=hands_over,
                trim_bytes=trim_bytes,
                entry_bytes=entry_bytes,
            ),
            turns,
            self._authenticator,
        )
        await self.gateway.orders.open()
        return self.gateway

    def _fit(self, entry_bytes: int | None) -> None:
        """Take no message that the bus never could: it would be in the way of all others."""
        if entry_bytes is not None and entry_bytes < self.limits.max_frame_bytes:
            log.warning(
                "the bus is too small for the largest messages", extra={"bytes": entry_bytes}
            )
            self.limits = replace(self.limits, max_frame_bytes=entry_bytes)

    async def run(self) -> None:
        """Keep the certificate fresh until cancelled; the gateway has a `run` of its own."""
        if self._certificates is not None:
            await self._certificates.run()

    async def close(self) -> None:
        """Cut every socket and let everything go."""
        if self.gateway is not None:
            await self.gateway.abandon()

    async def release(self) -> None:
        """Let go of threads and connections to others, when nothing runs any more."""
        await self._policy.close()
        if self._authenticator is not None:
            await self._authenticator.close()
