"""The end of a run: nothing but what is under way, an edit each, a new connection each, a restart.

After each part the network becomes quiet, nothing is left over, everybody who may has the same
heads, and the messages it took are bounded.
"""

from typing import TYPE_CHECKING

import amsync.worker.synchronizer as synchronizer
from amsync.errors import DocumentDeleted
from amsync.ids import DocumentId
from amsync.protocol.access import Access
from amsync.worker.engine import load_document
from amsync.worker.shard import Shard

from .client import Client, Copy
from .cluster import Server
from .oracle import Violation, hashes_of, shown_heads

if TYPE_CHECKING:
    from .network import Network

MESSAGES_PER_PAIR = 14
"""Sync messages in one part of the drain, both directions, for each (client, document)."""


class Drain:
    """See the module. Every check raises `Violation`."""

    def __init__(self, network: "Network") -> None:
        self.network = network
        self.oracle, self.plan, self.clients = network.oracle, network.plan, network.clients

    def run(self) -> None:
        self.network.say("-- drain")
        self.network.files.fault, self.network.files.crash_at = None, None
        self.network.engine_fails_next = False
        if self.network.random.random() < 0.5:
            for pair, access in self.network.base_roles.items():
                if self.network.roles[pair] != access:
                    self.network.set_role(*pair, access)
        if self.network.server is not None:
            self._calm(self.network.server)
            for gateway in self.network.server.gateways:
                gateway.refresh_access()
        for client in self.clients:
            client.wants_link = True
            if client.link is None:
                client.retry()
        self._quiet(20.0)
        self._check("after the end", self.network.unheard)

        self.network.run_until(self.network.clock.now + 31.0)
        self.network.say("-- one more edit each")
        before = self.oracle.frames
        self._edit_all()
        self._quiet(5.0)
        self._bounded("one more edit each", before)
        self._check("after one more edit", set())
        self._take_over_all()

        self.network.say("-- reconnect")
        before = self.oracle.frames
        for client in self.clients:
            client.disconnect()
            client.wants_link = True
            client.connect()
        self._quiet(5.0)
        self._bounded("a reconnect of all", before)
        self._check("after a reconnect", set())
        if self.network.random.random() < 0.3:
            self.network.crash()
        else:
            self.network.stop_server()
        self._quiet(8.0)
        self._check("after a restart", set())

    def _calm(self, server: Server) -> None:
        """End what the seed does to the bus and to workers."""
        if server.owners is not None:
            server.bus.to_lose = server.bus.to_fail = 0
        for worker in server.workers:
            worker.go_on()

    def _take_over_all(self) -> None:
        server = self.network.server
        if server is None or server.owners is None:
            return
        self.network.say("-- take-over of all")
        before = self.oracle.frames
        for number, (worker, _) in list(server.owners.leases.items()):
            server.owners.hand_over(worker, number)
        self._edit_all()
        self._quiet(8.0)
        server.workers[-1].die()
        server.start_worker()
        self._edit_all()
        self._quiet(8.0)
        self._bounded("two take-overs of all", before, 2)
        self._check("after two take-overs", set())

    def _edit_all(self) -> None:
        for client in self.clients:
            for document_id, copy in client.copies.items():
                if copy.replica.heads():
                    self.network.edit(client, document_id)

    def _quiet(self, seconds: float) -> None:
        """Let time pass until nothing happens any more."""
        for _ in range(20):
            before = self.oracle.frames
            self.network.run_until(self.network.clock.now + seconds)
            joined = all(client.is_joined for client in self.clients)
            idle = self.network.server is not None and self._idle_soon(self.network.server)
            idle = idle and self._all_is_dealt_with()
            if joined and idle and self.oracle.frames == before:
                break
            seconds = 3.0
        else:
            raise Violation("it never becomes quiet")
        server = self.network.server
        assert server is not None
        live = {
            (gateway.name, number) for gateway in server.gateways for number in gateway._connections
        }
        for shard in self._shards(server):
            if not shard.connections.keys() <= live:
                raise Violation(f"shard {shard.number} remembers connections that have ended")
            for document in shard.documents.values():
                if not {peer.address for peer in document.peers} <= shard.connections.keys():
                    raise Violation(f"{document.document_id} has peers that have gone")
                if document._inbox or document.state is synchronizer.State.BUSY:
                    raise Violation(f"{document.document_id} keeps items in state {document.state}")
        for name, stream in server.bus.streams._streams.items():
            if stream.entries:
                raise Violation(f"{len(stream.entries)} entries of {name} are never trimmed")

    def _all_is_dealt_with(self) -> bool:
        """No connection's input counts against it any more."""
        assert self.network.server is not None
        routers = [gateway._router for gateway in self.network.server.gateways]
        return not any(o.in_flight for router in routers for o in router._shards.values())

    def _shards(self, server: Server) -> list[Shard]:
        """All shards, each of one owner."""
        workers = [worker for worker in server.workers if not worker.is_dead]
        shards = [shard for worker in workers for shard in worker.shards]
        if sorted(shard.number for shard in shards) != list(range(self.plan.shard_count)):
            raise Violation(f"shards {sorted(shard.number for shard in shards)} have an owner")
        for shard in shards:
            arrivals = shard._arrivals
            if arrivals is not None and any(s.early for s in arrivals._gateways.values()):
                raise Violation(f"shard {shard.number} waits for a hand-over")
        return shards

    def _idle_soon(self, server: Server) -> bool:
        """Whether the server does nothing, but for the second's tick."""
        for _ in range(5):
            if server.is_idle():
                return True
            self.network.run_until(self.network.clock.now + 0.01)
        return False

    def _bounded(self, what: str, before: int, times: int = 1) -> None:
        pairs = sum(len(client.copies) for client in self.clients)
        bound = times * (4 * len(self.clients) + MESSAGES_PER_PAIR * pairs)
        if self.oracle.frames - before > bound:
            raise Violation(f"{self.oracle.frames - before} frames for {what}, allowed {bound}")

    def _check(self, when: str, excused: set[tuple[str, DocumentId]]) -> None:
        server = self.network.server
        assert server is not None
        for document_id in self.network.documents:
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
                if self.network.roles[pair] is Access.NONE or pair in excused:
                    continue
                self._compare(client, document_id, heads, when)

    def _compare(
        self, client: Client, document_id: DocumentId, heads: list[bytes], when: str
    ) -> None:
        copy = client.copies.get(document_id)
        if copy is None:
            regained = (client.peer_id, document_id) in self.network.role_changed
            if self.plan.announce and heads and not regained:
                raise Violation(f"{when}: {client.peer_id} was not told of {document_id}")
            return
        mine = copy.replica.heads()
        # The initial change costs no disk until somebody edits.
        if not heads and self.plan.auto_create and _is_initial(copy):
            return
        pair = client.peer_id, document_id
        is_writer = self.network.roles[pair] is Access.WRITE
        if not heads and mine and is_writer and pair in self.network.no_creators:
            if not copy.was_refused:
                raise Violation(f"{when}: {client.peer_id} was not told that it may not create")
            return
        if not heads and not mine and not copy.was_refused:
            raise Violation(f"{when}: {client.peer_id} was not told that {document_id} is absent")
        same = mine == heads
        if not same and self.network.roles[pair] is Access.READ:
            same = all(copy.replica.has(head) for head in heads)
        if not same:
            raise Violation(
                f"{when}: {client.peer_id} has {shown_heads(mine)} of {document_id},"
                f" the server {shown_heads(heads)}"
            )


def _is_initial(copy: Copy) -> bool:
    return len(copy.replica.changes()) <= 1
