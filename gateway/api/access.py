"""The calls that look at connections, and withdraw access; see docs/access.md."""

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from amsync.adminapi import Asked, Call, Parameter, Problem, bad
from amsync.adminapi.schema import COUNT, FLAG, NUMBER, SECONDS, TEXT, array, maybe, options, record
from amsync.errors import BusError, BusFull, InvalidDocumentId
from amsync.gateway.api.place import AFTER_NUMBER, AFTER_TEXT, LIMIT, Place
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

_LEFT = {"none": Access.NONE, "read": Access.READ}

_NAME = {**TEXT, "minLength": 1, "maxLength": MAX_NAME_CHARACTERS}
_WHO = {"issuer": maybe(_NAME), "subject": maybe(_NAME)}
_ORDER = {"id": TEXT, "kind": TEXT, "at": NUMBER, "until": NUMBER, **_WHO}
_RESTRICT = {"document_id": maybe(TEXT), "access": {"enum": list(_LEFT)}}
_CONNECTION = record(
    connection=COUNT,
    peer_id=TEXT,
    issuer=maybe(TEXT),
    subject=maybe(TEXT),
    address=TEXT,
    documents=COUNT,
    connected_seconds=SECONDS,
)


def _lasts(most: float) -> dict[str, Any]:
    return {**NUMBER, "minimum": 1, "maximum": most, "default": DEFAULT_SECONDS}


