"""The calls of the admin port that look at connections, and withdraw access; see docs/access.md."""

import math
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import web

from amsync.adminapi import Call, Problem, page_size, read_object
from amsync.errors import BusError, BusFull, InvalidDocumentId
from amsync.gateway.connection import ClientConnection
from amsync.ids import DocumentId, parse_document_id
from amsync.protocol.access import Access
from amsync.protocol.orders import EVERYBODY, Kick, Restrict, Who

if TYPE_CHECKING:
    from amsync.gateway.gateway import Gateway

DEFAULT_SECONDS = 3600.0
MOST_KICK_SECONDS = 24 * 3600.0
MOST_RESTRICT_SECONDS = 30 * 24 * 3600.0
MAX_NAME_CHARACTERS = 2_000

_WHO = ("issuer", "subject")
_LEFT = {"none": Access.NONE, "read": Access.READ}


class AccessApi:
    """The calls; `gateway` returns None as long as there is none."""

    def __init__(self, gateway: "Callable[[], Gateway | None]") -> None:
        self._find = gateway

    def calls(self) -> list[Call]:
        """What the admin port offers."""
        return [
            Call("GET", "/connections", self._connections),
            Call("POST", "/access/kick", self._kick),
            Call("POST", "/access/restrict", self._restrict),
            Call("POST", "/access/refresh", self._refresh),
            Call("GET", "/access/restrictions", self._restrictions),
            Call("DELETE", "/access/restrictions/{id}", self._lift),
        ]

    def _gateway(self) -> "Gateway":
        gateway = self._find()
        if gateway is None:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the gateway has not started yet")
        return gateway

    # -- looking

    async def _connections(self, request: web.Request) -> object:
        gateway, size = self._gateway(), page_size(request.query)
        after = _whole(request.query.get("after", "0"), "after")
        live = sorted(gateway.live(), key=lambda each: each.number)
        chosen = [each for each in live if each.number > after and _has_joined(each)]
        shown, left = chosen[:size], chosen[size:]
        now = gateway.now()
        return {
            "gateway": gateway.incarnation,
            "connections": [_shown(each, now) for each in shown],
            "next": shown[-1].number if left else None,
        }

    async def _restrictions(self, request: web.Request) -> object:
        gateway, size = self._gateway(), page_size(request.query)
        after = request.query.get("after", "")
        chosen = [each for each in gateway.orders.standing.in_force() if each.id > after]
        shown, left = chosen[:size], chosen[size:]
        return {
            "restrictions": [_described(each) for each in shown],
            "next": shown[-1].id if left else None,
        }

    # -- withdrawing

    async def _kick(self, request: web.Request) -> object:
        gateway = self._gateway()
        body = await read_object(request, (*_WHO, "seconds", "ban", "gateway", "connection"))
        if "gateway" in body or "connection" in body:
            return await self._cut(gateway, body)
        who = _who(body)
        if who == EVERYBODY:
            raise _bad("give issuer and subject, or gateway and connection")
        ban = body.get("ban", False)
        if not isinstance(ban, bool):
            raise _bad("ban must be true or false")
        seconds = _seconds(body, MOST_KICK_SECONDS)
        _check_room(gateway)
        with _Telling():
            order, closed = await gateway.orders.kick(who, seconds, ban=ban)
        return {**_described(order), "closed_here": closed}

    async def _cut(self, gateway: "Gateway", body: dict[str, Any]) -> object:
        name, number = body.get("gateway"), body.get("connection")
        is_number = isinstance(number, int) and not isinstance(number, bool)
        if len(body) != 2 or not isinstance(name, str) or not is_number:
            raise _bad("a connection is given by gateway, a text, and connection, its number")
        assert isinstance(number, int)
        with _Telling():
            return {"closed_here": await gateway.orders.cut(name, number)}

    async def _restrict(self, request: web.Request) -> object:
        gateway = self._gateway()
        known = (*_WHO, "everybody", "document_id", "all_documents", "access", "seconds")
        body = await read_object(request, known)
        who = _who(body)
        # What is forgotten, or misspelt, must not mean everything.
        if (who == EVERYBODY) != (body.get("everybody") is True):
            raise _bad("give either issuer and subject, or everybody: true")
        document_id = _document_id(body.get("document_id"))
        if (document_id is None) != (body.get("all_documents") is True):
            raise _bad("give either document_id, or all_documents: true")
        access = body.get("access")
        if not isinstance(access, str) or access not in _LEFT:
            raise _bad("access must be none or read")
        seconds = _seconds(body, MOST_RESTRICT_SECONDS)
        _check_room(gateway)
        with _Telling():
            order, met = await gateway.orders.restrict(who, document_id, _LEFT[access], seconds)
        return {**_described(order), "connections_here": met}

    async def _lift(self, request: web.Request) -> object:
        gateway = self._gateway()
        order = gateway.orders.standing.find(request.match_info["id"])
        if order is None:
            raise Problem(HTTPStatus.NOT_FOUND, "there is no such restriction in force")
        with _Telling():
            await gateway.orders.lift(order)
        return None

    async def _refresh(self, request: web.Request) -> object:
        gateway = self._gateway()
        body = await read_object(request, _WHO)
        with _Telling():
            return {"connections_here": await gateway.orders.refresh(_who(body))}


