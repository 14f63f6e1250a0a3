"""What kind of network a seed makes: its size, its delays, and which faults happen in it."""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Plan:
    """What kind of network a seed makes.

    `owners`: workers among which shards change hands; 0 for a server that owns them all.
    """

    clients: int
    documents: int
    happenings: int
    gateways: int
    shard_count: int
    auto_create: bool
    announce: bool
    has_roles: bool
    asks_for_access: bool
    ask_seconds: float
    grant_seconds: float
    idle_seconds: float
    commit_seconds: float
    thread_seconds: float
    stream_bytes: int
    segment_bytes: int
    light_share: float
    has_crashes: bool
    has_restarts: bool
    has_disk_faults: bool
    has_engine_faults: bool
    has_deletions: bool
    has_calls: bool
    owners: int


def make_plan(random: Random) -> Plan:
    def chance(probability: float) -> bool:
        return random.random() < probability

    return Plan(
        clients=random.randint(2, 4),
        documents=random.choice((1, 1, 2, 3)),
        happenings=random.choice((15, 25, 40)),
        gateways=2 if chance(0.1) else 1,
        shard_count=random.choice((1, 2, 4)),
        auto_create=chance(0.5),
        announce=chance(0.25),
        has_roles=chance(0.35),
        asks_for_access=chance(0.4),
        ask_seconds=random.choice((0.05, 1.0)),
        grant_seconds=random.choice((2.0, 1e9, 1e9)),
        idle_seconds=random.choice((0.5, 2.0, 30.0)),
        commit_seconds=random.choice((0.002, 0.05, 0.4)),
        thread_seconds=random.choice((0.002, 0.05, 0.4, 2.0)),
        stream_bytes=1_000 if chance(0.1) else 1 << 26,
        segment_bytes=random.choice((300, 1 << 20)),
        light_share=random.choice((0.0, 0.7, 1.0)),
        has_crashes=chance(0.5),
        has_restarts=chance(0.2),
        has_disk_faults=chance(0.2),
        has_engine_faults=chance(0.15),
        has_deletions=chance(0.1),
        has_calls=chance(0.3),
        owners=random.choice((2, 3)) if chance(0.3) else 0,
    )
