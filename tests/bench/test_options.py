"""What the command takes and refuses, before it starts anything."""

from pathlib import Path

import pytest

from amsync.bench.errors import BenchError
from amsync.bench.load import Load
from amsync.bench.plan import COMPARISON, FIRST_LOOK, NAMED
from cli.running import invoke


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fan-in"], "no workload 'fan-in'; there are fan-out, history"),
        (["rooms", "--readers", "3"], "rooms takes no --readers"),
        (["--rate", "3"], "--rate needs a workload"),
        (["--compare", "rooms"], "--compare has its own workloads"),
        (["--pid", "1"], "--pid belongs to --url"),
        (["--server", "other"], "is not one of"),
        (["fan-out", "--rate", "0"], "0.0 is not in the range"),
    ],
    ids=" ".join,
)
def test_what_is_impossible_is_refused_with_status_2(arguments: list[str], said: str) -> None:
    result = invoke("bench", *arguments)

    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_every_workload_is_listed() -> None:
    result = invoke("bench", "--list")

    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == list(NAMED)


@pytest.mark.parametrize(
    "url", ["wss://127.0.0.1:1", "http://127.0.0.1", "127.0.0.1:1", "ws://a:b"]
)
def test_a_url_that_is_no_plain_web_socket_is_refused(url: str) -> None:
    with pytest.raises(BenchError, match="give ws://HOST:PORT"):
        Load(url)


def test_a_server_that_is_not_there_ends_the_command() -> None:
    result = invoke("bench", "fan-out", "--quick", "--url", "ws://127.0.0.1:9")

    assert result.exit_code == 1
    assert "the server takes no connection" in result.output


@pytest.mark.parametrize(("server", "program"), [("automerge-repo", "node"), ("samod", "cargo")])
def test_a_missing_tool_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str, program: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    result = invoke("bench", "fan-out", "--server", server, "--cache-dir", tmp_path / "cache")

    assert result.exit_code == 1
    assert f"the {server} server needs {program}, which is not found" in result.output


def test_a_folder_without_the_packages_is_refused(tmp_path: Path) -> None:
    result = invoke(*("bench", "fan-out", "--server", "automerge-repo", "--node-modules", tmp_path))

    assert result.exit_code == 1
    assert "holds no @automerge/automerge-repo" in result.output


@pytest.mark.parametrize("cases", [FIRST_LOOK, COMPARISON], ids=["first look", "comparison"])
def test_no_two_cases_of_a_plan_have_one_name(cases: list[object]) -> None:
    names = [case.name for case in cases]  # type: ignore[attr-defined]

    assert len(set(names)) == len(names)


def test_a_file_that_cannot_be_written_is_named_before_anything_is_measured(tmp_path: Path) -> None:
    result = invoke("bench", "fan-out", "--quick", "--json", tmp_path / "missing" / "file.json")

    assert result.exit_code == 1
    assert "file.json: No such file" in result.output
    assert "1 writer" not in result.output
