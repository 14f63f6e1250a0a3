"""The bytes of a WebSocket, cut anywhere: as the library reads them, whoever has read them."""

import asyncio
from http import HTTPStatus
from itertools import pairwise
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import SERVER
from websockets.protocol import Protocol as WebSocket

from amsync.gateway import http
from amsync.gateway.connection import JOIN_BYTES, LATER, ClientConnection, Later
from amsync.gateway.limits import Limits

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closed = False

    def get_extra_info(self, _name: str) -> tuple[str, int]:
        return ("127.0.0.1", 1)

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.written += data

    def writelines(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True

    abort = close


class Host:
    """Takes every upgrade, and keeps the messages."""

    limits = Limits()

    def __init__(self) -> None:
        self.messages: list[bytes | str] = []

    def connected(self, connection: ClientConnection) -> None:
        pass

    def answer(self, connection: ClientConnection, request: Request) -> None:
        return None

    def upgraded(self, connection: ClientConnection) -> Any:
        return object()

    def received(self, connection: ClientConnection, data: bytes) -> None:
        assert type(data) is bytes
        self.messages.append(data)

    def received_text(self, connection: ClientConnection) -> None:
        self.messages.append("text")

    def want_flush(self, connection: ClientConnection) -> None:
        connection.flush()

    def ended(self, connection: ClientConnection, reason: str) -> None:
        pass


class Reference:
    """The library alone, from the upgrade on."""

    def __init__(self) -> None:
        self.websocket = WebSocket(SERVER, max_size=JOIN_BYTES)
        self.messages: list[bytes | str] = []
        self.written = b""
        self.is_closed = False
        self._fragments: bytes | None = None

    def receive(self, data: bytes) -> None:
        self.websocket.receive_data(data)
        for frame in cast(list[Frame], self.websocket.events_received()):
            self._take(frame)
        for part in self.websocket.data_to_send():
            self.written += part
            self.is_closed = self.is_closed or part == b""

    def _take(self, frame: Frame) -> None:
        if frame.opcode is TEXT:
            self.messages.append("text")
        elif frame.opcode is BINARY and frame.fin:
            self.messages.append(bytes(frame.data))
        elif frame.opcode is BINARY:
            self._fragments = bytes(frame.data)
        elif frame.opcode is CONT and self._fragments is not None:
            self._fragments += frame.data
            if frame.fin:
                self.messages.append(self._fragments)
                self._fragments = None


def raw_frame(
    first: int, masked: bool, data: bytes, form: int, mask: bytes = b"\x01\xfe\r\n"
) -> bytes:
    """A frame with any first byte; `form` 1 and 2 write the length longer than it must be."""
    bit = 0x80 if masked else 0
    if form == 0 and len(data) < 126:
        head = bytes((first, bit + len(data)))
    elif form <= 1 and len(data) < 1 << 16:
        head = bytes((first, bit + 126)) + len(data).to_bytes(2, "big")
    else:
        head = bytes((first, bit + 127)) + len(data).to_bytes(8, "big")
    if not masked:
        return head + data
    return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data))


bodies = st.one_of(st.binary(max_size=10), st.integers(120, 300).map(lambda n: b"x" * n))
messages = st.builds(
    lambda data, form: raw_frame(0x82, True, data, form), bodies, st.integers(0, 2)
)
honest = st.builds(
    lambda opcode, fin, data: Frame(opcode, data, fin).serialize(mask=True),
    st.sampled_from([BINARY, CONT, TEXT]),
    st.booleans(),
    bodies,
)
control = st.builds(
    lambda opcode, data: Frame(opcode, data).serialize(mask=True),
    st.sampled_from([PING, PONG]),
    st.binary(max_size=10),
)
closing = st.sampled_from([Frame(CLOSE, b"\x03\xe8bye").serialize(mask=True)])
wrong = st.builds(
    raw_frame, st.sampled_from([0x82, 0xC2, 0x83, 0x02, 0x80]), st.booleans(), bodies, st.just(0)
)
too_long = st.just(b"\x82\xff" + (JOIN_BYTES + 1).to_bytes(8, "big") + b"mask")
split = st.builds(
    lambda parts, ping: b"".join(
        Frame(Opcode(2 if i == 0 else 0), part, i == len(parts) - 1).serialize(mask=True)
        + (Frame(PING, b"p").serialize(mask=True) if ping else b"")
        for i, part in enumerate(parts)
    ),
    st.lists(bodies, min_size=2, max_size=4),
    st.booleans(),
)
usual = st.one_of(messages, messages, control, split)
anything = st.one_of(usual, usual, usual, honest, closing, wrong, too_long)


