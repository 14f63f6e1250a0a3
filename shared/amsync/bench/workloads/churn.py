"""Clients that come, fetch one document and go."""

from dataclasses import dataclass, replace
from typing import Self

from amsync.bench.load import Document, Load
from amsync.bench.serving import Server
from amsync.bench.workloads.workload import Outcome, measured


@dataclass(frozen=True, slots=True)
class Churn:
    """One client after the other connects, joins, asks, gets and leaves; CPU per client."""

    cycles: int = 200
    history: int = 300

    headline = "cpu_per_cycle_seconds"
    more_is_better = False
    needs_restart = False

    @property
    def title(self) -> str:
        return (
            f"{self.cycles} cycles of connect, join, request, sync, leave"
            f" ({self.history:,} changes): CPU per cycle"
        )

    def quick(self) -> Self:
        """The same a few times."""
        return replace(self, cycles=5)

    def run(self, server: Server) -> Outcome:
        """Do it; the writer stays, so that the document stays open."""
        outcome = Outcome()
        with Load(*server.urls) as load:
            document = load.document(self.history)
            load.writer(document)
            for _ in range(min(5, self.cycles)):
                self._cycle(load, document)
            load.run(0.3)
            with measured(server, load, outcome):
                for _ in range(self.cycles):
                    self._cycle(load, document)
            outcome.per("cpu_per_cycle_seconds", self.cycles)
            outcome.per("wall_per_cycle_seconds", self.cycles, "wall_seconds")
            load.verify(document)
        return outcome

    def _cycle(self, load: Load, document: Document) -> None:
        client = load.reader(document)
        load.settle("fetching")
        load.close(client)
