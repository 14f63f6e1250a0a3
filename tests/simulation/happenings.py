"""What happens in a simulated network: edits, lost connections, roles, crashes, faults."""

import errno
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from amsync._automerge import Replica
from amsync.errors import DocumentDeleted
from amsync.ids import DocumentId, shard_of
from amsync.protocol.access import Access
from amsync.protocol.envelope import Reply

from .client import Client
from .cluster import Server, SimulatedWorker
from .oracle import hashes_of
from .owners import Owners

if TYPE_CHECKING:
    from .network import Network


class Happenings:
    """Draws what happens next and lets it happen; how often what happens follows the plan."""

    def __init__(self, network: "Network") -> None:
        self.network = network
        self.random, self.plan, self.clock = network.random, network.plan, network.clock
        self.clients, self.documents = network.clients, network.documents
        self.files, self.oracle = network.files, network.oracle
        self._engine_failures = 0
        self._calls = 0
        self._table, self._weights = self._weigh()

    def happen(self) -> None:
        """Let one thing happen. Raises MachineDown if it was the power."""
        self.random.choices(self._table, self._weights)[0]()

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
            (self.network.crash, 1.2 * plan.has_crashes),
            (self._crash_at_disk, 1.2 * plan.has_crashes),
            (self.network.stop_server, 0.8 * plan.has_restarts),
            (self._disk_fault, 1.5 * plan.has_disk_faults),
            (self._disk_is_full, 1.5 * plan.has_disk_faults),
            (self._engine_fault, 1.5 * plan.has_engine_faults),
            (self._delete, 0.7 * plan.has_deletions),
            (self._call, 2 * plan.has_calls),
            *((call, weight) for call, weight in self._of_cluster() if plan.owners),
        ]
        return [call for call, _ in table], [weight for _, weight in table]

    def _of_cluster(self) -> list[tuple[Callable[[], None], float]]:
        return [
            (self._kill_worker, 2),
            (self._stop_worker, 2),
            (self._hand_over, 2),
            (self._lose_entries, 4),
            (self._fail_appends, 1),
            (self._lose_bus, 0.5),
            (self._forget_gateway, 0.7),
        ]

    def _cluster(self) -> tuple[Server, Owners] | None:
        server = self.network.server
        if server is None or server.is_stopping or server.owners is None:
            return None
        return server, server.owners

    def _some_worker(self) -> SimulatedWorker | None:
        known = self._cluster()
        running = known[1].running() if known is not None else []
        return self.random.choice(running) if running else None

    def _kill_worker(self) -> None:
        worker, server = self._some_worker(), self.network.server
        if worker is not None and server is not None:
            self.network.say(worker.name, "is killed")
            worker.die()
            server.later(self.random.random() * 3.0, server.start_worker)

    def _stop_worker(self) -> None:
        worker, server = self._some_worker(), self.network.server
        if worker is not None and server is not None:
            self.network.say(worker.name, "is stopped")
            worker.stop()
            server.later(self.random.choice((0.5, 3.0, 8.0)), worker.go_on)

    def _hand_over(self) -> None:
        worker, known = self._some_worker(), self._cluster()
        if worker is not None and known is not None and worker.shards:
            shard = self.random.choice(worker.shards)
            self.network.say(worker.name, "hands over", shard.number)
            known[1].hand_over(worker, shard.number)

    def _lose_entries(self) -> None:
        known = self._cluster()
        if known is not None:
            self.network.say("entries are lost")
            known[0].bus.to_lose += self.random.randint(1, 3)

    def _fail_appends(self) -> None:
        known = self._cluster()
        if known is not None:
            known[0].bus.to_fail += self.random.randint(1, 4)

    def _lose_bus(self) -> None:
        known = self._cluster()
        if known is not None:
            self.network.say("the bus is emptied")
            known[1].lose_bus()

    def _forget_gateway(self) -> None:
        known = self._cluster()
        if known is not None:
            gateway = self.random.choice(known[0].gateways)
            self.network.say(gateway.name, "is taken for dead")
            known[1].forget_gateway(gateway)

    def _pair(self) -> tuple[Client, DocumentId]:
        return self.random.choice(self.clients), self.random.choice(self.documents)

    def _edit(self) -> None:
        client, document_id = self._pair()
        copy = client.copies.get(document_id)
        if copy is None and self.random.random() < 0.5:
            self._open()
        elif copy is None or copy.replica.heads() or self.random.random() < 0.2:
            self.network.edit(client, document_id)

    def _burst(self) -> None:
        client, document_id = self._pair()
        if document_id in client.copies:
            for _ in range(self.random.randint(2, 12)):
                self.network.edit(client, document_id)

    def _open(self) -> None:
        client, document_id = self._pair()
        self.network.say(client.peer_id, "opens", document_id[:4])
        client.open(document_id)

    def _broadcast(self) -> None:
        client, document_id = self._pair()
        if client.is_joined and document_id in client.copies:
            client.broadcast(document_id)

    def _cut(self) -> None:
        client = self.random.choice(self.clients)
        if client.link is not None and client.link.is_open:
            self.network.say(client.peer_id, "is cut off")
            client.link.cut()

    def _go_offline(self) -> None:
        client = self.random.choice(self.clients)
        self.network.say(client.peer_id, "goes offline")
        client.disconnect()

    def _come_back(self) -> None:
        for client in self.clients:
            if not client.wants_link:
                client.wants_link = True
                client.retry()
                return

    def _change_role(self) -> None:
        client, document_id = self._pair()
        pair = client.peer_id, document_id
        wanted = self.random.choice(
            (Access.NONE, Access.READ, Access.WRITE, self.network.base_roles[pair])
        )
        if self.network.base_roles[pair] is Access.READ and wanted is Access.WRITE:
            wanted = Access.NONE
        self.network.say(client.peer_id, document_id[:4], "may now", wanted)
        self.network.set_role(*pair, wanted)
        if self.network.server is not None and self.random.random() < 0.7:
            for gateway in self.network.server.gateways:
                gateway.refresh_access()

    def _lose_access_to_news(self) -> None:
        """One writes, and while that is under way another may not see the document any more."""
        client, document_id = self._pair()
        if document_id not in client.copies:
            return
        for other in self.clients:
            if other is not client and document_id in other.copies:
                self.network.edit(other, document_id)
        self.network.run_until(self.clock.now + self.random.random() * 0.5)
        self.network.say(client.peer_id, document_id[:4], "may see no news")
        self.network.set_role(client.peer_id, document_id, Access.NONE)
        if self.network.server is not None:
            for gateway in self.network.server.gateways:
                gateway.refresh_access()

    def _checkpoint(self) -> None:
        """Checkpoint and compact; commits and loads go on between its file operations."""
        server = self.network.server
        worker = server.worker if server is not None else None
        if server is None or server.is_stopping or worker is None:
            return
        self.network.say("checkpoint")
        real = self.files.fault

        def between(operation: str, path: Path) -> int | None:
            if self.random.random() < 0.2 and not self.network.is_between:
                self.network.is_between = True
                try:
                    self.network.run_some(self.random.randint(1, 4))
                    self._load_some(server)
                finally:
                    self.network.is_between = False
            return real(operation, path) if real is not None else None

        self.files.fault = between
        server.is_in_checkpoint = True
        try:
            worker._upkeep.checkpoint(worker._upkeep.take_touched())
        finally:
            server.is_in_checkpoint = False
            if self.files.fault is between:
                self.files.fault = real
        if worker.has_input():  # what compaction made is for open documents
            worker.awaken()

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

        self.network.say("disk fails")
        self.files.fault = fault

    def _disk_is_full(self) -> None:
        """Nothing new can be written for a while; what needs no room still works."""
        until = self.clock.now + self.random.choice((0.5, 3.0, 12.0))

        def fault(operation: str, path: Path) -> int | None:
            if operation in ("write", "create", "make_directory") and self.clock.now < until:
                return errno.ENOSPC
            return None

        self.network.say("disk is full")
        self.files.fault = fault

    def _engine_fault(self) -> None:
        if self._engine_failures < 2:
            self._engine_failures += 1
            self.network.engine_fails_next = True

    def _delete(self) -> None:
        document_id = self.random.choice(self.documents)
        self.oracle.deleting.add(document_id)

        def done(reply: Reply) -> None:
            if reply.error is None:
                self.network.say(document_id[:4], "is deleted")
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
            self.network.say("call", operation, reply.error)
            if reply.error is None and operation != "get":
                self.oracle.promise(document_id, sorted(hashes_of(change)))

        self._ask(document_id, operation, b"" if operation == "get" else change, done)

    def _ask(
        self, document_id: DocumentId, operation: str, payload: bytes, done: Callable[[Reply], None]
    ) -> None:
        server = self.network.server
        if server is not None and not server.is_stopping:
            shard = shard_of(document_id, server.store.volume.shard_count)
            server.gateways[0].ask_shard(shard, operation, document_id, payload, done)
