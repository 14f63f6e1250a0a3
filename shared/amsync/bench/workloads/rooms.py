"""Many small groups, each at its own document."""

from dataclasses import dataclass, replace
from typing import Self

from amsync.bench.load import Load
from amsync.bench.serving import Server
from amsync.bench.workloads.workload import Outcome, add_deliveries, measured

READERS = 2


@dataclass(frozen=True, slots=True)
class Rooms:
    """Documents with one writer and two readers each, all of them busy; CPU per delivery."""

    rooms: int = 50
    rate: float = 2.0
    seconds: float = 10.0
    history: int = 300

    headline = "cpu_per_delivery_seconds"
    more_is_better = False
    needs_restart = False

    @property
    def title(self) -> str:
        return (
            f"{self.rooms} rooms of 3, {self.history:,} changes of history,"
            f" {self.rate:g}/s each: CPU per delivered update"
        )

    def quick(self) -> Self:
        """The same with few rooms and changes."""
        return replace(self, rooms=3, rate=10.0, seconds=0.5)

    def run(self, server: Server) -> Outcome:
        """Write in all rooms, their changes spread evenly over time."""
        outcome = Outcome()
        count = max(1, round(self.rate * self.seconds))
        with Load(*server.urls) as load:
            documents = [load.document(self.history, count + 1) for _ in range(self.rooms)]
            writers = [load.writer(document) for document in documents]
            for document in documents:
                for _ in range(READERS):
                    load.reader(document, real=document is documents[0])
            load.settle("joining")
            for writer, document in zip(writers, documents, strict=True):
                load.write(writer, document, 1, 0)
            load.settle("warming up")
            load.run(min(1.0, self.seconds))
            interval = 1 / self.rate
            with measured(server, load, outcome):
                for number, (writer, document) in enumerate(zip(writers, documents, strict=True)):
                    wait = interval * number / self.rooms
                    load.write(writer, document, count, interval, wait_seconds=wait)
                load.settle("delivering")
            add_deliveries(load, outcome)
            load.verify(*documents)
        return outcome
