import pytest

from amsync.ids import DocumentId, generate_document_id
from amsync.worker import gossip
from amsync.worker.gossip import KnownHeads, RemoteHeadsTable
from amsync.worker.ports import Address

ONE, TWO, THREE = ("g", 1), ("g", 2), ("h", 1)
DOCUMENT = generate_document_id()


def everybody(_address: Address) -> bool:
    return True


def test_first_subscription_and_last_end_are_news() -> None:
    table = RemoteHeadsTable()

    assert table.subscribe(ONE, ["a", "b"]) == ["a", "b"]
    assert table.subscribe(TWO, ["a", "c"]) == ["c"]
    assert table.subscribe(ONE, ["a"]) == []
    assert table.unsubscribe(ONE, ["a", "b", "never"]) == ["b"]
    assert table.unsubscribe(TWO, ["a"]) == ["a"]
    assert table.all_wanted() == ["c"]


def test_connection_that_ends_takes_its_subscriptions_along() -> None:
    table = RemoteHeadsTable()
    table.subscribe(ONE, ["a", "b"])
    table.subscribe(TWO, ["a"])

    assert table.forget_connection(ONE) == ["b"]
    assert table.forget_connection(ONE) == []
    assert table.forget_connection(("x", 9)) == []
    assert table.subscriptions == {TWO: {"a"}}


def test_subscriptions_of_a_connection_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossip, "MAX_SUBSCRIPTIONS", 2)
    table = RemoteHeadsTable()

    assert table.subscribe(ONE, ["a", "b", "c"]) == ["a", "b"]
    assert not table.is_wanted("c")


def test_reports_must_be_wanted_and_strictly_newer() -> None:
    table = RemoteHeadsTable()
    assert table.report(DOCUMENT, "a", ["h1"], 5) is None

    table.subscribe(ONE, ["a"])

    assert table.report(DOCUMENT, "a", ["h1"], 5) == KnownHeads(("h1",), 5)
    assert table.report(DOCUMENT, "a", ["h2"], 5) is None
    assert table.report(DOCUMENT, "a", ["h2"], 4) is None
    assert table.report(DOCUMENT, "a", ["h2"], 6) == KnownHeads(("h2",), 6)
    other = generate_document_id()
    assert table.report(other, "a", ["h3"], 1) == KnownHeads(("h3",), 1)


def test_observations_are_always_newer_than_what_is_known() -> None:
    """A clock that runs behind must not hide heads (PROTOCOL 4.2)."""
    table = RemoteHeadsTable()
    table.subscribe(ONE, ["a"])
    table.report(DOCUMENT, "a", ["h1"], 1000)

    assert table.observe(DOCUMENT, "a", ["h2"], 5) == KnownHeads(("h2",), 1001)
    assert table.observe(DOCUMENT, "a", ["h2"], 2000) is None
    assert table.observe(DOCUMENT, "a", ["h3"], 2000) == KnownHeads(("h3",), 2000)


def test_observations_are_kept_for_those_who_subscribe_later() -> None:
    table = RemoteHeadsTable()
    table.observe(DOCUMENT, "a", ["h"], 5)

    assert table.known(DOCUMENT, ["a", "b"]) == {"a": KnownHeads(("h",), 5)}
    assert table.known(DocumentId("other"), ["a"]) == {}


def test_subscribers_are_those_who_have_it_open_but_not_the_source() -> None:
    table = RemoteHeadsTable()
    for address in (THREE, TWO, ONE):
        table.subscribe(address, ["a"])

    assert table.subscribers("a", everybody, TWO) == [ONE, THREE]
    assert table.subscribers("a", lambda address: address == TWO, ONE) == [TWO]
    assert table.subscribers("b", everybody, ONE) == []


def test_known_heads_of_a_document_are_bounded_and_the_oldest_goes() -> None:
    table = RemoteHeadsTable()
    names = [f"s{number}" for number in range(gossip.MAX_KNOWN_PER_DOCUMENT + 1)]
    for name in names[:-1]:
        table.observe(DOCUMENT, name, ["h"], 1)
    table.observe(DOCUMENT, names[0], ["h2"], 2)  # fresh again
    table.observe(DOCUMENT, names[-1], ["h"], 3)

    known = table.known(DOCUMENT, names)

    assert len(known) == gossip.MAX_KNOWN_PER_DOCUMENT
    assert names[0] in known
    assert names[1] not in known


def test_forgotten_document_is_unknown() -> None:
    table = RemoteHeadsTable()
    table.observe(DOCUMENT, "a", ["h"], 1)

    table.forget_document(DOCUMENT)

    assert table.known(DOCUMENT, ["a"]) == {}
