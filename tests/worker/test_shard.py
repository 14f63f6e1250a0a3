"""One shard: its connections, announcements, remote heads, and how far its stream is done."""

from collections.abc import Iterable
from functools import partial

import pytest

from amsync._automerge import Replica
from amsync.ids import DocumentId, base58check_encode, shard_of_storage
from amsync.protocol.envelope import (
    AccessIn,
    Close,
    Entry,
    EphemeralIn,
    Greet,
    HeadsIn,
    HeadsOut,
    Offer,
    OfferDone,
    Open,
    SubscribeIn,
    SubscribeOut,
    SyncIn,
    SyncOut,
    UnavailableIn,
)
from amsync.worker.ports import Effects
from amsync.worker.shard import OFFER_BATCH, OFFER_TIMEOUT_SECONDS
from support.rawclient import EMPTY_SYNC

from .net import GATEWAY, Client, Net, new_document, stored


def stored_documents(net: Net, count: int) -> list[DocumentId]:
    documents = [new_document() for _ in range(count)]
    for number, document_id in enumerate(documents):
        replica = Replica()
        replica.put("n", number)
        net.store(document_id, replica)
    return documents


def of_kind(items: Iterable[object], kind: type) -> list[object]:
    return [item for item in items if isinstance(item, kind)]


def offers(net: Net) -> list[Offer]:
    return [item for _, item in net.published if isinstance(item, Offer)]


# -- connections


def test_items_of_unknown_connections_are_dropped_and_counted() -> None:
    net = Net()
    document_id = new_document()

    items = net.give(
        SyncIn(5, document_id, 2, True, True, EMPTY_SYNC),
        UnavailableIn(5, document_id),
        AccessIn(5, document_id, 0),
        Greet(5, document_id, 2),
        OfferDone(5),
        SubscribeIn(5, ["a"], []),
        HeadsIn(5, document_id, "a", ["h"], 1),
        EphemeralIn(5, document_id, "s", 1, b"x", None),
        Close(5),
    )

    assert items == []
    assert [event for event, _ in net.counts] == ["items_of_unknown_connections"] * 9
    assert net.shard.documents == {}
    assert net.settled() == net.position


def test_unknown_items_are_counted_and_hold_nothing_up() -> None:
    net = Net()
    entry = Entry("g", 1, 0.0, [], 3)

    net.step(lambda effects: net.shard.take((0, 1), entry, effects, net.now))

    assert net.counts == [("unknown_items", "inbound")] * 3
    assert net.settled() == 1


def test_same_numbers_of_two_gateways_are_two_connections() -> None:
    net = Net()
    document_id = new_document()
    one, two = Client(net, document_id, 1), Client(net, document_id, 1, gateway="other")
    one.put("a", 1)
    net.introduce(one, two)

    assert two.value() == {"a": 1}
    one.close()
    two.put("b", 2)
    two.say()
    net.settle()
    assert two.value() == {"a": 1, "b": 2}
    assert one.value() == {"a": 1}


def test_gateway_that_is_gone_takes_its_connections_along() -> None:
    net = Net(auto_create=False)
    document_id = new_document()
    lost, asking = Client(net, document_id, 1, gateway="lost"), Client(net, document_id, 2)
    lost.put("a", 1)
    lost.say()
    asking.say()
    assert asking.heard == []

    net.step(lambda effects: net.shard.forget_gateway("lost", effects, net.now))

    assert asking.kinds() == ["unavailable"]
    assert list(net.shard.connections) == [(GATEWAY, 2)]
    assert net.settled() == net.position


def test_nothing_is_left_of_connections_that_have_gone() -> None:
    net = Net()
    for number in range(20):
        client = Client(net, new_document(), number, storage_id=f"s{number}", announce=True)
        client.give(SubscribeIn(number, [f"s{number + 1}"], []))
        client.say()
        net.settle()
        client.close()
    net.tick(31.0)

    assert net.shard.connections == {}
    assert net.shard.documents == {}
    assert net.shard._gossip.subscriptions == {}
    assert net.shard._gossip.all_wanted() == []


# -- how far the stream is done


