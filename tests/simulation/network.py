"""A whole network in one thread: clients, links, one server on a machine that may lose power.

`run_seed` draws a plan and happenings from a seed, lets them happen, then drains: first nothing
but what is under way, then one more edit each, then one new connection each. After each part
everybody who may must have the same heads, after a bounded number of messages.
"""

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import cbor2

import amsync.worker.synchronizer as synchronizer
from amsync._automerge import Replica
from amsync.errors import DocumentDeleted
from amsync.ids import DocumentId, base58check_encode, shard_of
from amsync.protocol.access import Access
from amsync.protocol.envelope import Reply
from amsync.worker.engine import load_document
from support.memfs import KEEP_EVERYTHING, KEEP_NOTHING, MachineDown, MemoryFileSystem

from .client import Client, Copy, Frame
from .clock import Clock
from .cluster import Server, SimulatedConnection, in_simulation
from .link import Link
from .oracle import Oracle, Violation, hashes_of, heads_of

TICK_SECONDS = 1.0
MESSAGES_PER_PAIR = 14
"""Sync messages in one part of the drain, both directions, for each (client, document)."""

REGAINED_ACCESS_MAY_LOOP = True
"""A known defect: an edit that crosses the reset after regained access needs the loop breaker."""


@dataclass(frozen=True)
class Plan:
    """What kind of network a seed makes."""

    clients: int
    documents: int
    happenings: int
    gateways: int
    shard_count: int
    auto_create: bool
    announce: bool
    has_roles: bool
    asks_for_access: bool
    ask_seconds: float
    grant_seconds: float
    idle_seconds: float
    commit_seconds: float
    thread_seconds: float
    stream_bytes: int
    segment_bytes: int
    inline_changes: int
    has_crashes: bool
    has_restarts: bool
    has_disk_faults: bool
    has_engine_faults: bool
    has_deletions: bool
    has_calls: bool


def make_plan(random: Random) -> Plan:
    def chance(probability: float) -> bool:
        return random.random() < probability

    return Plan(
        clients=random.randint(2, 4),
        documents=random.choice((1, 1, 2, 3)),
        happenings=random.choice((15, 25, 40)),
        gateways=2 if chance(0.1) else 1,
        shard_count=random.choice((1, 2, 4)),
        auto_create=chance(0.5),
        announce=chance(0.25),
        has_roles=chance(0.35),
        asks_for_access=chance(0.4),
        ask_seconds=random.choice((0.05, 1.0)),
        grant_seconds=random.choice((2.0, 1e9, 1e9)),
        idle_seconds=random.choice((0.5, 2.0, 30.0)),
        commit_seconds=random.choice((0.002, 0.05, 0.4)),
        thread_seconds=random.choice((0.002, 0.05, 0.4, 2.0)),
        stream_bytes=1_000 if chance(0.1) else 1 << 26,
        segment_bytes=random.choice((300, 1 << 20)),
        inline_changes=random.choice((0, 10, 4_000)),
        has_crashes=chance(0.5),
        has_restarts=chance(0.2),
        has_disk_faults=chance(0.2),
        has_engine_faults=chance(0.15),
        has_deletions=chance(0.1),
        has_calls=chance(0.3),
    )


