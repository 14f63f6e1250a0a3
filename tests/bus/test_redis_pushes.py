"""Entries that are pushed to readers: none is skipped or repeated, whatever becomes of a push."""

import asyncio
import itertools
import logging

import pytest

from amsync.bus import shard_stream
from amsync.bus.port import START
from amsync.bus.redis import RedisBus
from amsync.bus.redis.keys import channel_suffix, size_key
from amsync.bus.redis.reader import RedisReader
from support.redisserver import RedisServer

from .buses import opened, read

prefixes = (f"pushes{number}" for number in itertools.count())


async def follow_live(bus: RedisBus, stream: str) -> RedisReader:
    """A reader to which the stream is pushed."""
    reader = bus.reader()
    reader.follow(stream, START)
    channel = stream + channel_suffix(bus.client.database)
    while await bus.client.call("PUBSUB", "NUMSUB", channel) != [channel.encode(), 1]:
        await asyncio.sleep(0.01)
    await bus.append(stream, b"first")
    assert await read(reader, 1) == [b"first"]
    return reader


async def calls_of_xread(bus: RedisBus) -> int:
    stats = (await bus.client.call("INFO", "commandstats")).decode()
    _, _, rest = stats.partition("cmdstat_xread:calls=")
    return int(rest.partition(",")[0] or 0)


def test_what_is_pushed_is_not_read_as_well() -> None:
    async def main(server: RedisServer) -> None:
        async with opened(server.url, "p") as bus:
            stream = shard_stream("p", 1)
            reader = await follow_live(bus, stream)
            sent = [b"%d" % number for number in range(300)]
            before = await calls_of_xread(bus)

            for data in sent:
                await bus.append(stream, data)

            assert await read(reader, len(sent)) == sent
            # Each check, every two seconds, is one; however slow this machine is.
            assert await calls_of_xread(bus) - before < 100

    with RedisServer() as server:
        asyncio.run(main(server))


