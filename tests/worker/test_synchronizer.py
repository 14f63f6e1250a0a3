"""One document with the real engine: who asks is answered, and what is answered is durable."""

from typing import Any

import msgpack
import pytest

from amsync._automerge import Replica, initial_change
from amsync.ids import DocumentId
from amsync.protocol.envelope import (
    AccessIn,
    SyncOut,
    UnavailableIn,
    UnavailableOut,
)
from amsync.protocol.sync import names_no_heads
from amsync.worker.engine import NativeCodec, load_document
from native import craft
from support.rawclient import EMPTY_SYNC

from .net import Client, Net, stored

# -- who asks


def test_stored_document_is_sent_to_who_asks(net: Net, document_id: DocumentId) -> None:
    stored(net, document_id, a=1)
    client = Client(net, document_id, 1)

    client.say()
    net.settle()

    assert client.value() == {"a": 1}
    assert "unavailable" not in client.kinds()


def test_unknown_document_is_created_for_who_may(net: Net, document_id: DocumentId) -> None:
    client = Client(net, document_id, 1)

    client.say()
    net.settle()

    (first, *_) = client.heard
    assert isinstance(first, SyncOut)
    assert first.created
    assert not names_no_heads(first.data)
    assert client.value() == {}
    assert client.replica.changes() == [initial_change()]


def test_created_document_costs_no_disk_until_somebody_edits(
    net: Net, document_id: DocumentId
) -> None:
    client = Client(net, document_id, 1)
    client.say()
    net.settle()
    assert net.stored == {}

    client.put("a", 1)
    client.say()
    net.settle()

    assert load_document(net.stored[document_id])[0].heads() == client.replica.heads()


def test_created_documents_are_the_same_everywhere(document_id: DocumentId) -> None:
    heads = []
    for _ in range(2):
        net = Net()
        client = Client(net, document_id, 1)
        client.say()
        net.settle()
        heads.append(client.replica.heads())

    assert heads[0] == heads[1]


@pytest.mark.parametrize(
    ("auto_create", "client_options"),
    [(False, {}), (True, {"may_create": False}), (True, {"access": 1})],
    ids=["off", "rate", "reader"],
)
def test_unknown_document_is_unavailable_at_once_and_without_an_empty_sync(
    document_id: DocumentId, auto_create: bool, client_options: dict[str, Any]
) -> None:
    net = Net(auto_create=auto_create)
    client = Client(net, document_id, 1, **client_options)

    client.say()

    assert client.heard == [UnavailableOut([1], document_id)]
    assert net.stored == {}


def test_unavailable_is_said_once_for_each_question(document_id: DocumentId) -> None:
    net = Net(auto_create=False)
    client = Client(net, document_id, 1)

    for asked in range(1, 4):
        client.send(EMPTY_SYNC)
        assert client.kinds() == ["unavailable"] * asked


@pytest.mark.parametrize("how", ["upload", "create"])
def test_document_that_appears_later_comes_to_who_was_told_unavailable(
    document_id: DocumentId, how: str
) -> None:
    net = Net(auto_create=False)
    asking, other = Client(net, document_id, 1), Client(net, document_id, 2)
    asking.say()
    assert asking.kinds() == ["unavailable"]

    if how == "upload":
        other.put("a", 1)
        other.say()
    else:
        replica = Replica()
        replica.put("a", 1)
        assert net.call("create", document_id, replica.save()).error is None
    net.settle()

    assert asking.value() == {"a": 1}


def test_one_who_asks_waits_for_one_who_has_offered(document_id: DocumentId) -> None:
    net = Net()
    bringing, asking = Client(net, document_id, 1), Client(net, document_id, 2)
    bringing.put("a", 1)
    bringing.say()  # heads, no changes yet

    asking.say()
    assert asking.heard == []

    net.settle()
    assert asking.value() == {"a": 1}
    assert "unavailable" not in asking.kinds()
    assert ("documents_created", "") not in net.counts


@pytest.mark.parametrize("end", ["close", "unavailable", "access"])
@pytest.mark.parametrize("auto_create", [True, False])
def test_when_the_one_who_offered_goes_the_one_who_asks_is_answered(
    document_id: DocumentId, end: str, auto_create: bool
) -> None:
    net = Net(auto_create=auto_create)
    bringing, asking = Client(net, document_id, 1), Client(net, document_id, 2)
    bringing.put("a", 1)
    bringing.say()
    asking.say()

    if end == "close":
        bringing.close()
    elif end == "unavailable":
        bringing.give(UnavailableIn(1, document_id))
    else:
        bringing.give(AccessIn(1, document_id, 0))

    assert asking.kinds() == ["sync" if auto_create else "unavailable"]


