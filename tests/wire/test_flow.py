"""Bounds over real sockets: who reads too slowly, sends too much, or doesn't live any more."""

import threading
import time
from random import Random
from typing import Any

import cbor2
import pytest

from amsync import Server, Share
from amsync._automerge import Replica
from amsync.gateway import gateway
from amsync.gateway.limits import Limits
from support import admin
from support.rawclient import RawClient

from .conftest import Serve
from .friends import (
    SECONDS,
    Friend,
    RawSocket,
    Witness,
    counted,
    frame,
    increases,
    request,
    wait_for,
)


@pytest.fixture
def lively(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server whose keepalive is a matter of fractions of a second."""
    monkeypatch.setattr(gateway, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(gateway, "PING_SECONDS", 0.2)
    monkeypatch.setattr(gateway, "SILENCE_SECONDS", 1.5)
    return serve()


def test_silent_client_is_pinged_and_dropped(lively: Server) -> None:
    with Witness(lively) as witness, RawSocket(lively) as silent:
        with increases(lively, "closes", by=1, reason="silent"):
            assert silent.receive() == (9, b"")
            assert silent.close_code() == 1006
        witness.check()


def test_pong_is_a_sign_of_life(lively: Server) -> None:
    with RawSocket(lively) as client:
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            assert client.receive() == (9, b"")
            client.send(frame(b"", opcode=10))
        client.message(request(lively.generate_document_id()))

        while (received := client.receive())[0] == 9:
            pass
        assert received[1]["type"] == "sync"


def test_any_message_is_a_sign_of_life(lively: Server) -> None:
    with RawSocket(lively) as client:
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            client.message({"type": "leave", "senderId": "hostile"})
            time.sleep(0.05)
        client.message(request(lively.generate_document_id()))

        while (received := client.receive())[0] == 9:
            pass
        assert received[1]["type"] == "sync"


def slow_socket(server: Server, peer_id: str) -> RawSocket:
    """A client with a small window, which its test doesn't read."""
    return RawSocket(server, peer_id, receive_bytes=4096)


def test_reader_that_is_too_slow_is_closed_and_nobody_else(serve: Serve) -> None:
    server = serve(limits=Limits(outbound_bytes=256 * 1024))
    replica = Replica()
    replica.put("large", Random(1).randbytes(1 << 20))
    documents = [server.create_document() for _ in range(12)]
    for document_id in documents:
        server.apply_changes(document_id, b"".join(replica.changes()))
    with Witness(server) as witness, slow_socket(server, "slow") as slow:
        with increases(server, "closes", by=1, reason="slow"):
            for document_id in documents:
                slow.message(request(document_id, "slow"))
        witness.check()


def test_broadcasts_are_dropped_before_a_slow_reader_is_closed(serve: Serve) -> None:
    server = serve(admin_port=0, limits=Limits(outbound_bytes=1024 * 1024))
    document_id = server.create_document()
    with (
        Witness(server) as witness,
        slow_socket(server, "slow") as slow,
        RawClient(server.url, peer_id="loud") as loud,
        RawClient(server.url, peer_id="fast") as fast,
    ):
        for each in (loud, fast):
            each.join()
            each.request(document_id)
            each.receive_type("sync")
        slow.message(request(document_id, "slow"))
        assert slow.receive()[1]["type"] == "sync"

        with increases(server, "messages_unsent", type="ephemeral"):
            for count in range(1, 401):
                data = {"data": b"x" * 50_000, "count": count, "sessionId": "s"}
                loud.send(loud.message("ephemeral", document_id, **data))
                assert fast.receive()["count"] == count

        witness.check()
        assert counted(server, "closes", reason="slow") == 0
        assert scraped(server, "outbound_queue_bytes") > 100_000
        counts = []
        slow.socket.settimeout(0.5)
        try:
            while True:
                counts.append(slow.receive()[1]["count"])
        except TimeoutError:
            pass
        assert 0 < len(counts) < 400
        assert counts == sorted(set(counts))


def scraped(server: Server, name: str) -> float:
    """A gauge that is brought up to date by a scrape."""
    assert server.admin_url is not None
    return admin.metrics(server.admin_url)[f"amsync_{name}"]


class Gate:
    """A `share` that lets one peer wait until it is opened."""

    def __init__(self, peer_id: str) -> None:
        self.peer_id = peer_id
        self.open = threading.Event()

    def __call__(self, peer_id: str, document_id: str) -> Share:
        if peer_id == self.peer_id:
            self.open.wait(SECONDS)
        return Share.ALLOW


def test_input_that_waits_stops_its_socket_and_no_other(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(gateway, "PING_SECONDS", 0.2)
    monkeypatch.setattr(gateway, "SILENCE_SECONDS", 1.5)
    gate = Gate("hostile")
    server = serve(share=gate, admin_port=0, limits=Limits(inbound_bytes=64 * 1024))
    document_id = server.generate_document_id()

    def taken() -> float:
        return counted(server, "messages", type="request", direction="in")

    with Witness(server) as witness, RawSocket(server) as hostile:
        before = taken()
        for _ in range(200):
            hostile.message(request(document_id, filler=b"x" * 10_000))
        witness.check()
        # Longer than silence is allowed to be: a socket that is not read is not silent.
        time.sleep(2.0)
        witness.check()
        assert taken() - before < 100
        assert scraped(server, "connections_paused") == 1
        assert scraped(server, "inbound_queue_bytes") > 64 * 1024

        gate.open.set()
        wait_for(lambda: taken() - before >= 200, "everything is taken after the gate opened")
        while (received := hostile.receive())[0] == 9:
            pass
        assert received[1]["type"] == "sync"
        witness.check()


def test_all_connections_together_are_bounded(serve: Serve) -> None:
    gate = Gate("never")
    server = serve(
        share=gate, limits=Limits(inbound_bytes=1 << 20, gateway_inbound_bytes=256 * 1024)
    )
    document_id = server.generate_document_id()
    with Witness(server) as witness:
        clients = [RawSocket(server, f"peer-{number}") for number in range(4)]
        for _ in range(50):
            for number, client in enumerate(clients):
                client.message(request(document_id, f"peer-{number}", filler=b"x" * 20_000))
        witness.check()
        wait_for(
            lambda: counted(server, "messages", type="request", direction="in") >= 200,
            "everything is taken",
        )
        witness.check()
        for client in clients:
            client.socket.close()


def test_documents_per_connection_are_bounded(serve: Serve) -> None:
    server = serve(limits=Limits(max_documents_per_connection=2))
    documents = [server.generate_document_id() for _ in range(3)]
    with (
        RawClient(server.url) as client,
        increases(server, "refusals", reason="too_many_documents"),
    ):
        client.join()
        for document_id in documents:
            client.request(document_id)
        answers = {m["documentId"]: m["type"] for m in [client.receive() for _ in range(3)]}

    assert answers == dict(zip(documents, ["sync", "sync", "doc-unavailable"], strict=True))


def test_creations_are_bounded_per_address(serve: Serve) -> None:
    server = serve(limits=Limits(creations_per_minute=2))
    documents = [server.generate_document_id() for _ in range(3)]
    answers = {}
    with increases(server, "refusals", by=1, reason="creation_rate"):
        for number, document_id in enumerate(documents):
            with RawClient(server.url, peer_id=f"peer-{number}") as client:
                client.join()
                client.request(document_id)
                answers[document_id] = client.receive()["type"]

    assert answers == dict(zip(documents, ["sync", "sync", "doc-unavailable"], strict=True))


def test_uploads_of_new_documents_count_as_creations(serve: Serve) -> None:
    server = serve(limits=Limits(creations_per_minute=2))
    friends = []
    for number in range(3):
        friend = Friend(server, server.generate_document_id(), f"peer-{number}")
        friend.replica.put("n", number)
        friend.say()
        for _ in range(10):
            friend.listen()
        friends.append(friend)

    assert len(server.list_documents()) == 2
    assert [m["type"] for m in friends[2].seen] == ["doc-unavailable"]
    for friend in friends:
        friend.close()


def test_existing_documents_cost_no_creation(serve: Serve) -> None:
    server = serve(limits=Limits(creations_per_minute=1))
    documents = [server.create_document() for _ in range(5)]
    with RawClient(server.url) as client:
        client.join()
        for document_id in documents:
            client.request(document_id)
            assert client.receive()["type"] == "sync"
        client.request(server.generate_document_id())

        assert client.receive()["type"] == "sync"


class Doors:
    """A `share` whose answer for one peer the test changes."""

    def __init__(self) -> None:
        self.answer = Share.ALLOW

    def __call__(self, peer_id: str, document_id: str) -> Share:
        return self.answer if peer_id == "guest" else Share.ALLOW


def until(condition: Any, *friends: Friend, what: str = "") -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        for friend in friends:
            friend.listen(0.01)
        assert time.monotonic() < deadline, what


def test_access_lost_takes_effect_and_access_regained_brings_everything(serve: Serve) -> None:
    doors = Doors()
    server = serve(share=doors)
    document_id = server.create_document(data={"a": 0})
    host, guest = Friend(server, document_id, "host"), Friend(server, document_id, "guest")
    for friend in (host, guest):
        friend.say()
        until(lambda friend=friend: friend.replica.heads(), friend, what="first sync")

    doors.answer = Share.DENY
    server.refresh_access()
    until(lambda: guest.seen[-1]["type"] == "doc-unavailable", guest, what="told of the loss")
    guest.replica.put("guest", "while locked out")
    guest.say()
    host.replica.put("host", "while the guest was locked out")
    host.say()
    for _ in range(5):
        host.listen()
        guest.listen()
    assert "guest" not in host.value()
    assert "host" not in guest.value()

    doors.answer = Share.ALLOW
    server.refresh_access()
    guest.seen.clear()
    until(lambda: "host" in guest.value() and "guest" in host.value(), guest, host, what="regained")
    assert len([m for m in guest.seen if m["type"] == "sync"]) < 8
    for friend in (host, guest):
        friend.close()


def test_access_gained_later_answers_the_request_that_was_refused(serve: Serve) -> None:
    doors = Doors()
    doors.answer = Share.DENY
    server = serve(share=doors)
    document_id = server.create_document(data={"a": 0})
    guest = Friend(server, document_id, "guest")
    guest.say()
    until(lambda: guest.seen, guest, what="refused")
    assert guest.seen[-1]["type"] == "doc-unavailable"

    doors.answer = Share.ALLOW
    server.refresh_access()

    until(guest.value, guest, what="the document comes by itself")
    guest.close()


def test_cut_in_the_middle_of_a_message_leaves_nothing(serve: Serve) -> None:
    server = serve()
    with Witness(server) as witness:
        before = counted(server, "connections")
        for cut in (1, 2, 5, 50, 5000):
            with RawSocket(server, f"cut-{cut}") as client:
                whole = frame(
                    cbor2.dumps(request(server.generate_document_id(), filler=b"x" * 9000))
                )
                client.send(whole[:cut])
        wait_for(lambda: counted(server, "connections") == before, "all are forgotten")
        witness.check()
