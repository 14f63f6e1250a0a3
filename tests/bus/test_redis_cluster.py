"""The cluster's record and its members, against a real Redis."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from amsync.bus.redis import Cluster, RedisClient
from amsync.bus.redis.keys import cluster_key, members_key
from support.redisserver import RedisServer

from .buses import run_with_two

prefixes = (f"cluster{number}" for number in itertools.count())

Scenario = Callable[[Cluster, Cluster, RedisClient, str], Awaitable[None]]
WithCluster = Callable[[Scenario], None]


@pytest.fixture
def with_cluster(redis_server: RedisServer) -> WithCluster:
    """Run a scenario with two clients' views of one cluster."""

    def run(scenario: Scenario) -> None:
        run_with_two(redis_server.url, next(prefixes), Cluster, scenario)

    return run


async def age_all(client: RedisClient, prefix: str, seconds: float) -> None:
    """Make every beat so much older."""
    found = await client.call("HGETALL", members_key(prefix))
    for field, value in zip(found[0::2], found[1::2], strict=True):
        at, _, info = value.partition(b" ")
        await client.call(
            "HSET", members_key(prefix), field, b"%d %s" % (int(at) - round(seconds * 1000), info)
        )


def test_record_is_created_once_whoever_tries(with_cluster: WithCluster) -> None:
    async def scenario(first: Cluster, second: Cluster, client: RedisClient, prefix: str) -> None:
        assert await first.record() is None

        one, other = await asyncio.gather(
            first.record({"cluster_id": "a", "shard_count": "64"}),
            second.record({"cluster_id": "b", "shard_count": "64"}),
        )

        assert one is not None
        assert one == other == await first.record()
        assert one["cluster_id"] in ("a", "b")
        assert one["shard_count"] == "64"
        assert len(one["epoch"]) >= 16

    with_cluster(scenario)


def test_record_that_was_lost_comes_back_with_another_epoch(with_cluster: WithCluster) -> None:
    async def scenario(first: Cluster, second: Cluster, client: RedisClient, prefix: str) -> None:
        before = await first.record({"cluster_id": "a"})
        await client.call("DEL", cluster_key(prefix))

        assert await first.record() is None
        after = await first.record({"cluster_id": "a"})

        assert before is not None
        assert after is not None
        assert after["epoch"] != before["epoch"]

    with_cluster(scenario)


def test_record_keeps_an_epoch_that_its_creator_gives(with_cluster: WithCluster) -> None:
    async def scenario(first: Cluster, second: Cluster, client: RedisClient, prefix: str) -> None:
        assert await first.record({"epoch": "e"}) == {"epoch": "e"}

    with_cluster(scenario)


def test_members_see_each_other_and_not_themselves(with_cluster: WithCluster) -> None:
    async def scenario(first: Cluster, second: Cluster, client: RedisClient, prefix: str) -> None:
        alone = await first.beat("gateway", "g1", b"one")
        both = await second.beat("worker", "w:1", b"with spaces, \xff and zero \x00")
        again = await first.beat("gateway", "g1", b"two")
        both_again = await second.beat("worker", "w:1", b"")

        assert (alone.was_known, alone.members) == (False, [])
        assert [(one.kind, one.incarnation, one.info) for one in both.members] == [
            ("gateway", "g1", b"one")
        ]
        assert [(one.kind, one.incarnation, one.info) for one in again.members] == [
            ("worker", "w:1", b"with spaces, \xff and zero \x00")
        ]
        assert again.was_known
        assert [one.info for one in both_again.members] == [b"two"]

    with_cluster(scenario)


def test_ages_are_of_the_last_beat(with_cluster: WithCluster) -> None:
    async def scenario(first: Cluster, second: Cluster, client: RedisClient, prefix: str) -> None:
        await first.beat("gateway", "g1", b"")
        await age_all(client, prefix, 20)

        (old,) = (await second.beat("worker", "w1", b"")).members
        assert 20 <= old.age_seconds < 50

        await first.beat("gateway", "g1", b"")
        (fresh,) = (await second.beat("worker", "w1", b"")).members
        assert fresh.age_seconds < 20

    with_cluster(scenario)


def test_silent_member_is_forgotten_and_learns_it(with_cluster: WithCluster) -> None:
    async def scenario(first: Cluster, second: Cluster, client: RedisClient, prefix: str) -> None:
        await first.beat("gateway", "g1", b"")
        await age_all(client, prefix, 61)

        assert (await second.beat("worker", "w1", b"")).members == []
        assert await client.call("HLEN", members_key(prefix)) == 1
        assert not (await first.beat("gateway", "g1", b"")).was_known

    with_cluster(scenario)


def test_expelled_member_learns_it_at_its_next_beat(with_cluster: WithCluster) -> None:
    async def scenario(first: Cluster, second: Cluster, client: RedisClient, prefix: str) -> None:
        await first.beat("worker", "w1", b"")
        await second.beat("worker", "w2", b"")

        await second.expel("worker", "w1")

        assert (await second.beat("worker", "w2", b"")).members == []
        assert not (await first.beat("worker", "w1", b"")).was_known
        assert (await first.beat("worker", "w1", b"")).was_known

    with_cluster(scenario)


def test_who_leaves_is_gone_at_once(with_cluster: WithCluster) -> None:
    async def scenario(first: Cluster, second: Cluster, client: RedisClient, prefix: str) -> None:
        await first.beat("worker", "same", b"")
        await first.beat("gateway", "same", b"")

        await first.leave("worker", "same")

        (left,) = (await second.beat("worker", "w2", b"")).members
        assert (left.kind, left.incarnation) == ("gateway", "same")

    with_cluster(scenario)


def test_beat_tells_the_cluster_epoch(with_cluster: WithCluster) -> None:
    async def scenario(first: Cluster, second: Cluster, client: RedisClient, prefix: str) -> None:
        before = await first.beat("worker", "w1", b"")
        record = await first.record({})

        assert before.cluster_epoch == ""
        assert record is not None
        assert (await first.beat("worker", "w1", b"")).cluster_epoch == record["epoch"]

    with_cluster(scenario)


def test_member_from_a_clock_ahead_begins_to_age(with_cluster: WithCluster) -> None:
    async def scenario(first: Cluster, second: Cluster, client: RedisClient, prefix: str) -> None:
        await first.beat("worker", "w1", b"info")
        await age_all(client, prefix, -3600)

        (seen,) = (await second.beat("worker", "w2", b"")).members
        assert (seen.age_seconds, seen.info) == (0, b"info")

        await age_all(client, prefix, 61)
        assert (await second.beat("worker", "w2", b"")).members == []

    with_cluster(scenario)


def test_kind_of_a_newer_version_is_passed_over(with_cluster: WithCluster) -> None:
    async def scenario(first: Cluster, second: Cluster, client: RedisClient, prefix: str) -> None:
        await first.beat("worker", "w1", b"")
        key = members_key(prefix)
        beat = await client.call("HGET", key, "worker:w1")
        await client.call("HSET", key, "janitor:j1", beat)

        assert [one.kind for one in (await second.beat("worker", "w2", b"")).members] == ["worker"]

    with_cluster(scenario)
