"""What an admin port bears: bodies that are huge, slow or lie, crowds, and odd requests."""

import http.client
import json
import logging
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

import amsync.adminapi.reading as reading
from amsync import generate_document_id
from server.replicas import eventually
from support.admin import metrics

from .conftest import TOKEN, Api

MEGABYTE = 1 << 20


@contextmanager
def connected(api: Api) -> Iterator[socket.socket]:
    place = urlsplit(api.url)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=60) as raw:
        yield raw


def head(method: str, path: str, *more: str, token: str = TOKEN) -> bytes:
    lines = [f"{method} /api/v1{path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def answer(raw: socket.socket) -> tuple[int, Any]:
    response = http.client.HTTPResponse(raw)
    response.begin()
    text = response.read()
    kind = response.headers["Content-Type"] or ""
    return response.status, json.loads(text) if "json" in kind else text


def is_well(api: Api) -> bool:
    return api.call("GET", "/cluster")[0] == 200


def test_body_beyond_the_bound_is_refused_before_it_is_read(still: Api) -> None:
    path = f"/documents/{generate_document_id()}/automerge"
    size = 64 * MEGABYTE + 1
    for method, target, length in [
        ("PUT", path, size),
        ("POST", "/documents", 8 * MEGABYTE + 1),
        ("POST", "/access/kick", 64 * 1024 + 1),
    ]:
        with connected(still) as raw:
            raw.sendall(head(method, target, f"Content-Length: {length}"))
            assert answer(raw)[0] == 413
    assert is_well(still)


def test_body_that_grows_beyond_the_bound_is_refused(still: Api) -> None:
    with connected(still) as raw:
        raw.sendall(head("POST", "/access/kick", "Transfer-Encoding: chunked"))
        chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
        for _ in range(5):
            raw.sendall(chunk)
        assert answer(raw)[0] == 413
    assert is_well(still)


def test_body_is_not_read_for_who_has_no_token(still: Api) -> None:
    for token in ("wrong", TOKEN + "x", ""):
        with connected(still) as raw:
            raw.sendall(head("POST", "/documents", "Content-Length: 60000000", token=token))
            assert answer(raw)[0] == 401


@pytest.mark.parametrize(
    "length", ["Content-Length: -1", "Content-Length: x", "Content-Length: 5\r\nContent-Length: 6"]
)
def test_length_that_is_none_is_refused(still: Api, length: str) -> None:
    with connected(still) as raw:
        raw.sendall(head("POST", "/documents", length) + b"{}")
        assert answer(raw)[0] == 400
    assert is_well(still)


def test_body_that_is_shorter_than_it_says_makes_no_document(api: Api) -> None:
    with connected(api) as raw:
        raw.sendall(head("POST", "/documents", "Content-Length: 100") + b'{"value": {}}')
        raw.shutdown(socket.SHUT_WR)
        raw.recv(65536)
    assert api.call("GET", "/documents")[1]["documents"] == []


def test_slow_body_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BODY_SECONDS", 0.2)
    with connected(api) as raw:
        raw.sendall(head("POST", "/documents", "Content-Length: 100") + b"{")
        status, problem = answer(raw)
    assert (status, problem["status"]) == (408, 408)


def test_compressed_body_counts_by_what_it_becomes(still: Api) -> None:
    with connected(still) as raw:
        body = zlib.compress(b" " * 10 * MEGABYTE)
        raw.sendall(
            head(
                "POST",
                "/access/kick",
                "Content-Encoding: deflate",
                f"Content-Length: {len(body)}",
            )
            + body
        )
        assert answer(raw)[0] in (400, 413)
    assert is_well(still)


def test_calls_beyond_the_bound_are_refused_and_served_afterwards(api: Api) -> None:
    waiting: list[socket.socket] = []
    try:
        for _ in range(64):
            place = urlsplit(api.url)
            raw = socket.create_connection((place.hostname or "", place.port or 0), timeout=60)
            raw.sendall(head("POST", "/access/refresh", "Content-Length: 2"))
            waiting.append(raw)
        eventually(lambda: api.call("GET", "/cluster")[0] == 503)
        assert api.call("GET", "/documents")[0] == 503
    finally:
        for raw in waiting:
            raw.sendall(b"{}")
        statuses = [answer(raw)[0] for raw in waiting]
        for raw in waiting:
            raw.close()
    # One may have come while the test itself was asking.
    assert statuses.count(200) >= 63
    eventually(lambda: is_well(api))


def test_client_that_hangs_up_frees_its_place(api: Api) -> None:
    for _ in range(3):
        for number in range(64):
            with connected(api) as raw:
                raw.sendall(head("POST", "/documents", "Content-Length: 100") + b"{")
                if number % 2:
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    eventually(lambda: is_well(api))
    assert api.call("GET", "/documents")[1]["documents"] == []


def test_crowd_is_answered(api: Api) -> None:
    document_id = api.put({"a": 1})
    statuses: list[int] = []

    def ask() -> None:
        own = type(api)(api.server)
        for _ in range(20):
            statuses.append(own.call("GET", f"/documents/{document_id}/value")[0])

    crowd = [threading.Thread(target=ask) for _ in range(20)]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join()
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 100


@pytest.mark.parametrize(
    "target",
    [
        "/documents/..%2f..%2fcluster",
        "/documents/%2e%2e/cluster",
        "/documents/a/../../cluster",
        "//cluster",
        "/cluster/",
        "/CLUSTER",
        "/documents/%ff%fe",
        "/documents/" + "1" * 7000,
        "/documents/automerge%3A",
        "/access/restrictions/..%2f..%2f",
    ],
)
def test_odd_paths_reach_nothing(still: Api, target: str) -> None:
    with connected(still) as raw:
        raw.sendall(head("GET", target))
        assert answer(raw)[0] in (400, 404, 405)
    assert is_well(still)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:1", "", "a b", "x\tx", "[::1"])
def test_host_header_means_nothing(still: Api, host: str) -> None:
    with connected(still) as raw:
        lines = [
            "GET /api/v1/cluster HTTP/1.1",
            f"Host: {host}",
            f"Authorization: Bearer {TOKEN}",
            "X-Forwarded-Host: evil.example",
        ]
        raw.sendall("\r\n".join([*lines, "", ""]).encode())
        status, said = answer(raw)
    assert status in (200, 400)
    assert "evil.example" not in str(said)


def test_what_is_no_http_is_counted_and_not_logged(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    for junk in (b"\x16\x03\x01\x02\x00 junk", b"GET / HTTP/1.1\r\nbad header"):
        with connected(api) as raw:
            raw.sendall(junk + b"\r\n\r\n")
            assert answer(raw)[0] == 400

    counted = 'amsync_events_total{event="bad_admin_requests",label=""}'
    assert metrics(api.server.admin_url or "")[counted] == 2
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


def test_two_tokens_are_none(still: Api) -> None:
    with connected(still) as raw:
        raw.sendall(head("GET", "/cluster", f"Authorization: Bearer {TOKEN}"))
        assert answer(raw)[0] == 401


def test_stop_does_not_wait_for_slow_bodies(api: Api) -> None:
    with connected(api) as raw:
        raw.sendall(head("POST", "/documents", "Content-Length: 100") + b"{")
        started = time.monotonic()
        api.server.close()
        assert time.monotonic() - started < 30
