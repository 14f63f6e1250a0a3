"""A whole network in one thread: clients, links, one server on a machine that may lose power.

`run_seed` draws a plan (`plan`) and happenings (`happenings`) from a seed, lets them happen, then
drains and compares everybody with everybody (`drain`). Here are the things themselves: who is
connected, who may what, the server's life, and time.
"""

from pathlib import Path
from random import Random

import cbor2

from amsync.ids import DocumentId, base58check_encode
from amsync.protocol.access import Access
from support.memfs import KEEP_EVERYTHING, KEEP_NOTHING, MachineDown, MemoryFileSystem

from .client import Client, Frame
from .clock import Clock
from .cluster import Engines, Server, SimulatedConnection, in_simulation
from .drain import Drain
from .happenings import Happenings
from .link import Link
from .oracle import Oracle, Violation, heads_of, shown_heads
from .plan import make_plan

TICK_SECONDS = 1.0


class Network:
    """One run; see the module's text."""

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        self.random = random = Random(seed)
        self.plan = make_plan(random)
        self.clock = Clock()
        self.files = MemoryFileSystem()
        self.files.put(Path("/other"), b"")
        self.oracle = Oracle(self.files)
        if self.plan.owners:
            self.oracle.allowed_events.add("items_of_old_epochs")
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
        self.base_roles: dict[tuple[str, DocumentId], Access] = {}
        self._wrote: set[tuple[str, DocumentId]] = set()
        self.unheard: set[tuple[str, DocumentId]] = set()
        self.role_changed: set[tuple[str, DocumentId]] = set()
        for client in self.clients:
            for document_id in self.documents:
                reader = self.plan.has_roles and random.random() < 0.25
                self.set_role(client.peer_id, document_id, Access.READ if reader else Access.WRITE)
        self.base_roles = dict(self.roles)
        # Of its own randomness: with the network's every seed would tell another story.
        creators = Random(f"creators of {seed}")
        share = creators.choice((0.0, 0.0, 0.0, 0.3, 0.7))
        self.no_creators = {pair for pair in self.roles if creators.random() < share}
        if self.no_creators:
            self.oracle.allowed_events.add("creations_refused")
        self.existed: set[DocumentId] = set()
        self.server: Server | None = None
        self.engine_fails_next = False
        self.engines = Engines(self.engine_fails, self.engine_is_light)
        self.is_between = False
        self._verbose = verbose
        self._happenings = Happenings(self)

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
                lambda *pair: pair not in self.no_creators,
                self.engines,
                self._frame_leaves,
                self.say,
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
            self.unheard.discard((client.peer_id, document_id))
            self.role_changed.discard((client.peer_id, document_id))
        return link

    def engine_is_light(self) -> bool:
        return self.random.random() < self.plan.light_share

    def engine_fails(self) -> bool:
        if not self.engine_fails_next:
            return False
        self.engine_fails_next = False
        self.say("engine fails")
        self.oracle.engine_failed.update(self.documents)
        for client in self.clients:
            self.unheard.update((client.peer_id, document_id) for document_id in self.documents)
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
            self._look_for_existence(server, document_id, target, heads_of(message))
            self.oracle.promise(document_id, heads_of(message))

    def _look_for_existence(
        self, server: Server, document_id: DocumentId, target: str, heads: list[bytes]
    ) -> None:
        """Who may not create a document must not learn that it is unknown, but not forbidden."""
        # An auto-created document is on no disk until somebody edits it.
        shards = [shard for worker in server.workers for shard in worker.shards]
        opened = [
            shard.documents[document_id] for shard in shards if document_id in shard.documents
        ]
        if heads or server.store.exists(document_id) or any(each._heads for each in opened):
            self.existed.add(document_id)
        if document_id not in self.existed and (target, document_id) in self.no_creators:
            raise Violation(f"{target} can tell that {document_id} is not forbidden, but unknown")

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

    def set_role(self, peer_id: str, document_id: DocumentId, access: Access) -> None:
        self.roles[peer_id, document_id] = access
        self.role_changed.add((peer_id, document_id))
        if access >= Access.WRITE:
            self._wrote.add((peer_id, document_id))

    def edit(self, client: Client, document_id: DocumentId) -> None:
        made = client.edit(document_id)
        pair = client.peer_id, document_id
        self.say(client.peer_id, "edits", document_id[:4], (made or b"").hex()[:6])
        if made is not None and pair not in self._wrote:
            self.oracle.forbidden[document_id].add(made)

    # -- time

    def _run_one(self) -> None:
        try:
            self.clock.run_next()
        except MachineDown:
            if self.is_between:
                raise
            self.crash()

    def run_some(self, count: int) -> None:
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
        for _ in range(self.plan.happenings):
            pause = self.random.choice((0.0, 0.01, 0.1, 0.5, 0.5, 4.0))
            self.run_until(self.clock.now + pause * self.random.random() * 2)
            try:
                self._happenings.happen()
            except MachineDown:
                self.crash()
        Drain(self).run()


def _told(frame: Frame) -> tuple[object, ...]:
    data = frame.get("data")
    name = str(frame.get("documentId", ""))[:4]
    if frame["type"] in ("sync", "request") and isinstance(data, bytes):
        return name, shown_heads(heads_of(data)), len(data), data[-1:].hex()
    return (name,)


def run_seed(seed: int, *, verbose: bool = False, crash_at: int | None = None) -> Network:
    """Run one seed; raises `Violation`, or whatever the code under test raises.

    `crash_at`: the server dies at its file operation of this number, besides what the seed says.
    """
    network = Network(seed, verbose=verbose)
    network.files.crash_at = crash_at
    if verbose:
        print(network.plan)
    with in_simulation(network.clock, network.engines):
        network.run()
    return network
