"""What a cluster is doing, read from Redis alone: nothing is asked of its processes."""

import asyncio

from amsync.bus import shard_stream
from amsync.bus.redis import Cluster, Lease, Leases, Member, RedisClient
from amsync.bus.redis.keys import size_key
from amsync.cluster.info import GatewayInfo, WorkerInfo, known_figures
from amsync.cluster.record import read
from amsync.status import (
    ClusterStatus,
    GatewayFigures,
    GatewayStatus,
    ShardStatus,
    WorkerFigures,
    WorkerStatus,
    problems_of,
)
from amsync.version import __version__

QUIET_SECONDS = 3.0
"""A process that was not heard of for longer is shown as silent."""


async def look(
    client: RedisClient, prefix: str, gateway: str | None = None
) -> ClusterStatus | None:
    """Read the status; None if there is no cluster under this prefix.

    `gateway`: who asks.

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
    gateways = [_gateway(m) for m in members if m.kind == "gateway"]
    known = [_worker(m, workers[m.incarnation]) for m in members if m.kind == "worker"]
    shards = [
        _shard(number, lease, lag, workers)
        for number, lease, lag in zip(numbers, leases, lags, strict=True)
    ]
    return ClusterStatus(
        mode="cluster",
        version=__version__,
        cluster_id=record.cluster_id,
        storage_id=record.storage_id,
        gateway=gateway,
        epoch=record.epoch,
        gateways=gateways,
        workers=known,
        shards=shards,
        problems=problems_of(gateways, known, shards),
    )


async def _lag(client: RedisClient, stream: str) -> tuple[int, int]:
    entries = await client.call("XLEN", stream)
    added, trimmed = await client.call("HMGET", size_key(stream), "added", "trimmed")
    return int(entries), max(0, int(added or 0) - int(trimmed or 0))


def _gateway(member: Member) -> GatewayStatus:
    info = GatewayInfo.unpack(member.info)
    state = "draining" if info.is_draining else "serving"
    return GatewayStatus(
        **known_figures(GatewayFigures, info.figures),
        gateway_id=member.incarnation,
        host=info.host,
        address=info.address,
        version=info.version,
        state="silent" if member.age_seconds > QUIET_SECONDS else state,
        connections=info.connections,
    )


def _worker(member: Member, info: WorkerInfo) -> WorkerStatus:
    state = "leaving" if info.is_leaving else info.trouble or "serving"
    return WorkerStatus(
        **known_figures(WorkerFigures, info.figures),
        worker_id=member.incarnation,
        host=info.host,
        version=info.version,
        state="silent" if member.age_seconds > QUIET_SECONDS else state,
        shards=len(info.shards),
        documents=sum(documents for _, documents, _ in info.shards.values()),
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
