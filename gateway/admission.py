"""Who may come in: everything that is decided before an upgrade, cheapest first.

Draining, TLS and proxies, Origin, bounds per address, the token, bounds per identity. A refusal
is an HTTP status with a fixed reason, a counter, and at most one line of log per address and
minute: a stock client comes back every 5 s for ever. Whatever fails on the way refuses.
"""

import logging
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from websockets.http11 import Request, Response

from amsync.auth import Authenticator, AuthRefused, Identity
from amsync.errors import ConfigError
from amsync.gateway import http
from amsync.gateway.account import Account, Accounts
from amsync.gateway.buckets import Offenders
from amsync.gateway.caller import Proof
from amsync.gateway.connection import LATER, ClientConnection, Later
from amsync.gateway.limits import Limits
from amsync.gateway.proxies import Network, Proxies, is_forwarded_in_the_open, limit_key
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
        is_kicked: An operator has sent this identity away.
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
        is_kicked: Callable[[Identity], bool],
        in_background: Callable[[Coroutine[Any, Any, None]], None],
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._limits, self._metrics, self._options = limits, metrics, options
        self._authenticator = authenticator
        self._refused_now, self._in_background = refused_now, in_background
        self._is_kicked = is_kicked
        self._now, self._wall = now, wall
        self._proxies = Proxies(options.trusted_proxies)
        self._sockets = 0
        self._accounts = Accounts(limits)
        self._offenders = Offenders(_say)

    # -- sockets

    def connected(self, connection: ClientConnection) -> bool:
        """A socket is there; False if not even a refusal can be afforded for it."""
        self._sockets += 1
        if self._proxies.trusts(connection.address):
            most_of_address = self._limits.max_connections + SPARE_CONNECTIONS
        else:
            most_of_address = self._limits.max_connections_per_address + SPARE_CONNECTIONS
        of_address = self._address_of(connection).connections
        most = self._limits.max_connections + SPARE_CONNECTIONS
        return self._sockets <= most and of_address <= most_of_address

    def ended(self, connection: ClientConnection) -> None:
        """A socket is gone."""
        self._sockets -= 1
        if connection.at_address is not None:
            connection.at_address.connections -= 1
        if connection.account is not None and connection.account is not connection.at_address:
            connection.account.connections -= 1

    def prune(self) -> None:
        """Forget who was quiet; to be called about once a second."""
        now = self._now()
        self._accounts.prune(now)
        self._offenders.prune(now)

    def offends(self, connection: ClientConnection, offence: str) -> None:
        """Log what a client does beyond its bounds, once a minute; the caller counts it."""
        self._offenders.note(connection.address, offence, self._now())

    def _address_of(self, connection: ClientConnection) -> Account:
        """The account of the connection's address, as it is known now."""
        account = self._accounts.of(limit_key(connection.address), self._now())
        if connection.at_address is not account:
            if connection.at_address is not None:
                connection.at_address.connections -= 1
            account.connections += 1
            connection.at_address = account
        return account

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
            if asks_permission:
                # Whatever the bounds say: a page could not read that they refuse what it asks.
                if not self._is_allowed(origin):
                    raise _Refused(HTTPStatus.FORBIDDEN, "foreign_origin")
                return http.let_read(http.preflight(), readable)
            self._check_cheap(connection, request, origin)
            if self._authenticator is None:
                connection.account = connection.at_address
                return None
            token = find_token(request, allow_query=self._authenticator.config.allow_query_token)
            if token is None:
                raise _Refused(HTTPStatus.UNAUTHORIZED, "token_missing")
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
            if self._authenticator is not None and is_forwarded_in_the_open(request.headers):
                raise _Refused(HTTPStatus.FORBIDDEN, "tls_required")
        elif self._authenticator is not None and not self._options.has_tls:
            raise _Refused(HTTPStatus.FORBIDDEN, "not_through_the_proxy")
        if not self._is_allowed(origin):
            raise _Refused(HTTPStatus.FORBIDDEN, "foreign_origin")
        offered_subprotocols(request)
        if self._sockets > limits.max_connections:
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections")
        at_address = self._address_of(connection)
        if self._proxies.trusts(connection.address):
            return  # it names no client, and one client's failures must not be everybody's
        if at_address.connections > limits.max_connections_per_address:
            raise _Refused(HTTPStatus.TOO_MANY_REQUESTS, "too_many_connections_of_address")
        if not at_address.handshakes.take(now):
            raise _Refused(HTTPStatus.TOO_MANY_REQUESTS, "too_many_handshakes")
        if self._authenticator is not None and at_address.failures.is_empty(now):
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
        if self._is_kicked(identity):
            raise _Refused(HTTPStatus.FORBIDDEN, "kicked")
        if not upgrade:
            return http.let_read(http.page(request), readable)
        if connection.is_gone:
            return None
        now = self._now()
        account = self._accounts.of(identity.key, now)
        if account.connections >= self._limits.max_connections_per_identity:
            raise _Refused(HTTPStatus.TOO_MANY_REQUESTS, "too_many_connections_of_identity")
        if not account.handshakes.take(now):
            raise _Refused(HTTPStatus.TOO_MANY_REQUESTS, "too_many_handshakes_of_identity")
        account.connections += 1
        connection.account = account
        assert self._authenticator is not None
        leeway = self._authenticator.config.leeway_seconds
        ends_at = now + identity.expires_at + leeway - self._wall()
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
        is_about_token = reason == "token_missing" or not isinstance(error, _Refused)
        if is_about_token:
            self._address_of(connection).failures.take(self._now())
        if status is not HTTPStatus.SERVICE_UNAVAILABLE:
            self.offends(connection, reason)
        if status is HTTPStatus.UNAUTHORIZED:
            headers = CHALLENGE
        self._metrics.handshakes.inc(reason)
        return http.let_read(http.refusal(status, reason, headers), readable)


def _say(address: str, reason: str, count: int) -> None:
    log.warning(
        "a client is refused",
        extra={"address": address, "reason": reason, "count": count},
    )


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
