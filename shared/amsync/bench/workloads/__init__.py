"""What can be done to a server and measured, one module each.

A workload is a frozen dataclass of its numbers with the methods of `Workload`. It raises
`WrongDelivery` when clients did not get what was sent.
"""

from amsync.bench.workloads.bounded import Bounded
from amsync.bench.workloads.churn import Churn
from amsync.bench.workloads.fan_out import FanOut, Latency
from amsync.bench.workloads.idle import Idle, OpenDocument
from amsync.bench.workloads.ingest import Ingest
from amsync.bench.workloads.joins import ColdJoin, ColdStart
from amsync.bench.workloads.rooms import Rooms
from amsync.bench.workloads.search import HighestRate
from amsync.bench.workloads.workload import Workload

__all__ = [
    "Bounded",
    "Churn",
    "ColdJoin",
    "ColdStart",
    "FanOut",
    "HighestRate",
    "Idle",
    "Ingest",
    "Latency",
    "OpenDocument",
    "Rooms",
    "Workload",
]
