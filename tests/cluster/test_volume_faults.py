"""Volumes that are held, full, of another cluster or of another version; and moved on with."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from amsync import Server, generate_document_id
from amsync.bus.redis.keys import cluster_key
from amsync.errors import VolumeBusy
from server.replicas import ReplicaClient
from support.program import run_to_end
from support.redisserver import RedisServer
from support.smalldisk import SmallDisk

from .checker import assert_calm, assert_kept, assert_survived
from .processes import ClusterProcesses, environment
from .redisview import PREFIX, RedisView
from .scenes import TRICKS, shard, typing_in_a_cluster

DISK_BYTES = 24 * 1024 * 1024
START_SECONDS = 120.0
HIDE_SECONDS = 60.0
BUSY, IMPOSSIBLE = 1, 2
"""Exit statuses: it may work later; it never will with what was asked for."""

pytestmark = pytest.mark.slow


def start(kind: str, *arguments: str) -> tuple[int, str]:
    """Exit status and last words of a process that is expected to be refused."""
    command = [sys.executable, "-m", "amsync", kind, *arguments, "--admin-port", "off"]
    done = run_to_end(command, environment=environment(), timeout=START_SECONDS)
    return done.returncode, done.stderr.strip().splitlines()[-1]


@pytest.fixture
def other_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def test_second_cluster_on_a_volume_is_refused(tmp_path: Path, other_redis: RedisServer) -> None:
    with typing_in_a_cluster(tmp_path, workers=1, documents=1) as scene:
        data = str(scene.cluster.data)

        code, said = start("worker", "--redis", other_redis.url, "--data-dir", data)

        assert code == BUSY
        assert f"{data} is held by workers of a cluster" in said
        assert "stop them or use another directory" in said
        assert_survived(scene.cluster, scene.fleet)


def test_serve_and_a_cluster_refuse_each_others_volume(
    tmp_path: Path, other_redis: RedisServer
) -> None:
    with typing_in_a_cluster(tmp_path, workers=1, documents=1) as scene:
        data = str(scene.cluster.data)
        code, said = start("serve", "--data-dir", data, "--port", "0")
        assert code == BUSY
        assert f"{data} is held by workers of a cluster" in said
        assert_survived(scene.cluster, scene.fleet)

    with Server(data_dir=tmp_path / "served"):
        served = str(tmp_path / "served")
        code, said = start("worker", "--redis", other_redis.url, "--data-dir", served)
        assert code == BUSY
        assert served in said
        with pytest.raises(VolumeBusy):
            Server(data_dir=tmp_path / "served").start()


def test_serve_and_a_cluster_go_on_with_each_others_volume(tmp_path: Path) -> None:
    """Each leaves it in good order, and clients find the same documents at the same storage id."""
    document = generate_document_id()
    data = tmp_path / "data"
    with Server(data_dir=data) as server, ReplicaClient(server.url, document) as client:
        client.put("served", 1)
        client.wait_acknowledged()
        first = client.peer["peerMetadata"]

    with ClusterProcesses(tmp_path, data=data) as cluster:
        with ReplicaClient(cluster.gateways[0].url, document) as client:
            client.wait_value({"served": 1})
            client.put("clustered", 2)
            client.wait_acknowledged()
            second = client.peer["peerMetadata"]
        for process in (*cluster.gateways, *cluster.workers):
            assert process.signal(signal.SIGTERM) == 0

    with Server(data_dir=data) as server, ReplicaClient(server.url, document) as client:
        client.wait_value({"served": 1, "clustered": 2})
        assert client.peer["peerMetadata"] == second == first


def test_process_of_another_cluster_is_refused_with_what_differs(
    tmp_path: Path, other_redis: RedisServer
) -> None:
    with ClusterProcesses(tmp_path, redis=other_redis) as cluster:
        redis = ("--redis", cluster.redis_url)
        mine = cluster.status()["cluster_id"]

        code, said = start("worker", *redis, "--data-dir", str(tmp_path / "other"))
        assert code == IMPOSSIBLE
        assert f"the cluster in this Redis has cluster_id '{mine}', but the volume" in said
        assert str(tmp_path / "other") in said

        code, said = start("worker", *redis, "--data-dir", str(cluster.data), "--shards", "32")
        assert code == IMPOSSIBLE
        assert "shard_count=32" in said
        assert "64" in said


def test_layout_of_another_version_is_refused(tmp_path: Path, other_redis: RedisServer) -> None:
    with ClusterProcesses(tmp_path, redis=other_redis) as cluster:
        cluster.workers[0].signal(signal.SIGTERM)
        record = cluster.data / ".amsync" / "cluster.json"
        fields = json.loads(record.read_text())
        record.write_text(json.dumps({**fields, "layout_version": 2}))

        data = ("--data-dir", str(cluster.data))
        code, said = start("worker", "--redis", cluster.redis_url, *data)

        assert code == BUSY
        assert "has layout_version 2; this server knows 1" in said


def test_record_of_another_layout_version_is_refused(tmp_path: Path) -> None:
    """A gateway never sees the volume; it is told by Redis."""
    with RedisServer() as redis, ClusterProcesses(tmp_path, redis=redis, gateways=0):
        with RedisView(redis.socket) as view:
            view.redis.hset(cluster_key(PREFIX), "layout_version", "2")

        code, said = start("gateway", "--redis", redis.url, "--port", "0")

        assert code == IMPOSSIBLE
        assert "layout_version 2; this amsync knows 1" in said


def test_full_disk_of_all_workers_is_reported_and_outlived(tmp_path: Path) -> None:
    with ExitStack() as stack:
        disk = stack.enter_context(SmallDisk(tmp_path / "disk", tmp_path / "disk.log", DISK_BYTES))
        scene = stack.enter_context(
            typing_in_a_cluster(
                tmp_path,
                documents=12,  # so many that each worker has some
                clients=2,
                data=tmp_path / "disk" / "data",
                prefix=disk.prefix,
            )
        )
        cluster, fleet = scene.cluster, scene.fleet
        disk.fill()
        fleet.wait_edits(10)
        fleet.wait(lambda: not any(w.is_ready() for w in cluster.workers), "they are not ready")
        states = {worker["state"] for worker in cluster.status()["workers"]}
        disk.free()
        fleet.wait_edits(10)
        fleet.converge()
        scene.print_pause("the disk of all workers full")

        assert all("No space left" in state for state in states)
        cluster.wait_ready()
        for worker in cluster.workers:
            assert worker.log().count("a commit failed") == 1
        assert fleet.losses() == []
        cluster.data = disk.root / "data"
        assert_survived(cluster, fleet)


@pytest.mark.timeout(600)
def test_what_a_killed_worker_wrote_under_fresh_names_comes_when_they_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network volume the names that another machine has made show up to a minute late."""
    monkeypatch.setenv("TRICKS", str(tmp_path))
    monkeypatch.setenv("HIDE_SECONDS", str(HIDE_SECONDS))
    documents = [generate_document_id() for _ in range(24)]  # some of them will move
    with ClusterProcesses(tmp_path, worker_program=TRICKS) as cluster:
        (gateway,), (first,) = cluster.gateways, cluster.workers
        for document in documents:
            with ReplicaClient(gateway.url, document) as client:
                client.put("early", 1)
                client.wait_acknowledged()
        time.sleep(HIDE_SECONDS)
        second = cluster.add_worker()
        cluster.wait_ready(START_SECONDS)
        moved = next(d for d in documents if cluster.worker_of(shard(d)) is second)
        with ReplicaClient(gateway.url, moved) as client:
            # What the first wrote into folders a moment ago may not show to the second either.
            client.put("late", 2)
            client.wait_acknowledged()
            heads = set(client.replica.heads())
        second.kill9()

        with ReplicaClient(gateway.url, moved) as client:
            client.wait_value({"early": 1})
            client.wait_value({"early": 1, "late": 2}, 3 * HIDE_SECONDS)

        assert first.event_count("documents_found_late") >= 1
        assert_calm(cluster)
        for process in cluster.living():
            process.kill9()
        assert_kept(cluster.data, {moved: heads})
