"""Bus entries: every item survives, newer versions are skipped and counted."""

from dataclasses import fields
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amsync.errors import BusError
from amsync.ids import DocumentId
from amsync.protocol import envelope
from amsync.protocol.envelope import (
    AccessIn,
    Call,
    Close,
    EphemeralIn,
    EphemeralOut,
    Greet,
    HandedOver,
    HandOver,
    HeadsIn,
    HeadsOut,
    Offer,
    OfferDone,
    Open,
    Owned,
    Progress,
    Query,
    Reply,
    Resume,
    Resync,
    Stamped,
    SubscribeIn,
    SubscribeOut,
    SyncIn,
    SyncOut,
    UnavailableIn,
    UnavailableOut,
    Welcome,
    pack_inbound,
    pack_outbound,
    unpack_inbound,
    unpack_outbound,
)

DOCUMENT = DocumentId("3uQLXrx4C7D8TPUoYUsWQYp1tytD")

INBOUND: list[Any] = [
    Open(1, "peer", "storage", True, ["a"]),
    Open(1, "peer", None, False, []),
    Close(1),
    SyncIn(1, DOCUMENT, 2, True, False, b"\0data"),
    UnavailableIn(1, DOCUMENT),
    EphemeralIn(1, DOCUMENT, "session", 2**62, b"x", None),
    EphemeralIn(1, DOCUMENT, "session", 1, b"x", "target"),
    AccessIn(1, DOCUMENT, 0),
    Greet(1, DOCUMENT, 1),
    OfferDone(1),
    SubscribeIn(1, ["a"], []),
    HeadsIn(1, DOCUMENT, "storage", ["head"], 1_700_000_000_000),
    Call(7, "create", DOCUMENT, b"payload"),
    HandOver(0, 7, 3),
    Resume(1, DOCUMENT, 2, True, True, b"token", False, True, False),
    HandedOver(0, 3),
    Query(7, "list", b"payload"),
]
OUTBOUND: list[Any] = [
    SyncOut([1, 2], DOCUMENT, b"data", True, 1.5),
    SyncOut([1], DOCUMENT, b"data", False, 0.0, b"token"),
    UnavailableOut([1], DOCUMENT),
    EphemeralOut([1], DOCUMENT, "sender", "session", 3, b"x"),
    HeadsOut([1], DOCUMENT, "storage", ["head"], 5),
    SubscribeOut([1], ["a"], ["b"]),
    Offer(1, [DOCUMENT]),
    Reply(7, None, "", b"payload"),
    Reply(7, "DocumentExists", "text", b""),
    Progress(5),
    Welcome(3),
    Owned([[0, 7], [1, 8]]),
    Resync(),
]


def test_every_kind_has_a_case_here() -> None:
    assert {type(item) for item in INBOUND} == set(get_args(envelope.Inbound))
    assert {type(item) for item in OUTBOUND} == set(get_args(envelope.Outbound))


def test_kinds_are_frozen_numbers() -> None:
    kinds = [type(item).KIND for item in INBOUND + OUTBOUND]

    assert sorted(set(kinds)) == [*range(1, 16), *range(101, 112)]


def test_all_inbound_items_survive_in_order() -> None:
    entry = unpack_inbound(pack_inbound("gateway", 3, 4.5, INBOUND))

    assert (entry.sender, entry.sequence, entry.written_at) == ("gateway", 3, 4.5)
    assert (entry.items, entry.unknown) == (INBOUND, 0)


def test_all_outbound_items_survive_with_their_stamps() -> None:
    stamped = [Stamped(number, number + 100, item) for number, item in enumerate(OUTBOUND)]

    entry = unpack_outbound(pack_outbound("worker", 3, 4.5, stamped))

    assert (entry.items, entry.unknown) == (stamped, 0)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.text(), st.integers(0, 2**63), st.binary(max_size=2000), st.lists(st.text()))
def test_any_content_survives(text: str, number: int, data: bytes, texts: list[str]) -> None:
    items = [
        Open(number, text, text, True, texts),
        SyncIn(number, DOCUMENT, 1, False, True, data),
        HeadsIn(number, DOCUMENT, text, texts, number),
    ]

    assert unpack_inbound(pack_inbound(text, number, 0.0, items)).items == items


def newer(packed: bytes, change: Any) -> bytes:
    """What a later version could have written in its place."""
    return bytes(msgpack.packb(change(msgpack.unpackb(packed))))


def test_unknown_kinds_are_skipped_and_counted() -> None:
    def change(entry: list[Any]) -> list[Any]:
        version, sender, sequence, at, items = entry
        return [version + 1, sender, sequence, at, [[99, "new"], *items, [98]], "more"]

    entry = unpack_inbound(newer(pack_inbound("g", 1, 0.0, INBOUND), change))

    assert (entry.items, entry.unknown) == (INBOUND, 2)


def test_unknown_fields_are_skipped() -> None:
    def change(entry: list[Any]) -> list[Any]:
        return [*entry[:4], [[*item, "new", {"x": 1}] for item in entry[4]]]

    entry = unpack_inbound(newer(pack_inbound("g", 1, 0.0, INBOUND), change))

    assert (entry.items, entry.unknown) == (INBOUND, 0)


def test_unknown_outbound_kinds_and_fields_are_skipped() -> None:
    stamped = [Stamped(1, 2, item) for item in OUTBOUND]

    def change(entry: list[Any]) -> list[Any]:
        items = [[*item, "new"] for item in entry[4]]
        return [*entry[:4], [*items, [1, 2, 199, b"new"]], "more"]

    entry = unpack_outbound(newer(pack_outbound("w", 1, 0.0, stamped), change))

    assert (entry.items, entry.unknown) == (stamped, 1)


def test_fields_with_defaults_may_be_missing() -> None:
    """An older version wrote a sync message without them."""
    plain = SyncOut([1], DOCUMENT, b"data")

    def change(entry: list[Any]) -> list[Any]:
        return [*entry[:4], [item[:-2] for item in entry[4]]]

    packed = newer(pack_outbound("w", 1, 0.0, [Stamped(1, 2, plain)]), change)

    assert unpack_outbound(packed).items == [Stamped(1, 2, plain)]


@pytest.mark.parametrize("unpack", [unpack_inbound, unpack_outbound])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xc0",
        b"\x01",
        b"\x90",
        b"\x91\x01",
        msgpack.packb([1, "s", 1, 0.0, 7]),
        msgpack.packb([1, "s", 1, 0.0, [7]]),
        msgpack.packb([1, "s", 1, 0.0, [[]]]),
        msgpack.packb([1, "s", 1, 0.0, [[1, 2, 2]]])[:-1],
        msgpack.packb([1, "s", 1, 0.0, []]) + b"\0",
    ],
)
def test_what_is_no_entry_raises_bus_error(unpack: Any, data: bytes) -> None:
    with pytest.raises(BusError):
        unpack(data)


def test_large_items_survive() -> None:
    item = SyncIn(1, DOCUMENT, 2, True, False, bytes(20_000_000))

    assert unpack_inbound(pack_inbound("g", 1, 0.0, [item])).items == [item]


def test_items_are_their_fields() -> None:
    for item in INBOUND + OUTBOUND:
        packed = msgpack.unpackb(pack_inbound("g", 1, 0.0, [item]))[4][0]
        assert packed == [item.KIND, *(getattr(item, each.name) for each in fields(item))]
