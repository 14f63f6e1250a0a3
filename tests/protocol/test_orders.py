"""Orders on the bus: what is written is read, by older and newer versions too."""

import msgpack
import pytest

from amsync.errors import BusError
from amsync.ids import DocumentId
from amsync.protocol.access import Access
from amsync.protocol.orders import (
    Cut,
    Kick,
    Lift,
    Mark,
    Order,
    Refresh,
    Restrict,
    Who,
    pack_order,
    unpack_order,
)

DOCUMENT = DocumentId("3uQLXrx4C7D8TPUoYUsWQYp1tytD")
ORDERS: list[Order] = [
    Kick("id", 1.5, 2.5, "https://issuer", "somebody", True),
    Cut("id", 1.5, "gateway", 7),
    Restrict("id", 1.5, 2.5, None, None, DOCUMENT, 1),
    Restrict("id", 1.5, 2.5, "https://issuer", "somebody", None, 0),
    Lift("id", 1.5, 2.5),
    Refresh("id", 1.5),
    Refresh("id", 1.5, "https://issuer", "somebody"),
    Mark("id", 1.5),
]


@pytest.mark.parametrize("order", ORDERS)
def test_what_is_written_is_read(order: Order) -> None:
    assert unpack_order(pack_order(order)) == order


@pytest.mark.parametrize("order", ORDERS)
def test_fields_of_a_newer_version_are_passed_over(order: Order) -> None:
    values = msgpack.unpackb(pack_order(order))
    assert unpack_order(msgpack.packb([*values, "new", {"more": 1}])) == order


def test_unknown_kinds_are_passed_over() -> None:
    assert unpack_order(msgpack.packb([2, 99, "id", 1.0])) is None


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x93\x01", msgpack.packb(7), msgpack.packb([]), msgpack.packb([1, 1, "id"])],
)
def test_what_is_no_order_is_a_bus_error(data: bytes) -> None:
    with pytest.raises(BusError):
        unpack_order(data)


@pytest.mark.parametrize(
    ("number", "most"),
    [(0, Access.NONE), (1, Access.READ), (2, Access.NONE), (9, Access.NONE)],
)
def test_what_a_restriction_leaves_is_nothing_unless_it_is_known(number: int, most: Access) -> None:
    assert Restrict("id", 0, 1, None, None, None, number).most is most


def test_who_has_the_key_of_an_identity() -> None:
    assert Who("https://issuer", "somebody").key == "https://issuer somebody"
    assert Who().key is None
