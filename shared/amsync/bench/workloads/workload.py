"""What all workloads have in common: their face, and measuring a stretch of time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, Self

from amsync.bench.load import Load
from amsync.bench.processes import ROLES, CpuClock
from amsync.bench.serving import Server

ECHO_SECONDS = 0.3
"""After the last delivery the server still works on what it is answered."""

SAVE_SECONDS = 2.0
"""Before a restart: not every server has saved what it has acknowledged."""

MOST_BUSY_SHARE = 0.85
MOST_LATE_SECONDS = 0.05
"""Beyond either, the generator has measured itself."""


@dataclass(slots=True)
class Outcome:
    """What a workload has found: figures by name (the last word is the unit), and notes."""

    figures: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def per(self, name: str, count: float, source: str = "cpu_seconds") -> None:
        """Add a figure that is another one divided, if there is that other one."""
        if count and (whole := self.figures.get(source)) is not None:
            self.figures[name] = whole / count


class Workload(Protocol):
    """One thing to measure, with its numbers."""

    @property
    def headline(self) -> str:
        """Name of the figure by which servers are compared."""

    @property
    def more_is_better(self) -> bool:
        """Whether a greater figure is the better one."""

    @property
    def needs_restart(self) -> bool:
        """Whether it ends and starts the server; impossible with one that runs elsewhere."""

    @property
    def title(self) -> str:
        """What is done, with the numbers, in one line."""

    def quick(self) -> Self:
        """The same, so small that it shows no more than that it works."""

    def run(self, server: Server) -> Outcome:
        """Do it.

        Raises:
            WrongDelivery: What clients got is not what was sent.
            BenchError: It can't be done.
        """


@contextmanager
def measured(server: Server, load: Load, outcome: Outcome) -> Iterator[None]:
    """Add what passes inside the block: wall time, CPU of the server, and the load's own state."""
    before = _clock(server)
    load.begin()
    began = time.monotonic()
    yield
    outcome.figures["wall_seconds"] = time.monotonic() - began
    busy = load.busy_share
    load.run(ECHO_SECONDS)
    after = _clock(server)
    if before is not None and after is not None:
        outcome.figures["cpu_seconds"] = after.since(before)
        for role in after.roles:
            outcome.figures[f"{role}_cpu_seconds"] = after.since(before, role)
    figures = load.figures()
    outcome.figures["generator_busy_share"] = busy
    outcome.figures["generator_late_seconds"] = figures.late_seconds
    outcome.notes += _doubts(busy, figures.late_seconds)


def _doubts(busy: float, late_seconds: float) -> Iterator[str]:
    late = f"sent up to {late_seconds * 1000:.0f} ms late"
    if busy > MOST_BUSY_SHARE:
        yield f"the generator is the bottleneck: busy {busy:.0%} of the time, {late}"
    elif late_seconds > MOST_LATE_SECONDS:
        yield f"the generator was the bottleneck for a moment, or got no CPU: {late}"


def add_deliveries(load: Load, outcome: Outcome) -> None:
    """Add what was delivered, how fast, and what it has cost the server."""
    figures = load.figures()
    outcome.figures |= {
        "made_changes": figures.made,
        "delivered_changes": figures.delivered,
        "frames_in": figures.frames_in,
        "p50_seconds": figures.p50_seconds,
        "p90_seconds": figures.p90_seconds,
        "p99_seconds": figures.p99_seconds,
        "max_seconds": figures.max_seconds,
    }
    if figures.duplicates:
        outcome.figures["duplicate_changes"] = figures.duplicates
    for each in ("", *(f"{role}_" for role in ROLES)):
        source = f"{each}cpu_seconds"
        outcome.per(f"{each}cpu_per_delivery_seconds", figures.delivered, source)


def memory_bytes(server: Server) -> int | None:
    """Memory of the server now."""
    return None if server.processes is None else server.processes.memory_bytes()


def calm_memory_bytes(server: Server, load: Load, seconds: float) -> int | None:
    """Memory of the server when it has nothing to do: the least within some seconds."""
    return sum(calm_memory_by_role(server, load, seconds).values()) or None


def calm_memory_by_role(server: Server, load: Load, seconds: float) -> dict[str, int]:
    """The same for each role of its processes; empty if it is not known."""
    found: list[dict[str, int]] = []
    for _ in range(4):
        load.run(seconds / 4)
        found.append({} if server.processes is None else server.processes.memory_by_role())
    return min(found, key=lambda sizes: sum(sizes.values()))


def _clock(server: Server) -> CpuClock | None:
    return None if server.processes is None else server.processes.clock()
