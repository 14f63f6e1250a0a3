"""What clients and documents cost in memory when nothing happens."""

from dataclasses import dataclass, replace
from typing import Self

from amsync.bench.load import Load
from amsync.bench.serving import Server
from amsync.bench.workloads.workload import (
    SAVE_SECONDS,
    Outcome,
    calm_memory_by_role,
    calm_memory_bytes,
    measured,
)

AT_ONCE = 1_000
"""So many connections are made before those are waited for."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Connections, each with a small document open; memory for each.

    `documents`: so many there are among them; 0: each connection has its own.
    """

    connections: int = 500
    documents: int = 0
    history: int = 10
    seconds: float = 3.0

    headline = "memory_per_connection_bytes"
    more_is_better = False
    needs_restart = False

    @property
    def title(self) -> str:
        which = f"one of {self.documents:,} documents" if self.documents else "its document"
        return (
            f"{self.connections:,} idle connections, each with {which} of"
            f" {self.history:,} changes: memory for each"
        )

    def quick(self) -> Self:
        """The same with few connections."""
        return replace(self, connections=20, seconds=0.1)

    def run(self, server: Server) -> Outcome:
        """Measure an idle server, connect all, measure again; and what idling costs in CPU."""
        outcome = Outcome()
        with Load(*server.urls) as load:
            # What the first client costs is not for each of them.
            load.writer(load.document(self.history))
            before = calm_memory_by_role(server, load, self.seconds)
            count = self.documents or self.connections
            documents = [load.document(self.history) for _ in range(count)]
            for number in range(self.connections):
                load.offer(load.connect(), documents[number % count])
                if number % AT_ONCE == AT_ONCE - 1:
                    load.settle("bringing the documents into the server")
            load.settle("bringing the documents into the server")
            after = calm_memory_by_role(server, load, self.seconds)
            with measured(server, load, outcome):
                load.run(self.seconds)
            outcome.per("cpu_per_second_seconds", outcome.figures["wall_seconds"])
            load.settle("at the end")
        if after:
            outcome.figures["memory_before_bytes"] = sum(before.values())
            outcome.figures["memory_bytes"] = sum(after.values())
            added = {role: size - before.get(role, 0) for role, size in after.items()}
            outcome.figures["memory_per_connection_bytes"] = sum(added.values()) / self.connections
            for role in filter(None, added):
                each = added[role] / self.connections
                outcome.figures[f"{role}_memory_per_connection_bytes"] = each
        return outcome


@dataclass(frozen=True, slots=True)
class OpenDocument:
    """A large document that a client has open in a server that has just started; memory."""

    history: int = 100_000
    seconds: float = 3.0

    headline = "memory_of_document_bytes"
    more_is_better = False
    needs_restart = True

    @property
    def title(self) -> str:
        return f"an open document of {self.history:,} changes: memory"

    def quick(self) -> Self:
        """The same with a small document."""
        return replace(self, history=1_000, seconds=0.1)

    def run(self, server: Server) -> Outcome:
        """Bring it in, restart the server, open it; a small one is open before."""
        outcome = Outcome()
        with Load(*server.urls) as load:
            small, large = load.document(10), load.document(self.history)
            load.writer(small)
            load.writer(large)
            outcome.figures["document_bytes"] = large.made.saved_bytes
            load.run(SAVE_SECONDS)
        server.restart(keep=True)
        with Load(*server.urls) as load:
            load.reader(load.adopt(small))
            load.settle("opening the small document")
            before = calm_memory_bytes(server, load, self.seconds)
            large = load.adopt(large)
            with measured(server, load, outcome):
                load.reader(large)
                load.settle("opening the document")
            after = calm_memory_bytes(server, load, self.seconds)
            load.verify(large)
        if before is not None and after is not None:
            outcome.figures["memory_before_bytes"] = before
            outcome.figures["memory_of_document_bytes"] = after - before
        return outcome
