"""Readers, writers and those who lose access; broadcasts and who hears them."""

from typing import Any

import pytest

from amsync.ids import DocumentId
from amsync.protocol.envelope import (
    AccessIn,
    EphemeralIn,
    EphemeralOut,
    Outbound,
    SyncOut,
    UnavailableIn,
    UnavailableOut,
)
from amsync.worker.engine import load_document
from native.kinds import NEW, OLD, V1, aged

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


# -- who may not create


def bytes_of(client: Client) -> list[Any]:
    """What the gateway would put on the wire, in order."""
    return [getattr(item, "data", type(item)) for item in client.heard]


def test_each_message_for_an_absent_document_is_answered_like_one_for_a_forbidden_one(
    net: Net, document_id: DocumentId
) -> None:
    """The gateway answers doc-unavailable to each of them, and nothing else."""
    client = Client(net, document_id, 1, may_create=False)
    request = client.replica.generate(0)
    client.put("a", 1)
    upload = client.replica.generate(0)
    assert request
    assert upload
    messages = [(request, True), (request, True), (upload, False), (upload, False), (b"x", False)]
    messages += [(b"\x42\x00", True), (b"", True), (request, True)]
    for data, is_request in [*messages, *messages, (request, True)]:
        client.send(data, is_request=is_request)
    net.give(*(client.item(data, is_request=is_request) for data, is_request in messages))

    assert bytes_of(client) == [UnavailableOut] * (3 * len(messages) + 1)
    assert document_id not in net.stored


@pytest.mark.parametrize("access", [1, 2])
def test_who_may_not_create_is_greeted_when_somebody_else_has_brought_the_document(
    net: Net, document_id: DocumentId, access: int
) -> None:
    client = Client(net, document_id, 1, may_create=False, access=access)
    client.put("mine", 1)
    client.say()
    client.say()
    creator = Client(net, document_id, 2)
    creator.put("a", 1)
    net.introduce(creator)
    net.tick()
    net.settle()

    wanted = {"a": 1, "mine": 1} if access == 2 else {"a": 1}
    assert creator.value() == wanted
    assert client.value() == {"a": 1, "mine": 1}


def test_access_gained_to_an_absent_document_asks_only_who_may_create(
    net: Net, document_id: DocumentId
) -> None:
    clients = [Client(net, document_id, 1, access=0), Client(net, document_id, 2, access=0)]
    for client, may_create in zip(clients, [True, False], strict=True):
        client.give(AccessIn(client.number, document_id, 2, may_create))
    assert clients[0].kinds() == ["sync"]
    assert clients[1].kinds() == ["unavailable"]


@pytest.mark.parametrize("access", [1, 2])
@pytest.mark.parametrize("is_asleep", [False, True])
def test_who_was_turned_away_and_may_create_now_is_asked_for_what_it_has(
    net: Net, document_id: DocumentId, access: int, is_asleep: bool
) -> None:
    client = Client(net, document_id, 1, may_create=False, access=access)
    client.put("a", 1)
    client.say()
    client.say()
    if is_asleep:
        net.tick(1000.0)

    client.access, client.may_create = 2, True
    client.give(AccessIn(1, document_id, 2, may_create=True))
    net.settle()

    assert load_document(net.stored[document_id])[0].heads() == client.replica.heads()


# -- older clients that only read


class OfKind(Client):
    """A client of some generation; older ones don't know the flag that says read-only."""

    def __init__(
        self, net: Net, document_id: DocumentId, number: int, kind: str, **options: Any
    ) -> None:
        self.kind = kind
        super().__init__(net, document_id, number, **options)

    def say(self) -> int:
        data = self.replica.generate(0)
        if data is None:
            return 0
        self.send(aged(data, self.kind))
        return 1

    def hear(self, item: Outbound) -> None:
        if isinstance(item, SyncOut):
            self.replica.receive(0, aged(item.data, self.kind))


def refused(net: Net) -> int:
    return net.counts.count(("changes_refused", "read_only"))


@pytest.mark.parametrize("kind", [NEW, OLD, V1])
def test_reader_that_keeps_sending_changes_is_refused_without_a_loop_and_counted(
    net: Net, document_id: DocumentId, kind: str
) -> None:
    stored(net, document_id, a=1)
    before = list(net.stored[document_id])
    reader = OfKind(net, document_id, 1, kind, access=1)
    writer = Client(net, document_id, 2)
    net.introduce(reader, writer)
    messages = 0
    for number in range(20):
        reader.put("forbidden", number)
        messages += reader.say() + net.settle()

    assert messages <= 20 * 4
    assert net.stored[document_id] == before
    assert writer.value() == {"a": 1}
    # A client that knows the flag keeps what it has to itself.
    assert (refused(net) == 0) if kind == NEW else (1 <= refused(net) <= messages)

    writer.put("b", 2)
    writer.say()
    net.settle()
    assert reader.value()["b"] == 2


@pytest.mark.parametrize("kind", [NEW, OLD, V1])
def test_writer_made_a_reader_and_a_writer_again_loses_nothing(
    net: Net, document_id: DocumentId, kind: str
) -> None:
    stored(net, document_id, a=1)
    client, other = (OfKind(net, document_id, number, kind) for number in (1, 2))
    net.introduce(client, other)
    client.put("acknowledged", 1)
    client.say()
    net.settle()

    client.access = 1
    client.give(AccessIn(1, document_id, 1))
    net.settle()
    client.put("refused", 1)
    client.say()
    net.settle()
    assert other.value() == {"a": 1, "acknowledged": 1}

    client.access = 2
    client.give(AccessIn(1, document_id, 2, may_create=True))
    net.settle()

    assert other.value() == client.value() == {"a": 1, "acknowledged": 1, "refused": 1}
    assert load_document(net.stored[document_id])[0].heads() == client.replica.heads()