def test_settled_is_in_order_of_the_stream_whatever_ends_first() -> None:
    net = Net()
    first, second = Client(net, new_document(), 1), Client(net, new_document(), 2)
    net.hold_loads = True
    before = net.position
    first.say()
    second.say()
    assert net.settled() == before

    slow = net.waiting.popleft()
    net.step(net.waiting.popleft())
    assert net.settled() == before

    net.step(slow)
    assert net.settled() == net.position


def test_entry_with_items_for_several_documents_is_done_when_all_are() -> None:
    net = Net()
    documents = [new_document() for _ in range(3)]
    net.give(Open(1, "peer", None, False, ()))
    net.hold_loads = True
    before = net.position
    net.give(*(SyncIn(1, document_id, 2, True, True, EMPTY_SYNC) for document_id in documents))

    for _ in documents:
        assert net.settled() == before
        net.step(net.waiting.popleft())

    assert net.settled() == net.position


# -- announcements


def announced(net: Net, number: int = 1, gateway: str = GATEWAY) -> Client:
    """A client that wants announcements."""
    return Client(net, new_document(), number, announce=True, gateway=gateway)


def answer(net: Net, client: Client, offer: Offer, *, greet: bool = True) -> None:
    """What the session makes of an offer."""
    if greet:
        client.give(*(Greet(client.number, document_id, 2) for document_id in offer.documents))
    client.give(OfferDone(client.number))


def test_who_wants_none_is_offered_none() -> None:
    net = Net()
    stored_documents(net, 3)

    Client(net, new_document(), 1)

    assert offers(net) == []


def test_stored_documents_are_offered_in_batches_paced_by_answers() -> None:
    net = Net()
    documents = stored_documents(net, OFFER_BATCH + 20)
    client = announced(net)
    (first,) = offers(net)
    assert len(first.documents) == OFFER_BATCH

    answer(net, client, first)
    assert len(offers(net)) == 1
    greeted = {item.document_id for item in of_kind(client.heard, SyncOut)}  # type: ignore[attr-defined]
    assert greeted == set(first.documents)

    for document_id in first.documents[:-1]:
        client.give(UnavailableIn(1, document_id))
    assert len(offers(net)) == 1
    client.give(SyncIn(1, first.documents[-1], 2, True, False, EMPTY_SYNC))

    second = offers(net)[1]
    assert sorted([*first.documents, *second.documents]) == sorted(documents)


def test_offer_of_which_nothing_is_wanted_is_followed_by_the_next() -> None:
    net = Net()
    stored_documents(net, 3 * OFFER_BATCH)
    client = announced(net)

    for number in range(3):
        answer(net, client, offers(net)[number], greet=False)

    assert len(offers(net)) == 3


def test_client_that_never_answers_is_offered_more_after_a_while() -> None:
    net = Net()
    stored_documents(net, OFFER_BATCH + 1)
    client = announced(net)
    answer(net, client, offers(net)[0])

    net.tick(OFFER_TIMEOUT_SECONDS - 1)
    assert len(offers(net)) == 1
    net.tick(2)

    assert len(offers(net)) == 2


def test_documents_that_are_open_are_not_offered() -> None:
    net = Net()
    documents = stored_documents(net, 3)
    net.hold_loads = True
    client = announced(net)
    client.give(SyncIn(1, documents[0], 2, True, True, EMPTY_SYNC))
    net.release()

    (offer,) = offers(net)

    assert sorted(offer.documents) == sorted(documents[1:])


@pytest.mark.parametrize("how", ["upload", "create"])
def test_documents_stored_later_are_offered_to_all_but_who_brought_them(how: str) -> None:
    net = Net()
    one, two = announced(net, 1), announced(net, 2)
    document_id = one.document_id
    one.put("a", 1)
    if how == "upload":
        one.say()
        net.settle()
        expected = [2]
    else:
        assert net.call("create", document_id, one.replica.save()).error is None
        expected = [1, 2]

    assert [(o.connection, list(o.documents)) for o in offers(net)] == [
        (number, [document_id]) for number in expected
    ]
    assert two.number == 2


