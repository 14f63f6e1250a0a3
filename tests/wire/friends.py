"""Well-behaved clients, plain sockets, and the counters that a hostile case must move."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cbor2

from amsync import Server
from amsync._automerge import Replica
from support.closing import Closing
from support.rawclient import EMPTY_SYNC, RawClient

SECONDS = 20.0
"""Only what hangs takes as long, on a slow machine too."""


class Friend(Closing):
    """A real client of one document: the engine's own sync over a raw connection."""

    def __init__(self, server: Server, document_id: str, peer_id: str, **join: Any) -> None:
        self.client = RawClient(server.url, peer_id=peer_id)
        self.document_id = document_id
        self.replica = Replica()
        self.client.join(**join)
        self.replica.connect(0)
        self.seen: list[dict[str, Any]] = []

    def say(self) -> None:
        """Send what the replica has to say."""
        data = self.replica.generate(0)
        if data is not None:
            kind = "sync" if self.replica.heads() else "request"
            message = self.client.message(kind, self.document_id, data=data)
            self.client.send(message)

    def listen(self, seconds: float = 0.02) -> None:
        """Take what has come, and answer it."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                message = self.client.receive(left)
            except TimeoutError:
                return
            self.seen.append(message)
            if message["type"] == "sync" and message["documentId"] == self.document_id:
                self.replica.receive(0, message["data"])
                self.say()

    def value(self) -> dict[str, Any]:
        value = self.replica.value()
        assert isinstance(value, dict)
        return value

    def close(self) -> None:
        self.client.close()


class Witness(Closing):
    """Two friends on one document; `check` proves that the server still serves them both."""

    def __init__(self, server: Server) -> None:
        self.server = server
        document_id = server.generate_document_id()
        self.one = Friend(server, document_id, "witness-1")
        self.two = Friend(server, document_id, "witness-2")
        self.one.replica.put("start", 0)
        self.one.say()
        self._edits = 0
        self.check()
        self.two.say()

    def check(self) -> None:
        """An edit of one reaches the other, over the connections that were there before."""
        self._edits += 1
        self.one.replica.put("edit", self._edits)
        self.one.say()
        if self._edits == 1:
            self.two.say()
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            self.one.listen()
            self.two.listen()
            if self.two.value().get("edit") == self._edits:
                return
        raise AssertionError("an edit of a well-behaved client did not reach another one")

    def close(self) -> None:
        self.one.close()
        self.two.close()


def counted(server: Server, name: str, **labels: str) -> float:
    """Value of a counter or gauge; 0 if it was never touched."""
    registry = server.aio.metrics.registry
    for sample in (f"amsync_{name}_total", f"amsync_{name}"):
        value = registry.get_sample_value(sample, labels)
        if value is not None:
            return value
    return 0.0


@contextmanager
def increases(server: Server, name: str, by: float | None = None, **labels: str) -> Iterator[None]:
    """Expect that the block makes a counter grow, at the latest a little later."""
    before = counted(server, name, **labels)
    yield
    deadline = time.monotonic() + SECONDS
    while (grown := counted(server, name, **labels) - before) < (by or 1):
        if time.monotonic() > deadline:
            raise AssertionError(f"{name}{labels} grew by {grown}, expected {by or 'some'}")
        time.sleep(0.005)
    assert by is None or grown == by, f"{name}{labels} grew by {grown}, expected {by}"


def wait_for(condition: Any, what: str) -> None:
    """Wait until a condition holds, or fail."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {SECONDS} s: {what}")
        time.sleep(0.005)


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


def connect(server: Server, receive_bytes: int | None = None) -> socket.socket:
    """A plain TCP connection."""
    plain = socket.socket()
    plain.settimeout(SECONDS)
    if receive_bytes is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    try:
        plain.connect(("127.0.0.1", server.port))
    except OSError:
        plain.close()
        raise
    return plain


def talk(server: Server, data: bytes) -> bytes:
    """Send bytes on a new connection; return everything until the server closes."""
    with connect(server) as plain:
        plain.sendall(data)
        return read_to_end(plain)


def read_to_end(plain: socket.socket) -> bytes:
    received = b""
    try:
        while part := plain.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def status(response: bytes) -> int:
    """Status of an HTTP response; 0 if there is none."""
    return int(response.split(b" ")[1]) if response.startswith(b"HTTP/1.1 ") else 0


def frame(
    payload: bytes,
    *,
    opcode: int = 2,
    final: bool = True,
    masked: bool = True,
    length: int | None = None,
    reserved: int = 0,
) -> bytes:
    """A WebSocket frame with any header; `length` may lie."""
    length = len(payload) if length is None else length
    first = bytes([(0x80 if final else 0) | reserved | opcode])
    mask_bit = 0x80 if masked else 0
    if length < 126:
        header = first + bytes([mask_bit | length])
    elif length < 1 << 16:
        header = first + bytes([mask_bit | 126]) + struct.pack(">H", length)
    else:
        header = first + bytes([mask_bit | 127]) + struct.pack(">Q", length)
    # A mask of zeros leaves the payload as it is.
    return header + (b"\0\0\0\0" if masked else b"") + payload


def request(document_id: str, sender: str = "hostile", **more: Any) -> dict[str, Any]:
    """What a client without the document says first."""
    return {
        "type": "request",
        "senderId": sender,
        "targetId": "s",
        "documentId": document_id,
        "data": EMPTY_SYNC,
        **more,
    }


class RawSocket(Closing):
    """A WebSocket whose every byte the test writes."""

    def __init__(
        self,
        server: Server,
        peer_id: str = "hostile",
        *,
        join: bool = True,
        receive_bytes: int | None = None,
    ) -> None:
        """Open it; `receive_bytes` makes the kernel's buffer small, as of a slow reader."""
        self.socket = connect(server, receive_bytes)
        self.socket.sendall(UPGRADE + b"\r\n")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.socket.recv(1)
        assert status(head) == 101, head
        self.peer_id = peer_id
        if join:
            self.message({"type": "join", "senderId": peer_id, "peerMetadata": {}})
            assert self.receive()[1]["type"] == "peer"

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def message(self, message: Any) -> None:
        self.send(frame(cbor2.dumps(message)))

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def receive(self) -> tuple[int, Any]:
        """Next frame as (opcode, decoded message or raw payload). Raises EOFError at the end."""
        first, second = self._exactly(2)
        length = second & 127
        if length == 126:
            (length,) = struct.unpack(">H", self._exactly(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._exactly(8))
        payload = self._exactly(length)
        opcode = first & 15
        return opcode, cbor2.loads(payload) if opcode == 2 else payload

    def close_code(self) -> int:
        """Read to the end; the code of the close frame, 1006 if there was none."""
        try:
            while True:
                opcode, payload = self.receive()
                if opcode == 8:
                    return int.from_bytes(payload[:2], "big") or 1005
        except (EOFError, ConnectionResetError):
            return 1006

    def close(self) -> None:
        self.socket.close()
