"""One socket: HTTP before the upgrade, WebSocket frames after it, bounds in both directions.

websockets' sans-IO `ServerProtocol` shakes hands. After that, whole messages of one binary frame
are taken here, and so are frames out, because all receivers of a message share their body. All
else (control frames, fragments, parts of frames, whatever is wrong) goes to a parser of the
library that is made for it, and let go when nothing of it is left: it takes more memory than all
the rest of a connection. Knows nothing of documents: binary messages go to
`ConnectionHost.received`, and what happens next is the gateway's business.

Bounds: input is read only while the host allows it; output beyond `outbound_bytes` ends the
connection (a client that reads too slowly would hold memory of ours), and droppable frames are
dropped from a quarter of it on.
"""

import asyncio
import enum
import time
from typing import Final, Literal, Protocol, cast

from websockets.exceptions import InvalidState
from websockets.frames import BINARY, CONT, TEXT, Frame
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.protocol import Protocol as WebSocket
from websockets.server import ServerProtocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # a wheel without compiled parts
    from websockets.utils import apply_mask

from amsync.gateway.account import Account
from amsync.gateway.buckets import Rate
from amsync.gateway.caller import Proof
from amsync.gateway.effects import CloseReason
from amsync.gateway.frames import Parser, frame_head, silent
from amsync.gateway.limits import Limits
from amsync.gateway.session import PeerSession
from amsync.gateway.tokens import select_subprotocol

JOIN_BYTES = 128 * 1024
JOINED_LARGE_BODY_BYTES = 64 * 1024
CLOSE_SECONDS = 5.0
PING = b"\x89\x00"


class _Later(enum.Enum):
    LATER = 1


Later = Literal[_Later.LATER]
LATER: Final = _Later.LATER
"""A request is answered by `ClientConnection.settle`; until then the socket is not read."""


class ConnectionHost(Protocol):
    """What a connection needs of its gateway."""

    limits: Limits

    def connected(self, connection: "ClientConnection") -> None:
        """A TCP connection (TLS done) has come in."""

    def answer(self, connection: "ClientConnection", request: Request) -> Response | Later | None:
        """Answer a plain HTTP request, or refuse an upgrade; None accepts the upgrade."""

    def upgraded(self, connection: "ClientConnection") -> PeerSession:
        """The WebSocket is open: make its session."""

    def received(self, connection: "ClientConnection", data: bytes) -> None:
        """A whole binary message has come in."""

    def received_text(self, connection: "ClientConnection") -> None:
        """A text frame has come in."""

    def want_flush(self, connection: "ClientConnection") -> None:
        """The connection has queued output; call its `flush` once in this loop turn."""

    def ended(self, connection: "ClientConnection", reason: str) -> None:
        """The socket is gone; the last call."""


