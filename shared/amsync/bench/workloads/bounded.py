"""Whether what a cluster's Redis holds stays bounded while much is typed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Self

from amsync.bench.errors import WrongDelivery
from amsync.bench.load import Load
from amsync.bench.serving import Server
from amsync.bench.workloads.workload import Outcome, add_deliveries, measured

SAMPLES = 20
SLACK_BYTES = 1024 * 1024
"""Redis's memory moves by so much by itself, with buffers and what its allocator keeps."""


@dataclass(frozen=True, slots=True)
class Bounded:
    """Documents with one writer and one reader each, all of them busy; growth of Redis."""

    documents: int = 200
    rate: float = 4.0
    seconds: float = 30.0
    history: int = 10

    headline = "redis_growth_bytes"
    more_is_better = False
    needs_restart = False

    @property
    def title(self) -> str:
        return (
            f"{self.documents} documents typed in for {self.seconds:g} s,"
            f" {self.rate:g}/s each: growth of Redis"
        )

    def quick(self) -> Self:
        """The same with few documents."""
        return replace(self, documents=3, seconds=0.5)

    def run(self, server: Server) -> Outcome:
        """Write in all of them, and look at Redis meanwhile.

        Raises:
            WrongDelivery: Also if Redis keeps what it has passed on.
        """
        outcome = Outcome()
        count = max(1, round(self.rate * self.seconds))
        sizes = []
        with Load(*server.urls) as load:
            documents = [load.document(self.history, count) for _ in range(self.documents)]
            writers = [load.writer(document) for document in documents]
            for document in documents:
                load.reader(document, real=document is documents[0])
            load.settle("joining")
            interval = 1 / self.rate
            with measured(server, load, outcome):
                for number, (writer, document) in enumerate(zip(writers, documents, strict=True)):
                    wait = interval * number / self.documents
                    load.write(writer, document, count, interval, wait_seconds=wait)
                for _ in range(SAMPLES):
                    load.run(self.seconds / SAMPLES)
                    by_role = server.processes.memory_by_role() if server.processes else {}
                    sizes.append(by_role.get("redis", 0))
                load.settle("delivering")
            add_deliveries(load, outcome)
            if not all(sizes):
                outcome.notes.append("there is no Redis here to look at")
                return outcome
            sent = sum(document.made.further_bytes for document in documents)
            outcome.figures["redis_memory_bytes"] = max(sizes)
            outcome.figures["redis_growth_bytes"] = growth(sizes)
            if keeps(sizes, sent):
                raise WrongDelivery(
                    "Redis keeps what it has passed on",
                    [f"it grew by {growth(sizes):,.0f} bytes in a half of {sent:,} sent"],
                )
            load.verify(*documents[:1])
        return outcome


def growth(sizes: Sequence[int]) -> float:
    """How much the last quarter of the sizes is above the second, half of the time before."""
    quarter = len(sizes) // 4
    return median(sizes[-quarter:]) - median(sizes[quarter : 2 * quarter])


def keeps(sizes: Sequence[int], sent_bytes: int) -> bool:
    """Tell whether what was sent all the time is held: half of it would be half of the sum."""
    return growth(sizes) > SLACK_BYTES + sent_bytes / 4
