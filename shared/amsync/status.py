"""What a server or a cluster is doing, as it is shown: the same shape for both.

Also the figures that gateways and workers tell about themselves. Totals are since the start of
the process; quantiles are of the last half minute, and None if nothing happened.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from amsync.metrics import Metrics
from amsync.tallies import Distribution

RECENT_SECONDS = 30.0
LEAST_STEP_SECONDS = 0.5
ID_LENGTH = 8
"""Characters of a process's id that are enough to tell it from others."""


@dataclass(frozen=True, slots=True)
class GatewayFigures:
    """What a gateway tells about its work."""

    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    loop_lag_seconds: float = 0.0
    edit_to_peer_p50_seconds: float | None = None
    edit_to_peer_p99_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """What a worker tells about its work; `document_bytes` are those of open documents."""

    document_bytes: int = 0
    commits: int = 0
    committed_bytes: int = 0
    edit_to_disk_p50_seconds: float | None = None
    edit_to_disk_p99_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class GatewayStatus(GatewayFigures):
    """A gateway; `state` is serving, draining or silent."""

    gateway_id: str = ""
    host: str = ""
    address: str = ""
    version: str = ""
    state: str = ""
    connections: int = 0


@dataclass(frozen=True, slots=True)
class WorkerStatus(WorkerFigures):
    """A worker; `state` is serving, leaving, silent, or why nothing can be saved."""

    worker_id: str = ""
    host: str = ""
    version: str = ""
    state: str = ""
    shards: int = 0
    documents: int = 0


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """A shard.

    Attributes:
        owner: The worker's id; "" if nobody has it.
        epoch: Of the lease; 0 if there never was one.
        documents: In the owner's memory.
        lag_entries: In the stream and not known to be dealt with.
        lag_bytes: The same in bytes.
    """

    shard: int
    owner: str
    epoch: int
    documents: int
    lag_entries: int
    lag_bytes: int


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """Everything at one moment.

    Attributes:
        mode: embedded or cluster.
        version: Of amsync, where this was put together.
        gateway: The id of the gateway that was asked, if one was.
        epoch: Of the bus; changes when it has lost everything.
        problems: What is wrong, in words.
    """

    mode: str
    version: str
    cluster_id: str
    storage_id: str | None
    gateway: str | None
    epoch: str
    gateways: list[GatewayStatus]
    workers: list[WorkerStatus]
    shards: list[ShardStatus]
    problems: list[str] = field(default_factory=list)


def problems_of(
    gateways: Sequence[GatewayStatus],
    workers: Sequence[WorkerStatus],
    shards: Sequence[ShardStatus],
) -> list[str]:
    """What is wrong, in words."""
    orphans = sum(not shard.owner for shard in shards)
    problems = [f"{orphans} shards have no owner"] if orphans else []
    if not gateways:
        problems.append("there is no gateway")
    for worker in workers:
        if worker.state not in ("serving", "leaving"):
            problems.append(f"worker {worker.worker_id[:ID_LENGTH]}: {worker.state}")
    for gateway in gateways:
        if gateway.state == "silent":
            problems.append(f"gateway {gateway.gateway_id[:ID_LENGTH]}: silent")
    return problems


class Recent:
    """Quantiles of what a distribution has got of late."""

    def __init__(self, distribution: Distribution) -> None:
        self._distribution = distribution
        self._seen = deque([(time.monotonic(), distribution.counts())])

    def quantiles(self) -> tuple[float | None, float | None]:
        """The median and the 99th percentile, or None for both."""
        now, counts = time.monotonic(), self._distribution.counts()
        while len(self._seen) > 1 and self._seen[1][0] < now - RECENT_SECONDS:
            self._seen.popleft()
        before = self._seen[0][1]
        if now - self._seen[-1][0] >= LEAST_STEP_SECONDS:
            self._seen.append((now, counts))
        new = [count - old for count, old in zip(counts, before, strict=True)]
        bounds = self._distribution.bounds
        return _quantile(bounds, new, 0.5), _quantile(bounds, new, 0.99)


def _quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """Within its bucket the values count as spread evenly; above all of them it is the last."""
    rank = share * sum(counts)
    if not rank:
        return None
    below = 0
    for number, bound in enumerate(bounds):
        if counts[number] and below + counts[number] >= rank:
            low = bounds[number - 1] if number else 0.0
            return low + (bound - low) * (rank - below) / counts[number]
        below += counts[number]
    return bounds[-1]


class GatewayMeter:
    """Reads a gateway's figures off its metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics, self._edits = metrics, Recent(metrics.edit_to_peer_seconds)

    def read(self, loop_lag_seconds: float) -> GatewayFigures:
        """As they are now."""
        messages, sizes = self._metrics.messages, self._metrics.message_bytes
        p50, p99 = self._edits.quantiles()
        return GatewayFigures(
            messages_in=round(messages.total("in")),
            messages_out=round(messages.total("out")),
            bytes_in=round(sizes.total("in")),
            bytes_out=round(sizes.total("out")),
            loop_lag_seconds=loop_lag_seconds,
            edit_to_peer_p50_seconds=p50,
            edit_to_peer_p99_seconds=p99,
        )


class WorkerMeter:
    """Reads a worker's figures off its metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics, self._edits = metrics, Recent(metrics.edit_to_disk_seconds)

    def read(self, document_bytes: int) -> WorkerFigures:
        """As they are now."""
        p50, p99 = self._edits.quantiles()
        return WorkerFigures(
            document_bytes=document_bytes,
            commits=sum(self._metrics.commit_seconds.counts()),
            committed_bytes=round(self._metrics.committed_bytes.total()),
            edit_to_disk_p50_seconds=p50,
            edit_to_disk_p99_seconds=p99,
        )
