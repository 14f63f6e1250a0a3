"""The cluster of docker-compose.yml with real clients: two gateways, kills, scaling, a clean stop.

Each test takes the project as it is and leaves it running with its two gateways and workers.
"""

import json
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from click.testing import CliRunner

import amsync
from amsync.backup import open_backup
from amsync.cli import cli
from amsync.ids import DocumentId
from amsync.worker.engine import value_of
from compose.project import ADMIN_TOKEN, Project, docker, eventually
from deploy.files import AMSYNC
from deploy.test_dashboard import expressions
from interop.driver import Driver
from interop.repos import Doc, Repo
from support.rawvolume import RawVolume

AGAIN_SECONDS = 60.0
"""Far more than anything here should take."""


def shared_document(one: Repo, other: Repo) -> tuple[Doc, Doc]:
    mine = one.create({"items": []})
    mine.wait_saved()
    return mine, other.find(mine.id, AGAIN_SECONDS)


def exchange(js: Driver, mine: Doc, theirs: Doc, label: str) -> float:
    """Edit on both sides and wait until both have it saved; returns how long it took."""
    start = time.monotonic()
    mine.edit(["push", ["items"], f"{label}: mine"])
    theirs.edit(["push", ["items"], f"{label}: theirs"])
    value = js.converge([mine, theirs], AGAIN_SECONDS)
    mine.wait_saved(AGAIN_SECONDS)
    theirs.wait_saved(AGAIN_SECONDS)
    took = time.monotonic() - start
    assert {f"{label}: mine", f"{label}: theirs"} <= set(value["items"])
    print(f"{label}: {took:.2f} s")
    return took


def assert_never_reconnected(*clients: Repo) -> None:
    for client in clients:
        state = client.connection()
        assert (state["connected"], state["welcomes"], state["losses"]) == (True, 1, 0), state


def test_containers_are_confined(project: Project) -> None:
    for service in ("gateway", "worker"):
        for container in project.containers(service):
            host = project.inspect(container)["HostConfig"]
            assert project.run(container, "id", "-u").strip() == "10001"
            assert host["ReadonlyRootfs"] is True
            assert host["CapDrop"] == ["ALL"]
            status = project.run(container, "python", "-c", "print(open('/proc/1/status').read())")
            assert "CapEff:\t0000000000000000" in status
            assert "NoNewPrivs:\t1" in status
            mounts = project.run(container, "python", "-c", "print(open('/proc/mounts').read())")
            (root,) = [
                line.split()[3] for line in mounts.splitlines() if line.split()[1:2] == ["/"]
            ]
            assert root.split(",")[0] == "ro"


def test_edits_pass_both_ways_between_clients_at_two_gateways(
    project: Project, js: Driver, two_clients: tuple[Repo, ...]
) -> None:
    assert sorted(project.connections().values()) == [1, 1]

    mine, theirs = shared_document(*two_clients)
    for number in range(5):
        exchange(js, mine, theirs, f"edit {number}")

    assert_never_reconnected(*two_clients)


def test_presence_passes_between_two_gateways(
    project: Project, two_clients: tuple[Repo, ...]
) -> None:
    mine, theirs = shared_document(*two_clients)

    mine.broadcast({"cursor": 7})

    assert [each["message"] for each in theirs.ephemerals(1)] == [{"cursor": 7}]


def test_a_killed_worker_costs_a_pause_and_no_connection(
    project: Project, js: Driver, two_clients: tuple[Repo, ...]
) -> None:
    pairs = [shared_document(*two_clients) for _ in range(8)]
    one, other = project.containers("worker")

    for victim in (one, other):
        project.kill9(victim)
        for at, (mine, theirs) in enumerate(pairs):
            exchange(js, mine, theirs, f"worker {victim[:6]} is killed, document {at}")
        project.up("--no-recreate")
        assert project.containers("worker") == [one, other]

    assert_never_reconnected(*two_clients)


