"""Processes whose Redis refuses their commands, or forgets everything while they start."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from amsync.bus import shard_stream
from amsync.bus.redis import RedisClient
from amsync.bus.redis.keys import cluster_key, members_key
from amsync.cluster import record
from amsync.cluster.gateway_node import GatewayNode
from amsync.cluster.ownership import GATEWAY_DEAD_SECONDS
from amsync.cluster.worker_node import WorkerNode
from amsync.errors import BusError, StorageFull
from amsync.options import GatewayNodeOptions, WorkerNodeOptions
from amsync.protocol.envelope import HandOver, pack_inbound
from amsync.storage import SharedStore
from support.redisserver import RedisServer

from .processes import ClusterProcesses
from .redisview import RedisView

START_SECONDS = 30.0


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


async def ask(redis: RedisServer, *command: str) -> object:
    client = RedisClient(redis.url, name="test")
    client.start()
    try:
        await client.wait_connected()
        return await client.call(*command)
    finally:
        await client.close()


async def connections_made(redis: RedisServer) -> int:
    text = await ask(redis, "INFO", "stats")
    assert isinstance(text, bytes)
    (line,) = [line for line in text.splitlines() if line.startswith(b"total_connections_received")]
    return int(line.partition(b":")[2])


def with_worker(node: WorkerNode, check: Callable[[WorkerNode], Awaitable[None]]) -> None:
    async def live() -> None:
        try:
            await check(node)
        finally:
            await node.close()

    asyncio.run(live())


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(START_SECONDS):
        while not check():
            await asyncio.sleep(0.05)


async def until_ready(node: WorkerNode | GatewayNode) -> None:
    await until(lambda: not node.reasons_not_ready())


def options(redis: RedisServer, tmp_path: Path) -> WorkerNodeOptions:
    return WorkerNodeOptions(redis=redis.url, data_dir=tmp_path / "data", shard_count=4)


def test_worker_waits_for_a_redis_that_refuses_to_write(
    redis: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(node: WorkerNode) -> None:
        await ask(redis, "CONFIG", "SET", "min-replicas-to-write", "1")
        before = await connections_made(redis)
        starting = asyncio.create_task(node.start())
        await asyncio.sleep(2)

        assert not starting.done()
        assert await connections_made(redis) - before < 10
        assert sum("NOREPLICAS" in str(vars(entry)) for entry in caplog.records) == 1

        await ask(redis, "CONFIG", "SET", "min-replicas-to-write", "0")
        await starting
        await until_ready(node)

    with_worker(WorkerNode(options(redis, tmp_path)), check)


class _Emptied(WorkerNode):
    """Redis forgets everything while this worker opens the volume.

    Attributes:
        opened_with: The cluster epoch that it had found.
    """

    opened_with = ""

    async def _open_store(self, epoch: str) -> SharedStore:
        self.opened_with = epoch
        store = await super()._open_store(epoch)
        await self.bus.client.call("FLUSHALL")
        return store


class _EmptiedLater(WorkerNode):
    """Redis forgets everything just after this worker has made the record."""

    async def _start(self) -> None:
        look = self.bus.look_for_epoch

        async def look_too_late() -> str:
            await self.bus.client.call("FLUSHALL")
            return await look()

        self.bus.look_for_epoch = look_too_late  # type: ignore[method-assign]
        try:
            await super()._start()
        finally:
            self.bus.look_for_epoch = look  # type: ignore[method-assign]


@pytest.mark.parametrize("kind", [_Emptied, _EmptiedLater])
def test_record_is_there_when_redis_was_emptied_during_the_start(
    redis: RedisServer, tmp_path: Path, kind: type[WorkerNode]
) -> None:
    async def check(node: WorkerNode) -> None:
        await node.start()
        async with asyncio.timeout(START_SECONDS):
            found = await record.wait_for(node.cluster)
        await until_ready(node)

        assert found.epoch == node.bus.cluster_epoch
        assert not isinstance(node, _Emptied) or found.epoch != node.opened_with

    with_worker(kind(options(redis, tmp_path)), check)


def test_volume_learns_of_an_emptied_redis_as_soon_as_it_can_be_written(
    redis: RedisServer, tmp_path: Path
) -> None:
    async def check(node: WorkerNode) -> None:
        await node.start()
        await until_ready(node)
        assert node.store is not None
        tell, refused = node.store.set_bus_id, [StorageFull("no space left")] * 2

        def tell_later(bus_id: str) -> None:
            if refused:
                raise refused.pop()
            told.append(bus_id)
            tell(bus_id)

        told: list[str] = []
        node.store.set_bus_id = tell_later  # type: ignore[method-assign]
        await node.bus.client.call("FLUSHALL")
        await until(lambda: bool(told))

        assert told == [node.bus.cluster_epoch]

    with_worker(WorkerNode(options(redis, tmp_path)), check)


async def status_of_upgrade(port: int) -> bytes:
    """What a WebSocket upgrade is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    answer = await reader.read(12)
    writer.close()
    await writer.wait_closed()
    return answer.split()[1]


