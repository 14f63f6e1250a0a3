"""One writer, many readers of one document: what most of a sync server's work is."""

from dataclasses import dataclass, replace
from typing import Self

from amsync.bench.load import Document, Load
from amsync.bench.machine import fsync_seconds
from amsync.bench.serving import Server
from amsync.bench.workloads.workload import Outcome, add_deliveries, measured, memory_bytes

WARM_UP_CHANGES = 4
CALM_SECONDS = 1.0
MOST_REAL_RATE = 50.0
"""A real client's own work would make the generator slow beyond it."""


@dataclass(frozen=True, slots=True)
class FanOut:
    """Changes at a fixed rate to many readers; CPU per change and reader that has got it."""

    readers: int = 20
    rate: float = 4.0
    seconds: float = 15.0
    history: int = 300

    headline = "cpu_per_delivery_seconds"
    more_is_better = False
    needs_restart = False

    @property
    def title(self) -> str:
        return (
            f"1 writer, {self.readers} readers, {self.history:,} changes of history,"
            f" {self.rate:g}/s: CPU per delivered update"
        )

    def quick(self) -> Self:
        """The same with few changes and readers."""
        return replace(
            self,
            readers=min(self.readers, 4),
            rate=20.0,
            seconds=0.5,
            history=min(self.history, 300),
        )

    def run(self, server: Server) -> Outcome:
        """Write at the rate, after a few changes that don't count."""
        outcome = Outcome()
        count = max(1, round(self.rate * self.seconds))
        with Load(*server.urls) as load:
            document, writer = self.ready(load, count)
            with measured(server, load, outcome):
                load.write(writer, document, count, 1 / self.rate)
                load.settle("delivering")
            add_deliveries(load, outcome)
            if (size := memory_bytes(server)) is not None:
                outcome.figures["memory_bytes"] = size
            load.verify(document)
        return outcome

    def ready(self, load: Load, count: int) -> tuple[Document, int]:
        """Everybody there and in step, a few changes delivered, a moment of calm; the writer."""
        document = load.document(self.history, count + WARM_UP_CHANGES)
        writer = load.writer(document)
        for number in range(self.readers):
            load.reader(document, real=number == 0 and self.rate <= MOST_REAL_RATE)
        load.settle("joining")
        load.write(writer, document, WARM_UP_CHANGES, 1 / self.rate)
        load.settle("warming up")
        load.run(min(CALM_SECONDS, self.seconds))
        return document, writer


@dataclass(frozen=True, slots=True)
class Latency:
    """How long a change takes to another client of an idle server, against the disk's fsync."""

    rate: float = 20.0
    seconds: float = 10.0
    history: int = 10

    headline = "p50_seconds"
    more_is_better = False
    needs_restart = False

    @property
    def title(self) -> str:
        return f"1 writer, 1 reader, {self.rate:g}/s on an idle machine: p50 from edit to peer"

    def quick(self) -> Self:
        """The same with few changes."""
        return replace(self, seconds=0.5)

    def run(self, server: Server) -> Outcome:
        """Measure the disk at the same pace, then the latency."""
        synced = None
        if server.directory is not None:
            tries = max(5, round(self.rate * self.seconds / 4))
            synced = fsync_seconds(server.directory, tries, 1 / self.rate)
        outcome = FanOut(1, self.rate, self.seconds, self.history).run(server)
        if synced is not None:
            outcome.figures["fsync_seconds"] = synced
            outcome.figures["p50_per_fsync_ratio"] = outcome.figures["p50_seconds"] / synced
        return outcome
