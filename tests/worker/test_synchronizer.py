"""The life of one document with the real engine: load, create, answer, refuse, let go."""

from typing import Any

import msgpack
import pytest

from amsync._automerge import Replica, initial_change
from amsync.ids import DocumentId
from amsync.protocol.envelope import (
    AccessIn,
    Call,
    EphemeralIn,
    EphemeralOut,
    SyncIn,
    SyncOut,
    UnavailableIn,
    UnavailableOut,
)
from amsync.protocol.sync import names_no_heads
from amsync.worker.engine import NativeCodec, NativeFactory, load_document
from amsync.worker.peers import SILENCE_SECONDS
from amsync.worker.ports import EngineBroken, EngineDocument
from amsync.worker.synchronizer import BREAKS_UNTIL_BLOCKED, LOADS_UNTIL_REFUSED, State
from native import craft
from support.rawclient import EMPTY_SYNC

from .net import Client, Net, new_document


@pytest.fixture
def document_id() -> DocumentId:
    return new_document()


@pytest.fixture
def net() -> Net:
    return Net()


def stored(net: Net, document_id: DocumentId, **values: object) -> Replica:
    """Put a document on the volume."""
    replica = Replica()
    for key, value in values.items():
        replica.put(key, value)
    net.store(document_id, replica)
    return replica


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


# -- loading


def test_nothing_is_answered_before_storage_was_read(net: Net, document_id: DocumentId) -> None:
    stored(net, document_id, a=1)
    net.hold_loads = True
    client = Client(net, document_id, 1)
    client.say()
    client.put("b", 2)
    client.say()
    assert client.heard == []

    net.release()
    net.settle()

    assert client.value() == {"a": 1, "b": 2}
    assert net.loads == 1


def test_offset_stays_behind_what_waits_for_a_load(net: Net, document_id: DocumentId) -> None:
    other = new_document()
    Client(net, other, 1).say()
    waiting = Client(net, document_id, 2)
    before = net.position
    net.hold_loads = True
    waiting.say()
    assert net.settled() == before

    Client(net, other, 3)
    assert net.settled() == before

    net.release()
    assert net.settled() == net.position


def test_offset_stays_behind_what_waits_for_a_job(net: Net, document_id: DocumentId) -> None:
    replica = stored(net, document_id, a=1)
    before = net.position
    net.hold_jobs = True
    replica.put("large", b"x" * 100_000)
    client = Client(net, document_id, 1)
    client.replica.merge(replica)
    client.say()
    large = craft.message(replica.changes(), replica.heads())
    before = net.position
    client.send(large)
    assert net.settled() == before
    assert net.shard.documents[document_id].state is State.BUSY

    client.send(EMPTY_SYNC)
    assert net.settled() == before

    net.release()
    assert net.settled() == net.position
    assert load_document(net.stored[document_id])[0].heads() == replica.heads()


