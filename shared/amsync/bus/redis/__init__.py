"""The bus over Redis streams, and what processes tell each other beside it."""

from amsync.bus.redis.bus import RedisBus
from amsync.bus.redis.client import RedisClient
from amsync.bus.redis.cluster import Beat, Cluster, Kind, Member
from amsync.bus.redis.leases import Lease, Leases

__all__ = [
    "Beat",
    "Cluster",
    "Kind",
    "Lease",
    "Leases",
    "Member",
    "RedisBus",
    "RedisClient",
]
