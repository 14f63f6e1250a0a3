"""A server of a few lines that can be told to cheat; the crate's own sync does the rest.

Not here: storage, several peers of one id, anything that no client of the benchmark asks for.
"""

import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import cbor2
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from amsync._automerge import Replica

Message = dict[str, object]
Cheat = Callable[[int, bytes], list[bytes]]
"""What to send instead of a sync message to the generator's client of this number."""


def honest(_client: int, data: bytes) -> list[bytes]:
    return [data]


class FakeServer:
    """Listens while its context is open.

    Attributes:
        replicas: What it has of each document; a test may edit it.
    """

    def __init__(self, cheat: Cheat = honest) -> None:
        self.replicas: dict[str, Replica] = {}
        self._cheat = cheat
        self._lock = threading.Lock()
        self._clients: dict[int, tuple[ServerConnection, str]] = {}
        self._talking: set[tuple[int, str]] = set()
        self._server = serve(
            self._serve, "127.0.0.1", 0, max_size=None, compression=None, close_timeout=0.1
        )
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        for socket, _ in list(self._clients.values()):
            socket.close()
        self._thread.join()

    def _serve(self, socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            self._talk(socket)

    def _talk(self, socket: ServerConnection) -> None:
        join = cbor2.loads(bytes(socket.recv()))
        peer = str(join["senderId"])
        client = int(peer.rpartition("-")[2])
        with self._lock:
            self._clients[client] = (socket, peer)
        self._send(client, {"type": "peer", "peerMetadata": {}, "selectedProtocolVersion": "1"})
        for frame in socket:
            message = cbor2.loads(bytes(frame))
            with self._lock:
                self._take(client, message["documentId"], message["data"])

    def _take(self, client: int, document_id: str, data: bytes) -> None:
        replica = self.replicas.setdefault(document_id, Replica())
        if (client, document_id) not in self._talking:
            self._talking.add((client, document_id))
            replica.connect(client)
        replica.receive(client, data)
        for other, its in sorted(self._talking):
            if its == document_id and (answer := replica.generate(other)) is not None:
                for each in self._cheat(other, answer):
                    self._send(other, {"type": "sync", "documentId": document_id, "data": each})

    def _send(self, client: int, message: Message) -> None:
        socket, peer = self._clients[client]
        with contextlib.suppress(ConnectionClosed):
            socket.send(cbor2.dumps({**message, "senderId": "fake", "targetId": peer}))
