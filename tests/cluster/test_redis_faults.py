"""Redis that ends, forgets, falls back, or can't be reached: nobody's socket is closed for it."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.redisserver import RedisServer, free_port

from .checker import assert_survived
from .proxy import Proxy
from .redisview import RedisView
from .scenes import Scene, typing_in_a_cluster

EDITS = 30
AWAY_SECONDS = 20.0
LONG_SECONDS = 60.0
TRY_AGAIN_LATER = 1013
LOST_BYTES = 64 * 1024

pytestmark = pytest.mark.slow


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer(persists=True, port=free_port()) as server:
        yield server


@pytest.fixture
def proxy(redis: RedisServer) -> Iterator[Proxy]:
    with Proxy(redis.port) as proxy:
        yield proxy


def assert_outlived(scene: Scene, what: str) -> None:
    """They go on typing, agree, and no socket was lost."""
    scene.fleet.wait_edits(EDITS)
    scene.fleet.converge()
    scene.print_pause(what)
    scene.cluster.wait_ready()
    assert scene.fleet.losses() == []
    assert_survived(scene.cluster, scene.fleet)


def test_redis_restarted_empty(tmp_path: Path, redis: RedisServer) -> None:
    with typing_in_a_cluster(tmp_path, redis=redis) as scene:
        before = scene.cluster.status()
        redis.kill9()
        shutil.rmtree(redis.folder / "appendonlydir")
        scene.fleet.wait_edits(5)
        redis.start()
        scene.fleet.wait_edits(EDITS)
        scene.cluster.wait_ready()

        after = scene.cluster.status()
        assert after["epoch"] != before["epoch"]
        assert (after["cluster_id"], after["storage_id"]) == (
            before["cluster_id"],
            before["storage_id"],
        )
        epochs = zip(before["shards"], after["shards"], strict=True)
        assert all(old["epoch"] < new["epoch"] for old, new in epochs)
        assert_outlived(scene, "Redis restarted empty")


def test_redis_emptied_while_it_runs(tmp_path: Path, redis: RedisServer) -> None:
    with typing_in_a_cluster(tmp_path, redis=redis) as scene:
        with RedisView(redis.socket) as view:
            view.redis.flushall()
        assert_outlived(scene, "FLUSHALL")


def test_redis_restarted_with_its_data(tmp_path: Path, redis: RedisServer) -> None:
    with typing_in_a_cluster(tmp_path, redis=redis) as scene:
        before = scene.cluster.status()["epoch"]
        redis.kill9()
        scene.fleet.wait_edits(5)
        redis.start()
        scene.fleet.wait_edits(EDITS)

        assert scene.cluster.status()["epoch"] == before
        assert_outlived(scene, "Redis restarted with its data")
        for process in scene.cluster.living():
            assert process.samples()["amsync_bus_reconnects_total"] == 1


def test_redis_restarted_without_its_last_second(tmp_path: Path, redis: RedisServer) -> None:
    """Entries that were read, entries that were not, beats and leases: the last of each is gone."""
    with typing_in_a_cluster(tmp_path, redis=redis) as scene:
        before = scene.cluster.status()["epoch"]
        redis.kill9()
        (log,) = (redis.folder / "appendonlydir").glob("*.incr.aof")
        with log.open("r+b") as file:
            file.truncate(log.stat().st_size - LOST_BYTES)
        redis.start()
        scene.fleet.wait_edits(EDITS)

        assert scene.cluster.status()["epoch"] == before
        assert_outlived(scene, f"Redis restarted without the last {LOST_BYTES // 1024} KiB")


def test_redis_falls_over_to_a_replica_that_lags(tmp_path: Path, redis: RedisServer) -> None:
    with Proxy(redis.port) as link, Proxy(redis.port) as proxy:
        replicates = ("--replicaof", "127.0.0.1", str(link.port))
        with (
            RedisServer(*replicates, persists=True, port=free_port()) as replica,
            typing_in_a_cluster(tmp_path, redis=redis, redis_url=proxy.url) as scene,
            RedisView(replica.socket) as view,
        ):
            scene.fleet.wait(view.is_in_sync, "the replica follows")
            link.stall()
            scene.fleet.wait_edits(20)
            redis.kill9()
            link.cut()
            view.redis.replicaof("NO", "ONE")
            proxy.switch(replica.port)
            assert_outlived(scene, "fail-over to a replica that lags by 20 edits of each client")


@pytest.mark.parametrize("how", ["reset", "stalled"])
def test_redis_out_of_reach_closes_no_socket(
    tmp_path: Path, redis: RedisServer, proxy: Proxy, how: str
) -> None:
    with typing_in_a_cluster(tmp_path, redis=redis, redis_url=proxy.url) as scene:
        before = scene.cluster.status()["shards"]
        if how == "reset":
            proxy.cut()
        else:
            proxy.stall()
        time.sleep(AWAY_SECONDS)
        assert scene.fleet.losses() == []
        proxy.mend()
        scene.fleet.wait_edits(EDITS)
        after = scene.cluster.status()["shards"]

        # The leases had run out, and nobody had died: each takes its own back.
        assert [s["owner"] for s in after] == [s["owner"] for s in before]
        assert sum(gateway.event_count("begun_again") for gateway in scene.cluster.gateways) == 0
        assert_outlived(scene, f"Redis out of reach for {AWAY_SECONDS:.0f} s, {how}")


def test_redis_out_of_reach_for_long_sends_clients_away_until_it_is_back(
    tmp_path: Path, redis: RedisServer, proxy: Proxy
) -> None:
    """After a minute a client is better off when its application sees that it is offline."""
    with typing_in_a_cluster(tmp_path, redis=redis, redis_url=proxy.url) as scene:
        fleet = scene.fleet
        proxy.cut()
        time.sleep(LONG_SECONDS)
        fleet.wait(lambda: all(client.losses for client in fleet.clients), "all are sent away")
        assert {loss.code for loss in fleet.losses()} == {TRY_AGAIN_LATER}
        fleet.wait(lambda: all(client.refusals for client in fleet.clients), "none is let in")

        proxy.mend()
        fleet.wait_joined()
        fleet.wait_edits(EDITS)
        fleet.converge()

        assert all(len(client.losses) == 1 for client in fleet.clients)
        assert_survived(scene.cluster, fleet)