class _Telling:
    """What is said when not all gateways may have heard of an order."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, BusFull):
            raise Problem(
                HTTPStatus.INSUFFICIENT_STORAGE,
                "done at this gateway, but there is no room on the bus to tell the others;"
                " it is tried again",
            ) from None
        if isinstance(error, BusError):
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "done at this gateway; the others are told when the bus is back",
            ) from None


def _bad(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, detail)


def _check_room(gateway: "Gateway") -> None:
    if gateway.orders.standing.is_full:
        count = len(gateway.orders.standing)
        raise Problem(
            HTTPStatus.INSUFFICIENT_STORAGE, f"{count:,} orders are in force; lift some first"
        )


def _who(body: dict[str, Any]) -> Who:
    issuer, subject = body.get("issuer"), body.get("subject")
    if issuer is None and subject is None:
        return EVERYBODY
    for name, value in (("issuer", issuer), ("subject", subject)):
        if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME_CHARACTERS:
            raise _bad(f"{name} must be a text of 1 to {MAX_NAME_CHARACTERS} characters")
        if not value.isprintable():
            raise _bad(f"{name} has control characters")
    return Who(issuer, subject)


def _document_id(value: object) -> DocumentId | None:
    if value is None:
        return None
    try:
        return parse_document_id(value if isinstance(value, str) else "")
    except InvalidDocumentId as error:
        raise _bad(f"document_id: {error}") from error


def _seconds(body: dict[str, Any], most: float) -> float:
    value = body.get("seconds", DEFAULT_SECONDS)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or math.isnan(value) or not 1 <= value <= most:
        raise _bad(f"seconds must be 1 to {most:.0f}")
    return float(value)


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _bad(f"{name}={text[:20]!r} must be a whole number")
    return int(text)


def _has_joined(connection: ClientConnection) -> bool:
    session = connection.session
    return session is not None and session.is_open


def _shown(connection: ClientConnection, now: float) -> dict[str, Any]:
    session = connection.session
    assert session is not None
    identity = session.caller.identity
    return {
        "connection": connection.number,
        "peer_id": session.peer_id,
        "issuer": None if identity is None else identity.issuer,
        "subject": None if identity is None else identity.subject,
        "address": connection.address,
        "documents": session.document_count,
        "connected_seconds": round(now - connection.connected_at, 3),
    }


def _described(order: Kick | Restrict) -> dict[str, Any]:
    common: dict[str, Any] = {
        "id": order.id,
        "kind": type(order).__name__.lower(),
        "at": order.at,
        "until": order.until,
        "issuer": order.issuer,
        "subject": order.subject,
    }
    if isinstance(order, Kick):
        return {**common, "ban": order.ban}
    return {**common, "document_id": order.document_id, "access": order.most.name.lower()}
