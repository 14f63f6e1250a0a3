"""Every workload, with small numbers, against real servers: that it ends, and has its figure."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from amsync.bench.plan import COMPARISON, Case
from amsync.bench.processes import ROLES
from amsync.bench.serving import Server, cluster, prepare
from amsync.bench.workloads import Bounded, ColdJoin, FanOut, Idle
from server.replicas import eventually
from support.redisserver import find_server

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "tests" / "js" / "node_modules"
SAMOD_CACHE = ROOT / "tests" / "samod" / "target" / "bench"
BUILD_SECONDS = 900
SMALL_CASES = [case for case in COMPARISON if case.name not in ("fan-out-100", "history-50000")]


@pytest.fixture(scope="module")
def amsync(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    scratch = tmp_path_factory.mktemp("bench")
    server = prepare("amsync", cache=scratch, scratch=scratch, modules=None, say=print)
    with server:
        yield server


@pytest.mark.parametrize("case", SMALL_CASES, ids=lambda case: case.name)
def test_every_workload_measures_our_server(amsync: Server, case: Case) -> None:
    workload = case.workload.quick()

    outcome = workload.run(amsync)

    assert workload.headline in outcome.figures
    assert "cpu_seconds" in outcome.figures
    assert workload.title


def test_real_and_light_clients_all_get_everything(amsync: Server) -> None:
    outcome = FanOut(readers=5, rate=50, seconds=0.4, history=40).run(amsync)

    assert outcome.figures["made_changes"] == 20
    assert outcome.figures["delivered_changes"] == 5 * 20
    assert outcome.figures["max_seconds"] >= outcome.figures["p50_seconds"] > 0


@pytest.fixture
def redis_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    program, environment = find_server()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{environment['PATH']}")
    if "LD_LIBRARY_PATH" in environment:
        monkeypatch.setenv("LD_LIBRARY_PATH", environment["LD_LIBRARY_PATH"])


def is_alive(pid: int) -> bool:
    """A killed process has an entry until its new parent has noticed, but does nothing more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@pytest.mark.usefixtures("redis_on_path")
def test_a_cluster_is_measured_role_by_role_and_ends_whole() -> None:
    server = cluster(2, 1)
    with server:
        typed = FanOut(readers=3, rate=20, seconds=0.4, history=20).run(server)
        idle = Idle().quick().run(server)
        bounded = Bounded().quick().run(server)
        assert server.processes is not None
        pids = server.processes._pids()
        urls = server.urls

    assert len(set(urls)) == 2
    assert len(pids) == 5
    costs = [typed.figures[f"{role}_cpu_per_delivery_seconds"] for role in ROLES]
    assert min(costs) > 0
    assert typed.figures["cpu_per_delivery_seconds"] > 0.99 * sum(costs)
    sizes = [f"{role}_memory_per_connection_bytes" for role in ROLES]
    assert set(sizes) <= set(idle.figures)
    assert bounded.figures["redis_memory_bytes"] > 1_000_000
    assert "redis_growth_bytes" in bounded.figures
    eventually(lambda: not any(map(is_alive, pids)))


@pytest.mark.node
def test_automerge_repos_own_server_is_measured(tmp_path: Path) -> None:
    assert shutil.which("node"), "Node 20 or newer is missing"
    server = prepare("automerge-repo", cache=tmp_path, scratch=tmp_path, modules=MODULES, say=print)

    with server:
        fan_out = FanOut().quick().run(server)
        join = ColdJoin(from_disk=True).quick().run(server)

    assert server.version.startswith("2.5")
    assert fan_out.figures["cpu_per_delivery_seconds"] > 0
    assert join.figures["cpu_per_join_seconds"] > 0


@pytest.mark.slow
@pytest.mark.timeout(BUILD_SECONDS)
def test_a_samod_server_is_built_and_measured(tmp_path: Path) -> None:
    if not os.environ.get("AMSYNC_TEST_ALL"):
        pytest.skip("builds a samod server for minutes")
    server = prepare("samod", cache=SAMOD_CACHE, scratch=tmp_path, modules=None, say=print)

    with server:
        fan_out = FanOut().quick().run(server)
        join = ColdJoin(from_disk=True).quick().run(server)

    assert fan_out.figures["cpu_per_delivery_seconds"] > 0
    assert join.figures["cpu_per_join_seconds"] > 0
