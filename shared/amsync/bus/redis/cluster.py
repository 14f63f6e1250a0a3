"""What the processes of a cluster know in common: its record, and who lives.

Holds: the record is created once, whoever tries; a beat and the list that it brings are one
step; all ages are by Redis's clock. A Redis that lost everything has no record, or one with
another epoch, and knows nobody.

Not here: what follows from a death, or from a beat that finds itself unknown.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from amsync.bus.redis.client import RedisClient
from amsync.bus.redis.keys import cluster_key, members_key
from amsync.bus.redis.scripts import BEAT, CLUSTER_RECORD

FORGET_SECONDS = 60.0

Kind = Literal["gateway", "worker"]


@dataclass(frozen=True, slots=True)
class Member:
    """A process that has beaten within the last 60 s.

    Attributes:
        age_seconds: Since its last beat.
        info: What it says about itself.
    """

    kind: Kind
    incarnation: str
    age_seconds: float
    info: bytes


@dataclass(frozen=True, slots=True)
class Beat:
    """What a beat has found.

    Attributes:
        was_known: False for the first beat, and when our own entry was removed or lost: others
            may have taken us for dead.
        members: All others.
        cluster_epoch: Of the cluster's record; "" when there is none.
    """

    was_known: bool
    members: list[Member]
    cluster_epoch: str


class Cluster:
    """The record and the members of one cluster, through one client. All methods raise BusError."""

    def __init__(self, client: RedisClient, prefix: str = "amsync") -> None:
        self._client = client
        self._record = cluster_key(prefix)
        self._members = members_key(prefix)

    async def record(self, create: Mapping[str, str] | None = None) -> Mapping[str, str] | None:
        """Read the cluster's record; None if there is none.

        Args:
            create: What is added of it where it is missing, and a random `epoch` in any case.
                Look at the one returned: another process may have been first.
        """
        fields = {"epoch": uuid.uuid4().hex, **create} if create is not None else {}
        pairs = [text for pair in fields.items() for text in pair]
        found = await self._client.script(CLUSTER_RECORD, (self._record,), *pairs)
        texts = iter([text.decode() for text in found])
        return dict(zip(texts, texts, strict=True)) or None

    async def beat(self, kind: Kind, incarnation: str, info: bytes) -> Beat:
        """Say that we live, and learn who else does; members silent for 60 s are forgotten."""
        return await self._beat(_field(kind, incarnation), info)

    async def members(self) -> list[Member]:
        """Who lives, for somebody who is no member."""
        return (await self._beat("", b"")).members

    async def _beat(self, field: str, info: bytes) -> Beat:
        keys = (self._members, self._record)
        most_ms = round(FORGET_SECONDS * 1000)
        was_known, epoch, *rest = await self._client.script(BEAT, keys, field, info, most_ms)
        members = [
            member
            for field, age_ms, text in zip(rest[0::3], rest[1::3], rest[2::3], strict=True)
            if (member := _member(field, age_ms, text)) is not None
        ]
        return Beat(was_known == 1, members, epoch.decode())

    async def leave(self, kind: Kind, incarnation: str) -> None:
        """End our own membership at once."""
        await self._client.call("HDEL", self._members, _field(kind, incarnation))

    async def expel(self, kind: Kind, incarnation: str) -> None:
        """Forget a member that we take for dead: if it lives, its next beat finds it unknown."""
        await self.leave(kind, incarnation)


def _field(kind: Kind, incarnation: str) -> str:
    return f"{kind}:{incarnation}"


def _member(field: Any, age_ms: int, info: bytes) -> Member | None:
    """A member, or None for a kind that we don't know: of a newer version."""
    kind, _, incarnation = field.decode().partition(":")
    if kind not in get_args(Kind):
        return None
    return Member(cast(Kind, kind), incarnation, age_ms / 1000, info)