def opened() -> tuple[ClientConnection, Host, Transport]:
    host, transport = Host(), Transport()
    connection = ClientConnection(host, 1)
    connection.connection_made(cast(Any, transport))
    connection.data_received(UPGRADE)
    assert transport.written.startswith(b"HTTP/1.1 101 ")
    transport.written = b""
    return connection, host, transport


def in_pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in pairwise(edges)]


@settings(max_examples=500)
@given(st.lists(anything, max_size=6), st.lists(st.integers(0, 5_000), max_size=6))
def test_every_stream_is_read_as_the_library_reads_it(frames: list[bytes], cuts: list[int]) -> None:
    async def scenario() -> None:
        connection, host, transport = opened()
        reference = Reference()

        for piece in in_pieces(b"".join(frames), cuts):
            if not transport.is_closed:
                connection.data_received(piece)
            if not reference.is_closed:
                reference.receive(piece)

        assert host.messages == reference.messages
        assert transport.written == reference.written
        assert transport.is_closed == reference.is_closed

    asyncio.run(scenario())


@settings(max_examples=200)
@given(st.lists(usual, max_size=6), st.lists(st.integers(0, 5_000), max_size=6))
def test_parser_is_let_go_between_frames_that_are_no_messages(
    frames: list[bytes], cuts: list[int]
) -> None:
    async def scenario() -> None:
        connection, _, _ = opened()

        for piece in in_pieces(b"".join(frames), cuts):
            connection.data_received(piece)

        assert connection._parser is None
        assert connection._handshake is None

    asyncio.run(scenario())


@given(st.lists(usual, max_size=4), st.lists(st.integers(0, 5_000), max_size=4))
def test_what_comes_together_with_the_request_is_read_as_well(
    frames: list[bytes], cuts: list[int]
) -> None:
    async def scenario() -> None:
        reference = Reference()
        host, transport = Host(), Transport()
        connection = ClientConnection(host, 1)
        connection.connection_made(cast(Any, transport))
        stream = b"".join(frames)

        for piece in in_pieces(UPGRADE + stream, cuts):
            if not transport.is_closed:
                connection.data_received(piece)
        reference.receive(stream)

        assert host.messages == reference.messages
        _, _, written = transport.written.partition(b"\r\n\r\n")
        assert written == reference.written

    asyncio.run(scenario())


class Hesitant(Host):
    """Says later what it makes of a request."""

    request: Request

    def answer(  # type: ignore[override]
        self, connection: ClientConnection, request: Request
    ) -> Later:
        self.request = request
        return LATER


@given(st.lists(usual, max_size=4), st.lists(st.integers(0, 5_000), max_size=4), st.integers(1, 6))
def test_answer_that_comes_later_changes_nothing_but_when(
    frames: list[bytes], cuts: list[int], settled_after: int
) -> None:
    """Nothing is taken, and no pong written, before the answer; all of it is behind the 101."""

    async def scenario() -> None:
        reference = Reference()
        host, transport = Hesitant(), Transport()
        connection = ClientConnection(host, 1)
        connection.connection_made(cast(Any, transport))
        stream = b"".join(frames)

        connection.data_received(UPGRADE)
        pieces = in_pieces(stream, cuts)
        for piece in pieces[:settled_after]:
            connection.data_received(piece)
        assert transport.written == b""
        assert host.messages == []
        connection.settle(host.request, None)
        for piece in pieces[settled_after:]:
            connection.data_received(piece)
        reference.receive(stream)

        assert host.messages == reference.messages
        head, _, written = transport.written.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert written == reference.written

    asyncio.run(scenario())


def test_refusal_that_comes_later_ends_the_connection() -> None:
    async def scenario() -> None:
        host, transport = Hesitant(), Transport()
        connection = ClientConnection(host, 1)
        connection.connection_made(cast(Any, transport))
        connection.data_received(UPGRADE + raw_frame(0x82, True, b"early", 0))

        connection.settle(host.request, http.refusal(HTTPStatus.FORBIDDEN, "not_you"))

        assert transport.written.startswith(b"HTTP/1.1 403 ")
        assert transport.is_closed
        assert host.messages == []
        assert connection.close_reason == "http_403"

    asyncio.run(scenario())


def test_answer_for_who_has_gone_meanwhile_goes_nowhere() -> None:
    async def scenario() -> None:
        host, transport = Hesitant(), Transport()
        connection = ClientConnection(host, 1)
        connection.connection_made(cast(Any, transport))
        connection.data_received(UPGRADE)
        connection.connection_lost(None)

        connection.settle(host.request, None)

        assert transport.written == b""
        assert connection.session is None

    asyncio.run(scenario())