def test_gateway_lets_nobody_in_while_redis_refuses_to_write(
    redis: RedisServer, tmp_path: Path
) -> None:
    async def check(node: WorkerNode) -> None:
        gateway = GatewayNode(GatewayNodeOptions(redis=redis.url))
        try:
            await node.start()
            await gateway.start()
            await until_ready(gateway)
            assert await status_of_upgrade(gateway.port) == b"101"

            await ask(redis, "CONFIG", "SET", "min-replicas-to-write", "1")
            await until(lambda: "NOREPLICAS" in str(gateway.reasons_not_ready()))
            assert await status_of_upgrade(gateway.port) == b"503"

            await ask(redis, "CONFIG", "SET", "min-replicas-to-write", "0")
            await until_ready(gateway)
            assert await status_of_upgrade(gateway.port) == b"101"
        finally:
            await gateway.close()

    with_worker(WorkerNode(options(redis, tmp_path)), check)


def test_gateway_is_not_forgotten_before_it_is_expelled(redis: RedisServer, tmp_path: Path) -> None:
    """Else one that comes back would take our numbers, which begin at 1, for repetitions."""

    async def check(node: WorkerNode) -> None:
        await node.start()
        await until_ready(node)
        assert node._worker is not None
        assert node._ownership is not None
        shard, cluster = node._worker.shards[0], node._ownership._cluster
        entry = pack_inbound("gone", 1, time.time(), [HandOver(0, shard.epoch, 1, False)])
        await node.bus.append(shard_stream("amsync", 0), entry)
        await until(lambda: "gone" in shard.gateways())
        expel, attempts = cluster.expel, []

        async def fail(*_: str) -> None:
            attempts.append(1)
            raise BusError("not now")

        cluster.expel = fail  # type: ignore[method-assign]
        silent_since = int((time.time() - 2 * GATEWAY_DEAD_SECONDS) * 1000)
        beat = f"{silent_since} {{}}"
        await node.bus.client.call("HSET", members_key("amsync"), "gateway:gone", beat)
        await until(lambda: len(attempts) > 1)
        assert "gone" in shard.gateways()

        cluster.expel = expel  # type: ignore[method-assign]
        await until(lambda: "gone" not in shard.gateways())
        assert await node.bus.client.call("HEXISTS", members_key("amsync"), "gateway:gone") == 0

    with_worker(WorkerNode(options(redis, tmp_path)), check)


def test_processes_whose_redis_is_another_clusters_now_end_and_say_so(tmp_path: Path) -> None:
    with (
        ClusterProcesses(tmp_path) as cluster,
        RedisView(cluster.redis.socket) as view,
    ):
        strange = {"cluster_id": "strange", "epoch": "other"}
        view.redis.hset(cluster_key("amsync"), mapping=strange)

        for process in cluster.living():
            assert process.wait(START_SECONDS) == 1
            said = process.log().splitlines()[-1]
            assert said.startswith("Error: the server failed: ")
            assert "strange" in said
