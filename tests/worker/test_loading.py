"""One document comes and goes: load, failed load, deletion, letting go."""

import pytest

from amsync._automerge import build_document
from amsync.ids import DocumentId
from amsync.protocol.envelope import (
    AccessIn,
    Call,
    Reply,
    SyncIn,
)
from amsync.worker.engine import load_document
from amsync.worker.peers import LOADS_UNTIL_REFUSED
from amsync.worker.synchronizer import State
from native import craft
from support.rawclient import EMPTY_SYNC

from .net import Client, Net, new_document, stored

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
    assert net.shard.free_memory(1 << 40, net.now) == 0

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

    freed = net.shard.free_memory(1, net.now)

    assert 0 < freed < size
    assert net.shard.documents[documents[0]].state is State.COLD
    assert net.shard.documents[documents[2]].state is State.READY


def test_many_messages_in_one_entry_are_one_batch(net: Net, document_id: DocumentId) -> None:
    clients = [Client(net, document_id, number) for number in range(1, 6)]
    net.introduce(*clients)
    for client in clients:
        client.put(f"k{client.number}", 1)
    items = [
        SyncIn(c.number, document_id, 2, True, False, c.replica.generate(0) or b"") for c in clients
    ]

    net.give(*items)
    messages = net.settle()

    assert {len(client.value()) for client in clients} == {5}
    assert messages <= 15


# -- what is said while it can't be read


def test_access_that_was_lost_while_the_document_could_not_be_read_is_lost(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    client = Client(net, document_id, 1)
    net.introduce(client)
    net.load_fails = True
    net.step(lambda effects: net.shard.found([document_id], effects, net.now))
    for _ in range(LOADS_UNTIL_REFUSED + 2):
        net.tick(5.0)

    client.access = 1
    client.give(AccessIn(1, document_id, 1))
    net.load_fails = False
    for _ in range(100):
        net.tick(5.0)
    net.settle()
    client.put("forbidden", 1)
    client.say()
    net.settle()

    assert len(net.stored[document_id]) == 1


def test_calls_of_a_document_that_fails_unexpectedly_are_answered_and_late_results_ignored(
    net: Net, document_id: DocumentId, monkeypatch: pytest.MonkeyPatch
) -> None:
    net.failures_are_expected = True
    stored(net, document_id, a=1)
    net.hold_jobs = True
    net.give(Call(9, "apply", document_id, build_document({"x": 1})))
    document = net.shard.documents[document_id]

    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(type(document), "run", fail)
        net.give(Call(10, "get", document_id, b""))
    assert document.state is State.BLOCKED
    for _ in range(60):
        net.tick()
    net.release()

    replies = {item.call: item.error for _, item in net.published if isinstance(item, Reply)}
    assert replies[9] == "StorageError"


# -- loss


def test_a_document_of_which_nothing_can_be_read_is_not_created_but_taken_from_who_has_it(
    net: Net, document_id: DocumentId
) -> None:
    net.lost.add(document_id)
    asker = Client(net, document_id, 1)
    asker.say()
    net.settle()
    assert asker.kinds() == ["unavailable"]

    owner = Client(net, document_id, 2)
    owner.replica.put("a", 1)
    owner.say()
    net.settle()

    assert asker.value() == owner.value() == {"a": 1}
