"""Who may come in: everything that is decided before an upgrade, cheapest first.

Draining, TLS and proxies, Origin, bounds per address, the token, bounds per identity. A refusal
is an HTTP status with a fixed reason, a counter, and at most one line of log per address and
minute: a stock client comes back every 5 s for ever. Whatever fails on the way refuses.
"""

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from websockets.http11 import Request, Response

from amsync.auth import Authenticator, AuthRefused, Identity
from amsync.errors import ConfigError
from amsync.gateway import http
from amsync.gateway.buckets import Bucket, Buckets, Offenders
from amsync.gateway.caller import Proof
from amsync.gateway.connection import LATER, ClientConnection, Later
from amsync.gateway.limits import Limits
from amsync.gateway.proxies import Network, Proxies, is_forwarded_tls, limit_key
from amsync.gateway.tokens import BadRequest, find_token, offered_subprotocols
from amsync.metrics import Metrics

log = logging.getLogger("amsync.gateway")

SPARE_CONNECTIONS = 20
"""Sockets above a bound that still get an HTTP answer that says why they are refused."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\sA-Z]+")
CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True, slots=True)
class AdmissionOptions:
    """Whom to let in.

    Attributes:
        allowed_origins: Web pages that may connect; None: pages of this machine if
            `own_origins_only`, else all. What is no web page sends no Origin and is not asked.
        own_origins_only: On loopback without authentication any web page could otherwise read
            and write every document.
        trusted_proxies: Whose X-Forwarded headers are believed.
        has_tls: Our own socket has TLS.
    """

    allowed_origins: frozenset[str] | None = None
    own_origins_only: bool = False
    trusted_proxies: tuple[Network, ...] = ()
    has_tls: bool = False


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Admission:
    """See the module's text.

    Args:
        authenticator: None: there is no authentication.
        refused_now: Why nobody may come in just now; "" if somebody may.
        in_background: Runs what has to be waited for.
    """

    def __init__(
        self,
        limits: Limits,
        metrics: Metrics,
        options: AdmissionOptions,
        authenticator: Authenticator | None,
        *,
        refused_now: Callable[[], str],
        in_background: Callable[[Coroutine[Any, Any, None]], None],
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._limits, self._metrics, self._options = limits, metrics, options
        self._authenticator = authenticator
        self._refused_now, self._in_background = refused_now, in_background
        self._now, self._wall = now, wall
        self._proxies = Proxies(options.trusted_proxies)
        self._sockets = 0
        self._per_address: Counter[str] = Counter()
        self._per_identity: Counter[str] = Counter()
        self._handshakes = Buckets(limits.handshakes_per_minute_per_address)
        self._failures = Buckets(limits.failures_per_minute_per_address)
        self._creations = Buckets(limits.creations_per_minute)
        self._offenders = Offenders(_say)

    # -- sockets

    def connected(self, connection: ClientConnection) -> bool:
        """A socket is there; False if not even a refusal can be afforded for it."""
        self._sockets += 1
        is_proxy = self._proxies.trusts(connection.address)
        if not is_proxy:
            self._count_address(connection, connection.address)
        limits = self._limits
        return self._sockets <= limits.max_connections + SPARE_CONNECTIONS and (
            is_proxy
            or self._per_address[connection.counted_address]
            <= limits.max_connections_per_address + SPARE_CONNECTIONS
        )

    def ended(self, connection: ClientConnection) -> None:
        """A socket is gone."""
        self._sockets -= 1
        _count_down(self._per_address, connection.counted_address)
        if connection.proof is not None:
            _count_down(self._per_identity, connection.proof.identity.key)

    def prune(self) -> None:
        """Forget who was quiet; to be called about once a second."""
        now = self._now()
        self._handshakes.prune(now)
        self._failures.prune(now)
        self._creations.prune(now, self._is_here)
        self._offenders.prune(now)

    def creations_of(self, connection: ClientConnection) -> Bucket:
        """How many documents may still be created: by its identity, else from its address."""
        return self._creations.of(_payer(connection))

    def _is_here(self, payer: str) -> bool:
        return payer in self._per_identity or payer in self._per_address

    def _count_address(self, connection: ClientConnection, address: str) -> None:
        connection.counted_address = limit_key(address)
        self._per_address[connection.counted_address] += 1

    # -- requests

    def answer(self, connection: ClientConnection, request: Request) -> Response | Later | None:
        """Answer a request; None lets the upgrade go on, LATER: `connection.settle` follows."""
        upgrades, origins, authorizations = (
            request.headers.get_all(name) for name in ("Upgrade", "Origin", "Authorization")
        )
        origin = origins[0] if origins else None
        asks_permission = request.method == "OPTIONS" and self._authenticator is not None
        if request.method not in ("GET", "HEAD") and not asks_permission:
            return http.bad_method()
        if len(upgrades) > 1 or len(origins) > 1:
            return http.repeated_header()
        upgrade = bool(upgrades) and "websocket" in upgrades[0].lower()
        if not upgrade and not asks_permission:
            checks_token = self._authenticator is not None and bool(authorizations)
            if not checks_token or request.path.partition("?")[0] != "/":
                return http.page(request)
        readable = origin if self._is_allowed(origin) else None
        try:
            self._check_cheap(connection, request, origin)
            if asks_permission:
                return http.let_read(http.preflight(), readable)
            if self._authenticator is None:
                return None
            token = find_token(request, allow_query=self._authenticator.config.allow_query_token)
            if token is None:
                raise _Refused(HTTPStatus.UNAUTHORIZED, "no_token")
            identity = self._authenticator.verify_now(token)
            if identity is None:
                self._in_background(self._verify(connection, request, token, readable, upgrade))
                return LATER
            return self._accepted(connection, request, identity, token, readable, upgrade)
        except Exception as error:
            return self._refuse(connection, error, readable)

    def _check_cheap(
        self, connection: ClientConnection, request: Request, origin: str | None
    ) -> None:
        """All that needs no token. Raises _Refused, BadRequest."""
        now, limits, address = self._now(), self._limits, connection.address
        if reason := self._refused_now():
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, reason)
        if self._proxies.trusts(address):
            connection.address = self._proxies.client_address(address, request.headers)
            self._count_address(connection, connection.address)
            if self._authenticator is not None and not is_forwarded_tls(request.headers):
                raise _Refused(HTTPStatus.FORBIDDEN, "tls_required")
        elif self._authenticator is not None and not self._options.has_tls:
            raise _Refused(HTTPStatus.FORBIDDEN, "not_through_the_proxy")
        if not self._is_allowed(origin):
            raise _Refused(HTTPStatus.FORBIDDEN, "foreign_origin")
        offered_subprotocols(request)
        if self._sockets > limits.max_connections:
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections")
        key = connection.counted_address
        if self._per_address[key] > limits.max_connections_per_address:
            raise _Refused(HTTPStatus.TOO_MANY_REQUESTS, "too_many_connections_of_address")
        if not self._handshakes.of(key).take(now):
            raise _Refused(HTTPStatus.TOO_MANY_REQUESTS, "too_many_handshakes")
        if self._authenticator is not None and self._failures.of(key).is_empty(now):
            raise _Refused(HTTPStatus.TOO_MANY_REQUESTS, "too_many_failures")

    def _is_allowed(self, origin: str | None) -> bool:
        if origin is None:
            return True
        if self._options.allowed_origins is not None:
            return origin in self._options.allowed_origins
        return not self._options.own_origins_only or http.is_own_origin(origin)

    # -- tokens

    async def _verify(
        self,
        connection: ClientConnection,
        request: Request,
        token: str,
        readable: str | None,
        upgrade: bool,
    ) -> None:
        assert self._authenticator is not None
        answer: Response | None
        try:
            identity = await self._authenticator.verify(token)
            if reason := self._refused_now():  # meanwhile
                raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, reason)
            answer = self._accepted(connection, request, identity, token, readable, upgrade)
        except Exception as error:
            answer = self._refuse(connection, error, readable)
        connection.settle(request, answer)

    def _accepted(
        self,
        connection: ClientConnection,
        request: Request,
        identity: Identity,
        token: str,
        readable: str | None,
        upgrade: bool,
    ) -> Response | None:
        if not upgrade:
            return http.let_read(http.page(request), readable)
        if connection.is_gone:
            return None
        key = identity.key
        if self._per_identity[key] >= self._limits.max_connections_per_identity:
            raise _Refused(HTTPStatus.TOO_MANY_REQUESTS, "too_many_connections_of_identity")
        self._per_identity[key] += 1
        assert self._authenticator is not None
        leeway = self._authenticator.config.leeway_seconds
        ends_at = self._now() + identity.expires_at + leeway - self._wall()
        connection.proof = Proof.of(identity, token, ends_at)
        return None

    def _refuse(
        self, connection: ClientConnection, error: Exception, readable: str | None
    ) -> Response:
        headers: dict[str, str] = {}
        match error:
            case _Refused():
                status, reason = error.status, error.reason
            case AuthRefused():
                status, reason = HTTPStatus(error.status), error.reason
            case BadRequest():
                self._metrics.handshakes.inc("bad_request")
                return http.let_read(http.response(HTTPStatus.BAD_REQUEST, f"{error}\n"), readable)
            case _:
                log.exception("a request could not be judged; it is refused")
                self._metrics.count("internal_errors", "admission")
                status, reason = HTTPStatus.UNAUTHORIZED, "not_verified"
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            if reason == "no_token" or not isinstance(error, _Refused):
                self._failures.of(connection.counted_address).take(self._now())
            self._offenders.note(connection.address, reason, self._now())
        if status is HTTPStatus.UNAUTHORIZED:
            headers = CHALLENGE
        self._metrics.handshakes.inc(reason)
        return http.let_read(http.refusal(status, reason, headers), readable)


def _say(address: str, reason: str, count: int) -> None:
    log.warning(
        "handshakes are refused",
        extra={"address": address, "reason": reason, "count": count},
    )


def _payer(connection: ClientConnection) -> str:
    """Who has to answer for what a connection does."""
    proof = connection.proof
    return connection.counted_address if proof is None else proof.identity.key


def _count_down(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


def parse_origins(origins: Sequence[str] | None) -> frozenset[str] | None:
    """Origins as browsers send them, scheme://host[:port].

    Raises:
        ConfigError: Something else.
    """
    if origins is None:
        return None
    if isinstance(origins, str):
        raise ConfigError(f"allowed_origins={origins!r} is not allowed; give a list")
    for origin in origins:
        if not isinstance(origin, str) or not _ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"allowed_origins: {origin!r} is not allowed; give scheme://host[:port] in lower"
                " case, without a path"
            )
    return frozenset(origins)
