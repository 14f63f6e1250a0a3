"""One client that comes with much."""

from dataclasses import dataclass, replace
from typing import Self

from amsync.bench.load import Load
from amsync.bench.serving import Server
from amsync.bench.workloads.workload import Outcome, measured


@dataclass(frozen=True, slots=True)
class Ingest:
    """Changes sent at once, until the server names the last as its own; CPU of all."""

    changes: int = 20_000
    batch: int = 20_000

    headline = "cpu_seconds"
    more_is_better = False
    needs_restart = False

    @property
    def title(self) -> str:
        form = "one message" if self.changes <= self.batch else f"messages of {self.batch:,}"
        return f"{self.changes:,} changes in {form}, until acknowledged: CPU in all"

    def quick(self) -> Self:
        """The same with fewer changes."""
        return replace(self, changes=500, batch=100)

    def run(self, server: Server) -> Outcome:
        """Send all of them, wait for the acknowledgement."""
        outcome = Outcome()
        with Load(*server.urls) as load:
            document = load.document(1, self.changes)
            writer = load.writer(document)
            load.run(0.5)
            with measured(server, load, outcome):
                load.write(writer, document, self.changes, 0, batch=self.batch)
                load.settle("taking everything in")
            outcome.figures["sent_bytes"] = document.made.further_bytes
            load.verify(document)
        # They are all due at once: being late is the point.
        outcome.notes.clear()
        return outcome