def test_what_is_typed_while_workers_are_killed_arrives(
    project: Project, js: Driver, two_clients: tuple[Repo, ...]
) -> None:
    mine, theirs = shared_document(*two_clients)
    for doc, label in ((mine, "mine"), (theirs, "theirs")):
        doc.start_typing(["items"], label, 0.05)
    for victim in project.containers("worker"):
        typed = len(mine.value()["items"])
        project.kill9(victim)
        mine.wait_typed(typed // 2 + 40)
        project.up("--no-recreate")

    written = {*mine.stop_typing(), *theirs.stop_typing()}
    value = js.converge([mine, theirs], AGAIN_SECONDS)
    mine.wait_saved(AGAIN_SECONDS)
    theirs.wait_saved(AGAIN_SECONDS)

    assert sorted(value["items"]) == sorted(written)
    assert_never_reconnected(*two_clients)


def test_docker_brings_a_crashed_worker_back(
    project: Project, js: Driver, two_clients: tuple[Repo, ...]
) -> None:
    mine, theirs = shared_document(*two_clients)
    victim = project.containers("worker")[0]

    project.crash(victim)
    exchange(js, mine, theirs, "a worker crashes")

    def is_back() -> bool:
        state = project.inspect(victim)
        return state["RestartCount"] == 1 and state["State"]["Health"]["Status"] == "healthy"

    eventually(is_back, 120, "the crashed worker is back")
    assert_never_reconnected(*two_clients)


def test_a_killed_gateway_costs_its_clients_one_reconnect(
    project: Project, js: Driver, two_clients: tuple[Repo, ...]
) -> None:
    mine, theirs = shared_document(*two_clients)

    project.kill9(project.containers("gateway")[0])
    exchange(js, mine, theirs, "a gateway is killed")

    welcomes = [client.wait_connected()["welcomes"] for client in two_clients]
    assert sorted(welcomes) == [1, 2]
    project.up("--no-recreate")


def test_scaling_up_and_down_loses_nothing(
    project: Project, js: Driver, two_clients: tuple[Repo, ...]
) -> None:
    pairs = [shared_document(*two_clients) for _ in range(8)]

    project.scale(gateways=3, workers=3)
    third = js.connect(project.url)
    assert sorted(project.connections().values()) == [1, 1, 1]
    for at, (mine, theirs) in enumerate(pairs):
        exchange(js, mine, theirs, f"three of each, document {at}")
    assert_never_reconnected(*two_clients, third)
    assert third.find(pairs[0][0].id).value() == pairs[0][0].value()

    project.scale(gateways=3, workers=1)
    for at, (mine, theirs) in enumerate(pairs):
        exchange(js, mine, theirs, f"one worker, document {at}")
    assert_never_reconnected(*two_clients, third)

    project.scale(gateways=2, workers=2)
    for at, (mine, theirs) in enumerate(pairs):
        exchange(js, mine, theirs, f"two of each, document {at}")
    welcomes = [client.wait_connected()["welcomes"] for client in (*two_clients, third)]
    assert sorted(welcomes) == [1, 1, 2]


def test_a_worker_that_is_stopped_hands_its_documents_over(
    project: Project, js: Driver, two_clients: tuple[Repo, ...]
) -> None:
    pairs = [shared_document(*two_clients) for _ in range(8)]
    leaving = project.containers("worker")[0]

    with ThreadPoolExecutor() as executor:
        stopping = executor.submit(project.stop_one, leaving)
        pauses = [
            exchange(js, mine, theirs, f"a worker leaves, round {turn}, document {at}")
            for turn in range(8)
            for at, (mine, theirs) in enumerate(pairs)
        ]
        stopping.result()

    print(f"the longest of {len(pauses)}: {max(pauses):.2f} s")
    state = project.inspect(leaving)["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 0)
    assert_never_reconnected(*two_clients)
    project.up("--no-recreate")


def test_a_new_version_is_rolled_out_by_scaling(
    project: Project, js: Driver, two_clients: tuple[Repo, ...]
) -> None:
    pairs = [shared_document(*two_clients) for _ in range(4)]
    old = {*project.containers("gateway"), *project.containers("worker")}
    following = f"{project.image}-next"
    docker("tag", project.image, following)

    project.image = following
    project.scale(gateways=4, workers=4)
    project.up("--no-deps", "--scale", "worker=2", "worker")
    for at, (mine, theirs) in enumerate(pairs):
        exchange(js, mine, theirs, f"new workers, document {at}")
    assert_never_reconnected(*two_clients)
    project.up("--no-deps", "--scale", "gateway=2", "gateway")
    for at, (mine, theirs) in enumerate(pairs):
        exchange(js, mine, theirs, f"new gateways, document {at}")

    for service in ("gateway", "worker"):
        new = project.containers(service)
        assert len(new) == 2
        assert not old & set(new)
    # Two, if its next gateway is a new one; another old one that has not closed yet may take it.
    for client in two_clients:
        assert client.connection()["welcomes"] in (2, 3)


def test_valkey_may_lose_everything(
    project: Project, js: Driver, two_clients: tuple[Repo, ...]
) -> None:
    pairs = [shared_document(*two_clients) for _ in range(4)]
    (valkey,) = project.containers("valkey")

    for turn in range(3):
        project.run(valkey, "valkey-cli", "flushall")
        for at, (mine, theirs) in enumerate(pairs):
            exchange(js, mine, theirs, f"Valkey is emptied, round {turn}, document {at}")
    exchange(js, *shared_document(*two_clients), "a document made after that")

    assert_never_reconnected(*two_clients)


def test_valkey_may_be_restarted(
    project: Project, js: Driver, two_clients: tuple[Repo, ...]
) -> None:
    mine, theirs = shared_document(*two_clients)

    project.kill9(project.containers("valkey")[0])
    project.up("--no-recreate")
    exchange(js, mine, theirs, "Valkey is killed and started")

    assert_never_reconnected(*two_clients)


def test_prometheus_sees_every_process_and_understands_the_dashboard(project: Project) -> None:
    project.up("--no-recreate", "prometheus", profiles=["monitoring"])
    processes = sum(len(project.containers(service)) for service in AMSYNC)

    def ask(path: str, **query: str) -> object:
        url = f"{project.prometheus_url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.load(answer)["data"]

    def targets_up() -> bool:
        try:
            targets = ask("targets", state="active")["activeTargets"]  # type: ignore[index]
        except OSError:
            return False
        return [each["health"] for each in targets] == ["up"] * processes

    eventually(targets_up, 60, "all targets are up")
    for expression in expressions():
        ask("query", query=expression.replace("$__rate_interval", "1m"))
    connections = ask("query", query="sum(up)")["result"]  # type: ignore[index]
    assert connections[0]["value"][1] == str(processes)


def test_the_console_shows_the_page_and_saves_what_is_served(
    project: Project, js: Driver, tmp_path: Path
) -> None:
    client = js.connect(project.url)
    document = client.create({"items": ["saved"]})
    document.wait_saved()
    project.up("--no-recreate", "console", profiles=["console"])

    with urllib.request.urlopen(project.admin_url, timeout=20) as answer:
        assert "<title>amsync" in answer.read().decode()
    command = ["backup", project.admin_url, "--to", str(tmp_path / "out.tar")]
    result = CliRunner().invoke(cli, [*command, "--admin-token", ADMIN_TOKEN])
    assert result.exit_code == 0, result.output
    found = dict(open_backup(tmp_path / "out.tar").documents())
    assert value_of(found[DocumentId(document.id)]) == {"items": ["saved"]}
    refused = CliRunner().invoke(cli, [*command[:-1], "other", "--admin-token", "x" * 20])
    assert refused.exit_code == 1


def test_wss_ends_at_the_gateways(project: Project, js: Driver, tmp_path: Path) -> None:
    pair = amsync.write_cert(project.tls_directory)
    Path(pair.key).rename(project.tls_directory / "key.pem").chmod(0o644)
    certificate = Path(pair.cert).rename(project.tls_directory / "cert.pem")
    project.up("--no-recreate", profiles=["tls"])

    with Driver(tmp_path / "secure.log", extra_ca=certificate) as secure:
        inside = secure.connect(project.tls_url)
        outside = js.connect(project.url)
        assert sorted(project.connections("gateway-tls").values()) == [0, 1]
        mine = inside.create({"items": []})
        mine.wait_saved()
        theirs = outside.find(mine.id, AGAIN_SECONDS)
        theirs.edit(["push", ["items"], "from outside"])
        theirs.wait_saved()

        assert mine.wait(path=["items"], length=1)["items"] == ["from outside"]


def test_a_stop_is_clean_and_a_start_finds_everything(
    project: Project, js: Driver, two_clients: tuple[Repo, ...], tmp_path: Path
) -> None:
    pairs = [shared_document(*two_clients) for _ in range(20)]
    for at, (mine, theirs) in enumerate(pairs):
        exchange(js, mine, theirs, f"before the stop, document {at}")
    expected = {mine.id: (set(mine.heads()), mine.value()) for mine, _ in pairs}
    for client in two_clients:
        client.go_offline()

    project.stop()

    for service in ("gateway", "worker", "load-balancer", "valkey"):
        for container in project.containers(service, every=True):
            state = project.inspect(container)["State"]
            assert state["OOMKilled"] is False
            assert state["ExitCode"] == 0, f"{service} {container}: {state}"
    volume = RawVolume(project.copy_documents(tmp_path / "copy"))
    assert volume.segments() == []
    assert volume.quarantine() == {}
    stored = volume.changes()
    for document_id, (heads, _) in expected.items():
        assert {bytes.fromhex(head) for head in heads} <= stored[document_id]
    project.fsck()

    project.up()
    reader = js.connect(project.url)
    for document_id, (heads, value) in expected.items():
        found = reader.find(document_id, AGAIN_SECONDS)
        assert (set(found.heads()), found.value()) == (heads, value)
