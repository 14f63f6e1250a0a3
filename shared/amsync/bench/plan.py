"""Which workloads with which numbers: by name, for a first look, and to compare servers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from amsync.bench.errors import BenchError
from amsync.bench.workloads import (
    Bounded,
    Churn,
    ColdJoin,
    ColdStart,
    FanOut,
    HighestRate,
    Idle,
    Ingest,
    Latency,
    OpenDocument,
    Rooms,
    Workload,
)


@dataclass(frozen=True, slots=True)
class Case:
    """A workload with its numbers, and its name in results."""

    name: str
    workload: Workload
    only_first: bool = False
    """Whether it is a figure of one server for itself, not to compare."""
    times: Callable[[int], Workload] | None = None
    """The load for a server that has so many processes of a kind; None: all get the same."""

    def for_scale(self, scale: int) -> Workload:
        """What such a server is given to do."""
        return self.workload if self.times is None else self.times(scale)


def _scaled(name: str, times: Callable[[int], Workload]) -> Case:
    return Case(name, times(1), times=times)


AUTH = "auth"
"""It is done to a server with and without tokens."""

CLUSTER = "cluster"
"""It is done to one server and to clusters of several shapes."""

NAMED: Mapping[str, tuple[str, Sequence[Case]]] = {
    "fan-out": ("1 writer, many readers", [Case("fan-out", FanOut())]),
    "history": (
        "the same over documents of 10 to 200,000 changes",
        [
            Case(f"history-{history}", FanOut(readers=20, rate=2, seconds=8, history=history))
            for history in (10, 1_000, 50_000, 200_000)
        ],
    ),
    "max-rate": ("highest rate to 100 readers", [Case("max-rate", HighestRate())]),
    "rooms": ("many documents, few readers each", [Case("rooms", Rooms())]),
    "cold-join": (
        "many joiners of one document, open or from disk",
        [
            Case("cold-join-warm", ColdJoin()),
            Case("cold-join-disk", ColdJoin(from_disk=True)),
        ],
    ),
    "cold-start": ("all documents after a restart", [Case("cold-start", ColdStart())]),
    "churn": ("connect, join, request, sync, leave", [Case("churn", Churn())]),
    "ingest": (
        "many changes at once, in one message or several",
        [Case("ingest", Ingest()), Case("ingest-batches", Ingest(batch=1_000))],
    ),
    "idle": ("memory of idle connections", [Case("idle", Idle())]),
    "latency": ("edit to peer against the disk's fsync", [Case("latency", Latency())]),
    "memory": ("memory of an open document", [Case("memory", OpenDocument())]),
    "bounded": ("whether a cluster's Redis grows", [Case("bounded", Bounded())]),
    AUTH: ("what a token costs, in churn", [Case(AUTH, Churn(cycles=1_000))]),
    CLUSTER: (
        "what a cluster costs, by its numbers of gateways and workers, against one process",
        [
            Case("cluster-20", FanOut(readers=20, rate=4, seconds=10)),
            _scaled("cluster-100", lambda scale: FanOut(100 * scale, rate=10, seconds=6)),
            _scaled("cluster-rooms", lambda scale: Rooms(40 * scale, rate=1, seconds=6)),
        ],
    ),
}
"""Workloads by the name that the command takes: what it is, and its cases."""

FIRST_LOOK: Sequence[Case] = (
    Case("fan-out", FanOut(seconds=5)),
    Case("rooms", Rooms(seconds=5)),
    Case("cold-join-warm", ColdJoin()),
    Case("cold-start", ColdStart(documents=100)),
    Case("churn", Churn(cycles=100)),
    Case("ingest", Ingest(changes=5_000)),
    Case("latency", Latency(seconds=3)),
)
"""Within a minute."""

COMPARISON: Sequence[Case] = (
    Case("history-50000", FanOut(readers=20, rate=1, seconds=12, history=50_000)),
    Case("fan-out-20", FanOut(readers=20, rate=4, seconds=15)),
    Case("fan-out-100", FanOut(readers=100, rate=20, seconds=8)),
    Case("max-rate", HighestRate()),
    Case("rooms", Rooms()),
    Case("cold-join-warm", ColdJoin()),
    Case("cold-join-disk", ColdJoin(from_disk=True)),
    Case("cold-start", ColdStart()),
    Case("churn", Churn()),
    Case("ingest", Ingest()),
    Case("idle", Idle()),
    Case("history-10", FanOut(readers=20, rate=2, seconds=12, history=10), only_first=True),
    Case("history-200000", FanOut(20, 2, 12, 200_000), only_first=True),
    Case("latency", Latency(), only_first=True),
    Case("memory", OpenDocument(), only_first=True),
)
"""All of it, in about twelve minutes for three servers."""


def changed(case: Case, numbers: Mapping[str, Any]) -> Case:
    """The case with other numbers, by the names of the workload's fields.

    Raises:
        BenchError: The workload has no such number.
    """
    workload: Any = case.workload
    times: Any = case.times
    known = {each.name for each in fields(workload)}
    if unknown := sorted(set(numbers) - known):
        options = ", ".join(f"--{name}" for name in unknown)
        raise BenchError(f"{case.name} takes no {options}")
    return replace(
        case,
        workload=replace(workload, **numbers),
        times=times and (lambda scale: replace(times(scale), **numbers)),
    )
