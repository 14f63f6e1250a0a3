"""The orders that hold now: kicks, restrictions, and what was taken back of them.

Sans-IO. `now` is in seconds since 1970, as in the orders. An order that was taken back stays
known until its own end: should somebody put it on the bus again, it has no effect.
"""

from typing import TypeVar

from amsync.auth import Identity
from amsync.gateway.caller import Caller
from amsync.ids import DocumentId
from amsync.protocol.access import Access
from amsync.protocol.orders import Kick, Lasting, Lift, Restrict

MAX_ORDERS = 10_000
"""The admin port takes no more; those that other gateways took are kept all the same."""

_K = TypeVar("_K")
_O = TypeVar("_O", Kick, Restrict)


class StandingOrders:
    """See the module's text."""

    def __init__(self) -> None:
        self._orders: dict[str, Lasting] = {}
        self._kicks: dict[str | None, dict[str, Kick]] = {}
        self._limits: dict[tuple[str | None, DocumentId | None], dict[str, Restrict]] = {}
        self._next_end = float("inf")

    def __len__(self) -> int:
        return len(self._orders)

    @property
    def is_full(self) -> bool:
        """There is no room for one that is given here."""
        return len(self._orders) >= MAX_ORDERS

    def all(self) -> list[Lasting]:
        """Everything that has to be remembered."""
        return list(self._orders.values())

    def in_force(self) -> list[Kick | Restrict]:
        """Those that hold, by their ids."""
        found = [each for each in self._orders.values() if not isinstance(each, Lift)]
        return sorted(found, key=lambda order: order.id)

    def find(self, order_id: str) -> Kick | Restrict | None:
        """One that holds."""
        order = self._orders.get(order_id)
        return None if isinstance(order, Lift) else order

    def is_lifted(self, order_id: str) -> bool:
        """It was taken back."""
        return isinstance(self._orders.get(order_id), Lift)

    def take(self, order: Lasting, now: float) -> Kick | Restrict | None:
        """Take an order; returns the one that begins, or ends by it, if any does."""
        known = self._orders.get(order.id)
        if order.until <= now or isinstance(known, Lift):
            return None
        if isinstance(order, Lift):
            self._orders[order.id] = order
            self._next_end = min(self._next_end, order.until)
            if known is not None:
                self._unhook(known)
            return known
        if known is not None:
            return None
        self._orders[order.id] = order
        self._next_end = min(self._next_end, order.until)
        if isinstance(order, Kick):
            self._kicks.setdefault(order.who.key, {})[order.id] = order
        else:
            place = (order.who.key, order.document_id)
            self._limits.setdefault(place, {})[order.id] = order
        return order

    def lapse(self, now: float) -> list[Kick | Restrict]:
        """Forget what is over; returns what has ended by that."""
        if now < self._next_end:
            return []
        over = [order for order in self._orders.values() if order.until <= now]
        for order in over:
            del self._orders[order.id]
            if not isinstance(order, Lift):
                self._unhook(order)
        ends = (order.until for order in self._orders.values())
        self._next_end = min(ends, default=float("inf"))
        return [order for order in over if not isinstance(order, Lift)]

    def refuses(self, identity: Identity) -> bool:
        """The identity was kicked, and its token is not newer than that, or it is banned."""
        kicks = self._kicks.get(identity.key)
        if not kicks:
            return False
        issued_at = identity.claims.get("iat")
        if isinstance(issued_at, bool) or not isinstance(issued_at, int | float):
            return True  # who can tell how old it is
        return any(kick.ban or issued_at <= kick.at for kick in kicks.values())

    def most(self, caller: Caller, document_id: DocumentId) -> Access:
        """What is left to somebody of a document."""
        if not self._limits:
            return Access.WRITE
        key = caller.identity_key or None
        most = Access.WRITE
        for place in ((None, None), (None, document_id), (key, None), (key, document_id)):
            for order in self._limits.get(place, {}).values():
                most = min(most, order.most)
        return most

    def _unhook(self, order: Kick | Restrict) -> None:
        if isinstance(order, Kick):
            _remove(self._kicks, order.who.key, order)
        else:
            _remove(self._limits, (order.who.key, order.document_id), order)


def _remove(table: dict[_K, dict[str, _O]], key: _K, order: _O) -> None:
    orders = table.get(key, {})
    orders.pop(order.id, None)
    if not orders:
        table.pop(key, None)
