"""One socket: HTTP before the upgrade, WebSocket frames after it, bounds in both directions.

websockets' sans-IO `ServerProtocol` parses and does everything unusual; frames out are built
here, because all receivers of a message share their body. Knows nothing of documents: binary
messages go to `ConnectionHost.received`, and what happens next is the gateway's business.

Bounds: input is read only while the host allows it; output beyond `outbound_bytes` ends the
connection (a client that reads too slowly would hold memory of ours), and droppable frames are
dropped from a quarter of it on.
"""

import asyncio
import logging
import time
from typing import Protocol, cast

from websockets.exceptions import InvalidState
from websockets.frames import BINARY, CONT, TEXT, Frame
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from amsync.gateway.effects import CloseReason
from amsync.gateway.limits import Limits
from amsync.gateway.session import PeerSession

JOIN_BYTES = 128 * 1024
JOINED_LARGE_BODY_BYTES = 64 * 1024
CLOSE_SECONDS = 5.0

# The library logs every connection; our own counters and logs do that.
_silent = logging.getLogger("amsync.websockets")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False
_silent.setLevel(logging.CRITICAL)


class ConnectionHost(Protocol):
    """What a connection needs of its gateway."""

    limits: Limits

    def connected(self, connection: "ClientConnection") -> None:
        """A TCP connection (TLS done) has come in."""

    def answer(self, connection: "ClientConnection", request: Request) -> Response | None:
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


def _frame_head(length: int) -> bytes:
    """Header of a final, unmasked binary frame."""
    if length < 126:
        return bytes((0x82, length))
    if length < 1 << 16:
        return b"\x82\x7e" + length.to_bytes(2, "big")
    return b"\x82\x7f" + length.to_bytes(8, "big")


class ClientConnection(asyncio.Protocol):
    """One client's socket; see the module's text."""

    def __init__(self, host: ConnectionHost, number: int) -> None:
        self.number = number
        self.session: PeerSession | None = None
        self.address = ""
        self.heard_at = 0.0
        self.pinged_at = 0.0
        self.connected_at = 0.0
        self.uncredited_bytes = 0
        self.close_reason = ""
        self._host = host
        self._limits = host.limits
        self._protocol = ServerProtocol(max_size=JOIN_BYTES, logger=_silent)
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._fragments: bytearray | None = None
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
        if self._closing and self.session is None:
            return
        self._protocol.receive_data(data)
        self._process()

    def eof_received(self) -> bool:
        """asyncio: the client has ended its side."""
        self._protocol.receive_eof()
        self._process()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the socket is gone."""
        self._transport = None
        self._out.clear()
        self._host.ended(self, self.close_reason or ("lost" if exc else "client"))

    # -- in

    def _process(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._request(event)
            elif isinstance(event, Frame):
                self._frame(event)
        if self._protocol.handshake_exc is not None and self.session is None:
            self._bad_request()
        self._write_control()

    def _request(self, request: Request) -> None:
        response = self._host.answer(self, request)
        if response is None:
            response = self._protocol.accept(request)
        self._protocol.send_response(response)
        self._write_raw(self._protocol.data_to_send())  # before answers to what is behind it
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
        pending = self._protocol.data_to_send()
        if not any(pending):
            pending = [self._protocol.reject(400, "Bad request\n").serialize(), b""]
        self._write_raw(pending)

    def _frame(self, frame: Frame) -> None:
        if self._closing:
            return
        if frame.opcode is BINARY:
            if frame.fin:
                self._host.received(self, bytes(frame.data))
            else:
                self._fragments = bytearray(frame.data)
        elif frame.opcode is CONT and self._fragments is not None:
            self._fragments += frame.data
            if frame.fin:
                message, self._fragments = bytes(self._fragments), None
                self._host.received(self, message)
        elif frame.opcode is TEXT:
            self._host.received_text(self)

    def allow_large_messages(self) -> None:
        """The client has joined: lift the bound from a join's to `max_frame_bytes`."""
        self._protocol.max_message_size = self._limits.max_frame_bytes

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
            self._out += (_frame_head(length), shared, suffix)
        else:
            self._out.append(b"".join((_frame_head(length), shared, suffix)))
        self._out_bytes += length + 10
        self._sent_bytes += length + 10
        self._largest_unsent = max(self._largest_unsent, length)
        return True

    def note_progress(self, now: float) -> None:
        """Output that the network has taken is a sign of life too: a pong waits behind it."""
        taken = self._sent_bytes - self.unsent_bytes
        if taken > self._taken_bytes and self.unsent_bytes:
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
        try:
            self._protocol.send_ping(b"")
        except InvalidState:
            return
        self._write_control()

    def close(self, reason: CloseReason) -> None:
        """Close after what is queued; the socket is cut if the client doesn't answer."""
        if self._closing:
            return
        self.close_reason = reason.label
        self.flush()
        self._closing = True
        try:
            if self._protocol.state is OPEN:
                self._protocol.send_close(reason.code, reason.text)
            elif self._transport is not None:
                self._transport.close()
        except InvalidState:
            pass
        self._write_control()
        if reason is CloseReason.HANDSHAKE_TIMEOUT and self._transport is not None:
            self._transport.close()  # who didn't join in time won't answer in time either
        self._loop.call_later(CLOSE_SECONDS, self.abort, reason.label)

    def abort(self, reason: str) -> None:
        """Cut the socket without another word."""
        self._closing = True
        if self._transport is not None:
            self.close_reason = self.close_reason or reason
            self._transport.abort()

    def _write_control(self) -> None:
        """Write what the library wants to say: handshake, pongs, close frames."""
        writes = self._protocol.data_to_send()
        if writes:
            self.flush()
            self._write_raw(writes)
        if self._protocol.close_expected() and self._protocol.close_rcvd is not None:
            self.close_reason = self.close_reason or "client"
        if self._protocol.parser_exc is not None and not self._closing and self.session:
            # The end of the stream without a close frame is no fault: processes just die.
            vanished = isinstance(self._protocol.parser_exc, EOFError)
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
