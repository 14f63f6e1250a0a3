"""A client with a document of its own behind a raw socket, and small waits."""

import time
from collections.abc import Callable
from typing import Any, Self

from amsync import Server
from amsync._automerge import Replica
from support.closing import Closing
from support.rawclient import DEFAULT_SECONDS, EMPTY_SYNC, RawClient

SERVER = 0


class ReplicaClient(Closing):
    """Syncs one document as automerge-repo does: join, ask or offer, answer each message.

    Attributes:
        unavailable: How often the server said that it has no such document.
        frames: Sync messages that came, oldest first.
    """

    def __init__(
        self,
        url: str,
        document_id: str,
        replica: Replica | None = None,
        *,
        peer_id: str = "replica",
        **options: Any,
    ) -> None:
        self.document_id = document_id
        self.replica = replica or Replica()
        self.unavailable = 0
        self.frames: list[bytes] = []
        self.raw = RawClient(url, peer_id=peer_id, **options)
        self.peer = self.raw.join()
        self.replica.connect(SERVER)

    def start(self) -> Self:
        """Ask for the document, or offer what there is of it."""
        if self.replica.heads():
            self.flush()
        else:
            self.raw.request(self.document_id, self.replica.generate(SERVER) or EMPTY_SYNC)
        return self

    def put(self, key: str, value: object) -> None:
        """Edit and send."""
        self.replica.put(key, value)
        self.flush()

    def flush(self) -> None:
        while (message := self.replica.generate(SERVER)) is not None:
            self.raw.sync(self.document_id, message)

    def wait(self, done: Callable[[], bool], timeout: float = DEFAULT_SECONDS) -> None:
        """Take and answer messages until `done`."""
        deadline = time.monotonic() + timeout
        while not done():
            left = deadline - time.monotonic()
            assert left > 0, f"not done: value={self.replica.value()} after {len(self.frames)}"
            try:
                self._take(self.raw.receive(left))
            except TimeoutError:
                continue

    def wait_value(self, value: object, timeout: float = DEFAULT_SECONDS) -> None:
        self.wait(lambda: self.replica.value() == value, timeout)

    def wait_loaded(self, timeout: float = DEFAULT_SECONDS) -> None:
        """Wait for the document, be it an empty one."""
        self.wait(lambda: bool(self.replica.heads()), timeout)

    def wait_acknowledged(self, timeout: float = DEFAULT_SECONDS) -> None:
        """Wait until a message of the server names all of our heads as its own."""

        def named() -> bool:
            heads = self.replica.heads()
            return any(names(frame, heads) for frame in self.frames)

        self.wait(named, timeout)

    def listen(self, seconds: float) -> None:
        """Take and answer what comes for a while."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                self._take(self.raw.receive(left))
            except TimeoutError:
                return

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("documentId") != self.document_id:
            return
        if message["type"] == "doc-unavailable":
            self.unavailable += 1
        elif message["type"] == "sync":
            self.frames.append(message["data"])
            self.replica.receive(SERVER, message["data"])
            self.flush()

    def __enter__(self) -> Self:
        return self.start()

    def close(self) -> None:
        self.raw.close()


def names(message: bytes, heads: list[bytes]) -> bool:
    """Tell whether a sync message gives exactly these as its sender's heads (PROTOCOL 5.1)."""
    count = message[1]
    found = [message[2 + 32 * i : 34 + 32 * i] for i in range(count)]
    return sorted(found) == sorted(heads)


def eventually(check: Callable[[], bool], timeout: float = DEFAULT_SECONDS) -> None:
    """Wait until something outside the test's own thread has happened."""
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def samples(server: Server) -> dict[str, float]:
    """All metrics by name with labels, as `amsync_messages_total{type=sync,direction=in}`."""
    found = {}
    for family in list(server.aio.metrics.registry.collect()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


__all__ = ["ReplicaClient", "eventually", "names", "samples"]
