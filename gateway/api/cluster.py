"""The calls about the whole: what runs, checkpoints, files in quarantine."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgpack

from amsync.adminapi import Asked, Call
from amsync.adminapi.schema import COUNT, NUMBER, SECONDS, TEXT, array, maybe, record
from amsync.errors import AmsyncError, NoOwner
from amsync.gateway.api.place import FindGateway, Place, one_shard_each, problems

if TYPE_CHECKING:
    from amsync.gateway.gateway import Gateway

Look = Callable[[], Awaitable[Mapping[str, Any]]]
"""Reads the state of the cluster, in the shape of `CLUSTER`. Raises AmsyncError."""

MAX_FILES = 1_000

_PROCESS = {"host": TEXT, "version": TEXT, "state": TEXT}

CLUSTER = record(
    mode={"enum": ["embedded", "cluster"]},
    version=TEXT,
    cluster_id=TEXT,
    storage_id=maybe(TEXT),
    gateway=maybe(TEXT),
    epoch=TEXT,
    gateways=array(
        record(
            gateway_id=TEXT,
            **_PROCESS,
            address=TEXT,
            connections=COUNT,
            messages_in=COUNT,
            messages_out=COUNT,
            bytes_in=COUNT,
            bytes_out=COUNT,
            loop_lag_seconds=SECONDS,
            edit_to_peer_p50_seconds=maybe(SECONDS),
            edit_to_peer_p99_seconds=maybe(SECONDS),
        )
    ),
    workers=array(
        record(
            worker_id=TEXT,
            **_PROCESS,
            shards=COUNT,
            documents=COUNT,
            document_bytes=COUNT,
            commits=COUNT,
            committed_bytes=COUNT,
            edit_to_disk_p50_seconds=maybe(SECONDS),
            edit_to_disk_p99_seconds=maybe(SECONDS),
        )
    ),
    shards=array(
        record(
            shard=COUNT,
            owner=TEXT,
            epoch=COUNT,
            documents=COUNT,
            lag_entries=COUNT,
            lag_bytes=COUNT,
        )
    ),
    problems=array(TEXT),
)


class ClusterApi(Place):
    """The calls."""

    def __init__(self, find: FindGateway, look: Look) -> None:
        super().__init__(find)
        self._look = look

    def calls(self) -> list[Call]:
        """What the admin port offers."""
        return [
            Call(
                "get_cluster",
                "GET",
                "/cluster",
                self._cluster,
                "Gateways, workers and shards with their figures, and what is wrong.",
                CLUSTER,
            ),
            Call(
                "checkpoint",
                "POST",
                "/checkpoint",
                self._checkpoint,
                "Bring everything out of the logs of all workers.",
                record(
                    workers=array(
                        record(worker_id=TEXT, seconds=maybe(SECONDS), problem=maybe(TEXT))
                    )
                ),
            ),
            Call(
                "list_quarantine",
                "GET",
                "/quarantine",
                self._quarantine,
                f"Files that were put aside because they are damaged: the newest {MAX_FILES:,}.",
                record(
                    count=COUNT,
                    files=array(
                        record(
                            path=TEXT,
                            document_id=maybe(TEXT),
                            bytes=COUNT,
                            quarantined_at=maybe(NUMBER),
                            reason=maybe(TEXT),
                        )
                    ),
                ),
                problems=(504,),
            ),
        ]

    async def _cluster(self, _: Asked) -> object:
        self._gateway()
        with problems():
            return await self._look()

    async def _checkpoint(self, _: Asked) -> object:
        gateway = self._gateway()
        with problems():
            owners = _workers(gateway)
        done = await asyncio.gather(*(_checkpoint(gateway, *each) for each in owners.items()))
        return {"workers": done}

    async def _quarantine(self, _: Asked) -> object:
        gateway = self._gateway()
        with problems():
            shard = next(iter(_workers(gateway).values()))  # the volume is one
            reply = await gateway.query(shard, "quarantine", msgpack.packb({"limit": MAX_FILES}))
        return msgpack.unpackb(reply.payload)


def _workers(gateway: "Gateway") -> dict[str, int]:
    """Of each worker that is known one of its shards. Raises NoOwner."""
    chosen, _ = one_shard_each(gateway, range(gateway.shard_count))
    if not chosen:
        raise NoOwner("no worker is known at the moment")
    return chosen


async def _checkpoint(gateway: "Gateway", owner: str, shard: int) -> Mapping[str, object]:
    seconds = problem = None
    try:
        reply = await gateway.query(shard, "checkpoint")
        seconds = msgpack.unpackb(reply.payload)["seconds"]
    except AmsyncError as error:
        problem = str(error)
    return {"worker_id": owner or gateway.owner(shard), "seconds": seconds, "problem": problem}
