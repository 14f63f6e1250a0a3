"""Readers, writers and those who lose access; broadcasts and who hears them."""

from amsync.ids import DocumentId
from amsync.protocol.envelope import (
    AccessIn,
    EphemeralIn,
    EphemeralOut,
    SyncOut,
    UnavailableIn,
)
from amsync.worker.engine import load_document

from .net import Client, Net, stored

# -- access


def test_reader_gets_everything_and_gives_nothing(net: Net, document_id: DocumentId) -> None:
    stored(net, document_id, a=1)
    reader, writer = Client(net, document_id, 1, access=1), Client(net, document_id, 2)
    net.introduce(reader, writer)

    reader.put("forbidden", 1)
    reader.say()
    writer.put("b", 2)
    writer.say()
    net.settle()

    assert writer.value() == {"a": 1, "b": 2}
    assert reader.value() == {"a": 1, "b": 2, "forbidden": 1}
    assert load_document(net.stored[document_id])[0].heads() == writer.replica.heads()


def test_reader_who_becomes_a_writer_brings_what_was_refused(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    client, other = Client(net, document_id, 1, access=1), Client(net, document_id, 2)
    net.introduce(client, other)
    client.put("b", 2)
    client.say()
    net.settle()
    assert other.value() == {"a": 1}

    client.access = 2
    client.give(AccessIn(1, document_id, 2))
    net.settle()

    assert other.value() == {"a": 1, "b": 2}


def test_writer_who_becomes_a_reader_is_not_believed_any_more(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    client, other = Client(net, document_id, 1), Client(net, document_id, 2)
    net.introduce(client, other)

    client.access = 1
    client.give(AccessIn(1, document_id, 1))
    net.settle()
    client.put("b", 2)
    client.say()
    other.put("c", 3)
    other.say()
    net.settle()

    assert other.value() == {"a": 1, "c": 3}
    assert client.value() == {"a": 1, "b": 2, "c": 3}


def test_lost_access_ends_everything_and_regained_access_brings_both_sides_together(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    client, other = Client(net, document_id, 1), Client(net, document_id, 2)
    net.introduce(client, other)

    client.give(AccessIn(1, document_id, 0))
    heard = len(client.heard)
    other.put("b", 2)
    other.say()
    other.give(EphemeralIn(2, document_id, "s", 1, b"x", None))
    net.settle()
    assert len(client.heard) == heard
    client.put("c", 3)
    assert client.replica.generate(0)  # refused by the gateway: it never gets here

    client.give(AccessIn(1, document_id, 2))
    messages = net.settle()

    assert client.value() == other.value() == {"a": 1, "b": 2, "c": 3}
    assert messages < 10


def test_access_lost_and_regained_while_loading_loses_no_message(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    net.hold_loads = True
    client = Client(net, document_id, 1)
    client.say()
    client.give(AccessIn(1, document_id, 0))
    client.give(AccessIn(1, document_id, 2))
    client.put("b", 2)
    client.say()

    net.release()
    net.settle()

    assert client.value() == {"a": 1, "b": 2}
    assert load_document(net.stored[document_id])[0].heads() == client.replica.heads()


# -- broadcasts


def test_broadcast_goes_to_the_others_without_loading_the_document(
    net: Net, document_id: DocumentId
) -> None:
    clients = [Client(net, document_id, number) for number in (1, 2, 3)]
    for client in clients:
        client.give(EphemeralIn(client.number, document_id, "s", 1, b"hello", None))

    heard = [[i.sender_id for i in c.heard if isinstance(i, EphemeralOut)] for c in clients]

    assert heard == [["peer-2", "peer-3"], ["peer-3"], []]
    assert net.loads == 0
    assert net.settled() == net.position


def test_broadcast_to_one_peer_reaches_only_that_one(net: Net, document_id: DocumentId) -> None:
    clients = [Client(net, document_id, number) for number in (1, 2, 3)]
    net.introduce(*clients)
    before = [len(client.heard) for client in clients]

    clients[0].give(EphemeralIn(1, document_id, "s", 1, b"x", "peer-3"))
    clients[0].give(EphemeralIn(1, document_id, "s", 2, b"x", "nobody"))

    assert [len(c.heard) - b for c, b in zip(clients, before, strict=True)] == [0, 0, 1]


def test_broadcast_does_not_come_back_to_another_connection_of_its_sender(
    net: Net, document_id: DocumentId
) -> None:
    """The older socket of a peer that has just connected again."""
    old = Client(net, document_id, 1, peer_id="same")
    new = Client(net, document_id, 2, peer_id="same")
    net.introduce(old, new)
    heard = len(old.heard)

    new.give(EphemeralIn(2, document_id, "s", 1, b"x", None))

    assert len(old.heard) == heard


def test_broadcast_reaches_who_neither_has_nor_wants_the_document(
    document_id: DocumentId,
) -> None:
    net = Net(auto_create=False)
    listener, talker = Client(net, document_id, 1), Client(net, document_id, 2)
    listener.say()
    listener.give(UnavailableIn(1, document_id))

    talker.give(EphemeralIn(2, document_id, "s", 1, b"x", None))

    assert listener.kinds() == ["unavailable", "ephemeral"]


def test_same_message_for_many_connections_travels_once(net: Net, document_id: DocumentId) -> None:
    stored(net, document_id, a=1)
    writer = Client(net, document_id, 1)
    readers = [Client(net, document_id, number) for number in range(2, 12)]
    net.introduce(writer, *readers)

    writer.put("b", 2)
    data = writer.replica.generate(0)
    assert data is not None
    items = writer.send(data)

    with_changes = [i for i in items if isinstance(i, SyncOut) and len(i.connections) > 1]
    assert [sorted(item.connections) for item in with_changes] == [list(range(2, 12))]