def test_failed_load_is_tried_again_and_nobody_is_told_anything(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    client = Client(net, document_id, 1)
    before = net.position
    net.load_fails = True
    client.say()
    assert net.tick(0.5) == []
    assert client.heard == []
    assert net.settled() == before

    net.load_fails = False
    net.tick(1.0)
    net.settle()

    assert client.value() == {"a": 1}
    assert net.settled() == net.position


def test_load_that_fails_for_long_holds_up_nobody_and_is_made_up_for(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    client = Client(net, document_id, 1)
    client.put("b", 2)
    net.load_fails = True
    client.say()
    for _ in range(LOADS_UNTIL_REFUSED):
        net.tick(100.0)
    assert "unavailable" in client.kinds()
    assert net.settled() == net.position
    late = Client(net, document_id, 2)
    late.say()
    assert late.kinds() == ["unavailable"]
    assert net.call("get", document_id).error == "StorageError"

    net.load_fails = False
    net.tick(100.0)
    net.settle()

    assert client.value() == late.value() == {"a": 1, "b": 2}


def test_what_a_client_sent_before_it_went_is_kept(net: Net, document_id: DocumentId) -> None:
    stored(net, document_id, a=1)
    net.hold_loads = True
    client = Client(net, document_id, 1)
    client.put("b", 2)
    client.send(craft.message(client.replica.changes(), client.replica.heads()))
    client.close()

    net.release()

    late = Client(net, document_id, 2)
    late.say()
    net.settle()
    assert late.value() == {"a": 1, "b": 2}
    assert list(net.shard.connections) == [(late.gateway, late.number)]
    assert net.settled() == net.position


# -- deletion


def test_deleted_document_is_unavailable_to_those_who_had_it_and_later(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    client = Client(net, document_id, 1)
    client.say()
    net.settle()

    assert net.call("delete", document_id).error is None
    assert client.kinds()[-1] == "unavailable"

    heard = len(client.heard)
    client.put("b", 2)
    client.say()
    late = Client(net, document_id, 2)
    late.say()

    assert client.kinds()[heard:] == ["unavailable"]
    assert late.kinds() == ["unavailable"]
    assert net.stored == {}
    assert net.call("create", document_id).error == "DocumentDeleted"
    assert net.call("get", document_id).payload == b""


def test_deleted_id_is_never_created_again_after_a_reload(
    net: Net, document_id: DocumentId
) -> None:
    net.deleted.add(document_id)
    asking, bringing = Client(net, document_id, 1), Client(net, document_id, 2)
    asking.say()
    bringing.put("a", 1)
    bringing.say()

    assert asking.kinds() == ["unavailable"]
    assert bringing.kinds() == ["unavailable"]
    assert net.stored == {}


def test_messages_during_a_deletion_wait_for_it(net: Net, document_id: DocumentId) -> None:
    stored(net, document_id, a=1)
    client = Client(net, document_id, 1)
    client.say()
    net.settle()
    net.hold_jobs = True
    net.give(Call(1, "delete", document_id, b""))
    client.put("b", 2)
    client.say()
    heard = len(client.heard)

    net.release()

    assert client.kinds()[heard:] == ["unavailable", "unavailable"]
    assert net.stored == {}


# -- refusals

BAD_CHANGE = craft.Change(b"mallory---------", sequence=2)


def mischief() -> bytes:
    return craft.message([BAD_CHANGE.chunk()], [BAD_CHANGE.hash()])


def test_refused_change_silences_its_sender_and_nobody_else(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    bad, good, reader = (Client(net, document_id, number) for number in (1, 2, 3))
    for client in (bad, good, reader):
        client.say()
    net.settle()
    heard = len(bad.heard)

    bad.send(mischief())
    assert bad.kinds()[heard:] == ["unavailable"]
    assert ("engine_faults", "sequence") in net.counts

    good.put("b", 2)
    good.say()
    net.settle()
    assert reader.value() == {"a": 1, "b": 2}
    assert len(bad.heard) == heard + 1
    bad.put("c", 3)
    bad.say()
    assert len(bad.heard) == heard + 1
    assert ("silenced_messages", "") in net.counts


def test_silence_ends_with_a_reset_that_brings_everything(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    bad, good = Client(net, document_id, 1), Client(net, document_id, 2)
    for client in (bad, good):
        client.say()
    net.settle()
    bad.send(mischief())
    bad.put("lost", 1)
    bad.say()  # dropped in the silence
    good.put("b", 2)
    good.say()
    net.settle()

    net.tick(SILENCE_SECONDS + 1)
    bad.put("after", 1)
    bad.say()
    messages = net.settle()

    assert bad.value() == good.value() == {"a": 1, "b": 2, "lost": 1, "after": 1}
    assert messages < 10


def test_silenced_client_with_nothing_to_say_is_told_by_itself(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    bad, good = Client(net, document_id, 1), Client(net, document_id, 2)
    for client in (bad, good):
        client.say()
    net.settle()
    bad.send(mischief())
    good.put("b", 2)
    good.say()
    net.settle()

    net.tick(SILENCE_SECONDS + 1)
    net.settle()

    assert bad.value() == {"a": 1, "b": 2}


def test_repeated_mischief_is_silenced_longer(net: Net, document_id: DocumentId) -> None:
    stored(net, document_id, a=1)
    bad = Client(net, document_id, 1)
    bad.send(mischief())
    net.tick(SILENCE_SECONDS + 1)
    bad.send(mischief())
    heard = len(bad.heard)

    net.tick(SILENCE_SECONDS + 1)
    bad.send(EMPTY_SYNC)
    assert len(bad.heard) == heard

    net.tick(SILENCE_SECONDS + 1)
    bad.send(EMPTY_SYNC)
    assert len(bad.heard) > heard


@pytest.mark.parametrize("data", [b"", b"x", b"\x42", EMPTY_SYNC[:-4], b"\x42" + b"\xff" * 100])
def test_corrupt_message_is_answered_with_unavailable(
    net: Net, document_id: DocumentId, data: bytes
) -> None:
    client = Client(net, document_id, 1)

    client.send(data)

    assert client.kinds() == ["unavailable"]
    assert net.settled() == net.position


# -- a broken engine


class Fragile:
    """A factory whose documents break on a magic message, or always."""

    def __init__(self) -> None:
        self.native = NativeFactory()
        self.always = False
        self.error: type[Exception] = EngineBroken

    def new(self) -> EngineDocument:
        return FragileDocument(self, self.native.new())

    def load(self, blobs: list[bytes]) -> EngineDocument:
        return FragileDocument(self, load_document(blobs)[0])

    def initial_change(self) -> bytes:
        return self.native.initial_change()


class FragileDocument:
    def __init__(self, factory: Fragile, document: EngineDocument) -> None:
        self._factory, self._document = factory, document

    def __getattr__(self, name: str) -> Any:
        return getattr(self._document, name)

    def sync(self, batch: Any, hello: Any = ()) -> Any:
        if self._factory.always or any(data == b"BREAK" for _, data in batch):
            raise self._factory.error("broken on purpose")
        return self._document.sync(batch, hello)


def fragile() -> tuple[Fragile, Net]:
    factory = Fragile()
    return factory, Net(factory=factory)


def test_broken_engine_is_loaded_again_and_its_breaker_silenced(document_id: DocumentId) -> None:
    _, net = fragile()
    stored(net, document_id, a=1)
    bad, good, other = (Client(net, document_id, number) for number in (1, 2, 3))
    for client in (bad, good, other):
        client.say()
    net.settle()
    loads, heard = net.loads, len(bad.heard)

    bad.send(b"BREAK")
    net.settle()

    assert net.loads == loads + 1
    assert bad.kinds()[heard:] == ["unavailable"]
    good.put("b", 2)
    good.say()
    net.settle()
    assert other.value() == {"a": 1, "b": 2}
    assert ("engine_broken", "EngineBroken") in net.counts
    assert net.settled() == net.position


def test_edits_before_the_break_survive_it(document_id: DocumentId) -> None:
    _, net = fragile()
    bad, good = Client(net, document_id, 1), Client(net, document_id, 2)
    good.put("a", 1)
    good.say()
    net.settle()
    bad.say()
    net.settle()

    bad.send(b"BREAK")
    good.put("b", 2)
    good.say()
    net.settle()

    late = Client(net, document_id, 3)
    late.say()
    net.settle()
    assert late.value() == {"a": 1, "b": 2}


def test_document_that_breaks_too_often_is_blocked_for_all(document_id: DocumentId) -> None:
    _, net = fragile()
    stored(net, document_id, a=1)
    good = Client(net, document_id, 1)
    good.say()
    net.settle()

    for number in range(BREAKS_UNTIL_BLOCKED):
        Client(net, document_id, 10 + number).send(b"BREAK")
        net.settle()

    assert good.kinds()[-1] == "unavailable"
    late = Client(net, document_id, 30)
    late.say()
    assert late.kinds() == ["unavailable"]
    assert net.call("get", document_id).error == "StorageError"
    assert net.settled() == net.position
    late.close()
    good.close()
    assert net.settled() == net.position


def test_one_broken_document_harms_no_other(document_id: DocumentId) -> None:
    factory, net = fragile()
    bad = Client(net, document_id, 1)
    for _ in range(BREAKS_UNTIL_BLOCKED + 1):
        bad.send(b"BREAK")
        net.tick(400.0)
    assert not factory.always

    good = Client(net, new_document(), 2)
    good.put("a", 1)
    good.say()
    net.settle()

    assert good.kinds()
    assert "unavailable" not in good.kinds()


def test_engine_that_breaks_while_syncing_again_does_not_spin(document_id: DocumentId) -> None:
    factory, net = fragile()
    stored(net, document_id, a=1)
    client = Client(net, document_id, 1)
    client.say()
    net.settle()

    factory.always = True
    client.put("b", 1)
    client.say()

    assert net.loads <= BREAKS_UNTIL_BLOCKED + 1
    assert client.kinds()[-1] == "unavailable"
    assert net.settled() == net.position


# -- access


def test_reader_gets_everything_and_gives_nothing(net: Net, document_id: DocumentId) -> None:
    stored(net, document_id, a=1)
    reader, writer = Client(net, document_id, 1, access=1), Client(net, document_id, 2)
    for client in (reader, writer):
        client.say()
    net.settle()

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
    for each in (client, other):
        each.say()
    net.settle()
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
    for each in (client, other):
        each.say()
    net.settle()

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
    for each in (client, other):
        each.say()
    net.settle()

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
    for client in clients:
        client.say()
    net.settle()
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
    for client in (old, new):
        client.say()
    net.settle()
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
    for client in (writer, *readers):
        client.say()
    net.settle()

    writer.put("b", 2)
    data = writer.replica.generate(0)
    assert data is not None
    items = writer.send(data)

    with_changes = [i for i in items if isinstance(i, SyncOut) and len(i.connections) > 1]
    assert [sorted(item.connections) for item in with_changes] == [list(range(2, 12))]


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


# -- letting go


def test_document_that_nobody_has_open_is_forgotten_and_comes_back(
    net: Net, document_id: DocumentId
) -> None:
    client = Client(net, document_id, 1)
    client.put("a", 1)
    client.say()
    net.settle()
    client.close()
    assert document_id in net.shard.documents

    net.tick(31.0)
    assert net.shard.documents == {}

    late = Client(net, document_id, 2)
    late.say()
    net.settle()
    assert late.value() == {"a": 1}
    assert net.loads == 2


def test_document_in_use_is_not_let_go(net: Net, document_id: DocumentId) -> None:
    client = Client(net, document_id, 1)
    client.say()
    net.settle()

    net.tick(1000.0)
    assert net.shard.free_memory(1 << 40) == 0

    client.put("a", 1)
    client.say()
    net.settle()
    assert net.loads == 1


def test_created_document_that_is_let_go_is_the_same_when_it_is_created_again(
    net: Net, document_id: DocumentId
) -> None:
    first = Client(net, document_id, 1)
    first.say()
    net.settle()
    first.close()
    net.tick(31.0)

    second = Client(net, document_id, 2)
    second.say()
    net.settle()
    returning = Client(net, document_id, 3)
    returning.replica.merge(first.replica)
    returning.say()
    net.settle()

    assert second.replica.heads() == first.replica.heads() == returning.replica.heads()


def test_memory_can_be_freed_of_documents_that_nobody_syncs(net: Net) -> None:
    documents = [new_document() for _ in range(3)]
    for number, document_id in enumerate(documents):
        client = Client(net, document_id, number)
        client.put("a", b"x" * 10_000)
        client.say()
        net.settle()
        client.close()
        net.now += 1
    size = sum(net.shard.documents[d].size_bytes() for d in documents)

    freed = net.shard.free_memory(1)

    assert 0 < freed < size
    assert net.shard.documents[documents[0]].state is State.COLD
    assert net.shard.documents[documents[2]].state is State.READY


def test_many_messages_in_one_entry_are_one_batch(net: Net, document_id: DocumentId) -> None:
    clients = [Client(net, document_id, number) for number in range(1, 6)]
    for client in clients:
        client.say()
    net.settle()
    for client in clients:
        client.put(f"k{client.number}", 1)
    items = [
        SyncIn(c.number, document_id, 2, True, False, c.replica.generate(0) or b"") for c in clients
    ]

    net.give(*items)
    messages = net.settle()

    assert {len(client.value()) for client in clients} == {5}
    assert messages <= 15
