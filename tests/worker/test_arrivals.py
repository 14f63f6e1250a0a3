"""What the entries of a gateway are to a shard: next, repeated, behind a gap, or too early."""

import pytest

import amsync.worker.arrivals as module
from amsync.ids import generate_document_id
from amsync.protocol.envelope import HandOver, SyncIn
from amsync.worker.arrivals import EARLY_SECONDS, Arrivals
from amsync.worker.peers import Ticket

DOCUMENT = generate_document_id()
OTHER = generate_document_id()


def begin(arrivals: Arrivals, *known: int, generation: int = 1, may_be_lost: bool = False) -> bool:
    item = HandOver(0, 1, generation, may_be_lost)
    return arrivals.begin("g", item, [(number, {DOCUMENT}) for number in known])


def early(
    arrivals: Arrivals, connection: int = 1, size: int = 1, now: float = 0.0
) -> Ticket | None:
    ticket = Ticket((0, 1), 1, "g")
    item = SyncIn(connection, DOCUMENT, 2, True, False, bytes(size))
    return ticket if arrivals.put_aside("g", ticket, item, now) else None


def test_entries_are_next_repeated_or_behind_a_gap() -> None:
    arrivals = Arrivals.after({"g": 7})

    assert arrivals.number("g", 7) is None
    assert arrivals.number("g", 8) is True
    assert arrivals.number("g", 8) is None
    assert arrivals.number("g", 10) is False
    assert arrivals.number("g", 9) is None
    assert arrivals.number("g", 11) is True
    assert arrivals.number("new", 1) is True
    assert arrivals.number("newer", 2) is False


def test_nothing_is_handed_over_before_it_begins_or_behind_a_gap() -> None:
    arrivals = Arrivals()
    arrivals.number("g", 1)
    assert not arrivals.has_handed_over("g")

    assert begin(arrivals)
    assert arrivals.has_handed_over("g")

    arrivals.number("g", 3)
    assert not arrivals.has_handed_over("g")


def test_a_gap_keeps_sequences_from_counting_until_the_gateway_knows() -> None:
    arrivals = Arrivals()
    arrivals.number("g", 1)
    assert arrivals.may_count("g")

    arrivals.number("g", 3)
    assert not arrivals.may_count("g")
    assert not begin(arrivals, generation=2)
    assert not arrivals.may_count("g")
    assert not arrivals.has_handed_over("g")

    assert begin(arrivals, generation=3, may_be_lost=True)
    assert arrivals.may_count("g")


def test_a_forgotten_gateway_counts_no_more() -> None:
    arrivals = Arrivals.after({"g": 7})
    ticket = early(arrivals)
    assert ticket is not None

    arrivals.forget("g")

    assert ticket.outstanding == 0
    assert not arrivals.may_count("g")
    assert arrivals.names() == []


def test_what_waits_is_given_back_once_in_order() -> None:
    arrivals = Arrivals()
    tickets = [early(arrivals), early(arrivals)]
    begin(arrivals)

    assert [ticket for ticket, _ in arrivals.resumed(("g", 1), DOCUMENT)] == tickets
    assert arrivals.resumed(("g", 1), DOCUMENT) == []


def test_what_a_hand_over_does_not_name_is_let_go() -> None:
    arrivals = Arrivals()
    gone = early(arrivals, connection=3)
    begin(arrivals, 1, 2, 3)
    arrivals.opened(("g", 1))
    arrivals.resumed(("g", 1), DOCUMENT)
    arrivals.opened(("g", 2))

    assert list(arrivals.end("g")) == [(1, set()), (2, {DOCUMENT}), (3, None)]
    assert gone is not None
    assert gone.outstanding == 0


def test_connections_that_open_later_are_not_remembered() -> None:
    arrivals = Arrivals()
    begin(arrivals, 1)
    arrivals.opened(("g", 1))
    assert list(arrivals.end("g")) == [(1, {DOCUMENT})]

    for connection in range(2, 100):
        arrivals.opened(("g", connection))

    assert arrivals._gateways["g"].named == set()


def test_without_room_everything_later_is_lost_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EARLY_BYTES", 10)
    arrivals = Arrivals()
    arrivals.number("g", 1)
    assert early(arrivals, size=6) is not None

    assert early(arrivals, size=6) is None
    assert early(arrivals, size=1) is None

    assert not arrivals.may_count("g")
    assert not begin(arrivals)
    assert begin(arrivals, may_be_lost=True)
    list(arrivals.end("g"))
    assert early(arrivals, size=10) is not None


def test_what_waits_for_too_long_is_lost() -> None:
    arrivals = Arrivals()
    arrivals.number("g", 1)
    first, second = early(arrivals, now=5.0), early(arrivals, now=7.0)
    assert first is not None
    assert second is not None
    assert arrivals.give_up(5.0 + EARLY_SECONDS) == []

    assert arrivals.give_up(5.1 + EARLY_SECONDS) == ["g"]

    assert (first.outstanding, second.outstanding) == (0, 0)
    assert not arrivals.may_count("g")
    assert arrivals.give_up(99.0) == []


def test_what_waits_is_not_given_up_once_the_hand_over_has_begun() -> None:
    arrivals = Arrivals()
    ticket = early(arrivals, now=5.0)
    begin(arrivals)

    assert arrivals.give_up(99.0) == []
    assert ticket is not None
    assert ticket.outstanding == 1


def test_a_gateway_is_told_of_the_owner_once() -> None:
    arrivals = Arrivals()

    assert [arrivals.prompt("g"), arrivals.prompt("g"), arrivals.prompt("h")] == [True, False, True]
