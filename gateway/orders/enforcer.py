"""Orders as they are given and as they are read, applied to the connections of this gateway.

A kick closes at once; a restriction takes at once what is above it, in every open document; what
ends gives back only what those who decide still allow.
"""

import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection
from typing import Protocol

from amsync.auth import Identity
from amsync.bus import Bus, access_stream
from amsync.gateway.access import AccessPolicy
from amsync.gateway.connection import ClientConnection
from amsync.gateway.effects import CloseReason
from amsync.gateway.orders.standing import StandingOrders
from amsync.gateway.orders.stream import OrderStream
from amsync.ids import DocumentId
from amsync.metrics import Metrics
from amsync.protocol.orders import Cut, Kick, Lift, Order, Refresh, Restrict, Who

log = logging.getLogger("amsync.gateway")

REFRESH_SECONDS = 60.0
"""An older order to decide anew is a repetition, or of before our time."""

REMEMBERED = 1_000


class Host(Protocol):
    """What is needed of the gateway."""

    @property
    def incarnation(self) -> str:
        """What it is called now."""

    def live(self) -> Collection[ClientConnection]:
        """Every socket, also those that have not joined."""

    def send_off(self, connection: ClientConnection, reason: CloseReason) -> None:
        """Close a connection, as an operator has ordered."""

    def carry_out(self, connection: ClientConnection) -> None:
        """Do what a session wants done."""

    def now(self) -> float:
        """The clock of grants."""


class Enforcer:
    """See the module's text. `open`, then `run`; `tick` about once a second."""

    def __init__(
        self,
        bus: Bus,
        prefix: str,
        host: Host,
        policy: AccessPolicy,
        metrics: Metrics,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._host, self._policy, self._metrics, self._wall = host, policy, metrics, wall
        self.standing = StandingOrders()
        self._stream = OrderStream(
            bus, access_stream(prefix), self.standing, self.take, metrics, wall
        )
        self._refreshes: deque[str] = deque(maxlen=REMEMBERED)
        policy.limit = self.standing.most
        self.open, self.run = self._stream.open, self._stream.run
        self.bus_was_emptied = self._stream.bus_was_emptied

    def refuses(self, identity: Identity) -> bool:
        """Tell whether somebody may not come in."""
        return self.standing.refuses(identity)

    # -- orders of operators

    async def kick(self, who: Who, seconds: float, *, ban: bool) -> tuple[Kick, int]:
        """Close the connections of an identity and keep it out for a while.

        Returns the order, and how many connections were closed here; other gateways close theirs
        as soon as they hear of it. Raises BusError, as all of these: done here, but the others
        may not hear of it before the bus is back.
        """
        assert who.issuer is not None
        assert who.subject is not None
        now = self._wall()
        order = Kick(_new_id(), now, now + seconds, who.issuer, who.subject, ban)
        return order, await self._issue(order)

    async def cut(self, gateway: str, connection: int) -> int:
        """Close one connection. Returns how many of this gateway that was."""
        return await self._issue(Cut(_new_id(), self._wall(), gateway, connection))

    async def restrict(
        self, who: Who, document_id: DocumentId | None, access: int, seconds: float
    ) -> tuple[Restrict, int]:
        """Allow no more than `access` for a while. Returns the order, and how many it met here."""
        now = self._wall()
        order = Restrict(
            _new_id(), now, now + seconds, who.issuer, who.subject, document_id, access
        )
        return order, await self._issue(order)

    async def lift(self, order: Kick | Restrict) -> None:
        """Take an order back."""
        await self._issue(Lift(order.id, self._wall(), order.until))

    async def refresh(self, who: Who) -> int:
        """Forget decisions, and have those on open documents made again. Returns how many met."""
        return await self._issue(Refresh(_new_id(), self._wall(), who.issuer, who.subject))

    async def _issue(self, order: Order) -> int:
        met = self.take(order)
        kind = type(order).__name__.lower()
        log.info(
            "an operator has ordered", extra={"order": kind, "order_id": order.id, "count": met}
        )
        await self._stream.append(order)
        return met

    # -- orders from anywhere

    def take(self, order: Order) -> int:
        """Apply an order, if it is new; returns how many connections it met."""
        match order:
            case Kick():
                return self._kick(order)
            case Cut():
                return self._cut(order)
            case Restrict():
                return self._restrict(order)
            case Lift():
                ended = self.standing.take(order, self._wall())
                return 0 if ended is None else self._end(ended)
            case Refresh():
                return self._refresh(order)
            case _:
                return 0

    def _kick(self, order: Kick) -> int:
        if self.standing.take(order, self._wall()) is None:
            return 0
        self._metrics.count("access_orders", "kick")
        proven = [(each, each.proof) for each in self._host.live()]
        met = [
            each
            for each, proof in proven
            if proof is not None
            and proof.identity.key == order.who.key
            and self.standing.refuses(proof.identity)
        ]
        for each in met:
            self._host.send_off(each, CloseReason.KICKED)
        return len(met)

    def _cut(self, order: Cut) -> int:
        if order.gateway != self._host.incarnation:
            return 0
        met = [each for each in self._host.live() if each.number == order.connection]
        for each in met:
            self._metrics.count("access_orders", "cut")
            self._host.send_off(each, CloseReason.CUT)  # its client may come back
        return len(met)

    def _restrict(self, order: Restrict) -> int:
        if self.standing.take(order, self._wall()) is None:
            return 0
        self._metrics.count("access_orders", "restrict")
        now, met = self._host.now(), self._met(order.who)
        for each in met:
            assert each.session is not None
            each.session.restrict(order.document_id, order.most, now)
            self._host.carry_out(each)
        return len(met)

    def _end(self, order: Kick | Restrict) -> int:
        """What a restriction took is given back, as far as those who decide still say so."""
        if not isinstance(order, Restrict):
            return 0
        met = self._met(order.who)
        for each in met:
            assert each.session is not None
            each.session.review(order.document_id)
            self._host.carry_out(each)
        return len(met)

    def _refresh(self, order: Refresh) -> int:
        if order.id in self._refreshes or order.at < self._wall() - REFRESH_SECONDS:
            return 0
        self._refreshes.append(order.id)
        self._metrics.count("access_orders", "refresh")
        return self.decide_anew(order.who)

    def decide_anew(self, who: Who) -> int:
        """Forget decisions, and have those on open documents made again, here only."""
        self._policy.refresh(who.key)
        now, met = self._host.now(), self._met(who)
        for each in met:
            assert each.session is not None
            each.session.recheck(now, everything=True)
            self._host.carry_out(each)
        return len(met)

    def _met(self, who: Who) -> list[ClientConnection]:
        return [
            each
            for each in self._host.live()
            if each.session is not None
            and each.session.is_open
            and (who.key is None or each.session.caller.identity_key == who.key)
        ]

    # -- time

    def tick(self) -> None:
        """End what is over."""
        for order in self.standing.lapse(self._wall()):
            self._end(order)
        self._stream.tick()


def _new_id() -> str:
    return uuid.uuid4().hex