def test_document_that_was_only_auto_created_is_not_offered_until_it_is_edited() -> None:
    net = Net()
    announced(net, 1)
    client = Client(net, new_document(), 2)
    client.say()
    net.settle()
    assert offers(net) == []

    client.put("a", 1)
    client.say()
    net.settle()

    assert [list(o.documents) for o in offers(net)] == [[client.document_id]]


def test_document_deleted_between_offer_and_answer_does_not_hold_up_the_others() -> None:
    net = Net()
    stored_documents(net, OFFER_BATCH + 1)
    client = announced(net)
    (first,) = offers(net)
    for document_id in first.documents:
        assert net.call("delete", document_id).error is None

    answer(net, client, first)

    assert len(offers(net)) == 2


def test_announced_document_syncs_like_any_other() -> None:
    net = Net()
    (document_id,) = stored_documents(net, 1)
    client = announced(net)
    client.document_id = document_id
    answer(net, client, offers(net)[0])
    net.settle()
    assert client.value() == {"n": 0}

    client.put("b", 1)
    client.say()
    other = Client(net, document_id, 2)
    other.say()
    net.settle()
    assert other.value() == {"n": 0, "b": 1}


def test_announcement_to_a_reader_is_read_only() -> None:
    net = Net()
    (document_id,) = stored_documents(net, 1)
    client = announced(net)
    client.document_id, client.access = document_id, 1
    client.give(Greet(1, document_id, 1), OfferDone(1))
    net.settle()
    client.put("forbidden", 1)
    client.say()
    net.settle()

    other = Client(net, document_id, 2)
    other.say()
    net.settle()
    assert other.value() == {"n": 0}


# -- remote heads


def heads_of(client: Client) -> list[HeadsOut]:
    return [item for item in client.heard if isinstance(item, HeadsOut)]


def test_subscriber_hears_of_heads_seen_in_sync_messages() -> None:
    net = Net()
    document_id = new_document()
    writer = Client(net, document_id, 1, storage_id="writer")
    watcher = Client(net, document_id, 2, storage_id="watcher")
    net.introduce(writer, watcher)
    watcher.give(SubscribeIn(2, ["writer"], []))
    writer.put("a", 1)
    writer.say()
    net.settle()

    last = heads_of(watcher)[-1]

    assert last.connections == [2]
    assert last.storage_id == "writer"
    assert last.heads == [base58check_encode(head) for head in writer.replica.heads()]
    assert last.timestamp >= 1_000_000 + 100_000
    timestamps = [item.timestamp for item in heads_of(watcher)]
    assert timestamps == sorted(set(timestamps))
    assert heads_of(writer) == []


def test_who_subscribes_later_hears_at_once_what_is_known() -> None:
    net = Net()
    document_id = new_document()
    writer = Client(net, document_id, 1, storage_id="writer")
    watcher = Client(net, document_id, 2)
    net.introduce(writer, watcher)
    assert heads_of(watcher) == []

    watcher.give(SubscribeIn(2, ["writer"], []))

    assert [item.storage_id for item in heads_of(watcher)] == ["writer"]


def test_nobody_hears_of_documents_that_are_not_open() -> None:
    net = Net()
    writer = Client(net, new_document(), 1, storage_id="writer")
    stranger = Client(net, new_document(), 2)
    stranger.give(SubscribeIn(2, ["writer"], []))
    stranger.say()
    writer.put("a", 1)
    writer.say()
    net.settle()

    assert heads_of(stranger) == []


def test_nobody_hears_of_itself() -> None:
    net = Net()
    document_id = new_document()
    tabs = [Client(net, document_id, number, storage_id="shared") for number in (1, 2)]
    for client in tabs:
        client.give(SubscribeIn(client.number, ["shared"], []))
        client.put("a", client.number)
        client.say()
    net.settle()

    assert [heads_of(client) for client in tabs] == [[], []]


def test_who_has_unsubscribed_or_lost_access_hears_no_more() -> None:
    net = Net()
    document_id = new_document()
    writer = Client(net, document_id, 1, storage_id="writer")
    watchers = [Client(net, document_id, number) for number in (2, 3)]
    for client in (writer, *watchers):
        client.say()
        client.give(SubscribeIn(client.number, ["writer"], []))
    net.settle()
    before = [len(heads_of(client)) for client in watchers]

    watchers[0].give(SubscribeIn(2, [], ["writer"]))
    watchers[1].give(AccessIn(3, document_id, 0))
    writer.put("a", 1)
    writer.say()
    net.settle()

    assert [len(heads_of(client)) for client in watchers] == before


