"""Documents that are in use, but not used: closed, and opened again when somebody speaks."""

import pytest

from amsync.protocol.access import Access
from amsync.protocol.envelope import AccessIn, SyncOut, UnavailableOut
from amsync.worker.shard import SLEEP_SECONDS
from amsync.worker.synchronizer import State

from .net import Client, Net, new_document, stored


def asleep(net: Net, *clients: Client) -> None:
    """All are in step, and the document is let go."""
    net.introduce(*clients)
    net.tick(SLEEP_SECONDS + 1)
    assert state_of(net, clients[0]) is State.COLD


def state_of(net: Net, client: Client) -> State:
    return net.shard.documents[client.document_id].state


def test_an_edit_wakes_it_and_reaches_everybody() -> None:
    net, document_id = Net(), new_document()
    stored(net, document_id, n=1)
    clients = [Client(net, document_id, number) for number in range(1, 4)]
    asleep(net, *clients)
    assert net.shard.documents[document_id].size_bytes() == 0
    heard = [len(client.heard) for client in clients]

    clients[0].put("n", 2)
    clients[0].say()

    # A greeting, and the change: a document that was just loaded takes it in a job of its own.
    assert [len(c.heard) - before for c, before in zip(clients, heard, strict=True)] == [2, 2, 2]
    assert net.settle() <= 6
    assert [client.value() for client in clients] == [{"n": 2}] * 3
    assert net.loads == 2


def test_what_the_application_brings_reaches_those_who_slept() -> None:
    net, document_id = Net(), new_document()
    replica = stored(net, document_id, n=1)
    client = Client(net, document_id, 1)
    asleep(net, client)
    known = len(replica.changes())
    replica.put("n", 2)

    assert net.call("apply", document_id, b"".join(replica.changes()[known:])).error is None
    net.settle()

    assert client.value() == {"n": 2}


def test_a_message_that_is_not_taken_wakes_the_others_too() -> None:
    net, document_id = Net(), new_document()
    stored(net, document_id, n=1)
    hostile, other = Client(net, document_id, 1), Client(net, document_id, 2)
    asleep(net, hostile, other)

    hostile.send(b"no sync message")
    other.put("n", 2)
    net.introduce(other)

    assert net.stored[document_id][-1] in other.replica.changes()


def test_it_sleeps_no_sooner_than_it_may() -> None:
    net, document_id = Net(), new_document()
    stored(net, document_id, n=1)
    client = Client(net, document_id, 1)
    net.introduce(client)

    net.tick(SLEEP_SECONDS - 1)

    assert state_of(net, client) is State.READY


def test_what_is_not_stored_stays_open() -> None:
    net, document_id = Net(), new_document()
    client = Client(net, document_id, 1)
    net.introduce(client)  # made for it, and written to disk with the first edit only

    net.tick(SLEEP_SECONDS + 1)

    assert state_of(net, client) is State.READY
    client.put("n", 1)
    client.say()
    net.settle()
    assert net.stored[document_id]


def test_who_waits_for_an_absent_document_keeps_it_open() -> None:
    net, document_id = Net(auto_create=False), new_document()
    asking, bringing = Client(net, document_id, 1), Client(net, document_id, 2)
    net.introduce(asking)
    net.tick(SLEEP_SECONDS + 1)

    bringing.put("n", 1)
    net.introduce(bringing)

    assert asking.value() == {"n": 1}


def test_who_lost_access_meanwhile_hears_nothing_when_it_wakes() -> None:
    net, document_id = Net(), new_document()
    stored(net, document_id, n=1)
    writer, other = Client(net, document_id, 1), Client(net, document_id, 2)
    asleep(net, writer, other)
    net.give(AccessIn(2, document_id, Access.NONE))
    heard = len(other.heard)

    writer.put("n", 2)
    writer.say()
    net.settle()

    assert len(other.heard) == heard


def test_who_became_a_reader_meanwhile_is_not_listened_to() -> None:
    net, document_id = Net(), new_document()
    stored(net, document_id, n=1)
    writer, other = Client(net, document_id, 1), Client(net, document_id, 2)
    asleep(net, writer, other)
    net.give(AccessIn(2, document_id, Access.READ))
    other.access = int(Access.READ)

    other.put("n", 3)
    other.say()
    writer.put("m", 2)
    writer.say()
    net.settle()

    assert writer.value() == {"n": 1, "m": 2}
    assert other.value() == {"n": 3, "m": 2}


def test_a_document_that_was_deleted_meanwhile_is_unavailable() -> None:
    net, document_id = Net(), new_document()
    stored(net, document_id, n=1)
    speaking, silent = Client(net, document_id, 1), Client(net, document_id, 2)
    asleep(net, speaking, silent)
    net.deleted.add(document_id)

    speaking.put("n", 2)
    speaking.say()

    for client in (speaking, silent):
        assert isinstance(client.heard[-1], UnavailableOut)


def test_what_comes_to_light_on_the_volume_wakes_it() -> None:
    net, document_id = Net(), new_document()
    replica = stored(net, document_id, n=1)
    client = Client(net, document_id, 1)
    asleep(net, client)
    replica.put("late", True)
    net.store(document_id, replica)

    net.step(lambda effects: net.shard.found([document_id], effects, net.now))
    net.settle()

    assert client.value() == {"n": 1, "late": True}


def test_who_leaves_while_it_sleeps_is_forgotten() -> None:
    net, document_id = Net(), new_document()
    stored(net, document_id, n=1)
    client = Client(net, document_id, 1)
    asleep(net, client)

    client.close()
    net.tick(SLEEP_SECONDS + 1)

    assert net.shard.documents == {}


@pytest.mark.parametrize("full", [False, True])
def test_a_peer_that_is_held_keeps_it_open(full: bool) -> None:
    net, document_id = Net(), new_document()
    stored(net, document_id, n=1)
    client = Client(net, document_id, 1)
    net.introduce(client)
    net.disk_is_full = full
    client.put("n", 2)
    client.say()
    if full:
        client.put("n", 3)
        client.say()

    net.tick(SLEEP_SECONDS + 1)
    if full:
        net.make_room()
    net.settle()

    assert client.value()["n"] == (3 if full else 2)
    newest = [item for item in client.heard if isinstance(item, SyncOut)][-1]
    assert client.replica.heads()[0] in newest.data
