"""Odd handshakes: each gets its HTTP answer, and nobody else notices."""

import contextlib
import socket
import ssl
import time
from pathlib import Path

import pytest
from websockets.exceptions import WebSocketException

from amsync import Server, write_cert
from amsync.gateway import gateway
from amsync.gateway.limits import Limits
from support.rawclient import RawClient, refused

from .conftest import Serve
from .friends import (
    SECONDS,
    UPGRADE,
    RawSocket,
    Witness,
    connect,
    counted,
    frame,
    increases,
    read_to_end,
    status,
    talk,
)

HOST = b"Host: localhost\r\n"


def test_get_of_the_root_answers_a_line_of_text(server: Server) -> None:
    with increases(server, "closes", reason="http_200"):
        response = talk(server, b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")

    assert status(response) == 200
    assert response.endswith(b"Connect with a WebSocket.\n")


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        (b"GET /nothing HTTP/1.1", 404),
        (b"GET /?query=1 HTTP/1.1", 200),
        (b"GET //[ HTTP/1.1", 404),
        (b"GET http://[/ HTTP/1.1", 404),
        (b"GET * HTTP/1.1", 404),
        (b"POST / HTTP/1.1", 405),
        (b"PUT / HTTP/1.1", 405),
        (b"DELETE /x HTTP/1.1", 405),
        (b"OPTIONS * HTTP/1.1", 405),
        (b"BREW / HTTP/1.1", 405),
        (b"GET / HTTP/1.0", 200),
        (b"GET / HTTP/9.9", 400),
        (b"GET /", 400),
        (b"nonsense", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"\xff" * 40, 400),
    ],
)
def test_plain_request_gets_its_status(server: Server, request_line: bytes, expected: int) -> None:
    response = talk(server, request_line + b"\r\n" + HOST + b"\r\n")

    assert status(response) == expected
    assert b"\r\n\r\n" in response


def test_head_is_get_without_the_body(server: Server) -> None:
    response = talk(server, b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n")

    assert status(response) == 200
    assert response.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "headers",
    [
        b"X-Large: " + b"x" * 20_000 + b"\r\n",
        b"".join(b"X-Many-%d: x\r\n" % number for number in range(500)),
        b"no colon\r\n",
        b": no name\r\n",
        b"Bad Name: x\r\n",
        b"X-Control: \x00\r\n",
        b"X-Folded: a\r\n b\r\n",
    ],
    ids=["large", "many", "no-colon", "no-name", "bad-name", "control", "folded"],
)
def test_bad_headers_get_a_4xx(server: Server, headers: bytes) -> None:
    with increases(server, "closes", reason="http_bad_request"):
        response = talk(server, UPGRADE + headers + b"\r\n")

    assert 400 <= status(response) < 500


@pytest.mark.parametrize(
    ("missing", "instead"),
    [
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""),
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"Sec-WebSocket-Key: short\r\n"),
        (
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" * 2,
        ),
        (b"Sec-WebSocket-Version: 13\r\n", b""),
        (b"Sec-WebSocket-Version: 13\r\n", b"Sec-WebSocket-Version: 8\r\n"),
        (b"Connection: Upgrade\r\n", b"Connection: keep-alive\r\n"),
        (b"Connection: Upgrade\r\n", b""),
        (b"Upgrade: websocket\r\n", b"Upgrade: websocket\r\nUpgrade: websocket\r\n"),
        (b"Upgrade: websocket\r\n", b"Upgrade: not-a-websocket\r\n"),
        (b"GET /", b"POST /"),
    ],
)
def test_bad_upgrade_is_refused(server: Server, missing: bytes, instead: bytes) -> None:
    response = talk(server, UPGRADE.replace(missing, instead) + b"\r\n")

    assert 400 <= status(response) < 500


@pytest.mark.parametrize(
    "headers",
    [
        b"Connection: keep-alive, Upgrade\r\n",
        b"Connection: Upgrade, keep-alive\r\n",
        b"connection: UPGRADE\r\n",
        b"Connection: keep-alive\r\nConnection: Upgrade\r\n",
    ],
)
def test_browsers_forms_of_the_upgrade_are_accepted(server: Server, headers: bytes) -> None:
    request = UPGRADE.replace(b"Connection: Upgrade\r\n", headers)
    with connect(server) as plain:
        plain.sendall(request + b"\r\n")

        assert status(plain.recv(1000)) == 101


@pytest.mark.parametrize("path", ["", "/", "/sync", "/a/b?c=d"])
def test_any_path_may_be_upgraded(server: Server, path: str) -> None:
    with RawClient(server.url + path, peer_id="path") as client:
        client.join()


def test_extensions_and_subprotocols_are_not_taken_up(server: Server) -> None:
    offers = b"Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: chat\r\n"
    with connect(server) as plain:
        plain.sendall(UPGRADE + offers + b"\r\n")
        response = plain.recv(1000)

    assert status(response) == 101
    assert b"extensions" not in response.lower()


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://localhost.evil.example", "null", "http://[", "x"]
)
def test_foreign_origin_is_refused_on_loopback(server: Server, origin: str) -> None:
    with increases(server, "handshakes", result="foreign_origin"), refused(403):
        RawClient(server.url, origin=origin)


