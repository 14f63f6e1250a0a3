"""What a cluster is, as all of its processes must see it: the record in Redis, made from a volume.

The volume is the truth; the record is there so that gateways, which never see the volume, know
whom they are to their clients, and so that a process that belongs elsewhere is refused.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from amsync.bus.redis import Cluster
from amsync.bus.redis.wire import ReplyError
from amsync.errors import BusError, ConfigError
from amsync.storage.volume import LAYOUT_VERSION, Volume

log = logging.getLogger("amsync.cluster")

T = TypeVar("T")

POLL_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """The identity of a cluster.

    Attributes:
        storage_id: What peers know its documents by; None if they are told nothing.
        epoch: Random; another one when Redis has lost everything.
    """

    cluster_id: str
    storage_id: str | None
    peer_id: str
    shard_count: int
    layout_version: int
    epoch: str

    @staticmethod
    def parse(fields: Mapping[str, str]) -> "ClusterRecord":
        """Read it back.

        Raises:
            ConfigError: A process of another version made it.
        """
        try:
            record = ClusterRecord(
                cluster_id=fields["cluster_id"],
                storage_id=fields["storage_id"] or None,
                peer_id=fields["peer_id"],
                shard_count=int(fields["shard_count"]),
                layout_version=int(fields["layout_version"]),
                epoch=fields["epoch"],
            )
        except (KeyError, ValueError) as error:
            raise ConfigError(f"the cluster's record in Redis can't be read: {error}") from error
        if record.layout_version != LAYOUT_VERSION:
            raise ConfigError(
                f"the cluster in this Redis has layout_version {record.layout_version}; this amsync"
                f" knows {LAYOUT_VERSION}. Use the version of amsync that made it"
            )
        return record


def _fields_of(volume: Volume) -> dict[str, str]:
    """The record that a volume gives, as Redis keeps it; the epoch is Redis's own."""
    return {
        "cluster_id": volume.cluster_id,
        "storage_id": volume.storage_id or "",
        "peer_id": volume.peer_id,
        "shard_count": str(volume.shard_count),
        "layout_version": str(LAYOUT_VERSION),
    }


async def epoch_of(cluster: Cluster) -> str:
    """The epoch of a cluster, also of one that is only about to be. Raises BusError."""
    found = await cluster.record({})
    assert found is not None
    return found["epoch"]


async def publish(cluster: Cluster, volume: Volume) -> ClusterRecord:
    """Make the record if there is none; returns the one that holds, with the epoch that holds.

    That is a new one if the record was lost: an old one written back would hide from the others
    that Redis was emptied.

    Raises:
        BusError
        ConfigError: The cluster at this Redis is another one than the volume's.
    """
    found = await cluster.record(_fields_of(volume))
    assert found is not None
    record = ClusterRecord.parse(found)
    for name in ("cluster_id", "storage_id", "shard_count"):
        theirs, mine = getattr(record, name), getattr(volume, name)
        if theirs != mine:
            raise ConfigError(
                f"the cluster in this Redis has {name} {theirs!r}, but the volume {volume.root} has"
                f" {mine!r}; use the volume of that cluster, or another Redis or prefix"
            )
    return record


async def read(cluster: Cluster) -> ClusterRecord | None:
    """The record, or None if no worker has been here.

    Raises:
        BusError
        ConfigError: It is of another version.
    """
    found = await cluster.record()
    # There may be no more of it than an epoch.
    return ClusterRecord.parse(found) if found is not None and "cluster_id" in found else None


async def wait_for(cluster: Cluster) -> ClusterRecord:
    """Wait until a worker has made the record.

    Raises:
        ConfigError: It is of another version.
    """
    is_said = False
    while (record := await insist(lambda: read(cluster))) is None:
        if not is_said:
            is_said = True
            log.info("no worker has made this cluster yet; waiting for one")
        await asyncio.sleep(POLL_SECONDS)
    return record


async def insist(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask Redis until it answers. What it refuses is logged once; its absence its client logs."""
    refusal = ""
    while True:
        try:
            return await ask()
        except BusError as error:
            if isinstance(error, ReplyError) and str(error) != refusal:
                refusal = str(error)
                log.error("can't take part in the cluster; tried again", extra={"error": refusal})
        await asyncio.sleep(POLL_SECONDS)
