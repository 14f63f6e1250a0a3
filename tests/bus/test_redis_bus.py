"""What the bus over Redis does beyond the contract: what Redis keeps, and lost connections."""

import asyncio
import itertools
from functools import partial

import pytest
from redis.crc import key_slot

from amsync.bus import access_stream, gateway_stream, shard_stream
from amsync.bus.port import START, Position, Reader
from amsync.bus.redis import Cluster, Leases, RedisBus
from amsync.bus.redis.bus import GATEWAY_STREAM_MS
from amsync.bus.redis.keys import size_key
from amsync.errors import BusError, BusFull, ConfigError, StaleLease
from support.redisserver import RedisServer

from . import buses
from .buses import EVERYTHING, read

BOUND = 1000
prefixes = (f"bus{number}" for number in itertools.count())


opened = partial(buses.opened, stream_bytes=BOUND)


def test_shard_stream_stays_and_gateway_stream_ends(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            shard, gateway = shard_stream(prefix, 1), gateway_stream(prefix, "g")
            for stream in (shard, gateway):
                await bus.append(stream, b"x")

            for key in (shard, size_key(shard)):
                assert await bus.client.call("PTTL", key) == -1
            for key in (gateway, size_key(gateway)):
                assert 0 < await bus.client.call("PTTL", key) <= GATEWAY_STREAM_MS

            await bus.client.call("PEXPIRE", gateway, 1000)
            await bus.append(gateway, b"y")
            assert await bus.client.call("PTTL", gateway) > 1000

    asyncio.run(main())


def test_deleted_shard_stream_stays_once_it_is_used_again(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            stream = shard_stream(prefix, 1)
            await bus.append(stream, b"x" * BOUND)
            await bus.delete(stream)
            for key in (stream, size_key(stream)):
                assert await bus.client.call("PTTL", key) > 0

            await bus.append(stream, b"y" * BOUND)
            for key in (stream, size_key(stream)):
                assert await bus.client.call("PTTL", key) == -1
            with pytest.raises(BusFull):
                await bus.append(stream, b"z")

    asyncio.run(main())


def test_every_key_of_a_shard_is_in_one_slot(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            stream = shard_stream(prefix, 7)
            await bus.append(stream, b"x")
            await Leases(bus.client, prefix).acquire(7, "a", 0, 60)

            keys = await bus.client.call("KEYS", f"*{prefix}:s7*")

            assert len(keys) == 3
            assert len({key_slot(key) for key in keys}) == 1

    asyncio.run(main())


def test_bound_is_kept_over_any_appends_and_trims(redis_server: RedisServer) -> None:
    """The bytes that Redis counts are those of the entries that are there."""

    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            stream = shard_stream(prefix, 1)
            held: list[tuple[Position, int]] = []
            for number in range(300):
                size = (number * 7919) % 331
                fits = not held or sum(bytes_ for _, bytes_ in held) + size <= BOUND
                try:
                    held.append((await bus.append(stream, bytes(size)), size))
                    assert fits
                except BusFull:
                    assert not fits
                if number % 5 == 4 and held:
                    count = 1 + number % len(held)
                    await bus.trim(stream, held[count - 1][0])
                    held = held[count:]

    asyncio.run(main())


def test_lost_size_key_frees_and_blocks_nothing(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            stream = shard_stream(prefix, 1)
            first = await bus.append(stream, b"x" * (BOUND - 10))
            await bus.trim(stream, first)
            second = await bus.append(stream, b"y" * (BOUND - 10))
            await bus.client.call("DEL", size_key(stream))

            with pytest.raises(BusFull):
                await bus.append(stream, b"z" * 11)
            await bus.trim(stream, second)
            await bus.append(stream, b"z" * BOUND)
            with pytest.raises(BusFull):
                await bus.append(stream, b"z")

    asyncio.run(main())


def test_lost_stream_whose_size_key_stayed_takes_entries(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            stream = shard_stream(prefix, 1)
            await bus.append(stream, b"x" * BOUND)
            await bus.client.call("DEL", stream)

            await bus.append(stream, b"y" * (BOUND - 1))
            await bus.append(stream, b"z")
            with pytest.raises(BusFull):
                await bus.append(stream, b"z")

    asyncio.run(main())


def test_trim_under_a_lease_that_is_not_held_forgets_nothing(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            stream, leases = shard_stream(prefix, 1), Leases(bus.client, prefix)
            positions = [await bus.append(stream, b"%d" % number) for number in range(2)]
            old = await leases.acquire(1, "a", 0, 60)
            await bus.trim(stream, positions[0], old)
            assert await bus.client.call("XLEN", stream) == 1

            await leases.release(1, "a", old.epoch)
            with pytest.raises(StaleLease):
                await bus.trim(stream, positions[1], old)
            new = await leases.acquire(1, "a", 0, 60)
            with pytest.raises(StaleLease):
                await bus.trim(stream, positions[1], old)
            assert await bus.client.call("XLEN", stream) == 1

            await bus.trim(stream, positions[1], new)
            assert await bus.client.call("XLEN", stream) == 0

    asyncio.run(main())


def test_trim_under_an_expired_lease_forgets_nothing(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            stream, leases = shard_stream(prefix, 1), Leases(bus.client, prefix)
            position = await bus.append(stream, b"x")
            lease = await leases.acquire(1, "a", 0, 0)

            with pytest.raises(StaleLease):
                await bus.trim(stream, position, lease)

    asyncio.run(main())


def test_scripts_that_redis_forgot_are_sent_again(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            await bus.append(shard_stream(prefix, 1), b"x")
            await bus.client.call("SCRIPT", "FLUSH")

            await bus.append(shard_stream(prefix, 1), b"y")

            assert await bus.client.call("XLEN", shard_stream(prefix, 1)) == 2

    asyncio.run(main())


def test_following_takes_effect_while_the_reader_waits(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            reader = bus.reader()
            reader.follow("empty", START)
            for number in range(64):
                stream = shard_stream(prefix, number)
                await bus.append(stream, b"%d" % number)
                async with asyncio.timeout(1.5):
                    reader.follow(stream, START)
                    assert await read(reader, 1) == [b"%d" % number]

    asyncio.run(main())


def test_reader_stops_when_its_consumer_is_behind_and_goes_on(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = next(prefixes)
        async with asyncio.timeout(60):
            bus = RedisBus(
                redis_server.url, prefix=prefix, stream_bytes=EVERYTHING, ahead_bytes=10_000
            )
            await bus.open()
            stream, reader = shard_stream(prefix, 1), bus.reader()
            reader.follow(stream, START)
            sent = [b"%05d" % number + bytes(995) for number in range(1000)]
            for data in sent:
                await bus.append(stream, data)

            most = 0
            found: list[bytes] = []
            while len(found) < len(sent):
                most = max(most, reader.queued_bytes)
                found += await read_at_most(reader, 5000)

            assert found == sent
            assert most < 10_000 + 32 * 1000
            await bus.close()

    asyncio.run(main())


async def read_at_most(reader: Reader, max_bytes: int) -> list[bytes]:
    return [bytes(entry.data) for entry in await reader.read(max_bytes)]  # type: ignore[arg-type]


def test_position_that_the_stream_never_reached_skips_nothing(redis_server: RedisServer) -> None:
    """A Redis that lost entries, or its clock, numbers new ones below the old."""

    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            stream, reader = shard_stream(prefix, 1), bus.reader()
            ms, sequence = await bus.append(stream, b"1")

            reader.follow(stream, (ms + 3_600_000, sequence))
            reader.follow("missing", (ms, sequence))

            assert await read(reader, 1) == [b"1"]
            await bus.append("missing", b"2")
            assert await read(reader, 1) == [b"2"]

    asyncio.run(main())


def test_key_that_is_no_stream_harms_no_other(redis_server: RedisServer) -> None:
    """Nothing comes while it is followed; what was there is read once it isn't."""

    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            stream, foreign, reader = shard_stream(prefix, 1), f"{prefix}:foreign", bus.reader()
            await bus.client.call("SET", foreign, "text")
            with pytest.raises(BusError):
                await bus.append(foreign, b"x")
            reader.follow(foreign, START)
            reader.follow(stream, START)
            await bus.append(stream, b"1")

            reader.unfollow(foreign)

            assert await read(reader, 1) == [b"1"]

    asyncio.run(main())


def test_cluster_epoch_tells_that_redis_lost_everything() -> None:
    async def main(server: RedisServer) -> None:
        async with opened(server.url, "p") as bus:
            cluster = Cluster(bus.client, "p")
            assert bus.cluster_epoch == ""
            record = await cluster.record({"cluster_id": "c"})
            assert record is not None
            assert await bus.look_for_epoch() == record["epoch"] == bus.cluster_epoch

            async with opened(server.url, "p") as other:
                assert other.cluster_epoch == record["epoch"]

            await bus.client.call("FLUSHALL")
            assert await bus.look_for_epoch() == ""
            await cluster.record({"cluster_id": "c"})
            assert await bus.look_for_epoch() not in ("", record["epoch"])

    with RedisServer() as server:
        asyncio.run(main(server))


def test_reader_begins_again_when_the_cluster_epoch_is_another() -> None:
    """An entry after the loss may have the position of one before it."""

    async def main(server: RedisServer) -> None:
        async with opened(server.url, "p") as bus:
            await Cluster(bus.client, "p").record({})
            await bus.look_for_epoch()
            reader = bus.reader()
            reader.follow("s", START)
            await bus.client.call("XADD", "s", "7-7", "d", "1", "b", "1")
            assert await read(reader, 1) == [b"1"]

            await bus.client.call("FLUSHALL")
            await bus.client.call("XADD", "s", "7-7", "d", "2", "b", "1")
            await bus.look_for_epoch()

            assert await read(reader, 1) == [b"2"]

    with RedisServer() as server:
        asyncio.run(main(server))


def test_reader_begins_again_after_a_lost_connection(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            stream, reader = shard_stream(prefix, 1), bus.reader()
            reader.follow(stream, START)
            await bus.append(stream, b"1")
            assert await read(reader, 1) == [b"1"]

            await bus.client.call("CLIENT", "KILL", "ID", reader.client_ids[0])
            await bus.append(stream, b"2")

            found: list[bytes] = []
            while found[-2:] != [b"1", b"2"]:
                found += await read(reader, 1)
            assert found in ([b"1", b"2"], [b"2", b"1", b"2"])

    asyncio.run(main())


def test_bus_tells_when_redis_goes_and_comes() -> None:
    async def main(server: RedisServer) -> None:
        async with opened(server.url, "p") as bus:
            seen: asyncio.Queue[bool] = asyncio.Queue()
            bus.on_change = lambda: seen.put_nowait(bus.is_connected)
            assert bus.is_connected

            server.kill9()
            assert not await seen.get()
            with pytest.raises(BusError):
                await bus.append("s", b"x")
            server.start()
            assert await seen.get()

            await bus.append("s", b"x")

    with RedisServer() as server:
        asyncio.run(main(server))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1",
        "127.0.0.1:6379",
        "redis://127.0.0.1:port",
        "rediss://127.0.0.1?ssl_ca_certs=/missing",
        "redis+sentinel://127.0.0.1:26379",
        "redis+sentinel:///master",
    ],
)
def test_url_of_another_form_is_refused_and_not_repeated(url: str) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match="Redis URL") as caught:
            RedisBus(url.replace("//", "//:secret@", 1))
        assert "secret" not in str(caught.value)

    asyncio.run(main())


def test_redis_that_is_full_can_be_emptied() -> None:
    """Who frees memory needs a lease, and has to answer before the next batch."""

    async def main(server: RedisServer) -> None:
        async with opened(server.url, "full", stream_bytes=EVERYTHING) as bus:
            shard, gateway = shard_stream("full", 1), gateway_stream("full", "g")
            leases, cluster = Leases(bus.client, "full"), Cluster(bus.client, "full")
            mine = await leases.acquire(1, "a", 0, 600)
            await bus.client.call("CONFIG", "SET", "maxmemory", "8mb")
            positions: list[Position] = []

            async def fill() -> None:
                while True:
                    positions.append(await bus.append(shard, b"x" * 60_000))

            with pytest.raises(BusError, match="OOM"):
                await fill()

            assert (await cluster.beat("worker", "a", b"")).was_known is False
            assert await leases.renew(1, "a", mine.epoch, 600)
            assert (await leases.acquire(2, "a", 0, 600)).is_ours
            await bus.append(gateway, b"an answer")
            await bus.client.call("CONFIG", "SET", "maxmemory", "1mb")  # however small an entry is
            with pytest.raises(BusError, match="OOM"):
                await bus.append(shard, b"x")
            await bus.append(gateway, b"an answer")
            await bus.append(access_stream("full"), b"an order")
            await bus.client.call("CONFIG", "SET", "maxmemory", "8mb")
            await bus.trim(shard, positions[-1], mine)
            await bus.append(shard, b"y")
            assert await leases.release(1, "a", mine.epoch)

    with RedisServer("--maxmemory-policy", "noeviction") as server:
        asyncio.run(main(server))
