"""The admin port's calls in a cluster: across gateways, workers and what becomes of shards."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from amsync import generate_document_id
from amsync._automerge import Replica
from server.replicas import ReplicaClient, eventually
from support.admin import DescribedCalls

from .processes import ClusterProcesses

TOKEN = "an-admin-token-for-tests"


class Town:
    """Two gateways and two workers, with the calls of each gateway."""

    def __init__(self, directory: Path) -> None:
        self.cluster = ClusterProcesses(
            directory, gateways=2, workers=2, gateway_options=("--admin-token", TOKEN)
        )
        self.one, self.two = (DescribedCalls(each.admin, TOKEN) for each in self.cluster.gateways)

    def ids(self, api: DescribedCalls, limit: int = 1000) -> list[str]:
        found: list[str] = []
        after = ""
        while True:
            status, page = api.call("GET", f"/documents?limit={limit}&after={after}")
            assert status == 200, page
            found += [each["document_id"] for each in page["documents"]]
            if page["next"] is None:
                return found
            after = page["next"]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    town = Town(tmp_path_factory.mktemp("api"))
    yield town
    town.cluster.close()


def test_documents_of_all_workers_are_read_and_changed_at_any_gateway(town: Town) -> None:
    made = [town.one.call("POST", "/documents", {"value": {"n": n}})[1] for n in range(20)]
    names = sorted(each["document_id"] for each in made)

    assert town.ids(town.two) == town.ids(town.one, limit=3) == names
    rows = town.two.call("GET", "/documents")[1]["documents"]
    assert len({each["owner"] for each in rows}) == 2
    for n, each in enumerate(made):
        path = f"/documents/{each['document_id']}"
        assert town.two.call("GET", f"{path}/value")[1]["value"] == {"n": n}
        assert town.two.call("GET", path)[1]["heads"] == each["heads"]
    with ReplicaClient(town.cluster.gateways[0].url, names[0]) as client:
        client.wait_loaded()
        assert town.two.call("DELETE", f"/documents/{names[0]}")[0] == 204
        client.wait(lambda: client.unavailable == 1)
    assert town.ids(town.one) == names[1:]
    for name in names[1:]:
        town.one.call("DELETE", f"/documents/{name}")


def test_large_document_goes_in_and_out(town: Town) -> None:
    path = f"/documents/{generate_document_id()}"
    replica = Replica(b"somebody")
    replica.put("noise", os.urandom(20 * 1024 * 1024))

    status, said = town.one.call(
        "PUT", f"{path}/automerge", replica.save(), Content_Type="application/octet-stream"
    )
    assert (status, said["is_new"], said["new_changes"]) == (200, True, 1)
    _, saved = town.two.call("GET", f"{path}/automerge")
    assert Replica.load(saved).value() == replica.value()
    assert len(town.two.call("GET", f"{path}/value")[1]["value"]["noise"]) > 20 * 1024 * 1024
    town.one.call("DELETE", path)


def test_status_has_every_process_with_its_figures(town: Town) -> None:
    _, made = town.one.call("POST", "/documents", {"value": {}})
    with ReplicaClient(town.cluster.gateways[0].url, made["document_id"]) as client:
        client.wait_loaded()
        client.put("a", 1)
        client.wait_acknowledged()

        def has_figures() -> bool:
            said = town.two.call("GET", "/cluster")[1]
            return any(each["messages_in"] for each in said["gateways"]) and any(
                each["commits"] and each["edit_to_disk_p50_seconds"] for each in said["workers"]
            )

        eventually(has_figures)
    status, said = town.two.call("GET", "/cluster")
    assert (status, said["mode"], said["problems"]) == (200, "cluster", [])
    assert (len(said["gateways"]), len(said["workers"]), len(said["shards"])) == (2, 2, 64)
    assert said["gateway"] == town.two.call("GET", "/connections")[1]["gateway"]
    town.one.call("DELETE", f"/documents/{made['document_id']}")


def test_checkpoint_reaches_every_worker(town: Town) -> None:
    status, said = town.one.call("POST", "/checkpoint")
    assert status == 200
    assert len({each["worker_id"] for each in said["workers"]}) == 2
    assert all(each["seconds"] is not None for each in said["workers"])
    assert town.one.call("GET", "/quarantine") == (200, {"count": 0, "files": []})


@pytest.mark.slow
def test_nothing_is_hidden_or_lost_while_workers_come_and_die(tmp_path: Path) -> None:
    town = Town(tmp_path)
    with town.cluster as cluster:
        names = sorted(
            town.one.call("POST", "/documents", {"value": {"n": n}})[1]["document_id"]
            for n in range(40)
        )
        statuses: dict[int, int] = {}
        wrong: list[object] = []
        is_over = threading.Event()

        def look(api: DescribedCalls) -> None:
            while not is_over.is_set():
                status, page = api.call("GET", "/documents?limit=1000")
                statuses[status] = statuses.get(status, 0) + 1
                if status == 200 and [e["document_id"] for e in page["documents"]] != names:
                    wrong.append(page)

        lookers = [threading.Thread(target=look, args=(api,)) for api in (town.one, town.two)]
        for each in lookers:
            each.start()
        try:
            cluster.add_worker()
            cluster.wait_ready()
            cluster.workers[0].kill9()
            cluster.add_worker()
            cluster.wait_ready()
            cluster.workers[1].process.send_signal(signal.SIGTERM)
            cluster.workers[1].wait(60)
            cluster.wait_ready()
            eventually(lambda: town.ids(town.one) == names, 30)
        finally:
            is_over.set()
            for each in lookers:
                each.join()

    assert wrong == []
    assert statuses[200] > 0
    assert set(statuses) <= {200, 503}, statuses


@pytest.mark.slow
def test_without_workers_or_bus_calls_are_refused_soon(tmp_path: Path) -> None:
    town = Town(tmp_path)
    with town.cluster as cluster:
        _, made = town.one.call("POST", "/documents", {"value": {"a": 1}})
        path = f"/documents/{made['document_id']}"
        for worker in cluster.workers:
            worker.kill9()
        eventually(lambda: town.one.call("GET", path)[0] == 503, 90)
        assert town.one.call("GET", "/documents")[0] == 503
        assert "no owner" in str(town.one.call("GET", "/cluster")[1]["problems"])

        cluster.add_worker()
        eventually(lambda: town.one.call("GET", f"{path}/value")[0] == 200, 30)

        cluster.redis.process.send_signal(signal.SIGSTOP)
        eventually(lambda: town.one.call("GET", path)[0] == 503, 90)
        assert town.one.call("GET", "/cluster")[0] == 503
        cluster.redis.process.send_signal(signal.SIGCONT)
        eventually(lambda: town.one.call("GET", path)[0] == 200, 90)


@pytest.mark.slow
def test_call_that_is_under_way_when_its_worker_dies_is_done_by_the_next(tmp_path: Path) -> None:
    town = Town(tmp_path)
    with town.cluster as cluster:
        made = [town.one.call("POST", "/documents", {"value": {"n": n}})[1] for n in range(8)]
        victim = cluster.workers[0]
        owners = {
            each["document_id"]: each["owner"]
            for each in town.one.call("GET", "/documents")[1]["documents"]
        }
        theirs = [name for name, owner in owners.items() if owner.startswith(victim.worker_id)]
        victim.process.send_signal(signal.SIGSTOP)  # its shards are still known as its own
        answers: dict[str, tuple[int, object]] = {}

        def ask(name: str) -> None:
            answers[name] = town.two.call("GET", f"/documents/{name}")

        asking = [threading.Thread(target=ask, args=(name,)) for name in theirs]
        for each in asking:
            each.start()
        # Each is in the stream of its shard, or was refused because it took too long to start.
        victim.kill9()
        for each in asking:
            each.join()

    assert theirs
    assert len(made) == 8
    assert {status for status, _ in answers.values()} <= {200, 503}
    assert any(status == 200 for status, _ in answers.values())
