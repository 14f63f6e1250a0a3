"""Workers that are killed, stopped, or die at the worst moment: a pause, and nothing else (G3)."""

import signal
import time
from pathlib import Path

import pytest

from support.program import Program

from .checker import assert_survived
from .processes import Process
from .scenes import TRICKS, Scene, typing_in_a_cluster

WAIT_SECONDS = 60.0
EDITS = 30


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not appear"
        time.sleep(0.01)


def is_stopped(process: Program) -> bool:
    stat = Path(f"/proc/{process.process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


def wait_owned_by_others(scene: Scene, process: Process) -> None:
    """Until the leases of a worker have run out, and others have taken its shards."""
    name = process.worker_id
    deadline = time.monotonic() + WAIT_SECONDS
    while any(s["owner"][:8] in ("", name) for s in scene.cluster.status()["shards"]):
        assert time.monotonic() < deadline, "its shards are not taken"
        time.sleep(0.1)


def assert_no_socket_lost(scene: Scene) -> None:
    assert scene.fleet.losses() == []
    assert all(client.refusals == 0 for client in scene.fleet.clients)


def test_worker_killed_costs_a_pause_and_no_socket(tmp_path: Path) -> None:
    with typing_in_a_cluster(tmp_path, documents=2, clients=2) as scene:
        scene.owner().kill9()
        scene.fleet.wait_edits(EDITS)
        scene.fleet.converge()
        scene.print_pause("kill -9 of a worker")

        assert_no_socket_lost(scene)
        assert_survived(scene.cluster, scene.fleet)


@pytest.mark.slow
def test_all_workers_killed_again_and_again(tmp_path: Path) -> None:
    with typing_in_a_cluster(tmp_path) as scene:
        for _ in range(3):
            for worker in scene.cluster.workers:
                if worker.running():
                    worker.kill9()
            scene.cluster.add_worker()
            scene.cluster.add_worker()
            scene.fleet.wait_edits(EDITS)
        scene.fleet.converge()
        scene.print_pause("kill -9 of all workers, three times, until new ones had started")

        assert_no_socket_lost(scene)
        assert_survived(scene.cluster, scene.fleet)


@pytest.mark.slow
def test_worker_killed_while_documents_are_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is for a document that is still loading is nowhere but in the stream."""
    monkeypatch.setenv("TRICKS", str(tmp_path))
    with typing_in_a_cluster(tmp_path, workers=1) as scene:
        (tmp_path / "hold-load").touch()
        (first,) = scene.cluster.workers
        second = scene.cluster.add_worker(program=TRICKS)
        first.kill9()
        wait_for(tmp_path / "loading")
        scene.fleet.wait_edits(EDITS)
        second.kill9()
        (tmp_path / "hold-load").unlink()
        scene.cluster.add_worker()
        scene.fleet.converge()
        scene.print_pause("kill -9 of a worker that was loading, until a new one had started")

        assert_no_socket_lost(scene)
        assert_survived(scene.cluster, scene.fleet)


@pytest.mark.slow
def test_worker_stopped_beyond_its_leases_comes_back(tmp_path: Path) -> None:
    with typing_in_a_cluster(tmp_path) as scene:
        stopped = scene.owner()
        stopped.process.send_signal(signal.SIGSTOP)
        wait_owned_by_others(scene, stopped)
        scene.fleet.wait_edits(EDITS)
        stopped.process.send_signal(signal.SIGCONT)
        scene.fleet.wait_edits(EDITS)
        scene.fleet.converge()
        scene.print_pause("a worker stopped beyond its leases")

        scene.cluster.wait_ready()
        assert stopped.samples()['amsync_lease_renewals_total{result="lost"}'] > 0
        assert_no_socket_lost(scene)
        assert_survived(scene.cluster, scene.fleet)


@pytest.mark.slow
def test_worker_stopped_between_fsync_and_publish_is_believed_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wakes up with changes that are durable in its WAL, and shards that are not its own."""
    monkeypatch.setenv("TRICKS", str(tmp_path))
    with typing_in_a_cluster(tmp_path, worker_program=TRICKS) as scene:
        (tmp_path / "stop-before-publish").touch()
        while not any(map(is_stopped, scene.cluster.workers)):
            scene.fleet.wait_edits(1)
        stopped = next(worker for worker in scene.cluster.workers if is_stopped(worker))
        wait_owned_by_others(scene, stopped)
        scene.fleet.wait_edits(EDITS)
        stopped.process.send_signal(signal.SIGCONT)
        scene.fleet.wait_edits(EDITS)
        scene.fleet.converge()
        scene.print_pause("a worker stopped between fsync and publish, beyond its leases")

        scene.cluster.wait_ready()
        assert stopped.samples()['amsync_lease_renewals_total{result="lost"}'] > 0
        assert_no_socket_lost(scene)
        assert_survived(scene.cluster, scene.fleet)
