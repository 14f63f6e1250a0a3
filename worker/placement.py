"""Which worker should own which shard: rendezvous hashing.

Sans-IO. Every worker comes to the same answer by itself from the names of those that live; one
that joins or leaves moves only its share.
"""

from collections.abc import Collection
from functools import lru_cache
from hashlib import blake2b


def owner_of(shard: int, workers: Collection[str]) -> str:
    """The worker that should own a shard; "" if there is none."""
    return max(workers, key=lambda worker: (_weight(shard, worker), worker), default="")


@lru_cache(maxsize=8)
def share_of(worker: str, workers: frozenset[str], shard_count: int) -> frozenset[int]:
    """The shards that a worker should own, among all that live."""
    return frozenset(shard for shard in range(shard_count) if owner_of(shard, workers) == worker)


def _weight(shard: int, worker: str) -> bytes:
    return blake2b(f"{shard}:{worker}".encode(), digest_size=8).digest()
