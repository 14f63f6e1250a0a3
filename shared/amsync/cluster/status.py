"""What a cluster is doing, read from Redis alone: nothing is asked of its processes."""

import asyncio
from dataclasses import dataclass

from amsync.bus import shard_stream
from amsync.bus.redis import Cluster, Lease, Leases, Member, RedisClient
from amsync.bus.redis.keys import size_key
from amsync.cluster.info import GatewayInfo, WorkerInfo
from amsync.cluster.record import read

QUIET_SECONDS = 3.0
"""A process that was not heard of for longer is shown as silent."""


@dataclass(frozen=True, slots=True)
class GatewayStatus:
    """A gateway; `state` is serving, draining or silent."""

    gateway_id: str
    host: str
    address: str
    version: str
    state: str
    connections: int


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker; `state` is serving, leaving, silent, or why nothing can be saved."""

    worker_id: str
    host: str
    version: str
    state: str
    shards: int
    documents: int


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
    """Everything at one moment."""

    cluster_id: str
    storage_id: str | None
    epoch: str
    gateways: list[GatewayStatus]
    workers: list[WorkerStatus]
    shards: list[ShardStatus]


async def look(client: RedisClient, prefix: str) -> ClusterStatus | None:
    """Read the status; None if there is no cluster under this prefix.

    Raises:
        BusError: Redis is out of reach.
        ConfigError: The cluster is of another version.
    """
    cluster = Cluster(client, prefix)
    record = await read(cluster)
    if record is None:
        return None
    members = await cluster.members()
    workers = {m.incarnation: WorkerInfo.unpack(m.info) for m in members if m.kind == "worker"}
    numbers = range(record.shard_count)
    leases = await Leases(client, prefix).look(numbers)
    lags = await asyncio.gather(*(_lag(client, shard_stream(prefix, number)) for number in numbers))
    return ClusterStatus(
        cluster_id=record.cluster_id,
        storage_id=record.storage_id,
        epoch=record.epoch,
        gateways=[_gateway(m) for m in members if m.kind == "gateway"],
        workers=[_worker(m, workers[m.incarnation]) for m in members if m.kind == "worker"],
        shards=[
            _shard(number, lease, lag, workers)
            for number, lease, lag in zip(numbers, leases, lags, strict=True)
        ],
    )


async def _lag(client: RedisClient, stream: str) -> tuple[int, int]:
    entries = await client.call("XLEN", stream)
    added, trimmed = await client.call("HMGET", size_key(stream), "added", "trimmed")
    return int(entries), max(0, int(added or 0) - int(trimmed or 0))


def _gateway(member: Member) -> GatewayStatus:
    info = GatewayInfo.unpack(member.info)
    state = "draining" if info.is_draining else "serving"
    return GatewayStatus(
        member.incarnation,
        info.host,
        info.address,
        info.version,
        "silent" if member.age_seconds > QUIET_SECONDS else state,
        info.connections,
    )


def _worker(member: Member, info: WorkerInfo) -> WorkerStatus:
    state = "leaving" if info.is_leaving else info.trouble or "serving"
    return WorkerStatus(
        member.incarnation,
        info.host,
        info.version,
        "silent" if member.age_seconds > QUIET_SECONDS else state,
        len(info.shards),
        sum(documents for _, documents, _ in info.shards.values()),
    )


def _shard(
    number: int, lease: Lease | None, lag: tuple[int, int], workers: dict[str, WorkerInfo]
) -> ShardStatus:
    is_held = lease is not None and lease.remaining_seconds > 0
    owner = lease.owner if lease is not None and is_held else ""
    known = workers.get(owner)
    _, documents, waiting = known.shards.get(str(number), (0, 0, 0)) if known else (0, 0, lag[0])
    epoch = 0 if lease is None else lease.epoch
    entries = min(waiting, lag[0])
    # What is dealt with is trimmed later, several at once.
    return ShardStatus(number, owner, epoch, documents, entries, lag[1] if entries else 0)
