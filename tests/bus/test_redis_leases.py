"""Leases against a real Redis: one owner at a time, and epochs that only grow."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from amsync.bus.redis import Lease, Leases, RedisClient
from amsync.bus.redis.keys import lease_key
from support.redisserver import RedisServer

from .buses import run_with_two

LONG = 600.0
SOON = 0.05
prefixes = (f"leases{number}" for number in itertools.count())

Scenario = Callable[[Leases, Leases, RedisClient, str], Awaitable[None]]


@pytest.fixture
def with_leases(redis_server: RedisServer) -> Callable[[Scenario], None]:
    """Run a scenario with two clients' views of the same leases."""

    def run(scenario: Scenario) -> None:
        run_with_two(redis_server.url, next(prefixes), Leases, scenario)

    return run


WithLeases = Callable[[Scenario], None]


async def expired(leases: Leases, shard: int) -> None:
    """Wait until a short lease has run out, as Redis sees it."""
    while True:
        (lease,) = await leases.look([shard])
        if lease is not None and lease.remaining_seconds == 0:
            return
        await asyncio.sleep(0.01)


def test_first_lease_has_an_epoch_above_all_that_are_known(with_leases: WithLeases) -> None:
    async def scenario(first: Leases, second: Leases, client: RedisClient, prefix: str) -> None:
        new = await first.acquire(1, "a", 0, LONG)
        known = await first.acquire(2, "a", 41, LONG)

        assert (new.owner, new.epoch, new.is_ours) == ("a", 1, True)
        assert 0 < new.remaining_seconds <= LONG
        assert (known.epoch, known.is_ours) == (42, True)

    with_leases(scenario)


def test_of_two_that_race_one_gets_it_and_the_other_sees_who(with_leases: WithLeases) -> None:
    async def scenario(first: Leases, second: Leases, client: RedisClient, prefix: str) -> None:
        for shard in range(50):
            one, other = await asyncio.gather(
                first.acquire(shard, "a", 0, LONG), second.acquire(shard, "b", 0, LONG)
            )

            assert one.is_ours != other.is_ours
            assert one.owner == other.owner == ("a" if one.is_ours else "b")
            assert one.epoch == other.epoch == 1

    with_leases(scenario)


def test_live_lease_of_another_stays_untouched(with_leases: WithLeases) -> None:
    async def scenario(first: Leases, second: Leases, client: RedisClient, prefix: str) -> None:
        await first.acquire(1, "a", 0, LONG)

        refused = await second.acquire(1, "b", 7, LONG)

        assert (refused.owner, refused.epoch, refused.is_ours) == ("a", 1, False)
        assert await first.renew(1, "a", 1, LONG)

    with_leases(scenario)


def test_expired_lease_goes_to_another_at_the_next_epoch(with_leases: WithLeases) -> None:
    async def scenario(first: Leases, second: Leases, client: RedisClient, prefix: str) -> None:
        await first.acquire(1, "a", 0, SOON)
        await expired(first, 1)

        taken = await second.acquire(1, "b", 0, LONG)

        assert (taken.owner, taken.epoch, taken.is_ours) == ("b", 2, True)
        assert not await first.renew(1, "a", 1, LONG)
        assert not await first.release(1, "a", 1)
        assert [lease and lease.owner for lease in await first.look([1])] == ["b"]

    with_leases(scenario)


@pytest.mark.parametrize("how", ["acquire", "renew"])
def test_expired_lease_that_nobody_took_is_taken_back_at_its_epoch(
    with_leases: WithLeases, how: str
) -> None:
    async def scenario(first: Leases, second: Leases, client: RedisClient, prefix: str) -> None:
        await first.acquire(1, "a", 0, SOON)
        await expired(first, 1)

        if how == "renew":
            assert await first.renew(1, "a", 1, LONG)
        else:
            assert (await first.acquire(1, "a", 1, LONG)).epoch == 1

        assert (await second.acquire(1, "b", 0, LONG)).owner == "a"

    with_leases(scenario)


