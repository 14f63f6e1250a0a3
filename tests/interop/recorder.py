"""A client of many documents that writes down every head the server ever named as its own.

It reads, answers and edits over one raw WebSocket, in a thread of its own, and comes back
whenever the socket is lost. What it noted outlives the server: that is the point. It can kill
the server itself, in the instant in which a promise arrives; nothing is faster than that.
"""

import contextlib
import os
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable

from websockets.exceptions import ConnectionClosed, WebSocketException

from amsync._automerge import Replica
from simulation.oracle import heads_of
from support.closing import Closing
from support.rawclient import DEFAULT_SECONDS, EMPTY_SYNC, RawClient

SERVER = 0
RETRY_SECONDS = 0.02
IDLE_SECONDS = 0.02
EDITS_PER_FRAME = 0.2


class Recorder(Closing):
    """See the module's text. `close()` it.

    Args of the constructor:
        url: Of the server, which may be away.
        seed: Of what it edits, and when.

    Attributes:
        named: For each document all heads in sync frames of the server, ever.
        written: For each document the keys that we have put into it.
    """

    def __init__(self, url: str, seed: int) -> None:
        self.named: dict[str, set[bytes]] = defaultdict(set)
        self.written: dict[str, list[str]] = defaultdict(list)
        self._url = url
        self._random = random.Random(seed)
        self._changed = threading.Condition(threading.RLock())
        self._replicas: dict[str, Replica] = {}
        self._raw: RawClient | None = None
        self._writing = True
        self._closed = False
        self._news = 0
        self._kill: tuple[int, int] | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def follow(self, document_ids: list[str]) -> None:
        """Ask for documents, and edit them from now on."""
        with self._changed:
            for document_id in document_ids:
                if document_id not in self._replicas:
                    self._replicas[document_id] = Replica()
                    self._start(document_id)

    def kill_at_news(self, count: int, pid: int) -> None:
        """Send SIGKILL the moment the count-th frame from now with a new head has been noted."""
        with self._changed:
            self._kill = (self._news + count, pid)

    def wait_killed(self, timeout: float = DEFAULT_SECONDS) -> None:
        """Wait for what `kill_at_news` promised."""
        self._wait(lambda: self._kill is None, timeout, "the frame to kill at")

    def wait_connected(self, timeout: float = DEFAULT_SECONDS) -> None:
        self._wait(lambda: self._raw is not None, timeout, "a connection")

    def wait_lost(self, timeout: float = DEFAULT_SECONDS) -> None:
        """Wait until everything that the dead server had put on its socket was read."""
        self._wait(lambda: self._raw is None, timeout, "the end of the socket")

    def stop_writing(self) -> None:
        with self._changed:
            self._writing = False

    def wait_heads(self, wanted: dict[str, list[str]], timeout: float = DEFAULT_SECONDS) -> None:
        """Wait until our copies have these heads (hex)."""

        def done() -> bool:
            return all(self.heads(name) == sorted(heads) for name, heads in wanted.items())

        self._wait(done, timeout, "the heads of all others")

    def heads(self, document_id: str) -> list[str]:
        with self._changed:
            return sorted(head.hex() for head in self._replicas[document_id].heads())

    def close(self) -> None:
        with self._changed:
            self._closed = True
        self._thread.join(DEFAULT_SECONDS)
        assert self._failure is None, f"the recorder has failed: {self._failure!r}"

    # -- the thread

    def _run(self) -> None:
        try:
            while not self._closed:
                self._visit()
        except BaseException as error:
            self._failure = error
            with self._changed:
                self._changed.notify_all()

    def _visit(self) -> None:
        try:
            raw = RawClient(self._url, peer_id="recorder")
        except (OSError, WebSocketException):
            with self._changed:
                self._changed.wait(RETRY_SECONDS)
            return
        try:
            raw.join()
            with self._changed:
                self._raw = raw
                self._changed.notify_all()
                for document_id in self._replicas:
                    self._start(document_id)
            while not self._closed:
                self._turn(raw)
        except (ConnectionClosed, TimeoutError):
            pass
        finally:
            raw.close()
            with self._changed:
                self._raw = None
                self._changed.notify_all()

    def _turn(self, raw: RawClient) -> None:
        try:
            message = raw.receive(IDLE_SECONDS)
        except TimeoutError:
            message = None
        with self._changed:
            if message is None:
                self._edit()
            elif message["type"] == "sync":
                self._note(message["documentId"], message["data"])
                self._answer(message["documentId"], message["data"])
                if self._random.random() < EDITS_PER_FRAME:
                    self._edit()
            self._changed.notify_all()

    def _note(self, document_id: str, data: bytes) -> None:
        heads = set(heads_of(data))
        if not heads <= self.named[document_id]:
            self.named[document_id] |= heads
            self._news += 1
            if self._kill is not None and self._news >= self._kill[0]:
                os.kill(self._kill[1], signal.SIGKILL)
                self._kill = None

    def _answer(self, document_id: str, data: bytes) -> None:
        if document_id not in self._replicas:  # offered to us
            self._replicas[document_id] = Replica()
            self._replicas[document_id].connect(SERVER)
        self._replicas[document_id].receive(SERVER, data)
        self._flush(document_id)

    def _edit(self) -> None:
        if not self._writing or not self._replicas:
            return
        document_id = self._random.choice(list(self._replicas))
        key = f"recorder-{len(self.written[document_id])}"
        self._replicas[document_id].put(key, True)
        self.written[document_id].append(key)
        self._flush(document_id)

    def _start(self, document_id: str) -> None:
        replica = self._replicas[document_id]
        replica.connect(SERVER)
        if replica.heads():
            self._flush(document_id)
        else:
            data = replica.generate(SERVER) or EMPTY_SYNC
            self._send("request", document_id, data)

    def _flush(self, document_id: str) -> None:
        while (data := self._replicas[document_id].generate(SERVER)) is not None:
            self._send("sync", document_id, data)

    def _send(self, kind: str, document_id: str, data: bytes) -> None:
        if self._raw is None:
            return
        # A socket that takes nothing any more may still hold what was said before its end.
        with contextlib.suppress(ConnectionClosed):
            self._raw.send(self._raw.message(kind, document_id, data=data))

    def _wait(self, done: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        with self._changed:
            while not done():
                assert self._failure is None, f"the recorder has failed: {self._failure!r}"
                left = deadline - time.monotonic()
                assert left > 0, f"the recorder waits {timeout} s for {what}"
                self._changed.wait(left)
