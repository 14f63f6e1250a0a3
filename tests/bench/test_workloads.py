"""Every workload, with small numbers, against real servers: that it ends, and has its figure."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from amsync.bench.plan import COMPARISON, Case
from amsync.bench.serving import Server, prepare
from amsync.bench.workloads import ColdJoin, FanOut

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