def test_own_lease_gets_a_new_epoch_when_a_higher_one_is_known(with_leases: WithLeases) -> None:
    async def scenario(first: Leases, second: Leases, client: RedisClient, prefix: str) -> None:
        await first.acquire(1, "a", 0, LONG)

        assert (await first.acquire(1, "a", 1, LONG)).epoch == 1
        assert (await first.acquire(1, "a", 5, LONG)).epoch == 6
        assert not await first.renew(1, "a", 1, LONG)

    with_leases(scenario)


def test_released_lease_is_free_at_once_and_its_epoch_is_spent(with_leases: WithLeases) -> None:
    async def scenario(first: Leases, second: Leases, client: RedisClient, prefix: str) -> None:
        await first.acquire(1, "a", 0, LONG)

        assert await first.release(1, "a", 1)
        assert not await first.release(1, "a", 1)
        (free,) = await second.look([1])
        taken = await second.acquire(1, "b", 0, LONG)

        assert free is not None
        assert (free.owner, free.remaining_seconds) == ("", 0)
        assert (taken.epoch, taken.is_ours) == (2, True)

    with_leases(scenario)


def test_own_released_lease_comes_back_at_a_new_epoch(with_leases: WithLeases) -> None:
    async def scenario(first: Leases, second: Leases, client: RedisClient, prefix: str) -> None:
        await first.acquire(1, "a", 0, LONG)
        await first.release(1, "a", 1)

        assert (await first.acquire(1, "a", 0, LONG)).epoch == 2

    with_leases(scenario)


def test_epochs_never_fall_whoever_comes(with_leases: WithLeases) -> None:
    async def scenario(first: Leases, second: Leases, client: RedisClient, prefix: str) -> None:
        epochs = []
        for number in range(12):
            leases, owner = ((first, "a"), (second, "b"))[number % 2]
            lease = await leases.acquire(1, owner, number % 5, LONG)
            assert lease.is_ours
            epochs.append(lease.epoch)
            assert await leases.release(1, owner, lease.epoch)

        assert epochs == sorted(set(epochs))

    with_leases(scenario)


def test_redis_that_lost_everything_goes_on_above_the_epochs_of_the_volume(
    with_leases: WithLeases,
) -> None:
    async def scenario(first: Leases, second: Leases, client: RedisClient, prefix: str) -> None:
        await first.acquire(1, "a", 8, LONG)
        await client.call("DEL", lease_key(prefix, 1))  # FLUSHALL would harm other tests

        assert not await first.renew(1, "a", 9, LONG)
        assert await first.look([1]) == [None]
        assert (await second.acquire(1, "b", 9, LONG)).epoch == 10

    with_leases(scenario)


def test_clock_that_went_back_does_not_keep_a_dead_owners_lease(with_leases: WithLeases) -> None:
    async def scenario(first: Leases, second: Leases, client: RedisClient, prefix: str) -> None:
        await first.acquire(1, "a", 0, 1000 * LONG)  # as if taken by a clock far ahead

        refused = await second.acquire(1, "b", 0, SOON)
        assert not refused.is_ours
        await expired(second, 1)

        assert (await second.acquire(1, "b", 0, LONG)).is_ours

    with_leases(scenario)


def test_many_shards_are_done_together(with_leases: WithLeases) -> None:
    async def scenario(first: Leases, second: Leases, client: RedisClient, prefix: str) -> None:
        await second.acquire(3, "b", 0, LONG)

        leases = await first.acquire_all(dict.fromkeys(range(64), 4), "a", LONG)
        epochs = {lease.shard: lease.epoch for lease in leases}
        renewed = await first.renew_all(epochs, "a", LONG)
        looked: list[Lease | None] = await second.look(range(65))
        released = await first.release_all(epochs, "a")

        assert [lease.shard for lease in leases] == list(range(64))
        assert [lease.shard for lease in leases if not lease.is_ours] == [3]
        assert {lease.epoch for lease in leases if lease.is_ours} == {5}
        others = [shard != 3 for shard in range(64)]
        assert renewed == released == others
        assert [lease.owner if lease else None for lease in looked] == [
            *["a"] * 3, "b", *["a"] * 60, None,
        ]  # fmt: skip

    with_leases(scenario)