class Network:
    """One run; see the module's text."""

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        self.random = random = Random(seed)
        self.plan = make_plan(random)
        self.clock = Clock()
        self.files = MemoryFileSystem()
        self.files.put(Path("/other"), b"")
        self.oracle = Oracle(self.files)
        self.documents = [
            DocumentId(base58check_encode(random.randbytes(16))) for _ in range(self.plan.documents)
        ]
        self.clients = [
            Client(
                f"client{number}",
                self.clock,
                random,
                keeps_state=random.random() < 0.5,
                connect=self._connect,
                heard=self._heard,
            )
            for number in range(self.plan.clients)
        ]
        self.roles: dict[tuple[str, DocumentId], Access] = {}
        self._base: dict[tuple[str, DocumentId], Access] = {}
        self._wrote: set[tuple[str, DocumentId]] = set()
        self._unheard: set[tuple[str, DocumentId]] = set()
        self._role_changed: set[tuple[str, DocumentId]] = set()
        for client in self.clients:
            for document_id in self.documents:
                reader = self.plan.has_roles and random.random() < 0.25
                self._set_role(client.peer_id, document_id, Access.READ if reader else Access.WRITE)
        self._base = dict(self.roles)
        self.server: Server | None = None
        self._gateway_of: dict[str, int] = {}
        self._engine_failures = 0
        self._engine_fails_next = False
        self._calls = 0
        self._is_draining = False
        self._verbose = verbose
        self._happenings = self._weigh()
        self.oracle.loops_are_excused = REGAINED_ACCESS_MAY_LOOP and self.plan.has_roles

    def say(self, *what: object) -> None:
        if self._verbose:
            print(f"{self.clock.now - 1000:9.4f}", *what)

    # -- the server

    def start_server(self) -> None:
        if self.server is not None:
            return
        self.files.fault = None
        try:
            self.server = Server(
                self.clock,
                self.random,
                self.files,
                self.oracle,
                self.plan,
                lambda peer_id, document_id: self.roles[peer_id, document_id],
                self._engine_fails,
                self._frame_leaves,
            )
        except MachineDown:
            self._power_returns()
            self.clock.later(0.1, self.start_server)
            return
        self.say("server starts")

    def crash(self) -> None:
        server = self.server
        if server is None:
            return
        self.say("server dies")
        self.server = None
        server.die()
        self._power_returns()
        self.clock.later(self.random.choice((0.01, 0.5, 3.0)), self.start_server)

    def _power_returns(self) -> None:
        keep = self.random.choice((KEEP_NOTHING, KEEP_NOTHING, KEEP_EVERYTHING, self.random))
        self.files.restart(keep)
        self.oracle.disk_was_lost()

    def stop_server(self) -> None:
        """A clean stop, then a start."""
        server = self.server
        if server is None or server.is_stopping:
            return
        self.say("server stops")
        server.is_stopping = True
        for gateway in server.gateways:
            gateway.stop_accepting()

        def wait() -> None:
            if not server.is_idle() or server.connections():
                server.later(0.05, wait)
                return
            self.files.fault = None
            server.store.close()
            self.say("server has stopped")
            self.server = None
            server.is_alive = False
            self.oracle.disk_was_lost()
            self.clock.later(0.1, self.start_server)

        server.later(0.05, wait)

    def _connect(self, client: Client) -> Link | None:
        server = self.server
        if server is None or server.is_stopping:
            return None
        link = Link(self.clock, self.random)
        number = self.random.randrange(self.plan.gateways)
        server.gateways[number].connect(link)
        self.say(client.peer_id, "connects")
        for document_id in self.documents:
            self._unheard.discard((client.peer_id, document_id))
            self._role_changed.discard((client.peer_id, document_id))
        return link

    def _engine_fails(self) -> bool:
        if not self._engine_fails_next:
            return False
        self._engine_fails_next = False
        self.say("engine fails")
        self.oracle.engine_failed.update(self.documents)
        for client in self.clients:
            self._unheard.update((client.peer_id, document_id) for document_id in self.documents)
        return True

    # -- what is said

    def _frame_leaves(self, server: Server, connection: SimulatedConnection, data: bytes) -> None:
        self.oracle.count_frame()
        frame: Frame = cbor2.loads(data)
        session = connection.session
        assert session is not None
        kind, target = frame["type"], str(frame.get("targetId", ""))
        if target != (session.peer_id or ""):
            raise Violation(f"{kind} for {target} leaves to {session.peer_id}")
        if self._verbose:
            self.say("  out", target, kind, *_told(frame))
        if "documentId" not in frame:
            return
        document_id = DocumentId(str(frame["documentId"]))
        if kind == "doc-unavailable":
            return
        document = session._documents.get(document_id)
        if document is None or document.grant is None or document.grant.access == Access.NONE:
            raise Violation(f"{kind} of {document_id} leaves to {target}, which may not see it")
        client = next(client for client in self.clients if client.peer_id == target)
        if document_id not in client.copies and not self.plan.announce:
            raise Violation(f"{kind} of {document_id} leaves to {target}, which did not ask")
        if kind == "sync":
            message = frame["data"]
            assert isinstance(message, bytes)
            self.oracle.promise(document_id, heads_of(message))

    def _heard(self, client: Client, frame: Frame) -> None:
        self.oracle.count_frame()
        if self._verbose:
            self.say("  in ", client.peer_id, frame["type"], *_told(frame))
        if frame["type"] == "ephemeral":
            self.oracle.heard_ephemeral(
                client.peer_id,
                str(frame["senderId"]),
                str(frame["sessionId"]),
                int(str(frame["count"])),
            )

    # -- happenings

    def _weigh(self) -> tuple[list[Callable[[], None]], list[float]]:
        plan = self.plan
        table: list[tuple[Callable[[], None], float]] = [
            (self._edit, 14),
            (self._burst, 2),
            (self._open, 5),
            (self._broadcast, 3),
            (self._cut, 4),
            (self._go_offline, 2),
            (self._come_back, 2),
            (self._checkpoint, 2),
            (self._change_role, 4 * plan.has_roles),
            (self._lose_access_to_news, 4 * plan.has_roles),
            (self.crash, 1.2 * plan.has_crashes),
            (self._crash_at_disk, 1.2 * plan.has_crashes),
            (self.stop_server, 0.8 * plan.has_restarts),
            (self._disk_fault, 1.5 * plan.has_disk_faults),
            (self._engine_fault, 1.5 * plan.has_engine_faults),
            (self._delete, 0.7 * plan.has_deletions),
            (self._call, 2 * plan.has_calls),
        ]
        return [call for call, _ in table], [weight for _, weight in table]

    def _pair(self) -> tuple[Client, DocumentId]:
        return self.random.choice(self.clients), self.random.choice(self.documents)

    def _edit(self) -> None:
        client, document_id = self._pair()
        copy = client.copies.get(document_id)
        if copy is None and self.random.random() < 0.5:
            self._open()
        elif copy is None or copy.replica.heads() or self.random.random() < 0.2:
            self.edit(client, document_id)

    def edit(self, client: Client, document_id: DocumentId) -> None:
        made = client.edit(document_id)
        pair = client.peer_id, document_id
        self.say(client.peer_id, "edits", document_id[:4], (made or b"").hex()[:6])
        if made is not None and pair not in self._wrote:
            self.oracle.forbidden[document_id].add(made)

    def _burst(self) -> None:
        client, document_id = self._pair()
        if document_id in client.copies:
            for _ in range(self.random.randint(2, 12)):
                self.edit(client, document_id)

    def _open(self) -> None:
        client, document_id = self._pair()
        self.say(client.peer_id, "opens", document_id[:4])
        client.open(document_id)

    def _broadcast(self) -> None:
        client, document_id = self._pair()
        if client.is_joined and document_id in client.copies:
            client.broadcast(document_id)

    def _cut(self) -> None:
        client = self.random.choice(self.clients)
        if client.link is not None and client.link.is_open:
            self.say(client.peer_id, "is cut off")
            client.link.cut()

    def _go_offline(self) -> None:
        client = self.random.choice(self.clients)
        self.say(client.peer_id, "goes offline")
        client.disconnect()

    def _come_back(self) -> None:
        for client in self.clients:
            if not client.wants_link:
                client.wants_link = True
                client.retry()
                return

    def _set_role(self, peer_id: str, document_id: DocumentId, access: Access) -> None:
        self.roles[peer_id, document_id] = access
        self._role_changed.add((peer_id, document_id))
        if access >= Access.WRITE:
            self._wrote.add((peer_id, document_id))

    def _change_role(self) -> None:
        client, document_id = self._pair()
        pair = client.peer_id, document_id
        wanted = self.random.choice((Access.NONE, Access.READ, Access.WRITE, self._base[pair]))
        if self._base[pair] is Access.READ and wanted is Access.WRITE:
            wanted = Access.NONE
        self.say(client.peer_id, document_id[:4], "may now", wanted)
        self._set_role(*pair, wanted)
        if self.server is not None and self.random.random() < 0.7:
            for gateway in self.server.gateways:
                gateway.refresh_access()

    def _lose_access_to_news(self) -> None:
        """One writes, and while that is under way another may not see the document any more."""
        client, document_id = self._pair()
        if document_id not in client.copies:
            return
        for other in self.clients:
            if other is not client and document_id in other.copies:
                self.edit(other, document_id)
        self.run_until(self.clock.now + self.random.random() * 0.5)
        self.say(client.peer_id, document_id[:4], "may see no news")
        self._set_role(client.peer_id, document_id, Access.NONE)
        if self.server is not None:
            for gateway in self.server.gateways:
                gateway.refresh_access()

    def _checkpoint(self) -> None:
        """Checkpoint and compact; commits and loads go on between its file operations."""
        server = self.server
        if server is None or server.is_stopping:
            return
        self.say("checkpoint")
        real = self.files.fault

        def between(operation: str, path: Path) -> int | None:
            if self.random.random() < 0.2 and not self._is_between:
                self._is_between = True
                try:
                    self._run_some(self.random.randint(1, 4))
                    self._load_some(server)
                finally:
                    self._is_between = False
            return real(operation, path) if real is not None else None

        self.files.fault = between
        server.is_in_checkpoint = True
        try:
            server.worker._checkpoint(server.worker.touched())
        finally:
            server.is_in_checkpoint = False
            if self.files.fault is between:
                self.files.fault = real

    _is_between = False

    def _load_some(self, server: Server) -> None:
        document_id = self.random.choice(self.documents)
        with suppress(DocumentDeleted):
            self.oracle.was_loaded(document_id, server.store.load(document_id).blobs)

    def _crash_at_disk(self) -> None:
        """Lose power in the middle of one of the next file operations."""
        self.files.crash_at = self.files.operations + self.random.randint(1, 12)
        if self.random.random() < 0.5:
            self._checkpoint()

    def _disk_fault(self) -> None:
        left = self.random.randint(1, 3)

        def fault(operation: str, path: Path) -> int | None:
            nonlocal left
            if left > 0 and self.random.random() < 0.5:
                left -= 1
                return self.random.choice((errno.EIO, errno.ENOSPC))
            return None

        self.say("disk fails")
        self.files.fault = fault

    def _engine_fault(self) -> None:
        if self._engine_failures < 2:
            self._engine_failures += 1
            self._engine_fails_next = True

    def _delete(self) -> None:
        document_id = self.random.choice(self.documents)
        self.oracle.deleting.add(document_id)

        def done(reply: Reply) -> None:
            if reply.error is None:
                self.say(document_id[:4], "is deleted")
                self.oracle.deleted.add(document_id)

        self._ask(document_id, "delete", b"", done)

    def _call(self) -> None:
        document_id = self.random.choice(self.documents)
        self._calls += 1
        replica = Replica(f"application{self._calls}".encode().ljust(16, b"."))
        replica.put("app", self._calls)
        (change,) = replica.changes()
        operation = self.random.choice(("apply", "apply", "create", "get"))

        def done(reply: Reply) -> None:
            self.say("call", operation, reply.error)
            if reply.error is None and operation != "get":
                self.oracle.promise(document_id, sorted(hashes_of(change)))

        self._ask(document_id, operation, b"" if operation == "get" else change, done)

    def _ask(
        self, document_id: DocumentId, operation: str, payload: bytes, done: Callable[[Reply], None]
    ) -> None:
        server = self.server
        if server is not None and not server.is_stopping:
            shard = shard_of(document_id, server.store.volume.shard_count)
            server.gateways[0].ask_shard(shard, operation, document_id, payload, done)

    # -- time

    def _run_one(self) -> None:
        try:
            self.clock.run_next()
        except MachineDown:
            if self._is_between:
                raise
            self.crash()

    def _run_some(self, count: int) -> None:
        """Other threads' work, in the middle of a file operation of this one."""
        for _ in range(count):
            if self.clock.next_at() > self.clock.now + 0.2:
                return
            self.clock.run_next()

    def run_until(self, until: float) -> None:
        while self.clock.next_at() <= until:
            self._run_one()
        self.clock.now = max(self.clock.now, until)

    def _tick(self) -> None:
        if self.server is not None:
            self.server.tick()
        self.clock.later(TICK_SECONDS, self._tick)

    # -- a run

    def run(self) -> None:
        self.start_server()
        for client in self.clients:
            self.clock.later(self.random.choice((0.0, 0.0, 3.0)), client.connect)
        self._tick()
        calls, weights = self._happenings
        for _ in range(self.plan.happenings):
            pause = self.random.choice((0.0, 0.01, 0.1, 0.5, 0.5, 4.0))
            self.run_until(self.clock.now + pause * self.random.random() * 2)
            try:
                self.random.choices(calls, weights)[0]()
            except MachineDown:
                self.crash()
        self._drain()

    def _drain(self) -> None:
        self._is_draining = True
        self.say("-- drain")
        self.files.fault, self.files.crash_at = None, None
        self._engine_fails_next = False
        if self.random.random() < 0.5:
            for pair, access in self._base.items():
                if self.roles[pair] != access:
                    self._set_role(*pair, access)
        if self.server is not None:
            for gateway in self.server.gateways:
                gateway.refresh_access()
        for client in self.clients:
            client.wants_link = True
            if client.link is None:
                client.retry()
        self._quiet(20.0)
        self._check("after the end", self._unheard)

        self.run_until(self.clock.now + 31.0)
        self.say("-- one more edit each")
        before = self.oracle.frames
        for client in self.clients:
            for document_id, copy in client.copies.items():
                if copy.replica.heads():
                    self.edit(client, document_id)
        self._quiet(5.0)
        self._bounded("one more edit each", before)
        self._check("after one more edit", set())

        self.say("-- reconnect")
        before = self.oracle.frames
        for client in self.clients:
            client.disconnect()
            client.wants_link = True
            client.connect()
        self._quiet(5.0)
        self._bounded("a reconnect of all", before)
        self._check("after a reconnect", set())
        if self.random.random() < 0.3:
            self.crash()
        else:
            self.stop_server()
        self._quiet(8.0)
        self._check("after a restart", set())

    def _quiet(self, seconds: float) -> None:
        """Let time pass until nothing happens any more."""
        for _ in range(20):
            before = self.oracle.frames
            self.run_until(self.clock.now + seconds)
            joined = all(client.is_joined for client in self.clients)
            idle = self.server is not None and self._idle_soon(self.server)
            if joined and idle and self.oracle.frames == before:
                break
            seconds = 3.0
        else:
            raise Violation("it never becomes quiet")
        server = self.server
        assert server is not None
        live = {
            (gateway.name, number) for gateway in server.gateways for number in gateway._connections
        }
        for shard in server.worker.shards:
            if not shard.connections.keys() <= live:
                raise Violation(f"shard {shard.number} remembers connections that have ended")
            for document in shard.documents.values():
                if not document.peers.keys() <= shard.connections.keys():
                    raise Violation(f"{document.document_id} has peers that have gone")
                if document._inbox or document.state is synchronizer.State.BUSY:
                    raise Violation(f"{document.document_id} keeps items in state {document.state}")
        for name, stream in server.bus.streams._streams.items():
            if stream.entries:
                raise Violation(f"{len(stream.entries)} entries of {name} are never trimmed")

    def _idle_soon(self, server: Server) -> bool:
        """Whether the server does nothing, but for the second's tick."""
        for _ in range(5):
            if server.is_idle():
                return True
            self.run_until(self.clock.now + 0.01)
        return False

    def _bounded(self, what: str, before: int) -> None:
        pairs = sum(len(client.copies) for client in self.clients)
        bound = 4 * len(self.clients) + MESSAGES_PER_PAIR * pairs
        if self.oracle.frames - before > bound:
            raise Violation(f"{self.oracle.frames - before} frames for {what}, allowed {bound}")

    def _check(self, when: str, excused: set[tuple[str, DocumentId]]) -> None:
        server = self.server
        assert server is not None
        for document_id in self.documents:
            try:
                stored = server.store.load(document_id).blobs
            except DocumentDeleted:
                continue
            if document_id in self.oracle.deleted:
                raise Violation(f"{document_id} was deleted and is there again")
            engine, faults = load_document(stored)
            if faults:
                raise Violation(f"stored blobs of {document_id} are bad: {faults}")
            heads = engine.heads()
            self.oracle.promise(document_id, heads)
            kept: set[bytes] = set()
            for blob in stored:
                kept |= hashes_of(blob)
            if kept & self.oracle.forbidden[document_id]:
                raise Violation(f"a reader's change of {document_id} is stored")
            for client in self.clients:
                pair = client.peer_id, document_id
                if self.roles[pair] is Access.NONE or pair in excused:
                    continue
                self._compare(client, document_id, heads, when)

    def _compare(
        self, client: Client, document_id: DocumentId, heads: list[bytes], when: str
    ) -> None:
        copy = client.copies.get(document_id)
        if copy is None:
            regained = (client.peer_id, document_id) in self._role_changed
            if self.plan.announce and heads and not regained:
                raise Violation(f"{when}: {client.peer_id} was not told of {document_id}")
            return
        mine = copy.replica.heads()
        # The initial change costs no disk until somebody edits.
        if not heads and self.plan.auto_create and _is_initial(copy):
            return
        if not heads and not mine and not copy.was_refused:
            raise Violation(f"{when}: {client.peer_id} was not told that {document_id} is absent")
        same = mine == heads
        if not same and self.roles[client.peer_id, document_id] is Access.READ:
            same = all(copy.replica.has(head) for head in heads)
        if not same:
            raise Violation(
                f"{when}: {client.peer_id} has {_short(mine)} of {document_id},"
                f" the server {_short(heads)}"
            )


def _is_initial(copy: Copy) -> bool:
    return len(copy.replica.changes()) <= 1


def _short(heads: Sequence[bytes]) -> str:
    return "[" + " ".join(head.hex()[:6] for head in heads) + "]"


def _told(frame: Frame) -> tuple[object, ...]:
    data = frame.get("data")
    name = str(frame.get("documentId", ""))[:4]
    if frame["type"] in ("sync", "request") and isinstance(data, bytes):
        return name, _short(heads_of(data)), len(data), data[-1:].hex()
    return (name,)


@contextmanager
def _inline(changes: int) -> Iterator[None]:
    real = synchronizer.INLINE_CHANGES
    synchronizer.INLINE_CHANGES = changes
    try:
        yield
    finally:
        synchronizer.INLINE_CHANGES = real


def run_seed(seed: int, *, verbose: bool = False) -> Network:
    """Run one seed; raises `Violation`, or whatever the code under test raises."""
    network = Network(seed, verbose=verbose)
    if verbose:
        print(network.plan)
    with in_simulation(network._engine_fails), _inline(network.plan.inline_changes):
        network.run()
    return network