def test_entry_too_large_to_push_comes_in_its_place(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            stream = shard_stream(prefix, 1)
            reader = await follow_live(bus, stream)
            sent = [b"x" * size for size in (1, 65_536, 65_537, 2, 1_000_000, 0, 3)]

            await asyncio.gather(*(bus.append(stream, data) for data in sent))

            assert await read(reader, len(sent)) == sent

    asyncio.run(main())


def test_push_that_was_lost_is_seen_by_the_next(redis_server: RedisServer) -> None:
    """Redis does not lose pushes of a connection that it keeps; that is not relied on."""

    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            stream = shard_stream(prefix, 1)
            reader = await follow_live(bus, stream)
            added = await bus.client.call("HINCRBY", size_key(stream), "added", 4)
            await bus.client.call("XADD", stream, "*", "d", "lost", "b", added)

            await bus.append(stream, b"next")

            assert await read(reader, 2) == [b"lost", b"next"]

    asyncio.run(main())


def test_last_push_that_was_lost_is_found_by_the_check(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            stream = shard_stream(prefix, 1)
            reader = await follow_live(bus, stream)

            await bus.client.call("XADD", stream, "*", "d", "lost", "b", 9)

            assert await read(reader, 1) == [b"lost"]

    asyncio.run(main())


def test_nothing_is_skipped_or_repeated_when_the_pushing_connection_is_lost(
    redis_server: RedisServer,
) -> None:
    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            stream = shard_stream(prefix, 1)
            reader = await follow_live(bus, stream)
            sent = [b"%d" % number for number in range(600)]
            for number, data in enumerate(sent):
                if number % 100 == 50:
                    await bus.client.call("CLIENT", "KILL", "ID", reader.client_ids[1])
                await bus.append(stream, data)

            assert await read(reader, len(sent)) == sent

    asyncio.run(main())


def test_connection_that_redis_cuts_for_its_pushes_costs_nothing() -> None:
    """As it does to a process that was stopped for long."""

    async def main(server: RedisServer) -> None:
        async with opened(server.url, "p") as bus:
            stream = shard_stream("p", 1)
            reader = await follow_live(bus, stream)
            await bus.client.call("CONFIG", "SET", "client-output-buffer-limit", "pubsub 16kb 0 0")
            sent = [b"%d" % number + bytes(60_000) for number in range(20)]

            for data in sent:
                await bus.append(stream, data)

            assert await read(reader, len(sent)) == sent

    with RedisServer() as server:
        asyncio.run(main(server))


def test_user_who_may_not_subscribe_reads_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    async def main(server: RedisServer) -> None:
        async with opened(server.url, "p") as bus:
            await bus.client.call("ACL", "SETUSER", "u", "on", ">p", "~*", "+@all", "resetchannels")
        async with opened(server.url.replace("unix://", "unix://u:p@"), "p") as bus:
            stream, reader = shard_stream("p", 1), bus.reader()
            reader.follow(stream, START)
            sent = [b"%d" % number for number in range(5)]
            for data in sent:
                await bus.append(stream, data)
                assert await read(reader, 1) == [data]

    with RedisServer() as server, caplog.at_level(logging.WARNING):
        asyncio.run(main(server))

    said = [record.message for record in caplog.records]
    assert said.count("Redis refuses to push; streams are read often") == 1


def test_following_anew_while_entries_come_skips_nothing(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            stream = shard_stream(prefix, 1)
            reader = await follow_live(bus, stream)
            sent = [b"%d" % number for number in range(200)]

            async def follow_often() -> None:
                for number in range(40):
                    if number % 2:
                        reader.unfollow(stream)
                    reader.follow(stream, START)
                    await asyncio.sleep(0.002)

            async with asyncio.TaskGroup() as group:
                group.create_task(follow_often())
                for data in sent:
                    await bus.append(stream, data)

            assert await read(reader, 201) == [b"first", *sent]

    asyncio.run(main())


def test_entries_that_come_while_a_stream_is_first_followed_are_all_there(
    redis_server: RedisServer,
) -> None:
    """Between reading and the subscription nothing is known of a stream to see a gap by."""

    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            reader = await follow_live(bus, shard_stream(prefix, 0))
            for number in range(1, 60):
                stream = shard_stream(prefix, number)
                appends = [bus.append(stream, b"%d" % at) for at in range(number % 4 + 1)]
                if number % 2:
                    reader.follow(stream, START)
                sent = asyncio.gather(*appends)
                await asyncio.sleep(0)
                if not number % 2:
                    reader.follow(stream, START)
                await sent

                assert await read(reader, len(appends)) == [
                    b"%d" % at for at in range(len(appends))
                ]

    asyncio.run(main())


def test_what_a_check_finds_before_its_push_is_not_repeated(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = next(prefixes)
        async with opened(redis_server.url, prefix) as bus:
            stream = shard_stream(prefix, 1)
            reader = await follow_live(bus, stream)
            sent = [b"%d" % number for number in range(400)]
            for data in sent:
                append = asyncio.ensure_future(bus.append(stream, data))
                reader.check()
                await append

            assert await read(reader, len(sent)) == sent
            assert not reader.has_entries

    asyncio.run(main())


def test_what_another_database_of_the_server_pushes_is_not_taken() -> None:
    """Redis keeps the keys of its databases apart, but not what is published."""

    async def main(server: RedisServer) -> None:
        stream = shard_stream("same", 1)
        async with (
            opened(f"{server.url}?db=0", "same") as ours,
            opened(f"{server.url}?db=1", "same") as theirs,
        ):
            for bus, other in ((ours, theirs), (theirs, ours)):
                reader = bus.reader()
                reader.follow(stream, START)
                while not reader._followed[stream.encode()].is_live:
                    await asyncio.sleep(0.01)
                await other.append(stream, b"of others")
                await bus.append(stream, b"own")
                found = []
                while b"own" not in found:
                    found += await read(reader, 1)
                assert found == [b"own"]
                reader.unfollow(stream)
                await bus.client.call("FLUSHALL")

    with RedisServer() as server:
        asyncio.run(main(server))
