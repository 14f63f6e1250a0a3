"""Clients of a cluster that type without pause and write down what it promised them.

Each client has one document and one gateway, answers every message, comes back when its socket
is lost, and notes: every head that the server ever named as its own, how often a socket was lost,
how many frames went each way, and how long it waited for news while others were typing. All of
them live on one loop in a thread of its own; the methods are for the test's thread, which must
not touch a client's replica.
"""

import asyncio
import contextlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import cbor2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from amsync._automerge import Replica
from simulation.oracle import heads_of
from support.closing import Closing
from support.rawclient import EMPTY_SYNC

SERVER = 0
RETRY_SECONDS = 0.2
"""Real clients wait longer; shorter shows more of a server that closes again and again."""

WAIT_SECONDS = 60.0
QUIET_SECONDS = 1.5
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Loss:
    """The end of a socket that we had not ended: when (monotonic), whose, and what was said."""

    at: float
    url: str
    code: int
    reason: str


class FleetClient:
    """One client; everything here belongs to the fleet's loop.

    Args of the constructor:
        urls: Of gateways: while one refuses, the next is tried, as behind a load balancer.

    Attributes:
        named: All heads that the server has named, ever.
        losses: Ends of sockets that had joined.
        refusals: Sockets that could not be opened, or ended before we had joined.
        frames_in: Sync messages that came.
        frames_out: Sync messages and requests that were sent.
        longest_pause: Seconds; see `Fleet.longest_pause`.
    """

    def __init__(self, name: str, urls: Sequence[str], document_id: str) -> None:
        self.name, self.document_id = name, document_id
        self.urls = deque(urls)
        self.replica = Replica()
        self.named: set[bytes] = set()
        self.last_named: set[bytes] = set()
        self.losses: list[Loss] = []
        self.refusals = 0
        self.unavailable = 0
        self.frames_in = self.frames_out = 0
        self.edits = 0
        self.interval_seconds = 0.0
        self.longest_pause = 0.0
        self.news_at: float | None = None
        self._socket: ClientConnection | None = None
        self._server = ""
        self._typing = asyncio.Event()

    @property
    def url(self) -> str:
        """Of the gateway that it is at, or tries."""
        return self.urls[0]

    @property
    def is_joined(self) -> bool:
        return self._socket is not None

    @property
    def is_acknowledged(self) -> bool:
        """The server's last word about its heads names exactly ours."""
        heads = set(self.replica.heads())
        return bool(heads) and heads == self.last_named

    def type(self, interval_seconds: float) -> None:
        """Edit every so often from now on; 0: no more."""
        self.interval_seconds = interval_seconds
        if interval_seconds:
            self._typing.set()
        else:
            self._typing.clear()

    async def live(self) -> None:
        """Be connected, and type, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stay_connected())
            group.create_task(self._type())

    async def _stay_connected(self) -> None:
        while True:
            try:
                async with connect(
                    self.url,
                    compression=None,
                    max_size=None,
                    ping_interval=None,
                    open_timeout=WAIT_SECONDS,
                    close_timeout=1,
                ) as socket:
                    await self._visit(socket)
            except (OSError, WebSocketException, TimeoutError):
                self.refusals += 1
                self.urls.rotate(-1)
            await asyncio.sleep(RETRY_SECONDS)

    async def _visit(self, socket: ClientConnection) -> None:
        join = {
            "type": "join",
            "senderId": self.name,
            "peerMetadata": {"isEphemeral": True},
            "supportedProtocolVersions": ["1"],
        }
        await socket.send(cbor2.dumps(join))
        answer = cbor2.loads(await socket.recv())
        assert answer["type"] == "peer", answer
        self._server, self._socket = answer["senderId"], socket
        try:
            await self._hello()
            async for frame in socket:
                await self._take(cbor2.loads(frame))
        except ConnectionClosed:
            pass
        finally:
            self._socket = None
        # Only an end that was not ours comes here: when cancelled this is left above.
        code, reason = socket.close_code or 1006, socket.close_reason or ""
        self.losses.append(Loss(time.monotonic(), self.url, code, reason))

    async def _hello(self) -> None:
        self.last_named = set()
        self.replica.connect(SERVER)
        if self.replica.heads():
            await self._flush()
        else:
            await self._send("request", self.replica.generate(SERVER) or EMPTY_SYNC)

    async def _take(self, message: dict[str, Any]) -> None:
        if message.get("documentId") != self.document_id:
            return
        if message["type"] == "doc-unavailable":
            self.unavailable += 1
        elif message["type"] == "sync":
            self._note(message["data"])
            await self._flush()

    def _note(self, data: bytes) -> None:
        self.frames_in += 1
        self.last_named = set(heads_of(data))
        self.named |= self.last_named
        before = self.replica.heads()
        self.replica.receive(SERVER, data)
        if self.replica.heads() != before:
            now = time.monotonic()
            if self.news_at is not None:
                self.longest_pause = max(self.longest_pause, now - self.news_at)
                self.news_at = now

    async def _type(self) -> None:
        while True:
            await self._typing.wait()
            self.edits += 1
            self.replica.put(self.name, self.edits)
            await self._flush()
            await asyncio.sleep(self.interval_seconds)

    async def _flush(self) -> None:
        if self._socket is not None:
            while (data := self.replica.generate(SERVER)) is not None:
                await self._send("sync", data)

    async def _send(self, kind: str, data: bytes) -> None:
        message = {
            "type": kind,
            "senderId": self.name,
            "targetId": self._server,
            "documentId": self.document_id,
            "data": data,
        }
        # What is sent into a socket that is lost is asked for anew by the next one.
        if self._socket is not None:
            self.frames_out += 1
            with contextlib.suppress(ConnectionClosed):
                await self._socket.send(cbor2.dumps(message))


class Fleet(Closing):
    """See the module's text. `close()` it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self.clients: list[FleetClient] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="fleet", daemon=True)
        self._thread.start()

    def add(self, urls: Sequence[str], document_id: str, count: int) -> list[FleetClient]:
        """Clients of one document, dealt out over gateways; they connect at once."""

        async def start() -> list[FleetClient]:
            fresh = []
            for number in range(len(self.clients), len(self.clients) + count):
                first = number % len(urls)
                each = [*urls[first:], *urls[:first]]
                fresh.append(FleetClient(f"c{number}", each, document_id))
            self._tasks += [asyncio.create_task(client.live()) for client in fresh]
            self.clients += fresh
            return fresh

        return self._call(start())

    def start_typing(
        self, interval_seconds: float, clients: Sequence[FleetClient] | None = None
    ) -> None:
        """Have clients, or all, edit every so often."""

        async def start() -> None:
            for client in self.clients if clients is None else clients:
                client.type(interval_seconds)

        self._call(start())

    def stop_typing(self) -> None:
        self.start_typing(0)

    def edit_once(self, client: FleetClient) -> None:
        """One edit of one client, sent at once if it is connected."""

        async def edit() -> None:
            client.edits += 1
            client.replica.put(client.name, client.edits)
            await client._flush()

        self._call(edit())

    def wait(self, done: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until something, looked at on the fleet's loop, is true."""

        async def wait() -> None:
            deadline = time.monotonic() + seconds
            while not done():
                self._check()
                assert time.monotonic() < deadline, (
                    f"not within {seconds} s: {what}\n{self._summary()}"
                )
                await asyncio.sleep(POLL_SECONDS)

        self._call(wait())

    def wait_joined(self) -> None:
        self.wait(lambda: all(client.is_joined for client in self.clients), "all have joined")

    def wait_loaded(self) -> None:
        """Until every client has its document, be it an empty one."""
        self.wait(lambda: all(c.replica.heads() for c in self.clients), "all have their document")

    def wait_edits(self, count: int, clients: Sequence[FleetClient] | None = None) -> None:
        """Until clients, or all, have each made so many edits more than now."""
        chosen = list(self.clients if clients is None else clients)
        before = [client.edits for client in chosen]
        self.wait(
            lambda: all(c.edits >= b + count for c, b in zip(chosen, before, strict=True)),
            f"{count} more edits of each",
        )

    def converge(self, seconds: float = WAIT_SECONDS) -> dict[str, set[bytes]]:
        """Stop typing; wait until all agree and the server has named their heads; returns these."""
        self.stop_typing()

        def done() -> bool:
            return all(c.is_acknowledged for c in self.clients) and all(
                len({frozenset(c.replica.heads()) for c in clients}) == 1
                for clients in self.by_document().values()
            )

        self.wait(done, "all have the same heads, and the server has named them", seconds)

        async def heads() -> dict[str, set[bytes]]:
            return {name: set(cs[0].replica.heads()) for name, cs in self.by_document().items()}

        found: dict[str, set[bytes]] = self._call(heads())
        return found

    def wait_quiet(self) -> None:
        """Wait until nothing went to or fro for a while."""
        known = (-1, 0.0)

        def quiet() -> bool:
            nonlocal known
            count, now = self.frame_count(), time.monotonic()
            if count != known[0]:
                known = (count, now)
            return now - known[1] > QUIET_SECONDS

        self.wait(quiet, "they stop talking when nobody edits")

    def mark(self) -> None:
        """Measure pauses from now on."""

        async def mark() -> None:
            for client in self.clients:
                client.longest_pause, client.news_at = 0.0, time.monotonic()

        self._call(mark())

    def longest_pause(self, clients: Sequence[FleetClient] | None = None) -> float:
        """The longest time in seconds that a client waited for news since `mark`.

        What is measured is the way from client to client: others must be typing all the while.
        """
        chosen = self.clients if clients is None else clients
        return max(client.longest_pause for client in chosen)

    def named(self) -> dict[str, set[bytes]]:
        """For each document all heads that the server ever named to anybody."""
        found: dict[str, set[bytes]] = defaultdict(set)
        for client in self.clients:
            found[client.document_id] |= client.named
        return found

    def by_document(self) -> dict[str, list[FleetClient]]:
        found: dict[str, list[FleetClient]] = defaultdict(list)
        for client in self.clients:
            found[client.document_id].append(client)
        return found

    def frame_count(self) -> int:
        """Sync messages and requests, both ways, of all clients."""
        return sum(client.frames_in + client.frames_out for client in self.clients)

    def losses(self, url: str | None = None) -> list[Loss]:
        """Ends of sockets: of the clients of one gateway, or all."""
        return [each for c in self.clients for each in c.losses if url in (None, each.url)]

    def _summary(self) -> str:
        rows = [
            f"{c.name} at {c.url}: joined {c.is_joined}, edits {c.edits}, frames {c.frames_in} in"
            f" {c.frames_out} out, lost {c.losses}, refused {c.refusals}, acknowledged"
            f" {c.is_acknowledged}, heads {sorted(h.hex()[:6] for h in c.replica.heads())}, server"
            f" {sorted(h.hex()[:6] for h in c.last_named)}, unavailable {c.unavailable}"
            for c in self.clients
        ]
        bad = [row for row, c in zip(rows, self.clients, strict=True) if not c.is_acknowledged]
        return "\n".join((bad or rows)[:20])

    def close(self) -> None:
        async def end() -> None:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_SECONDS)
        self._loop.close()

    def _check(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error

    def _call(self, work: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(WAIT_SECONDS * 4)
