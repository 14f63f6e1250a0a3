"""Who sends too much: read slower first, closed only if it goes on, and nobody else notices."""

import contextlib
import threading
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed

from amsync import Server
from amsync.gateway.limits import Limits
from amsync.ids import generate_document_id
from support.rawclient import RawClient

from .conftest import Serve


def refusals(server: Server, reason: str) -> float:
    for line in server.aio.metrics.exposition()[0].decode().splitlines():
        if line.startswith(f'amsync_refusals_total{{reason="{reason}"}} '):
            return float(line.rpartition(" ")[2])
    return 0.0


def joined(server: Server, name: str) -> RawClient:
    client = RawClient(server.url, peer_id=name)
    client.join()
    return client


def said(caplog: pytest.LogCaptureFixture, offence: str) -> int:
    return sum(record.__dict__.get("reason") == offence for record in caplog.records)


@pytest.fixture
def flood() -> Iterator[list[threading.Thread]]:
    """Threads that end with the test."""
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_flood_is_read_slower_and_all_of_it_is_answered(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(limits=Limits(messages_per_second=40), auto_create_docs=False)
    document_ids = [generate_document_id() for _ in range(260)]

    with joined(server, "flood") as flood, joined(server, "calm") as calm:
        for document_id in document_ids:  # the burst is 200
            flood.request(document_id)
        assert calm.is_answered(generate_document_id())
        answers = [flood.receive_type("doc-unavailable") for _ in document_ids]

        assert {answer["documentId"] for answer in answers} == set(document_ids)
        flood.ping()
    assert refusals(server, "slowed_down") >= 1
    assert said(caplog, "slowed_down") == 1


def test_connections_of_one_client_have_one_pace(serve: Serve) -> None:
    limits = Limits(messages_per_second_per_client=10)
    server = serve(limits=limits, auto_create_docs=False)

    with joined(server, "one") as one, joined(server, "two") as two:
        for client in (one, two):
            for _ in range(30):  # together more than the burst of 50
                client.request(generate_document_id())
        for client in (one, two):
            for _ in range(30):
                client.receive_type("doc-unavailable")

    assert refusals(server, "slowed_down") >= 1


def test_large_message_is_taken_whole_and_paid_for_afterwards(serve: Serve) -> None:
    server = serve(limits=Limits(bytes_per_second=100_000), auto_create_docs=False)
    document_id = generate_document_id()

    with joined(server, "large") as large:
        large.ephemeral(document_id, b"x" * 600_000)
        large.request(document_id)
        large.receive_type("doc-unavailable", document_id)

    assert refusals(server, "slowed_down") == 1


def test_who_goes_on_for_too_long_is_closed(serve: Serve, flood: list[threading.Thread]) -> None:
    limits = Limits(messages_per_second=5, patience_seconds=1)
    server = serve(limits=limits, auto_create_docs=False)

    with joined(server, "flood") as client:

        def send() -> None:
            with contextlib.suppress(ConnectionClosed, OSError):
                while True:
                    client.request(generate_document_id())

        thread = threading.Thread(target=send)
        flood.append(thread)
        thread.start()
        code, messages = client.wait_closed(60)

    assert code == 1013
    assert [each["message"] for each in messages if each["type"] == "error"] == [
        "too many messages or bytes for too long"
    ]
    assert refusals(server, "over_limit") == 1


def test_documents_of_one_client_are_bounded_over_its_connections(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(limits=Limits(max_documents_per_client=3))

    with joined(server, "one") as one:
        with joined(server, "two") as two:
            for client, count in ((one, 2), (two, 1)):
                for _ in range(count):
                    document_id = generate_document_id()
                    client.request(document_id)
                    client.receive_type("sync", document_id)
            refused = generate_document_id()
            one.request(refused)
            one.receive_type("doc-unavailable", refused)
            assert said(caplog, "too_many_documents") == 1
            assert refusals(server, "too_many_documents") == 1
            two.close()
        while True:  # what a connection had open is free again when it has ended
            one.request(refused)
            if one.receive()["type"] == "sync":
                break