def test_reports_are_passed_on_if_wanted_and_newer() -> None:
    net = Net()
    document_id = new_document()
    reporter, watcher = Client(net, document_id, 1), Client(net, document_id, 2)
    net.introduce(reporter, watcher)
    reporter.give(HeadsIn(1, document_id, "far", ["h0"], 1))
    watcher.give(SubscribeIn(2, ["far"], []))
    assert heads_of(watcher) == []

    for heads, timestamp in [("h1", 5), ("h2", 5), ("h3", 4), ("h4", 6)]:
        reporter.give(HeadsIn(1, document_id, "far", [heads], timestamp))

    found = [(list(item.heads), item.timestamp) for item in heads_of(watcher)]
    assert found == [(["h1"], 5), (["h4"], 6)]
    assert heads_of(reporter) == []


def test_reports_of_documents_that_the_reporter_has_not_open_are_ignored() -> None:
    """Clients push what they know right after they connect; nobody may flood others' documents."""
    net = Net()
    document_id = new_document()
    reporter, watcher = Client(net, new_document(), 1), Client(net, document_id, 2)
    watcher.say()
    watcher.give(SubscribeIn(2, ["far"], []))

    reporter.give(HeadsIn(1, document_id, "far", ["h"], 5))

    assert [item.storage_id for item in heads_of(watcher)] in ([], ["far"])
    assert net.settled() == net.position


def test_reports_on_documents_that_nobody_has_open_leave_nothing_behind() -> None:
    net = Net()
    client = Client(net, new_document(), 1)
    client.give(SubscribeIn(1, ["far"], []))
    for _ in range(100):
        client.give(HeadsIn(1, new_document(), "far", ["h" * 200] * 100, 5))
    client.close()
    net.tick(31.0)

    assert net.shard._gossip._known == {}


def test_first_subscription_and_last_end_are_passed_on_to_generous_peers() -> None:
    net = Net()
    generous = announced(net, 1)
    watchers = [Client(net, new_document(), number) for number in (2, 3)]

    watchers[0].give(SubscribeIn(2, ["far"], []))
    watchers[1].give(SubscribeIn(3, ["far"], []))
    watchers[0].close()
    watchers[1].give(SubscribeIn(3, [], ["far"]))

    passed = [(list(i.add), list(i.remove)) for i in generous.heard if isinstance(i, SubscribeOut)]
    assert passed == [(["far"], []), ([], ["far"])]


def test_generous_peer_that_comes_later_is_told_what_is_wanted() -> None:
    net = Net()
    watcher = Client(net, new_document(), 1)
    watcher.give(SubscribeIn(1, ["far"], []))

    generous = announced(net, 2)

    (passed,) = [item for item in generous.heard if isinstance(item, SubscribeOut)]
    assert list(passed.add) == ["far"]


def test_only_the_shard_of_the_storage_id_speaks() -> None:
    passed = []
    for number in range(4):
        net = Net(number=number, shard_count=4)
        generous = announced(net, 1)
        Client(net, new_document(), 2).give(SubscribeIn(2, ["far"], []))
        passed += [number for item in generous.heard if isinstance(item, SubscribeOut)]

    assert passed == [shard_of_storage("far", 4)]


def test_oldest_entry_that_waits_says_since_when(net: Net, document_id: DocumentId) -> None:
    stored(net, document_id, a=1)
    net.hold_loads = True
    client = Client(net, document_id, 1)
    assert net.shard.oldest_written_at is None

    for written_at in (7.0, 8.0):
        net.position += 1
        entry = Entry(GATEWAY, net.position, written_at, [client.item(EMPTY_SYNC)], 0)
        net.step(partial(_take, net, entry))
        net.settled()

    assert net.shard.oldest_written_at == 7.0
    net.release()
    net.settled()
    assert net.shard.oldest_written_at is None


def _take(net: Net, entry: Entry, effects: Effects) -> None:
    net.shard.take((0, net.position), entry, effects, net.now)
