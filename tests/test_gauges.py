"""What lies outside of a process is looked at without waiting for it, however it hangs."""

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from amsync import gauges
from amsync.bus.redis import RedisBus
from amsync.errors import BusError
from amsync.gauges import StoreGauges, refresh_redis, refresh_streams
from amsync.metrics import Metrics
from amsync.storage.space import Space, space_of
from support.redisserver import RedisServer

SPACE = Space(1000, 400, 50, 20)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def store(root: Path) -> Any:
    findings = SimpleNamespace(count=2)
    volume = SimpleNamespace(root=root, findings=findings)
    return SimpleNamespace(volume=volume, quarantined_count=1, tail_bytes=300, waiting_bytes=30)


def value(metrics: Metrics, name: str) -> float:
    found = metrics.registry.get_sample_value(f"amsync_{name}")
    assert found is not None
    return found


def test_space_is_that_of_the_file_system(tmp_path: Path) -> None:
    space = space_of(tmp_path)

    assert 0 < space.free_bytes <= space.size_bytes
    assert 0 <= space.free_inodes <= space.inodes


def test_store_and_space_are_told(tmp_path: Path) -> None:
    metrics = Metrics("worker")

    async def main() -> None:
        looking = StoreGauges(store(tmp_path), metrics)
        await looking.refresh()
        looking.close()

    asyncio.run(main())

    names = ("quarantined_files", "volume_findings", "wal_bytes", "commit_queue_bytes")
    assert [value(metrics, name) for name in names] == [1, 2, 300, 30]
    assert value(metrics, "volume_size_bytes") > value(metrics, "volume_free_bytes") > 0


def test_volume_that_hangs_takes_one_thread_and_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer, calls = threading.Event(), []

    def hanging(_: Path) -> Space:
        calls.append(threading.current_thread())
        answer.wait(60)
        return SPACE

    monkeypatch.setattr(gauges, "space_of", hanging)
    monkeypatch.setattr(gauges, "LOOK_SECONDS", 0.01)
    metrics = Metrics("worker")

    async def main() -> None:
        looking = StoreGauges(store(tmp_path), metrics)
        for _ in range(3):
            await looking.refresh()
        assert math.isnan(value(metrics, "volume_free_bytes"))
        assert len(calls) == 1

        answer.set()
        while math.isnan(value(metrics, "volume_free_bytes")):
            await looking.refresh()
        assert value(metrics, "volume_free_bytes") == 400
        assert value(metrics, "volume_free_inodes") == 20
        looking.close()

    asyncio.run(main())


def test_volume_that_can_not_be_looked_at_is_not_a_number(tmp_path: Path) -> None:
    metrics = Metrics("worker")

    async def main() -> None:
        looking = StoreGauges(store(tmp_path / "absent"), metrics)
        await looking.refresh()
        looking.close()

    asyncio.run(main())
    assert math.isnan(value(metrics, "volume_size_bytes"))


def test_volume_that_hangs_does_not_keep_a_server_from_closing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = threading.Event()
    monkeypatch.setattr(gauges, "space_of", lambda _: answer.wait(60))
    monkeypatch.setattr(gauges, "LOOK_SECONDS", 0.01)

    async def main() -> None:
        looking = StoreGauges(store(tmp_path), Metrics("worker"))
        await looking.refresh()
        looking.close()

    asyncio.run(main())
    answer.set()


def with_redis(server: RedisServer, scenario: Callable[[RedisBus, Metrics], Any]) -> None:
    async def main() -> None:
        bus = RedisBus(server.url)
        await bus.open()
        try:
            await scenario(bus, Metrics("worker"))
        finally:
            await bus.close()

    asyncio.run(main())


def redis_gauges(metrics: Metrics) -> list[float]:
    names = ("memory_used_bytes", "memory_max_bytes", "keeps_entries")
    return [value(metrics, f"redis_{name}") for name in names]


def test_redis_says_how_full_it_is_and_whether_it_evicts(redis_server: RedisServer) -> None:
    async def scenario(bus: RedisBus, metrics: Metrics) -> None:
        await refresh_redis(bus, metrics)
        used, most, keeps = redis_gauges(metrics)
        assert used > 100_000
        assert (most, keeps) == (0, 1)

        await bus.client.call("CONFIG", "SET", "maxmemory", "100mb")
        await bus.client.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        try:
            await refresh_redis(bus, metrics)
            assert redis_gauges(metrics)[1:] == [100 * 1024 * 1024, 0]
        finally:
            await bus.client.call("CONFIG", "SET", "maxmemory", "0")
            await bus.client.call("CONFIG", "SET", "maxmemory-policy", "noeviction")

    with_redis(redis_server, scenario)


def test_redis_that_is_away_or_silent_is_not_a_number(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauges, "LOOK_SECONDS", 0.01)

    def failed(*_: object, **__: object) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_exception(BusError("away"))
        return future

    def silent(*_: object, **__: object) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    def vague(*_: object, **__: object) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_result(b"used_memory:much\r\n")
        return future

    async def scenario(bus: RedisBus, metrics: Metrics) -> None:
        for behaviour in (failed, silent, vague):
            metrics.redis_memory_used_bytes.set(1)
            monkeypatch.setattr(bus.client, "call", behaviour)
            await refresh_redis(bus, metrics)
            assert all(map(math.isnan, redis_gauges(metrics))), behaviour
        for behaviour in (failed, silent):
            metrics.stream_bytes.set(1)
            monkeypatch.setattr(bus.client, "call_many", lambda _, b=behaviour: [b()])
            await refresh_streams(bus, metrics, ["a"])
            assert math.isnan(value(metrics, "stream_bytes")), behaviour

    with_redis(redis_server, scenario)
