"""Who owns a shard: leases of a few seconds, stamped with an epoch that only grows.

Holds: all times are Redis's; an expired lease that nobody else has taken is taken back by its
owner at the same epoch; a released one gives a new epoch to whoever comes next. Safety does not
rest on leases (see the storage's epoch files), nor on Redis keeping them: `min_epoch` carries
the epochs of the volume over its loss.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amsync.bus.redis.client import RedisClient
from amsync.bus.redis.keys import lease_key
from amsync.bus.redis.scripts import (
    ACQUIRE_LEASE,
    LOOK_LEASE,
    RELEASE_LEASE,
    RENEW_LEASE,
    Script,
)


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it was found.

    Attributes:
        owner: Who has it; "" when it was released.
        epoch: 1 or more.
        is_ours: It is held now by who asked.
        remaining_seconds: How long it still lasts, 0 when it has expired.
    """

    shard: int
    owner: str
    epoch: int
    is_ours: bool
    remaining_seconds: float


class Leases:
    """The leases of one cluster, through one client. All methods raise BusError."""

    def __init__(self, client: RedisClient, prefix: str = "amsync") -> None:
        self._client = client
        self._prefix = prefix

    async def acquire(self, shard: int, owner: str, min_epoch: int, ttl_seconds: float) -> Lease:
        """Take a lease, or renew our own; another's live one is returned as it is.

        Args:
            min_epoch: The highest epoch known of this shard; ours is then at least this, and
                above it if the lease is new.
        """
        (lease,) = await self.acquire_all({shard: min_epoch}, owner, ttl_seconds)
        return lease

    async def acquire_all(
        self, min_epochs: Mapping[int, int], owner: str, ttl_seconds: float
    ) -> list[Lease]:
        """`acquire` for many shards in one round trip; `min_epochs` by shard."""
        replies = await asyncio.gather(
            *(
                self._run(ACQUIRE_LEASE, shard, owner, min_epoch, _ms(ttl_seconds))
                for shard, min_epoch in min_epochs.items()
            )
        )
        return [
            _lease(shard, reply, owner) for shard, reply in zip(min_epochs, replies, strict=True)
        ]

    async def renew(self, shard: int, owner: str, epoch: int, ttl_seconds: float) -> bool:
        """Prolong our lease, also one that expired untouched; False when it is not ours."""
        (is_ours,) = await self.renew_all({shard: epoch}, owner, ttl_seconds)
        return is_ours

    async def renew_all(
        self, epochs: Mapping[int, int], owner: str, ttl_seconds: float
    ) -> list[bool]:
        """`renew` for many shards in one script; `epochs` by shard.

        It is most of what an idle worker does: by a script for each, 64 leases cost Redis and us
        several times as much.
        """
        if not epochs:
            return []
        keys = [lease_key(self._prefix, shard) for shard in epochs]
        replies = await self._client.script(
            RENEW_LEASE, keys, owner, _ms(ttl_seconds), *epochs.values()
        )
        return [reply == 1 for reply in replies]

    async def release(self, shard: int, owner: str, epoch: int) -> bool:
        """Give our lease up, so that another needn't wait; False when it is not ours."""
        (was_ours,) = await self.release_all({shard: epoch}, owner)
        return was_ours

    async def release_all(self, epochs: Mapping[int, int], owner: str) -> list[bool]:
        """`release` for many shards in one round trip; `epochs` by shard."""
        replies = await asyncio.gather(
            *(self._run(RELEASE_LEASE, shard, owner, epoch) for shard, epoch in epochs.items())
        )
        return [reply == 1 for reply in replies]

    async def look(self, shards: Sequence[int], owner: str = "") -> list[Lease | None]:
        """The leases of these shards, None where there never was one, in one round trip."""
        replies = await asyncio.gather(*(self._run(LOOK_LEASE, shard) for shard in shards))
        return [
            None if reply is None else _lease(shard, reply, owner)
            for shard, reply in zip(shards, replies, strict=True)
        ]

    async def _run(self, script: Script, shard: int, *arguments: str | int) -> Any:
        return await self._client.script(script, (lease_key(self._prefix, shard),), *arguments)


def _lease(shard: int, reply: list[Any], asker: str) -> Lease:
    owner, epoch, remaining_ms = reply[0].decode(), int(reply[1]), int(reply[2])
    is_ours = bool(asker) and owner == asker and remaining_ms > 0
    return Lease(shard, owner, epoch, is_ours, remaining_ms / 1000)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
