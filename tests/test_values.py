"""Cheap values are frozen dataclasses in every way but one."""

from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from amsync.protocol.envelope import Stamped, SyncIn, SyncOut, UnavailableOut
from amsync.values import cheap


@cheap
@dataclass(frozen=True, slots=True)
class Cheap:
    first: int
    second: str = "two"
    third: list[int] = field(default_factory=list)


def test_values_are_made_compared_and_replaced_as_usual() -> None:
    value = Cheap(1)

    assert (value.first, value.second, value.third) == (1, "two", [])
    assert value == Cheap(first=1, second="two", third=[])
    assert value != Cheap(2)
    assert replace(value, second="2") == Cheap(1, "2")
    assert repr(value) == "Cheap(first=1, second='two', third=[])"
    assert Cheap(1).third is not value.third
    with pytest.raises(TypeError):
        Cheap()  # type: ignore[call-arg]


def test_items_of_the_bus_are_hashed_by_their_fields() -> None:
    item = SyncIn(1, "document", 2, True, False, b"data")  # type: ignore[arg-type]

    assert len({item, replace(item), replace(item, data=b"other")}) == 2


def test_what_is_not_made_for_every_message_stays_frozen() -> None:
    item = UnavailableOut((1,), "document")  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        item.connections = (2,)  # type: ignore[misc]


def test_a_class_pattern_matches_a_cheap_value() -> None:
    stamped = Stamped(1, 2, SyncOut((1,), "document", b""))  # type: ignore[arg-type]
    match stamped.item:
        case SyncOut(document_id=name):
            assert name == "document"
        case _:
            raise AssertionError("no match")
