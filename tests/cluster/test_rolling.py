"""Processes that come and go in good order: nothing is lost, and hardly anybody notices."""

import signal
from pathlib import Path

import pytest

from support.rawvolume import RawVolume

from .checker import assert_calm, assert_kept, assert_survived
from .scenes import typing_in_a_cluster

EDITS = 10
DEADLINE_SECONDS = 90.0
END_SECONDS = 60.0


def test_drained_worker_hands_over(tmp_path: Path) -> None:
    with typing_in_a_cluster(tmp_path, documents=2, clients=2) as scene:
        assert scene.owner().signal(signal.SIGTERM) == 0
        scene.fleet.wait_edits(EDITS)
        scene.fleet.converge()
        scene.print_pause("a worker told to end")

        assert scene.fleet.losses() == []
        assert_survived(scene.cluster, scene.fleet)


@pytest.mark.slow
def test_rolling_restart_of_everything(tmp_path: Path) -> None:
    """A new process first, then the old one is told to end, one after the other."""
    with typing_in_a_cluster(tmp_path) as scene:
        cluster, fleet = scene.cluster, scene.fleet
        for old in list(cluster.workers):
            cluster.add_worker()
            cluster.wait_ready()
            assert old.signal(signal.SIGTERM) == 0
            fleet.wait_edits(EDITS)
        scene.print_pause("restart of every worker")
        assert fleet.losses() == []

        urls = [gateway.url for gateway in cluster.gateways]
        for old in list(cluster.gateways):
            port = int(old.url.rpartition(":")[2])
            assert old.signal(signal.SIGTERM) == 0
            cluster.add_gateway(port=port)
            cluster.wait_ready()
            fleet.wait_edits(EDITS)
        fleet.converge()
        scene.print_pause("restart of everything")

        # Their first gateway closes once; they come back to it, or to one that closes later.
        assert all(len(client.losses) <= len(urls) for client in fleet.clients)
        assert_survived(cluster, fleet)


@pytest.mark.slow
def test_workers_join_and_leave_while_two_hundred_clients_type(tmp_path: Path) -> None:
    with typing_in_a_cluster(
        tmp_path, documents=50, clients=4, interval_seconds=2.0, workers=1
    ) as scene:
        cluster, fleet = scene.cluster, scene.fleet
        for _ in range(3):
            cluster.add_worker()
            fleet.wait_edits(2)
        for worker in cluster.workers[:3]:
            assert worker.signal(signal.SIGTERM) == 0
            fleet.wait_edits(2)
        fleet.converge(DEADLINE_SECONDS)
        scene.print_pause("3 workers joining and 3 leaving, each client typing every 2 s")

        assert fleet.losses() == []
        assert_survived(cluster, fleet)


@pytest.mark.slow
def test_everything_told_to_end_at_once_leaves_nothing_in_the_logs(tmp_path: Path) -> None:
    """As an orchestrator ends a project: all get the signal in the same moment."""
    with typing_in_a_cluster(tmp_path) as scene:
        cluster, fleet = scene.cluster, scene.fleet
        for process in cluster.living():
            process.process.send_signal(signal.SIGTERM)
        statuses = [process.wait(END_SECONDS) for process in (*cluster.gateways, *cluster.workers)]

        assert statuses == [0, 0, 0, 0]
        assert_calm(cluster)
        assert_kept(cluster.data, fleet.named())
        assert RawVolume(cluster.data).segments() == []
