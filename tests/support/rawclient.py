"""A WebSocket client that says exactly what a test tells it to, right or wrong.

It knows the wire forms of PROTOCOL 1.2 and 2 but has no opinion: no keepalive of its own, no
answers, no sync state. `join` and the message makers save typing; `send_bytes` and `send_text`
send anything. Every read has a deadline.
"""

import ssl
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import cbor2
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from .closing import Closing
from .tlstunnel import open_tunnel

Message = dict[str, Any]

EMPTY_SYNC = bytes.fromhex("42000001000000020284")
"""What a current client with no heads sends first (PROTOCOL 5.1)."""

SERVER = "the-server"
DEFAULT_SECONDS = 20.0
"""Only what hangs takes as long, on a slow machine too."""


class RawClient(Closing):
    """One WebSocket. Use it as a context manager, or `close()` it.

    Attributes:
        peer_id: The senderId that `join` and the message makers use.
        server_id: The server's peer id, known after `join`.
    """

    def __init__(
        self,
        url: str,
        *,
        peer_id: str = "raw",
        headers: Mapping[str, str] | None = None,
        origin: str | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Open the socket and say nothing.

        Raises:
            InvalidStatus: The server refused the upgrade; `.response.status_code` says how.
        """
        self.peer_id = peer_id
        self.server_id = SERVER
        self._exit = ExitStack()
        tunnel = None
        if context is not None:
            parts = urlsplit(url)
            assert parts.scheme == "wss"
            assert parts.hostname
            assert parts.port
            tunnel = open_tunnel(parts.hostname, parts.port, context, DEFAULT_SECONDS)
            url = urlunsplit(parts._replace(scheme="ws"))
        opening = connect(
            url,
            sock=tunnel,
            additional_headers=dict(headers or {}),
            origin=Origin(origin) if origin else None,
            compression=None,
            max_size=None,
            ping_interval=None,
            open_timeout=DEFAULT_SECONDS,
            close_timeout=1,
        )
        self._socket: ClientConnection = self._exit.enter_context(opening)

    def join(self, **overrides: Any) -> Message:
        """Shake hands; return the server's `peer` message.

        Raises:
            AssertionError: The server answered something else, or closed.
        """
        self.send(self.join_message(**overrides))
        answer = self.receive()
        assert answer["type"] == "peer", answer
        self.server_id = answer["senderId"]
        return answer

    def join_message(self, **overrides: Any) -> Message:
        """A storage-less client's `join`; overrides replace fields, `...` removes one."""
        message = {
            "type": "join",
            "senderId": self.peer_id,
            "peerMetadata": {"isEphemeral": True},
            "supportedProtocolVersions": ["1"],
        }
        return _overridden(message, overrides)

    def message(self, kind: str, document_id: str | None = None, **overrides: Any) -> Message:
        """A message of the given type, addressed to the server."""
        message: Message = {"type": kind, "senderId": self.peer_id, "targetId": self.server_id}
        if document_id is not None:
            message["documentId"] = document_id
        return _overridden(message, overrides)

    def request(self, document_id: str, data: bytes = EMPTY_SYNC, **overrides: Any) -> None:
        self.send(self.message("request", document_id, data=data, **overrides))

    def sync(self, document_id: str, data: bytes, **overrides: Any) -> None:
        self.send(self.message("sync", document_id, data=data, **overrides))

    def ephemeral(
        self, document_id: str, payload: Any, count: int = 1, session: str = "session"
    ) -> None:
        data = cbor2.dumps(payload)
        self.send(self.message("ephemeral", document_id, data=data, count=count, sessionId=session))

    def send(self, message: Any) -> None:
        """Send a value as plain definite-length CBOR."""
        self.send_bytes(cbor2.dumps(message))

    def send_like_javascript(self, message: Message) -> None:
        """Send a map byte for byte as cbor-x does: 16-bit map header, big integers as floats."""
        self.send_bytes(javascript_cbor(message))

    def send_bytes(self, data: bytes) -> None:
        """Send one binary frame."""
        self._socket.send(data)

    def send_text(self, text: str) -> None:
        """Send one text frame."""
        self._socket.send(text)

    def send_raw(self, data: bytes) -> None:
        """Write bytes below the WebSocket framing."""
        self._socket.socket.sendall(data)

    def ping(self, timeout: float = DEFAULT_SECONDS) -> None:
        """Wait for the pong: everything sent before has been read by the server's socket."""
        assert self._socket.ping().wait(timeout), "no pong"

    def receive_bytes(self, timeout: float = DEFAULT_SECONDS) -> bytes:
        """Return the next frame.

        Raises:
            TimeoutError: None came.
            ConnectionClosed: The server closed; see `wait_closed`.
        """
        frame = self._socket.recv(timeout)
        assert isinstance(frame, bytes), f"text frame {frame!r}"
        return frame

    def receive(self, timeout: float = DEFAULT_SECONDS) -> Message:
        """Return the next frame, decoded; raises as `receive_bytes`."""
        message = cbor2.loads(self.receive_bytes(timeout))
        assert isinstance(message, dict), message
        return message

    def receive_type(
        self, kind: str, document_id: str | None = None, timeout: float = DEFAULT_SECONDS
    ) -> Message:
        """Return the next message of a type (and document), dropping others before it."""
        deadline = time.monotonic() + timeout
        seen: list[str] = []
        while (left := deadline - time.monotonic()) > 0:
            try:
                message = self.receive(left)
            except TimeoutError:
                break
            if message["type"] == kind and document_id in (None, message.get("documentId")):
                return message
            seen.append(message["type"])
        raise TimeoutError(f"no {kind} within {timeout} s; came: {seen}")

    def receive_all(self, quiet_seconds: float = 0.3) -> list[Message]:
        """Return what comes until nothing came for a while, or the server closed."""
        messages = []
        while True:
            try:
                messages.append(self.receive(quiet_seconds))
            except (TimeoutError, ConnectionClosed):
                return messages

    def wait_closed(self, timeout: float = DEFAULT_SECONDS) -> tuple[int, list[Message]]:
        """Wait until the server closes; return the close code (1006: none) and what came before.

        Raises:
            TimeoutError: The connection is still open.
        """
        deadline = time.monotonic() + timeout
        messages: list[Message] = []
        while (left := deadline - time.monotonic()) > 0:
            try:
                messages.append(self.receive(left))
            except TimeoutError:
                break
            except ConnectionClosed:
                return self._socket.protocol.close_code or 1006, messages
        raise TimeoutError(f"still open after {timeout} s; came: {messages}")

    def is_answered(self, document_id: str, timeout: float = DEFAULT_SECONDS) -> bool:
        """Whether a request for a document still gets an answer: the connection lives."""
        self.request(document_id)
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                if self.receive(left).get("documentId") == document_id:
                    return True
            except (TimeoutError, ConnectionClosed):
                return False
        return False

    def drop(self) -> None:
        """Cut the TCP connection without a closing handshake."""
        self._socket.socket.close()

    def close(self) -> None:
        self._exit.close()


def javascript_cbor(message: Message) -> bytes:
    """Encode a map as automerge-repo's cbor-x does (PROTOCOL 1.2); `cbor2.undefined` is f7."""

    def encode(value: Any) -> bytes:
        if isinstance(value, dict):
            items = b"".join(encode(key) + encode(item) for key, item in value.items())
            return b"\xb9" + struct.pack(">H", len(value)) + items
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**32:
            return b"\xfb" + struct.pack(">d", float(value))
        if isinstance(value, list):
            header = cbor2.dumps([None] * len(value))[: -len(value) or None]
            return header + b"".join(encode(item) for item in value)
        return cbor2.dumps(value)

    return encode(message)


@contextmanager
def refused(status: int | None = None) -> Iterator[None]:
    """Expect that the upgrade in the block is refused, with this HTTP status if given."""
    try:
        yield
    except InvalidStatus as error:
        found = error.response.status_code
        assert status in (None, found), f"refused with {found}, expected {status}"
    else:
        raise AssertionError("the upgrade was accepted")


def _overridden(message: Message, overrides: dict[str, Any]) -> Message:
    merged = {**message, **overrides}
    return {key: value for key, value in merged.items() if value is not ...}
