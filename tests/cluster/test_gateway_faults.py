"""Gateways that are killed, stopped, or lose an entry: one reconnect, or none."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.redisserver import RedisServer, free_port

from .checker import assert_survived
from .proxy import Proxy
from .redisview import RedisView, inbound, stream_of
from .scenes import Scene, typing_in_a_cluster

EDITS = 30
BEYOND_LIVENESS_SECONDS = 15.0
"""Longer than workers wait for a gateway's word before they forget it and its connections."""


def assert_one_loss_each(scene: Scene, url: str) -> None:
    """Clients of that gateway have lost one socket, all others none."""
    for client in scene.fleet.clients:
        assert len(client.losses) <= 1, client.losses
        assert all(loss.url == url for loss in client.losses)


def test_gateway_killed_costs_its_clients_one_reconnect(tmp_path: Path) -> None:
    with typing_in_a_cluster(tmp_path, documents=2, clients=2) as scene:
        victim = scene.cluster.gateways[0]
        victim.kill9()
        scene.fleet.wait_edits(EDITS)
        scene.fleet.converge()
        scene.print_pause("kill -9 of a gateway")

        assert len(scene.fleet.losses()) == len(scene.fleet.clients) / 2
        assert_one_loss_each(scene, victim.url)
        assert_survived(scene.cluster, scene.fleet)


@pytest.mark.slow
def test_gateway_and_worker_killed_together(tmp_path: Path) -> None:
    with typing_in_a_cluster(tmp_path) as scene:
        victim, worker = scene.cluster.gateways[0], scene.owner()
        worker.kill9()
        victim.kill9()
        scene.fleet.wait_edits(EDITS)
        scene.fleet.converge()
        scene.print_pause("kill -9 of a gateway and a worker")

        assert_one_loss_each(scene, victim.url)
        assert_survived(scene.cluster, scene.fleet)


@pytest.mark.slow
def test_all_gateways_and_workers_killed_together(tmp_path: Path) -> None:
    with typing_in_a_cluster(tmp_path) as scene:
        ports = [int(gateway.url.rpartition(":")[2]) for gateway in scene.cluster.gateways]
        for process in scene.cluster.living():
            process.kill9()
        scene.cluster.add_worker()
        for port in ports:
            scene.cluster.add_gateway(port=port)
        scene.fleet.wait_edits(EDITS)
        scene.fleet.converge()
        scene.print_pause("kill -9 of everything, until it was started again")

        assert all(len(client.losses) == 1 for client in scene.fleet.clients)
        assert_survived(scene.cluster, scene.fleet)


@pytest.mark.slow
def test_gateway_stopped_beyond_its_liveness_begins_anew_with_its_clients(tmp_path: Path) -> None:
    """The workers have forgotten its connections; its clients don't notice but for the pause."""
    with typing_in_a_cluster(tmp_path) as scene:
        stopped = scene.cluster.gateways[0]
        stopped.process.send_signal(signal.SIGSTOP)
        time.sleep(BEYOND_LIVENESS_SECONDS)
        stopped.process.send_signal(signal.SIGCONT)
        scene.fleet.wait_edits(EDITS)
        scene.fleet.converge()
        scene.print_pause(f"a gateway stopped for {BEYOND_LIVENESS_SECONDS:.0f} s")

        assert stopped.event_count("begun_again") == 1
        assert scene.fleet.losses() == []
        assert_survived(scene.cluster, scene.fleet)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer(port=free_port()) as server:
        yield server


@pytest.mark.slow
def test_lost_last_entry_for_a_gateway_is_noticed_without_another(
    tmp_path: Path, redis: RedisServer
) -> None:
    """Nobody edits any more, and what was lost is delivered all the same."""
    with (
        Proxy(redis.port) as proxy,
        RedisView(redis.socket) as view,
        typing_in_a_cluster(tmp_path, redis=redis, documents=1, clients=1, gateways=1) as scene,
    ):
        fleet, (writer,) = scene.fleet, scene.fleet.clients
        loser = scene.cluster.add_gateway("--redis", proxy.url)
        fleet.add([loser.url], scene.documents[0], 2)
        fleet.wait_loaded()
        fleet.converge()
        fleet.wait_quiet()
        stream = stream_of(scene.cluster, loser)

        proxy.cut()
        before = view.ids(stream)
        fleet.edit_once(writer)
        fleet.wait(lambda: writer.is_acknowledged, "the edit is saved")
        lost = view.lose(stream, before)
        proxy.mend()
        fleet.converge()

        assert lost
        assert loser.event_count("gaps") >= 1
        assert fleet.losses() == []
        assert_survived(scene.cluster, fleet)


@pytest.mark.slow
def test_lost_announcement_of_a_new_owner_is_made_again(tmp_path: Path, redis: RedisServer) -> None:
    with (
        Proxy(redis.port) as proxy,
        RedisView(redis.socket) as view,
        typing_in_a_cluster(tmp_path, redis=redis, documents=1, clients=1, gateways=1) as scene,
    ):
        fleet = scene.fleet
        loser = scene.cluster.add_gateway("--redis", proxy.url)
        fleet.add([loser.url], scene.documents[0], 2)
        fleet.wait_loaded()
        fleet.start_typing(0.1)
        stream = stream_of(scene.cluster, loser)

        proxy.cut()
        scene.owner().kill9()
        # The clients of the other gateway are served by the new owner.
        fleet.wait_edits(EDITS, fleet.clients[:1])
        fleet.wait(lambda: fleet.clients[0].is_acknowledged, "the new owner saves")
        lost = view.lose(stream, set())
        proxy.mend()
        fleet.wait_edits(EDITS)
        fleet.converge()

        assert lost
        assert fleet.losses() == []
        assert_survived(scene.cluster, fleet)


@pytest.mark.slow
def test_lost_last_entry_of_a_gateway_is_noticed_without_another(
    tmp_path: Path, redis: RedisServer
) -> None:
    """Nobody edits any more, and what was lost is asked for again, and saved."""
    with (
        Proxy(redis.port) as proxy,
        RedisView(redis.socket) as view,
        typing_in_a_cluster(
            tmp_path,
            redis=redis,
            documents=1,
            clients=2,
            workers=1,
            worker_options=("--redis", proxy.url),
        ) as scene,
    ):
        fleet, stream = scene.fleet, inbound(scene.shard())
        (owner,) = scene.cluster.workers
        fleet.converge()
        fleet.wait_quiet()

        proxy.cut()
        before = view.ids(stream)
        fleet.edit_once(fleet.clients[0])
        fleet.wait(lambda: view.ids(stream) > before, "the edit is on its way")
        lost = view.lose(stream, before)
        proxy.mend()
        fleet.converge()

        assert lost
        assert owner.event_count("gaps") >= 1
        assert fleet.losses() == []
        assert_survived(scene.cluster, fleet)