class ClientConnection(asyncio.Protocol):
    """One client's socket; see the module's text.

    Attributes:
        address: The client's; the socket's own until a trusted proxy has named another.
        at_address: The account of its address.
        account: The account that pays for what it does; None before the upgrade.
        rate: Its own pace; None before the upgrade.
        slowed_until: It is read from again then.
        slowed_seconds: For so long it was slowed down, with few pauses of its own.
        proof: What its token has proved; None without authentication.
    """

    __slots__ = (
        "_came_alone",
        "_closing",
        "_handshake",
        "_host",
        "_largest_unsent",
        "_limits",
        "_loop",
        "_max_bytes",
        "_out",
        "_out_bytes",
        "_parser",
        "_paused",
        "_postponed",
        "_sent_bytes",
        "_taken_bytes",
        "_transport",
        "account",
        "address",
        "at_address",
        "close_reason",
        "connected_at",
        "heard_at",
        "number",
        "pinged_at",
        "proof",
        "rate",
        "session",
        "slowed_seconds",
        "slowed_until",
        "uncredited_bytes",
    )

    def __init__(self, host: ConnectionHost, number: int) -> None:
        self.number = number
        self.session: PeerSession | None = None
        self.address = ""
        self.at_address: Account | None = None
        self.account: Account | None = None
        self.rate: Rate | None = None
        self.slowed_until = self.slowed_seconds = 0.0
        self.proof: Proof | None = None
        self.heard_at = 0.0
        self.pinged_at = 0.0
        self.connected_at = 0.0
        self.uncredited_bytes = 0
        self.close_reason = ""
        self._host = host
        self._limits = host.limits
        self._max_bytes = JOIN_BYTES
        self._handshake: ServerProtocol | None = ServerProtocol(
            max_size=JOIN_BYTES, logger=silent, select_subprotocol=select_subprotocol
        )
        self._postponed: list[Frame] | None = None
        self._came_alone: bool | None = None
        self._parser: Parser | None = None
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._sent_bytes = 0
        self._taken_bytes = 0
        self._largest_unsent = 0
        self._paused = False
        self._closing = False

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the socket is there."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else "local"
        self.heard_at = self.pinged_at = self.connected_at = time.monotonic()
        self._host.connected(self)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes have come in; any of them shows that the client lives."""
        self.heard_at = time.monotonic()
        if self._parser is None and self._handshake is None and not self._closing:
            taken = self._take_messages(data)
            if taken == len(data):
                return
            data = data[taken:]
        if self._handshake is not None:
            if not self._closing or self.session is not None:
                self._shake_hands(data)
            return
        parser = self._parser_of_all_else()
        parser.feed(data)
        self._process(parser.websocket)
        if parser.is_spent and not self._closing:
            self._parser = None

    def eof_received(self) -> bool:
        """asyncio: the client has ended its side."""
        if self._parser is None and self._handshake is None and not self._closing:
            self._closing = True  # no fault, although it said nothing: processes just die
            self.close_reason = "lost"
            self.flush()
            return False
        websocket = self._websocket()
        websocket.receive_eof()
        self._process(websocket)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the socket is gone."""
        self._transport = None
        self._out.clear()
        self._host.ended(self, self.close_reason or ("lost" if exc else "client"))

    # -- in

    def _take_messages(self, data: bytes) -> int:
        """Take whole messages of one frame; returns where something else begins.

        In the same words as the library: final, no reserved bit, binary, masked, not too long.
        """
        start, end = 0, len(data)
        while start + 6 <= end and data[start] == 0x82:
            length = data[start + 1] - 0x80
            if length < 0:
                break
            body = start + 6
            if length == 126:
                body = start + 8
                length = int.from_bytes(data[start + 2 : start + 4], "big")
            elif length == 127:
                break
            stop = body + length
            if stop > end or length > self._max_bytes:
                break
            message = apply_mask(data[body:stop], data[body - 4 : body])
            start = stop
            self._host.received(self, message)
            if self._closing:
                break
        return start

    def _parser_of_all_else(self) -> Parser:
        if self._parser is None:
            self._parser = Parser(self._max_bytes)
        return self._parser

    def _websocket(self) -> WebSocket:
        """The library's view of the connection, with everything that it has to remember."""
        return self._handshake or self._parser_of_all_else().websocket

    def _shake_hands(self, data: bytes) -> None:
        assert self._handshake is not None
        # Only then it is certain that nothing but the request has gone into the library.
        self._came_alone = self._came_alone is None and data.find(b"\r\n\r\n") == len(data) - 4
        self._handshake.receive_data(data)
        self._process(self._handshake)
        self._let_go_of_handshake()

    def _let_go_of_handshake(self) -> None:
        if self._came_alone and self.session is not None and not self._closing:
            self._handshake = None

    def _process(self, websocket: WebSocket) -> None:
        for event in websocket.events_received():
            if isinstance(event, Request):
                self._request(event)
            elif isinstance(event, Frame):
                if self._postponed is None:
                    self._frame(event)
                else:
                    self._postponed.append(event)
        if self._postponed is not None:
            return
        handshake = self._handshake
        if handshake is not None and handshake.handshake_exc is not None and self.session is None:
            self._bad_request()
        self._write_control(websocket)

    def _request(self, request: Request) -> None:
        assert self._handshake is not None
        response = self._host.answer(self, request)
        if response is LATER:
            self._postponed = []
            self.throttle(pause=True)
        else:
            self._respond(request, response)

    def settle(self, request: Request, response: Response | None) -> None:
        """Answer a request for which the host said LATER, as by `answer`."""
        frames, self._postponed = self._postponed, None
        handshake = self._handshake
        if self.is_gone or handshake is None or frames is None:
            return
        self._respond(request, response)
        for frame in frames:
            self._frame(frame)
        self._write_control(handshake)
        self._let_go_of_handshake()
        self.throttle(pause=False)

    @property
    def is_gone(self) -> bool:
        """The socket is closed, or about to be."""
        return self._transport is None or self._closing

    def _respond(self, request: Request, response: Response | None) -> None:
        assert self._handshake is not None
        early = self._handshake.data_to_send()  # pongs for what came together with the request
        if response is None:
            response = self._handshake.accept(request)
        self._handshake.send_response(response)
        self._write_raw([*self._handshake.data_to_send(), *early])
        if response.status_code == 101:
            self.session = self._host.upgraded(self)
        else:
            self._closing = True
            self.close_reason = f"http_{response.status_code}"

    def _bad_request(self) -> None:
        """The library answers some bad requests itself and leaves others without a word."""
        self.close_reason = self.close_reason or "http_bad_request"
        if self._closing:
            return
        self._closing = True
        assert self._handshake is not None
        pending = self._handshake.data_to_send()
        if not any(pending):
            pending = [self._handshake.reject(400, "Bad request\n").serialize(), b""]
        self._write_raw(pending)

    def _frame(self, frame: Frame) -> None:
        if self._closing:
            return
        if frame.opcode is BINARY and frame.fin:
            self._host.received(self, bytes(frame.data))
        elif frame.opcode in (BINARY, CONT):
            self._fragment(frame)
        elif frame.opcode is TEXT:
            self._host.received_text(self)

    def _fragment(self, frame: Frame) -> None:
        parser = self._parser_of_all_else()  # also for what came in one packet with the request
        if frame.opcode is BINARY:
            parser.fragments = bytearray(frame.data)
        elif parser.fragments is not None:
            parser.fragments += frame.data
            if frame.fin:
                message, parser.fragments = bytes(parser.fragments), None
                self._host.received(self, message)

    def allow_large_messages(self) -> None:
        """The client has joined: lift the bound from a join's to `max_frame_bytes`."""
        self._max_bytes = self._limits.max_frame_bytes
        if self._handshake is not None:
            self._handshake.max_message_size = self._max_bytes
        if self._parser is not None:
            self._parser.websocket.max_message_size = self._max_bytes

    def throttle(self, *, pause: bool) -> None:
        """Stop or go on reading the socket."""
        if self._transport is None or pause == self._paused:
            return
        self._paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            # A paused socket is silent because we don't listen.
            self.heard_at = time.monotonic()
            self._transport.resume_reading()

    @property
    def is_paused(self) -> bool:
        """We are not reading."""
        return self._paused

    # -- out

    @property
    def unsent_bytes(self) -> int:
        """Output that the kernel has not taken."""
        held = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return self._out_bytes + held

    def send(self, shared: bytes, suffix: bytes, *, droppable: bool) -> bool:
        """Queue a binary frame of two parts; False if it was dropped.

        The caller flushes; a connection over its bound is ended instead.
        """
        if self._closing or self._transport is None:
            return False
        unsent = self.unsent_bytes
        if unsent == 0:
            self._largest_unsent = 0
        # One message may be larger than the bound; what comes behind it must fit by itself.
        if unsent - self._largest_unsent > self._limits.outbound_bytes:
            self.abort(CloseReason.SLOW.label)
            return False
        if droppable and unsent > self._limits.outbound_bytes // 4:
            return False
        length = len(shared) + len(suffix)
        if not self._out:
            self._host.want_flush(self)
        if len(shared) >= JOINED_LARGE_BODY_BYTES:
            self._out += (frame_head(length), shared, suffix)
        else:
            self._out.append(b"".join((frame_head(length), shared, suffix)))
        self._out_bytes += length + 10
        self._sent_bytes += length + 10
        self._largest_unsent = max(self._largest_unsent, length)
        return True

    def note_progress(self, now: float) -> None:
        """Output that the network has taken is a sign of life too: a pong waits behind it."""
        if self._taken_bytes == self._sent_bytes:
            return
        unsent = self.unsent_bytes
        taken = self._sent_bytes - unsent
        if taken > self._taken_bytes and unsent:
            self.heard_at = now
        self._taken_bytes = taken

    def flush(self) -> None:
        """Hand what was queued in this loop turn to the transport, in one write."""
        out, self._out, self._out_bytes = self._out, [], 0
        if self._transport is None or not out:
            return
        if len(out) == 1:
            self._transport.write(out[0])
        else:
            self._transport.writelines(out)

    def ping(self, now: float) -> None:
        """Ask for a sign of life."""
        self.pinged_at = now
        if not self._closing:
            self.flush()
            self._write_raw([PING])

    def close(self, reason: CloseReason) -> None:
        """Close after what is queued; the socket is cut if the client doesn't answer."""
        if self._closing:
            return
        self.close_reason = reason.label
        self.flush()
        self._closing = True
        websocket = self._websocket()
        try:
            if websocket.state is OPEN:
                websocket.send_close(reason.code, reason.text)
            elif self._transport is not None:
                self._transport.close()
        except InvalidState:
            pass
        self._write_control(websocket)
        if reason is CloseReason.HANDSHAKE_TIMEOUT and self._transport is not None:
            self._transport.close()  # who didn't join in time won't answer in time either
        self._loop.call_later(CLOSE_SECONDS, self.abort, reason.label)

    def abort(self, reason: str) -> None:
        """Cut the socket without another word."""
        self._closing = True
        if self._transport is not None:
            self.close_reason = self.close_reason or reason
            self._transport.abort()

    def _write_control(self, websocket: WebSocket) -> None:
        """Write what the library wants to say: handshake, pongs, close frames."""
        writes = websocket.data_to_send()
        if writes:
            self.flush()
            self._write_raw(writes)
        if websocket.close_expected() and websocket.close_rcvd is not None:
            self.close_reason = self.close_reason or "client"
        if websocket.parser_exc is not None and not self._closing and self.session:
            # The end of the stream without a close frame is no fault: processes just die.
            vanished = isinstance(websocket.parser_exc, EOFError)
            self._closing = True
            self.close_reason = self.close_reason or ("lost" if vanished else "protocol_error")
            self._loop.call_later(CLOSE_SECONDS, self.abort, self.close_reason)

    def _write_raw(self, writes: list[bytes]) -> None:
        if self._transport is None:
            return
        for data in writes:
            if data:
                self._transport.write(data)
            else:  # SEND_EOF: the library is done; both directions end here
                self._transport.close()
                return
        if self._transport.get_write_buffer_size() > self._limits.outbound_bytes:
            self.abort(CloseReason.SLOW.label)
