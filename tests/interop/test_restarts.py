"""The server stops, is killed and returns; clients go on by themselves, nothing saved is lost."""

import pytest

from interop.conftest import ServerStarter
from interop.driver import Driver, results
from interop.repos import Doc, Repo
from interop.servers import Server

RETRY_SECONDS = 0.1


def test_clients_go_on_by_themselves_after_a_clean_restart(
    js: Driver, start_server: ServerStarter
) -> None:
    server = start_server()
    clients, docs = _typists(js, server, 2)

    server.restart()
    for client in clients:
        client.wait_connected(welcomes=2)
    written = _stop_typing(docs)
    value = js.converge(docs)

    assert sorted(value["list"]) == sorted(written)
    docs[0].wait_saved()
    assert js.connect(server.url).find(docs[0].id).heads() == docs[0].heads()


def test_clients_go_on_by_themselves_after_kill_9(js: Driver, start_server: ServerStarter) -> None:
    server = start_server()
    clients, docs = _typists(js, server, 3)

    for welcomes in range(2, 6):
        server.kill9()
        server.start()
        for client in clients:
            client.wait_connected(welcomes=welcomes)
    written = _stop_typing(docs)
    value = js.converge(docs, timeout=20)

    assert sorted(value["list"]) == sorted(written)
    assert js.connect(server.url).find(docs[0].id).value() == value


@pytest.mark.usefixtures("amsync_only")
def test_nothing_acknowledged_is_lost_by_kill_9(js: Driver, start_server: ServerStarter) -> None:
    """automerge-repo's own server acknowledges before it saves."""
    server = start_server()
    clients, docs = _typists(js, server, 3)

    before = 0

    for round_number in range(5):
        typed = 20 + 7 * round_number
        for doc in docs:
            doc.wait_typed(typed)
        server.kill9()
        written = _stop_typing(docs)
        acknowledged = [doc.acknowledged()["list"] for doc in docs]
        for client in clients:
            client.go_offline()
        server.start()

        fresh = js.connect(server.url)
        survived = fresh.find(docs[0].id).value()["list"]

        assert all(set(items) <= set(survived) for items in acknowledged)
        assert max(len(items) for items in acknowledged) > before, "nothing new was saved"
        for client in clients:
            client.go_online()
        value = js.converge([*docs, fresh.doc(docs[0].id)], timeout=20)
        assert set(written) <= set(value["list"])
        before = len(value["list"])
        assert before == len(set(value["list"]))
        _start_typing(docs, f"round-{round_number}")


@pytest.mark.usefixtures("amsync_only")
def test_documents_acknowledged_a_moment_before_kill_9_are_found(
    js: Driver, start_server: ServerStarter
) -> None:
    """automerge-repo's own server acknowledges before it saves."""
    server = start_server()
    writer = js.connect(server.url)
    docs = [writer.create({"number": number}) for number in range(50)]
    results([js.submit("waitSaved", {"documentId": d.id}, writer.name, 20) for d in docs])
    heads = [doc.heads() for doc in docs]
    server.kill9()
    writer.go_offline()
    server.start()

    found = js.connect(server.url).find_many([doc.id for doc in docs])

    assert [doc.heads() for doc in found] == heads


def test_document_made_while_the_server_is_away_is_uploaded(
    js: Driver, start_server: ServerStarter
) -> None:
    server = start_server()
    writer = js.connect(server.url, retry_seconds=RETRY_SECONDS)
    server.kill9()
    writer.wait_disconnected()

    doc = writer.create({"made": "meanwhile"})
    server.start()
    doc.wait_saved()

    assert js.connect(server.url).find(doc.id).value() == {"made": "meanwhile"}


def test_find_that_waits_while_the_server_restarts_is_answered(
    js: Driver, start_server: ServerStarter
) -> None:
    server = start_server()
    doc = js.connect(server.url).create({"there": True})
    doc.wait_saved()
    server.stop()

    reader = js.connect(server.url, retry_seconds=RETRY_SECONDS, wait=False)
    waiting = reader.find_later(doc.id, timeout=20)
    server.start()

    reader.wait_connected()
    # automerge-repo's find() gives up by itself when no server answers within a second.
    if waiting.result(25)["state"] == "unavailable":
        reader.wait_documents([doc.id])
    assert reader.find(doc.id).value() == {"there": True}


def _typists(js: Driver, server: Server, count: int) -> tuple[list[Repo], list[Doc]]:
    """Clients that push to the list of one document without pause."""
    clients = [js.connect(server.url, retry_seconds=RETRY_SECONDS) for _ in range(count)]
    first = clients[0].create({"list": []})
    first.wait_saved()
    docs = [first, *(client.find(first.id) for client in clients[1:])]
    _start_typing(docs, "start")
    return clients, docs


def _start_typing(docs: list[Doc], label: str) -> None:
    for number, doc in enumerate(docs):
        doc.start_typing(["list"], f"{label}-{number}", 0.01)


def _stop_typing(docs: list[Doc]) -> list[str]:
    return [item for doc in docs for item in doc.stop_typing()]
