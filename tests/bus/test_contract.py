"""What every bus guarantees: B1 to B5 of amsync.bus.port, over all implementations."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from amsync.bus import Bus, MemoryBus, Parcel, Position, Reader, gateway_stream, shard_stream
from amsync.bus.port import START
from amsync.bus.redis import RedisBus
from amsync.errors import BusError, BusFull
from support.redisserver import RedisServer

BOUND = 1000
EVERYTHING = 1 << 30
SECONDS = 20.0

OpenBus = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Bus]]


@asynccontextmanager
async def memory_bus(_: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    bus = MemoryBus(stream_bytes=BOUND)
    yield bus
    await bus.close()


@asynccontextmanager
async def packing_memory_bus(_: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    bus = MemoryBus(stream_bytes=BOUND, packs=True)
    yield bus
    await bus.close()


databases = itertools.cycle(range(64))


@asynccontextmanager
async def redis_bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    server: RedisServer = request.getfixturevalue("redis_server")
    bus = RedisBus(f"{server.url}?db={next(databases)}", stream_bytes=BOUND)
    await bus.open()
    await bus.client.call("FLUSHDB")
    await bus.client.call("HSET", "{amsync}:cluster", "epoch", "0123456789abcdef")
    await bus.look_for_epoch()
    yield bus
    await bus.close()


IMPLEMENTATIONS: list[OpenBus] = [memory_bus, packing_memory_bus, redis_bus]


class Letter:
    """A parcel."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.size_bytes = len(text)

    def pack(self) -> bytes:
        return self.text


def opened(data: bytes | Parcel) -> bytes:
    return data if isinstance(data, bytes) else data.pack()


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda open_bus: open_bus.__name__)
def with_bus(request: pytest.FixtureRequest) -> Callable[[Callable[[Bus], Awaitable[None]]], None]:
    """Run a scenario on a fresh bus whose streams hold BOUND bytes."""
    open_bus: OpenBus = request.param

    def run(scenario: Callable[[Bus], Awaitable[None]]) -> None:
        async def main() -> None:
            async with asyncio.timeout(60), open_bus(request) as bus:
                await scenario(bus)

        asyncio.run(main())

    return run


WithBus = Callable[[Callable[[Bus], Awaitable[None]]], None]


async def read(reader: Reader, count: int) -> list[bytes]:
    """Read until there are so many entries."""
    found: list[bytes] = []
    async with asyncio.timeout(SECONDS):
        while len(found) < count:
            found += [opened(entry.data) for entry in await reader.read(EVERYTHING)]
    return found


async def is_quiet(reader: Reader) -> bool:
    """Nothing can be read now."""
    try:
        async with asyncio.timeout(0.05):
            await reader.read(EVERYTHING)
    except TimeoutError:
        return True
    return False


async def fill(bus: Bus, stream: str, *items: bytes) -> list[Position]:
    return [await bus.append(stream, item) for item in items]


