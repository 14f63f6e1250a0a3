"""How commands talk to an admin port: what a server may do to them."""

import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from amsync.cli.port import AdminPort, PortError
from amsync.errors import ConfigError

TOKEN = "an-admin-token-for-tests"


@contextmanager
def answering(*answers: bytes, read_bytes: int = 65536) -> Iterator[tuple[AdminPort, list[bytes]]]:
    """A server that reads once from each connection, and answers with these bytes."""
    asked: list[bytes] = []

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(read_bytes))
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield AdminPort(f"http://127.0.0.1:{listener.getsockname()[1]}/behind/", TOKEN), asked
        thread.join()


def said(body: str, status: str = "200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n\r\n{body}".encode()


def test_call_has_the_token_and_the_path_of_the_api() -> None:
    with answering(said('{"a": 1}'), said("", "204 No Content")) as (port, asked):
        assert port.call("GET", "/cluster") == {"a": 1}
        assert port.call("POST", "/checkpoint", {"b": "ä"}) is None

    assert asked[0].startswith(b"GET /behind/api/v1/cluster HTTP/1.1\r\n")
    assert f"Authorization: Bearer {TOKEN}".encode() in asked[0]
    assert b"Content-Type: application/json" in asked[1]


def test_pages_are_followed_to_the_last() -> None:
    first, second = '{"ids": [1, 2], "next": "x y"}', '{"ids": [3], "next": null}'
    with answering(said(first), said(second)) as (port, asked):
        assert list(port.pages("/ids", "ids", prefix="a&b")) == [1, 2, 3]

    assert b"GET /behind/api/v1/ids?limit=1000&prefix=a%26b HTTP" in asked[0]
    assert b"GET /behind/api/v1/ids?limit=1000&prefix=a%26b&after=x+y HTTP" in asked[1]


@pytest.mark.parametrize("kind", [bytes, io.BytesIO])
def test_bytes_go_both_ways(kind: Callable[[bytes], bytes | io.BytesIO]) -> None:
    content = bytes(range(256)) * 4
    got: list[bytes] = []
    with answering(said('{"is_new": true}'), said("abc")) as (port, asked):
        assert port.upload("PUT", "/x", kind(content), len(content)) == {"is_new": True}
        assert port.download("/x", got.append) == 3

    assert b"Content-Length: 1024\r\n" in asked[0]
    assert b"".join(got) == b"abc"


def test_download_that_ends_early_is_a_failure() -> None:
    with answering(said("abc", length=5)) as (port, _), pytest.raises(PortError, match="no answer"):
        port.download("/x", lambda piece: None)


def test_refusal_of_a_body_that_is_still_sent_is_heard() -> None:
    refusal = said('{"detail": "too large for us"}', "413 Content Too Large")
    with answering(refusal, read_bytes=4096) as (port, _), pytest.raises(PortError) as caught:
        port.upload("PUT", "/x", bytes(64 * 1024 * 1024))
    # Where the system resets the connection at once, what was said is lost with it.
    assert caught.value.status in (413, None)


def test_problem_is_told_with_its_status() -> None:
    refusal = said('{"detail": "no such document"}', "404 Not Found")
    with answering(refusal) as (port, _), pytest.raises(PortError) as caught:
        port.call("GET", "/documents/x")
    assert caught.value.status == 404
    assert "404: no such document" in caught.value.message


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", said("{", length=1)])
def test_nonsense_is_no_answer(answer: bytes) -> None:
    with answering(answer) as (port, _), pytest.raises(PortError, match="no answer") as caught:
        port.call("GET", "/cluster")
    assert caught.value.status is None


def test_redirect_is_not_followed() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
    with answering(moved) as (port, _), pytest.raises(PortError, match="answers 302"):
        port.call("GET", "/cluster")


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "é"])
def test_token_that_no_server_can_have_is_refused_and_not_shown(end: str) -> None:
    with pytest.raises(ConfigError, match="admin_token") as refused:
        AdminPort("http://127.0.0.1:3031", TOKEN + end)

    assert TOKEN not in str(refused.value)
