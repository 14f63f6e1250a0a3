"""Clients that come to what is there: many to one document, one to many documents."""

from dataclasses import dataclass, replace
from typing import Self

from amsync.bench.load import Document, Load
from amsync.bench.serving import Server
from amsync.bench.workloads.workload import SAVE_SECONDS, Outcome, measured


@dataclass(frozen=True, slots=True)
class ColdJoin:
    """Clients without anything that join a document at once; CPU per join."""

    joiners: int = 20
    history: int = 10_000
    from_disk: bool = False
    calm_seconds: float = 1.5
    """A server that has just started is still busy with itself."""

    headline = "cpu_per_join_seconds"
    more_is_better = False

    @property
    def needs_restart(self) -> bool:
        return self.from_disk

    @property
    def title(self) -> str:
        where = "after a restart of the server" if self.from_disk else "open in the server"
        return f"{self.joiners} joiners of {self.history:,} changes, {where}: CPU per join"

    def quick(self) -> Self:
        """The same with few joiners of a small document."""
        return replace(self, joiners=3, history=min(self.history, 300), calm_seconds=0.1)

    def run(self, server: Server) -> Outcome:
        """Bring the document in, restart the server if asked, let all join."""
        outcome = Outcome()
        with Load(*server.urls) as load:
            document = load.document(self.history)
            load.writer(document)
            outcome.figures["document_bytes"] = document.made.saved_bytes
            if self.from_disk:
                load.run(SAVE_SECONDS)
            else:
                self._join(server, load, document, outcome)
        if self.from_disk:
            server.restart(keep=True)
            with Load(*server.urls) as load:
                self._join(server, load, load.adopt(document), outcome)
        return outcome

    def _join(self, server: Server, load: Load, document: Document, outcome: Outcome) -> None:
        load.run(self.calm_seconds)
        with measured(server, load, outcome):
            for number in range(self.joiners):
                load.reader(document, real=number == 0)
            load.settle("joining")
        outcome.per("cpu_per_join_seconds", self.joiners)
        load.verify(document)


@dataclass(frozen=True, slots=True)
class ColdStart:
    """A server that has just started, and a client that wants all of its documents; wall time."""

    documents: int = 300
    history: int = 100

    headline = "wall_seconds"
    more_is_better = False
    needs_restart = True

    @property
    def title(self) -> str:
        return (
            f"cold start, {self.documents} documents of {self.history:,} changes,"
            f" all fetched by one client: wall time"
        )

    def quick(self) -> Self:
        """The same with few documents."""
        return replace(self, documents=10)

    def run(self, server: Server) -> Outcome:
        """Bring all documents in, restart the server, ask for all of them in one go."""
        outcome = Outcome()
        with Load(*server.urls) as load:
            documents = [load.document(self.history) for _ in range(self.documents)]
            client = load.connect()
            for document in documents:
                load.offer(client, document)
            load.settle("bringing the documents into the server")
            load.run(SAVE_SECONDS)
        outcome.figures["start_seconds"] = server.restart(keep=True)
        with Load(*server.urls) as load:
            documents = [load.adopt(document) for document in documents]
            with measured(server, load, outcome):
                client = load.connect()
                for document in documents:
                    load.ask(client, document)
                load.settle("fetching all documents")
            outcome.per("cpu_per_document_seconds", self.documents)
            load.verify(*documents[:10])
        return outcome
