"""`amsync fsck` on directories that real servers made, whole and damaged."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import amsync
from amsync import Server, _automerge
from amsync.cli import cli
from amsync.storage.check import KINDS
from server.replicas import ReplicaClient
from support.tree import snapshot

from .running import Serving, environment

HISTORY = 6


def fsck(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["fsck", str(directory), *arguments], prog_name="amsync")


def findings(directory: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(fsck(directory, "--json").stdout)["findings"]
    return found


def kinds(directory: Path) -> list[str]:
    return [each["kind"] for each in findings(directory)]


def folder(directory: Path, document_id: str, kind: str = "incremental") -> Path:
    return directory / document_id[:2] / document_id[2:] / kind


def history() -> list[bytes]:
    """Changes of one author, each on top of the one before."""
    replica = _automerge.Replica(b"12345678")
    for number in range(HISTORY):
        replica.put("key", number)
    return replica.changes()


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, str]:
    """A directory of a server that was stopped, with one document of several changes."""
    data = tmp_path / "data"
    with Server(data_dir=data) as server:
        document_id = server.create_document(data={"title": "Hello"})
        server.apply_changes(document_id, b"".join(history()))
    return data, document_id


def test_a_stopped_servers_directory_is_healthy(stored: tuple[Path, str]) -> None:
    data, _ = stored

    result = fsck(data)

    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith(f"{data}: 1 documents, {HISTORY + 1} changes, ")
    assert result.stdout.endswith("0 errors, 0 warnings, 0 notes\n")


def test_a_killed_servers_directory_has_notes_only(tmp_path: Path) -> None:
    document_id = amsync.generate_document_id()
    with Serving(tmp_path, "--data-dir", "data") as serving:
        with ReplicaClient(serving.url, document_id) as client:
            client.put("kept", True)
            client.wait_acknowledged()
        serving.kill9()
    before = snapshot(tmp_path / "data")

    result = fsck(tmp_path / "data", "--json")

    shown = json.loads(result.stdout)
    assert result.exit_code == 0
    assert [each["severity"] for each in shown["findings"]] == ["note"] * len(shown["findings"])
    assert "wal_only" in [each["kind"] for each in shown["findings"]]
    assert shown["totals"]["documents"] == 1
    assert shown["held_by"] is None
    assert snapshot(tmp_path / "data") == before


def test_a_directory_in_use_is_examined_and_its_holder_named(tmp_path: Path) -> None:
    with Serving(tmp_path, "--data-dir", "data") as serving:
        document_id = amsync.generate_document_id()
        with ReplicaClient(serving.url, document_id) as client:
            client.put("kept", True)
            client.wait_acknowledged()

            shown = json.loads(fsck(tmp_path / "data", "--json").stdout)
            text = fsck(tmp_path / "data").stdout

        assert serving.signal(signal.SIGTERM) == 0
    assert shown["totals"]["errors"] == 0
    assert shown["totals"]["documents"] == 1
    assert shown["held_by"]["pid"] == serving.process.pid
    assert f"process {serving.process.pid} on " in text


def test_a_cut_file_is_an_error_with_its_good_changes(stored: tuple[Path, str]) -> None:
    data, document_id = stored
    changes = history()
    for path in folder(data, document_id).iterdir():
        path.unlink()
    torn = folder(data, document_id) / "torn"
    torn.write_bytes(b"".join(changes[:3]) + changes[3][:-5])

    result = fsck(data, "--json")

    (problem,) = json.loads(result.stdout)["findings"]
    assert result.exit_code == 1
    assert problem["kind"] == "torn_file"
    assert problem["path"] == str(torn.relative_to(data))
    assert problem["document_id"] == document_id
    assert problem["detail"].startswith("3 changes load")


def test_good_changes_of_a_cut_file_count_also_when_they_wait_for_those_of_others(
    stored: tuple[Path, str],
) -> None:
    data, document_id = stored
    changes = history()
    for path in folder(data, document_id).iterdir():
        path.unlink()
    (folder(data, document_id) / "first").write_bytes(changes[0])
    (folder(data, document_id) / "torn").write_bytes(changes[1] + changes[2] + changes[3][:-5])

    (problem,) = findings(data)

    assert problem["detail"].startswith("2 changes load")


def test_a_missing_middle_leaves_changes_that_wait(stored: tuple[Path, str]) -> None:
    data, document_id = stored
    changes = history()
    for path in folder(data, document_id).iterdir():
        path.unlink()
    for number in (0, 1, 3, 4):
        (folder(data, document_id) / str(number)).write_bytes(changes[number])

    (problem,) = findings(data)

    assert problem["kind"] == "waiting_changes"
    assert problem["detail"].startswith("2 changes wait")


def test_a_file_that_contradicts_others_is_an_error(stored: tuple[Path, str]) -> None:
    data, document_id = stored
    other = _automerge.Replica(b"12345678")
    other.put("key", "something else")
    (folder(data, document_id) / "z").write_bytes(other.changes()[0])

    assert set(kinds(data)) == {"conflicting_file"}


def test_a_document_that_does_not_load_at_all_is_an_error(stored: tuple[Path, str]) -> None:
    data, document_id = stored
    for path in folder(data, document_id).iterdir():
        path.write_bytes(path.read_bytes()[:20])

    assert set(kinds(data)) == {"torn_file", "unloadable_document"}


def test_foreign_bytes_are_a_warning_and_the_status_is_0(stored: tuple[Path, str]) -> None:
    data, document_id = stored
    (folder(data, document_id) / "Thumbs.db").write_bytes(b"picture")

    result = fsck(data)

    assert result.exit_code == 0
    assert "WARNING not_a_chunk: " in result.stdout
    assert result.stdout.endswith("0 errors, 1 warnings, 0 notes\n")


def test_nothing_is_changed_also_where_nothing_may_be_written(stored: tuple[Path, str]) -> None:
    data, document_id = stored
    (folder(data, document_id) / "torn").write_bytes(history()[0][:-1])
    (data / ".amsync" / "tmp" / "left").write_bytes(b"")
    everything = [data, *data.rglob("*")]
    for path in everything:
        path.chmod(path.stat().st_mode & ~0o222)
    before = snapshot(data)
    try:
        status = fsck(data).exit_code
        after = snapshot(data)
    finally:
        for path in everything:
            path.chmod(path.stat().st_mode | 0o200)

    assert status == 1
    assert after == before


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_directory_ends_with_status_2(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")

    result = fsck(tmp_path / name)

    assert result.exit_code == 2
    assert name in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_the_json_object_has_the_documented_shape(stored: tuple[Path, str]) -> None:
    data, document_id = stored
    (folder(data, document_id) / "torn").write_bytes(history()[0][:-1])
    (data / "README").write_text("")

    shown = json.loads(fsck(data, "--json").stdout)

    assert list(shown) == ["format", "directory", "findings", "held_by", "totals"]
    assert (shown["format"], shown["directory"], shown["held_by"]) == (1, str(data), None)
    assert sorted(shown["totals"]) == sorted(
        ["documents", "changes", "file_bytes", "wal_bytes", "errors", "warnings", "notes"]
    )
    assert len(shown["findings"]) == 2
    for each in shown["findings"]:
        assert list(each) == ["kind", "severity", "path", "document_id", "detail", "advice"]
        assert each["severity"] == KINDS[each["kind"]].severity
    assert shown["totals"]["errors"] == shown["totals"]["warnings"] == 1


def test_names_can_not_forge_lines_or_move_the_cursor(stored: tuple[Path, str]) -> None:
    data, _ = stored
    os.mkdir(os.fsencode(data) + b"/\xff\nERROR \x1b[2J")  # noqa: PTH102 - not UTF-8

    text = fsck(data).stdout

    assert "\x1b" not in text
    assert not any(line.startswith("ERROR") for line in text.splitlines())


def on_terminal(directory: Path, *arguments: str) -> tuple[bytes, bytes]:
    """Standard output, and what a terminal on standard error shows."""
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "amsync", "fsck", str(directory), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env=environment({"TERM": "xterm"}),
            check=False,
        )
    finally:
        os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 10_000)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    return done.stdout, shown


def test_progress_is_shown_on_a_terminal_only(stored: tuple[Path, str]) -> None:
    data, _ = stored

    stdout, terminal = on_terminal(data)
    json_stdout, json_terminal = on_terminal(data, "--json")

    assert b"checking" in terminal
    assert terminal.endswith(b"\x1b[?25h")  # the cursor is back
    assert b"checking" not in stdout
    assert json_terminal == b""
    assert json.loads(json_stdout)["totals"]["documents"] == 1
    assert fsck(data).stderr == ""


DOCUMENTED = Path(__file__).parents[2] / "docs" / "tools.md"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_documented(kind: str) -> None:
    line = f"| `{kind}` | {KINDS[kind].severity} |"
    assert any(each.startswith(line) for each in DOCUMENTED.read_text().splitlines()), line