@pytest.mark.parametrize(
    "origin", ["http://localhost:5173", "https://127.0.0.1", "http://[::1]:8080"]
)
def test_origin_of_this_machine_is_accepted(server: Server, origin: str) -> None:
    with RawClient(server.url, peer_id="origin", origin=origin) as client:
        client.join()


def test_two_origins_are_refused(server: Server) -> None:
    origins = b"Origin: http://localhost\r\nOrigin: http://evil.example\r\n"

    assert 400 <= status(talk(server, UPGRADE + origins + b"\r\n")) < 500


def test_request_in_single_bytes_is_understood(server: Server) -> None:
    with connect(server) as plain:
        for byte in UPGRADE + b"\r\n":
            plain.sendall(bytes([byte]))

        assert status(plain.recv(1000)) == 101


def test_frames_behind_the_upgrade_in_one_packet_are_read(server: Server) -> None:
    with increases(server, "refusals", reason="undecodable"), connect(server) as plain:
        plain.sendall(UPGRADE + b"\r\n" + frame(b""))

        assert status(plain.recv(1000)) == 101


def test_client_that_only_connects_and_goes_leaves_nothing(server: Server) -> None:
    before = counted(server, "connections")

    for _ in range(20):
        connect(server).close()

    with increases(server, "closes", reason="http_200"):
        talk(server, b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    assert counted(server, "connections") == before


@pytest.fixture
def hasty(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(gateway, "TICK_SECONDS", 0.05)
    monkeypatch.setattr("amsync.gateway.connection.CLOSE_SECONDS", 0.2)
    return serve(limits=Limits(handshake_seconds=1.0))


@pytest.mark.parametrize("sent", [b"", UPGRADE, UPGRADE + b"\r\n", UPGRADE + b"\r\n" + b"\x82\xfe"])
def test_handshake_has_a_deadline(hasty: Server, sent: bytes) -> None:
    with Witness(hasty) as witness, connect(hasty) as plain:
        started = time.monotonic()
        with increases(hasty, "closes", reason="handshake_timeout"):
            plain.sendall(sent)
            read_to_end(plain)
        assert time.monotonic() - started < SECONDS / 2
        witness.check()


def is_cut_while_sending(plain: socket.socket, parts: list[bytes]) -> bool:
    """Send a part every 10 ms; a cut when all are sent, and nothing comes any more, is too late."""
    try:
        for part in parts:
            plain.sendall(part)
            time.sleep(0.01)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def test_trickle_does_not_extend_the_deadline(hasty: Server) -> None:
    with connect(hasty) as plain, increases(hasty, "closes", reason="handshake_timeout"):
        slow = UPGRADE + b"X-Slow: " + b"x" * 1000
        assert is_cut_while_sending(plain, [bytes([byte]) for byte in slow])


def test_pings_do_not_extend_the_deadline(hasty: Server) -> None:
    with (
        RawSocket(hasty, join=False) as hostile,
        increases(hasty, "closes", reason="handshake_timeout"),
    ):
        assert is_cut_while_sending(hostile.socket, [b"\x89\x80\0\0\0\0"] * 1000)


def test_too_many_sockets_of_an_address_get_429(serve: Serve) -> None:
    server = serve(limits=Limits(max_connections_per_address=2))
    with (
        RawClient(server.url, peer_id="a"),
        RawClient(server.url, peer_id="b"),
        increases(server, "handshakes", result="too_many_connections_of_address"),
        refused(429),
    ):
        RawClient(server.url, peer_id="c")


def test_too_many_sockets_get_503_and_room_is_given_back(serve: Serve) -> None:
    server = serve(limits=Limits(max_connections=2))
    first = RawClient(server.url, peer_id="a")
    with RawClient(server.url, peer_id="b") as second:
        second.join()
        with increases(server, "handshakes", result="too_many_connections"), refused(503):
            RawClient(server.url, peer_id="c")
        with increases(server, "closes", reason="client"):
            first.close()

        with RawClient(server.url, peer_id="c") as third:
            third.join()


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"\0" * 99]
)
def test_what_is_no_tls_is_cut_in_time(serve: Serve, tmp_path: Path, sent: bytes) -> None:
    certificate = write_cert(tmp_path)
    server = serve(tls=certificate, limits=Limits(handshake_seconds=1.5))
    started = time.monotonic()
    with connect(server) as plain:
        plain.sendall(sent)
        assert status(read_to_end(plain)) == 0

    assert time.monotonic() - started < SECONDS / 2
    assert certificate.cert is not None
    context = ssl.create_default_context(cafile=str(certificate.cert))
    for _ in range(10):
        # On a busy machine an honest handshake may come too late as well.
        with (
            contextlib.suppress(WebSocketException, OSError),
            RawClient(server.url, peer_id="tls", context=context) as client,
        ):
            client.join()
            break
    else:
        pytest.fail("nobody comes in any more")
