"""What travels beside documents: ephemeral messages, remote heads, announcements."""

from pathlib import Path

import pytest

from interop.conftest import ServerStarter
from interop.driver import Driver
from interop.repos import Doc
from interop.servers import Server


def test_ephemeral_reaches_every_other_client_once_and_never_its_sender(
    js: Driver, server: Server
) -> None:
    clients = [js.connect(server.url, peer_id=f"eph-{n}") for n in range(4)]
    sender = clients[0].create({})
    sender.wait_saved()
    docs = [sender, *(client.find(sender.id) for client in clients[1:])]

    for number in range(5):
        sender.broadcast({"cursor": number, "name": "ü"})
    # A later message from another client shows that all the earlier ones have had their time.
    docs[1].ephemerals(at_least=5)
    docs[1].broadcast("last")

    expected = [{"senderId": "eph-0", "message": {"cursor": n, "name": "ü"}} for n in range(5)]
    last = {"senderId": "eph-1", "message": "last"}
    assert docs[2].ephemerals(at_least=6) == [*expected, last]
    assert docs[3].ephemerals(at_least=6) == [*expected, last]
    assert docs[0].ephemerals(at_least=1) == [last]
    assert docs[1].ephemerals() == expected


def test_ephemeral_stays_within_its_document(js: Driver, server: Server) -> None:
    sender, other = js.connect(server.url), js.connect(server.url)
    one, two = sender.create({"n": 1}), sender.create({"n": 2})
    one.wait_saved()
    two.wait_saved()
    only_two = other.find(two.id)

    one.broadcast("one")
    two.broadcast("two")

    assert [e["message"] for e in only_two.ephemerals(at_least=1)] == ["two"]
    assert other.documents() == {two.id}


def test_ephemerals_go_on_after_a_reconnect(js: Driver, server: Server) -> None:
    sender, receiver = js.connect(server.url), js.connect(server.url)
    doc = sender.create({})
    doc.wait_saved()
    found = receiver.find(doc.id)
    doc.broadcast("before")
    found.ephemerals(at_least=1)

    sender.drop()
    receiver.drop()
    sender.wait_connected(welcomes=2)
    receiver.wait_connected(welcomes=2)
    doc.edit(["set", ["synced"], True])
    found.wait(path=["synced"], equals=True)
    doc.broadcast("after")

    messages = [e["message"] for e in found.ephemerals(at_least=2)]
    assert messages == ["before", "after"]


def test_client_sees_when_another_clients_storage_has_its_heads(
    js: Driver, server: Server, tmp_path: Path
) -> None:
    laptop = js.connect(server.url, storage=tmp_path / "laptop", gossip=True)
    phone = js.connect(server.url, storage=tmp_path / "phone", gossip=True)
    phone_storage = phone.storage_id()
    doc = laptop.create({"text": "a"})
    doc.wait_saved()
    _subscribed(doc, phone_storage)

    found = phone.find(doc.id)
    doc.wait_remote_heads(phone_storage, doc.heads())
    heads = found.edit(["set", ["by"], "phone"])
    doc.wait_remote_heads(phone_storage, heads)
    js.converge([doc, found])
    heads = doc.edit(["set", ["by"], "laptop"])
    doc.wait_remote_heads(phone_storage, heads)


@pytest.mark.usefixtures("amsync_only")
def test_late_subscriber_gets_the_remote_heads_that_the_server_knows(
    js: Driver, server: Server, tmp_path: Path
) -> None:
    """automerge-repo's own server answers so only when somebody subscribed before."""
    laptop = js.connect(server.url, storage=tmp_path / "laptop", gossip=True)
    phone = js.connect(server.url, storage=tmp_path / "phone", gossip=True)
    doc = laptop.create({"n": 0})
    doc.wait_saved()
    found = phone.find(doc.id)
    found.edit(["set", ["n"], 1])
    found.wait_saved()
    js.converge([doc, found])

    laptop.subscribe_to_remotes(phone.storage_id())

    doc.wait_remote_heads(phone.storage_id(), found.heads())


def test_subscription_to_remote_heads_survives_a_reconnect(
    js: Driver, server: Server, tmp_path: Path
) -> None:
    laptop = js.connect(server.url, storage=tmp_path / "laptop", gossip=True)
    phone = js.connect(server.url, storage=tmp_path / "phone", gossip=True)
    phone_storage = phone.storage_id()
    doc = laptop.create({"n": 0})
    doc.wait_saved()
    _subscribed(doc, phone_storage)
    found = phone.find(doc.id)
    doc.wait_remote_heads(phone_storage, doc.heads())

    laptop.drop()
    laptop.wait_connected(welcomes=2)
    heads = found.edit(["set", ["n"], 1])
    doc.wait_remote_heads(phone_storage, heads)


def test_announcing_server_offers_stored_documents_without_being_asked(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    server = start_server(announce=True)
    writer = js.connect(server.url)
    docs = [writer.create({"n": n}) for n in range(20)]
    for doc in docs:
        doc.wait_saved()

    second = js.connect(server.url, storage=tmp_path / "second", announce=False)
    second.wait_documents([doc.id for doc in docs])

    assert second.doc(docs[7].id).value() == {"n": 7}


def test_announcing_server_offers_documents_created_later(
    js: Driver, start_server: ServerStarter
) -> None:
    server = start_server(announce=True)
    writer, second = js.connect(server.url), js.connect(server.url)

    doc = writer.create({"n": 1})
    second.wait_documents([doc.id])
    second.doc(doc.id).edit(["set", ["n"], 2])

    assert doc.wait(path=["n"], equals=2) == {"n": 2}


def _subscribed(doc: Doc, storage_id: str) -> None:
    """Subscribe, and wait until the server has taken note: it answers a later edit."""
    doc.repo.subscribe_to_remotes(storage_id)
    doc.edit(["set", ["subscribed"], True])
    doc.wait_saved()