def test_reader_who_offers_is_not_waited_for(document_id: DocumentId) -> None:
    net = Net(auto_create=False)
    reader, asking = Client(net, document_id, 1, access=1), Client(net, document_id, 2)
    reader.put("a", 1)
    reader.say()
    asking.say()

    assert reader.kinds()[-1] == "unavailable"
    assert asking.kinds() == ["unavailable"]
    assert net.stored == {}


# -- durable first


def test_no_message_names_heads_that_are_not_stored(net: Net, document_id: DocumentId) -> None:
    """Every published message leaves with, or after, the chunks of the heads that it names."""
    clients = [Client(net, document_id, number) for number in (1, 2, 3)]
    for number, client in enumerate(clients):
        client.put(f"key{number}", number)
        client.say()
    checked = 0
    original = net._deliver

    def check(gateway: str, item: Any) -> None:
        nonlocal checked
        if isinstance(item, SyncOut) and not names_no_heads(item.data):
            known = load_document(net.stored.get(document_id, []))[0]
            replica = Replica.load(known.save())
            count = item.data[1]
            heads = [item.data[2 + 32 * n : 34 + 32 * n] for n in range(count)]
            assert all(replica.has(head) for head in heads)
            checked += 1
        original(gateway, item)

    net._deliver = check  # type: ignore[method-assign]
    net.settle()

    assert checked > 3
    assert {str(client.value()) for client in clients} == {str(clients[0].value())}


def test_edit_on_a_created_document_stores_its_first_change_too(
    net: Net, document_id: DocumentId
) -> None:
    client = Client(net, document_id, 1)
    client.say()
    net.settle()
    client.put("a", 1)
    client.say()
    net.settle()

    assert initial_change() in net.stored[document_id]


def test_everything_that_was_accepted_can_be_loaded_again(
    net: Net, document_id: DocumentId
) -> None:
    """Each of many small messages may claim as many rows as one message may."""
    client = Client(net, document_id, 1)
    changes = [craft.Change(bytes([n]) * 16, operations=2**16) for n in range(5)]
    for change in changes:
        client.send(craft.message([change.chunk()], [change.hash()]))
    assert "unavailable" not in client.kinds()

    loaded, faults = load_document(net.stored[document_id])

    assert faults == []
    assert sorted(loaded.heads()) == sorted(change.hash() for change in changes)
    assert NativeCodec().compact(net.stored[document_id]).heads == tuple(loaded.heads())


@pytest.mark.parametrize("first_actor", [1, 3])
def test_what_was_accepted_loads_in_any_order(
    net: Net, document_id: DocumentId, first_actor: int
) -> None:
    """Files are read in the order of their names, and a snapshot has an order of its own."""
    client = Client(net, document_id, 1)
    first = craft.Change(bytes([first_actor]) * 16, operations=2)
    far = craft.Change(bytes([2]) * 16, start=2**20 + 2)
    for change in (first, far):
        client.send(craft.message([change.chunk()], [change.hash()]))
    assert "unavailable" not in client.kinds()
    chunks = net.stored[document_id]

    for order in (chunks, chunks[::-1]):
        loaded, faults = load_document(order)
        assert faults == []
        assert sorted(loaded.heads()) == sorted([first.hash(), far.hash()])
        assert load_document([loaded.save()])[1] == []


# -- the application


def test_calls(net: Net, document_id: DocumentId) -> None:
    replica = Replica()
    replica.put("a", 1)
    assert net.call("get", document_id).payload == b""
    assert net.call("apply", document_id, replica.save()).error == "DocumentNotFound"
    assert net.call("delete", document_id).error == "DocumentNotFound"
    assert net.call("create", document_id, b"garbage").error == "InvalidDocument"
    assert net.call("create", document_id, replica.save()).error is None
    assert net.call("create", document_id).error == "DocumentExists"

    replica.put("b", 2)
    assert net.call("apply", document_id, replica.changes()[-1]).error is None
    assert net.call("apply", document_id, b"garbage").error == "InvalidDocument"
    heads, saved = msgpack.unpackb(net.call("get", document_id).payload)

    assert heads == replica.heads()
    assert Replica.load(saved).value() == {"a": 1, "b": 2}
    assert load_document(net.stored[document_id])[0].heads() == replica.heads()


def test_applied_changes_reach_the_clients(net: Net, document_id: DocumentId) -> None:
    replica = stored(net, document_id, a=1)
    client = Client(net, document_id, 1)
    client.say()
    net.settle()

    replica.put("b", 2)
    net.call("apply", document_id, replica.changes()[-1])
    net.settle()

    assert client.value() == {"a": 1, "b": 2}


def test_peer_that_answers_nothing_is_held_once_and_that_is_counted(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    writer, silent = Client(net, document_id, 1), Client(net, document_id, 2)
    writer.say()
    silent.say()
    net.settle()

    for number in range(20):
        writer.put("n", number)
        writer.say()

    assert net.counts.count(("unanswered_holds", "")) == 1