def test_entries_come_in_order_each_once(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        reader = bus.reader()
        reader.follow("s", START)
        sent = [b"%d" % number for number in range(50)]

        positions = await fill(bus, "s", *sent)

        assert await read(reader, 50) == sent
        assert positions == sorted(set(positions))
        assert positions[0] > START
        assert await is_quiet(reader)

    with_bus(scenario)


def test_entry_tells_where_it_stands(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        (position,) = await fill(bus, "s", b"x")
        reader = bus.reader()
        reader.follow("s", START)

        (entry,) = await reader.read(EVERYTHING)

        assert (entry.stream, entry.position, entry.data) == ("s", position, b"x")

    with_bus(scenario)


def test_each_reader_reads_everything(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        early, late = bus.reader(), bus.reader()
        early.follow("s", START)
        await fill(bus, "s", b"1", b"2")
        late.follow("s", START)

        assert await read(early, 2) == [b"1", b"2"]
        assert await read(late, 2) == [b"1", b"2"]

    with_bus(scenario)


def test_reader_starts_behind_the_position_it_names(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        positions = await fill(bus, "s", b"1", b"2", b"3")
        for number, position in enumerate([START, *positions[:2]]):
            reader = bus.reader()
            reader.follow("s", position)
            assert await read(reader, 3 - number) == [b"1", b"2", b"3"][number:]

        reader = bus.reader()
        reader.follow("s", positions[-1])
        assert await is_quiet(reader)

    with_bus(scenario)


def test_following_again_rewinds(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        reader = bus.reader()
        reader.follow("s", START)
        positions = await fill(bus, "s", b"1", b"2", b"3")
        assert await read(reader, 3) == [b"1", b"2", b"3"]

        reader.follow("s", positions[0])
        assert await read(reader, 2) == [b"2", b"3"]

        await fill(bus, "s", b"4")
        reader.follow("s", positions[1])  # before 4 was read: it must not come twice
        assert await read(reader, 2) == [b"3", b"4"]
        assert await is_quiet(reader)

    with_bus(scenario)


def test_following_again_can_skip(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        reader = bus.reader()
        reader.follow("s", START)
        positions = await fill(bus, "s", b"1", b"2", b"3")

        reader.follow("s", positions[1])

        assert await read(reader, 1) == [b"3"]
        assert await is_quiet(reader)

    with_bus(scenario)


def test_trimmed_entries_are_gone_and_the_others_stay(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        positions = await fill(bus, "s", b"1", b"2", b"3")

        await bus.trim("s", positions[1])

        reader = bus.reader()
        reader.follow("s", START)
        assert await read(reader, 1) == [b"3"]
        assert await is_quiet(reader)

    with_bus(scenario)


def test_positions_grow_on_after_everything_was_trimmed(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        reader = bus.reader()
        reader.follow("s", START)
        (first,) = await fill(bus, "s", b"1")
        assert await read(reader, 1) == [b"1"]
        await bus.trim("s", first)

        (second,) = await fill(bus, "s", b"2")

        assert second > first
        assert await read(reader, 1) == [b"2"]

    with_bus(scenario)


def test_trimming_twice_or_the_unknown_is_harmless(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        await bus.trim("unknown", (5, 5))
        positions = await fill(bus, "s", b"1", b"2")
        await bus.trim("s", positions[0])
        await bus.trim("s", positions[0])
        await bus.trim("s", START)

        reader = bus.reader()
        reader.follow("s", START)
        assert await read(reader, 1) == [b"2"]

    with_bus(scenario)


def test_full_stream_refuses_at_once_and_takes_nothing(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        positions = await fill(bus, "s", b"x" * (BOUND - 100))
        async with asyncio.timeout(SECONDS):
            with pytest.raises(BusFull):
                await bus.append("s", b"y" * 101)

        await fill(bus, "s", b"z" * 50)
        await fill(bus, "other", b"y" * 101)
        await bus.trim("s", positions[0])
        await fill(bus, "s", b"y" * 101)

        reader = bus.reader()
        reader.follow("s", START)
        assert await read(reader, 2) == [b"z" * 50, b"y" * 101]

    with_bus(scenario)


def test_empty_stream_takes_one_entry_of_any_size(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        large = b"x" * (10 * BOUND)
        (position,) = await fill(bus, "s", large)
        with pytest.raises(BusFull):
            await bus.append("s", b"y")

        reader = bus.reader()
        reader.follow("s", START)
        assert await read(reader, 1) == [large]

        await bus.trim("s", position)
        await fill(bus, "s", large)

    with_bus(scenario)


def test_read_stops_before_its_bound_but_for_one_large_entry(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        await fill(bus, "s", b"a" * 40, b"b" * 40, b"c" * 40, b"d" * 200, b"e")
        reader = bus.reader()
        reader.follow("s", START)

        sizes = []
        while sum(map(sum, sizes)) < 321:
            sizes.append([len(entry.data) for entry in await reader.read(100)])

        assert sizes == [[40, 40], [40], [200], [1]]

    with_bus(scenario)


def test_read_waits_for_an_entry(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        reader = bus.reader()
        reader.follow("s", START)
        waiting = asyncio.ensure_future(reader.read(EVERYTHING))
        await asyncio.sleep(0)
        assert not waiting.done()

        await fill(bus, "s", b"1")

        assert [entry.data for entry in await asyncio.wait_for(waiting, SECONDS)] == [b"1"]

    with_bus(scenario)


def test_cancelled_read_loses_nothing(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        reader = bus.reader()
        reader.follow("s", START)
        waiting = asyncio.ensure_future(reader.read(EVERYTHING))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

        await fill(bus, "s", b"1")

        assert await read(reader, 1) == [b"1"]

    with_bus(scenario)


def test_reader_follows_several_streams_each_in_order(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        reader = bus.reader()
        await fill(bus, "a", b"a1", b"a2")
        reader.follow("a", START)
        reader.follow("b", START)
        await fill(bus, "b", b"b1")
        await fill(bus, "a", b"a3")
        await fill(bus, "b", b"b2")

        found = await read(reader, 5)

        assert [data for data in found if data[:1] == b"a"] == [b"a1", b"a2", b"a3"]
        assert [data for data in found if data[:1] == b"b"] == [b"b1", b"b2"]

    with_bus(scenario)


def test_following_wakes_a_read_that_waits(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        await fill(bus, "s", b"1")
        reader = bus.reader()
        reader.follow("empty", START)
        waiting = asyncio.ensure_future(reader.read(EVERYTHING))
        await asyncio.sleep(0)

        reader.follow("s", START)

        assert [entry.data for entry in await asyncio.wait_for(waiting, SECONDS)] == [b"1"]

    with_bus(scenario)


def test_unfollowed_stream_is_not_read_and_can_be_followed_again(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        reader = bus.reader()
        reader.follow("a", START)
        reader.follow("b", START)
        await fill(bus, "a", b"a1")
        (position,) = await fill(bus, "b", b"b1")
        reader.unfollow("a")
        reader.unfollow("a")
        reader.unfollow("unknown")
        await fill(bus, "a", b"a2")

        assert await read(reader, 1) == [b"b1"]
        assert await is_quiet(reader)

        reader.follow("a", START)
        assert await read(reader, 2) == [b"a1", b"a2"]
        reader.follow("b", position)
        assert await is_quiet(reader)

    with_bus(scenario)


def test_deleted_stream_starts_empty_and_its_readers_go_on(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        reader = bus.reader()
        reader.follow("s", START)
        (first,) = await fill(bus, "s", b"1" * BOUND)
        assert await read(reader, 1) == [b"1" * BOUND]

        await bus.delete("s")
        await bus.delete("unknown")
        (second,) = await fill(bus, "s", b"2")

        assert second > first
        assert await read(reader, 1) == [b"2"]
        late = bus.reader()
        late.follow("s", START)
        assert await read(late, 1) == [b"2"]

    with_bus(scenario)


def test_close_wakes_every_reader_with_an_error(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        readers = [bus.reader() for _ in range(3)]
        for reader in readers[:2]:
            reader.follow("s", START)
        waiting = [asyncio.ensure_future(reader.read(EVERYTHING)) for reader in readers]
        await asyncio.sleep(0)

        await bus.close()

        async with asyncio.timeout(SECONDS):
            results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [BusError] * 3

    with_bus(scenario)


def test_closed_bus_takes_and_gives_nothing(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        reader = bus.reader()
        reader.follow("s", START)
        await fill(bus, "s", b"1")
        await bus.close()
        await bus.close()

        with pytest.raises(BusError):
            await bus.append("s", b"2")
        with pytest.raises(BusError):
            await reader.read(EVERYTHING)

    with_bus(scenario)


def test_cluster_epoch_is_the_same_while_nothing_is_lost(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        before = bus.cluster_epoch
        await fill(bus, "s", b"1")
        await bus.delete("s")

        assert bus.cluster_epoch == before
        assert len(before) >= 16

    with_bus(scenario)


def test_two_memory_buses_are_two_clusters() -> None:
    assert MemoryBus().cluster_epoch != MemoryBus().cluster_epoch


def test_stream_names_hold_their_slot_together() -> None:
    assert shard_stream("amsync", 17) == "{amsync:s17}:in"
    assert gateway_stream("amsync", "abc") == "{amsync:gabc}:out"


def test_parcels_are_read_with_their_content(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        reader = bus.reader()
        reader.follow("s", START)

        await bus.append("s", Letter(b"one"))
        await bus.append("s", b"two")

        assert await read(reader, 2) == [b"one", b"two"]

    with_bus(scenario)


def test_parcels_count_with_their_size(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        position = await bus.append("s", Letter(bytes(BOUND // 2)))
        await bus.append("s", Letter(bytes(BOUND // 2)))
        with pytest.raises(BusFull):
            await bus.append("s", Letter(b"x"))

        await bus.trim("s", position)

        await bus.append("s", Letter(b"x"))

    with_bus(scenario)


def test_who_takes_is_told_when_there_is_something(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        reader, ready = bus.reader(), asyncio.Event()
        reader.on_ready = ready.set
        reader.follow("s", START)
        assert not reader.take(EVERYTHING)
        assert not reader.has_entries

        await bus.append("s", b"1")
        await bus.append("s", b"22")
        async with asyncio.timeout(SECONDS):
            await ready.wait()
            taken: list[bytes] = []
            while len(taken) < 2:
                taken += [opened(entry.data) for entry in reader.take(1)]
                await asyncio.sleep(0)

        assert taken == [b"1", b"22"]
        assert not reader.has_entries

    with_bus(scenario)


def test_who_takes_is_told_of_the_end(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        reader, ready = bus.reader(), asyncio.Event()
        reader.on_ready = ready.set

        await bus.close()

        assert ready.is_set()
        with pytest.raises(BusError):
            reader.take(EVERYTHING)

    with_bus(scenario)


def test_what_is_held_and_what_is_unread_is_told_in_bytes(with_bus: WithBus) -> None:
    async def scenario(bus: Bus) -> None:
        reader = bus.reader()
        reader.follow("{p:s1}:in", START)
        assert (await bus.held_bytes(["{p:s1}:in", "{p:s2}:in"]), bus.unread_bytes) == (0, 0)
        assert reader.oldest is None

        first, _ = await fill(bus, "{p:s1}:in", b"x" * 100, b"y" * 20)
        await fill(bus, "{p:s2}:in", b"z" * 3)
        await until(lambda: bus.unread_bytes == 120)

        oldest = reader.oldest
        assert oldest is not None
        assert opened(oldest.data) == b"x" * 100
        assert await bus.held_bytes(["{p:s1}:in", "{p:s2}:in", "{p:s3}:in"]) == 123
        assert await bus.held_bytes(["{p:s2}:in"]) == 3
        assert await bus.held_bytes([]) == 0

        assert len(await read(reader, 2)) == 2
        await bus.trim("{p:s1}:in", first)
        assert bus.unread_bytes == 0
        assert reader.oldest is None
        assert await bus.held_bytes(["{p:s1}:in"]) == 20

    with_bus(scenario)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.001)