class AccessApi(Place):
    """The calls."""

    def calls(self) -> list[Call]:
        """What the admin port offers."""
        return [
            Call(
                "list_connections",
                "GET",
                "/connections",
                self._connections,
                "Connections of the gateway that answers.",
                record(gateway=TEXT, connections=array(_CONNECTION), next=maybe(COUNT)),
                parameters=(AFTER_NUMBER, LIMIT),
            ),
            Call(
                "kick",
                "POST",
                "/access/kick",
                self._kick,
                "Close the connections of an identity and keep it out, or close one connection.",
                {
                    "oneOf": [
                        record(**_ORDER, ban=FLAG, closed_here=COUNT),
                        record(closed_here=COUNT),
                    ]
                },
                takes=options(
                    **_WHO,
                    seconds=_lasts(MOST_KICK_SECONDS),
                    ban=FLAG,
                    gateway=TEXT,
                    connection={"type": "integer"},
                ),
                problems=(507,),
            ),
            Call(
                "restrict",
                "POST",
                "/access/restrict",
                self._restrict,
                "Allow no more than reading, or nothing, of a document or all.",
                record(**_ORDER, **_RESTRICT, connections_here=COUNT),
                takes=options(
                    **_WHO,
                    **_RESTRICT,
                    everybody=FLAG,
                    all_documents=FLAG,
                    seconds=_lasts(MOST_RESTRICT_SECONDS),
                ),
                problems=(507,),
            ),
            Call(
                "refresh",
                "POST",
                "/access/refresh",
                self._refresh,
                "Ask those who decide again: about an identity, or everybody.",
                record(connections_here=COUNT),
                takes=options(**_WHO),
                problems=(507,),
            ),
            Call(
                "list_restrictions",
                "GET",
                "/access/restrictions",
                self._restrictions,
                "Kicks and restrictions that are in force.",
                record(
                    restrictions=array(
                        {"oneOf": [record(**_ORDER, ban=FLAG), record(**_ORDER, **_RESTRICT)]}
                    ),
                    next=maybe(TEXT),
                ),
                parameters=(AFTER_TEXT, LIMIT),
            ),
            Call(
                "lift",
                "DELETE",
                "/access/restrictions/{id}",
                self._lift,
                "Take a kick or a restriction back.",
                status=204,
                parameters=(Parameter("id", "Of the order.", TEXT, str),),
                problems=(404, 507),
            ),
        ]

    # -- looking

    async def _connections(self, asked: Asked) -> object:
        gateway, size, after = self._gateway(), asked.values["limit"], asked.values["after"]
        live = sorted(gateway.live(), key=lambda each: each.number)
        chosen = [each for each in live if each.number > after and _has_joined(each)]
        shown, left = chosen[:size], chosen[size:]
        now = gateway.now()
        return {
            "gateway": gateway.incarnation,
            "connections": [_shown(each, now) for each in shown],
            "next": shown[-1].number if left else None,
        }

    async def _restrictions(self, asked: Asked) -> object:
        gateway, size, after = self._gateway(), asked.values["limit"], asked.values["after"]
        chosen = [each for each in gateway.orders.standing.in_force() if each.id > after]
        shown, left = chosen[:size], chosen[size:]
        return {
            "restrictions": [_described(each) for each in shown],
            "next": shown[-1].id if left else None,
        }

    # -- withdrawing

    async def _kick(self, asked: Asked) -> object:
        gateway, body = self._gateway(), asked.members
        if "gateway" in body or "connection" in body:
            return await self._cut(gateway, body)
        who = _who(body)
        if who == EVERYBODY:
            raise bad("give issuer and subject, or gateway and connection")
        ban = body.get("ban", False)
        if not isinstance(ban, bool):
            raise bad("ban must be true or false")
        seconds = _seconds(body, MOST_KICK_SECONDS)
        _check_room(gateway)
        with _Telling():
            order, closed = await gateway.orders.kick(who, seconds, ban=ban)
        return {**_described(order), "closed_here": closed}

    async def _cut(self, gateway: "Gateway", body: dict[str, Any]) -> object:
        name, number = body.get("gateway"), body.get("connection")
        is_number = isinstance(number, int) and not isinstance(number, bool)
        if len(body) != 2 or not isinstance(name, str) or not is_number:
            raise bad("a connection is given by gateway, a text, and connection, its number")
        assert isinstance(number, int)
        with _Telling():
            return {"closed_here": await gateway.orders.cut(name, number)}

    async def _restrict(self, asked: Asked) -> object:
        gateway, body = self._gateway(), asked.members
        who = _who(body)
        # What is forgotten, or misspelt, must not mean everything.
        if (who == EVERYBODY) != (body.get("everybody") is True):
            raise bad("give either issuer and subject, or everybody: true")
        document_id = _document_id(body.get("document_id"))
        if (document_id is None) != (body.get("all_documents") is True):
            raise bad("give either document_id, or all_documents: true")
        access = body.get("access")
        if not isinstance(access, str) or access not in _LEFT:
            raise bad("access must be none or read")
        seconds = _seconds(body, MOST_RESTRICT_SECONDS)
        _check_room(gateway)
        with _Telling():
            order, met = await gateway.orders.restrict(who, document_id, _LEFT[access], seconds)
        return {**_described(order), "connections_here": met}

    async def _lift(self, asked: Asked) -> object:
        gateway = self._gateway()
        order = gateway.orders.standing.find(asked.values["id"])
        if order is None:
            raise Problem(HTTPStatus.NOT_FOUND, "there is no such restriction in force")
        with _Telling():
            await gateway.orders.lift(order)
        return None

    async def _refresh(self, asked: Asked) -> object:
        gateway, body = self._gateway(), asked.members
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
            raise bad(f"{name} must be a text of 1 to {MAX_NAME_CHARACTERS} characters")
        if not value.isprintable():
            raise bad(f"{name} has control characters")
    return Who(issuer, subject)


def _document_id(value: object) -> DocumentId | None:
    if value is None:
        return None
    try:
        return parse_document_id(value if isinstance(value, str) else "")
    except InvalidDocumentId as error:
        raise bad(f"document_id: {error}") from error


def _seconds(body: dict[str, Any], most: float) -> float:
    value = body.get("seconds", DEFAULT_SECONDS)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or math.isnan(value) or not 1 <= value <= most:
        raise bad(f"seconds must be 1 to {most:.0f}")
    return float(value)


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
