"""`amsync doc list`, `show` and `export`: they tell what is stored and change nothing."""

import datetime
import json
import signal
import sys
from pathlib import Path

import pytest

import amsync
from amsync import Server, _automerge
from server.replicas import ReplicaClient
from support.program import run_to_end
from support.tree import snapshot

from .running import Serving, environment, invoke

VALUE = {"title": "Hello", "tags": ["a", "b"], "count": 3}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three documents; the last one deleted."""
    with Server(data_dir=tmp_path / "data") as server:
        for _ in range(2):
            server.create_document(data=VALUE)
        deleted = server.create_document(data=VALUE)
        server.delete_document(deleted)
    return tmp_path / "data"


def ids(data: Path) -> list[str]:
    return invoke("doc", "list", data).stdout.split()


def deleted_id(data: Path) -> str:
    (path,) = (data / ".amsync" / "tombstones").iterdir()
    return path.name


def test_list_prints_an_id_a_line_and_no_deleted_one(data: Path) -> None:
    with Server(data_dir=data) as server:
        stored = server.list_documents()

    result = invoke("doc", "list", data)

    assert result.exit_code == 0
    assert result.stdout.splitlines() == stored
    assert len(stored) == 2


def test_list_with_a_prefix_and_as_json(data: Path) -> None:
    first = ids(data)[0]

    shown = json.loads(invoke("doc", "list", data, "--prefix", first[:9], "--json").stdout)

    assert shown == {"documents": [{"document_id": first, "url": f"automerge:{first}"}]}
    assert invoke("doc", "list", data, "--prefix", f"automerge:{first}").stdout == first + "\n"
    assert invoke("doc", "list", data, "--prefix", "0").stdout == ""


def test_show_tells_value_sizes_and_heads(data: Path) -> None:
    document_id = ids(data)[0]
    with Server(data_dir=data) as server:
        view = server.get_document(document_id)
    assert view is not None

    result = invoke("doc", "show", data, document_id, "--json")

    shown = json.loads(result.stdout)
    assert result.exit_code == 0
    assert shown == {
        "document_id": document_id,
        "url": f"automerge:{document_id}",
        "is_deleted": False,
        "changes": 1,
        "waiting_changes": 0,
        "saved_bytes": len(view.saved),
        "stored_bytes": shown["stored_bytes"],
        "files": 1,
        "heads": [head.hex() for head in view.heads],
        "problems": [],
        "value": VALUE,
    }
    text = invoke("doc", "show", data, document_id).stdout
    assert view.heads[0].hex() in text
    assert json.loads(text[text.index("{") :]) == VALUE


def test_show_takes_every_spelling_of_an_id(data: Path) -> None:
    document_id = amsync.generate_document_id()
    uuid = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
    with Server(data_dir=data) as server:
        document_id = server.create_document(uuid, VALUE)

    for spelling in (document_id, f"automerge:{document_id}", uuid, f"automerge:{uuid}"):
        shown = json.loads(invoke("doc", "show", data, spelling, "--json").stdout)
        assert shown["document_id"] == document_id


def test_show_of_values_that_json_does_not_know(data: Path) -> None:
    moment = datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    value = {"bytes": b"\xff\0", "time": moment, "no number": float("nan"), "big": 2**60}
    with Server(data_dir=data) as server:
        document_id = server.create_document(data=value)

    shown = json.loads(invoke("doc", "show", data, document_id, "--json").stdout)

    assert shown["value"] == {
        "bytes": "/wA=",
        "time": "2024-01-02T03:04:05+00:00",
        "no number": "nan",
        "big": 2**60,
    }


def test_show_of_a_deleted_document_says_so(data: Path) -> None:
    document_id = deleted_id(data)

    result = invoke("doc", "show", data, document_id)
    shown = json.loads(invoke("doc", "show", data, document_id, "--json").stdout)

    assert result.exit_code == 1
    assert "was deleted" in result.stderr
    assert shown["is_deleted"] is True


def test_show_of_an_unknown_document_and_of_no_id(data: Path) -> None:
    unknown = invoke("doc", "show", data, amsync.generate_document_id())
    wrong = invoke("doc", "show", data, "notes")

    assert (unknown.exit_code, wrong.exit_code) == (1, 2)
    assert "there is no document" in unknown.stderr
    assert "'notes' is no document id" in wrong.stderr


def test_show_of_a_damaged_document_shows_the_rest_and_fails(data: Path) -> None:
    document_id = ids(data)[0]
    torn = data / document_id[:2] / document_id[2:] / "incremental" / "torn"
    torn.write_bytes(_automerge.initial_change()[:-1])

    result = invoke("doc", "show", data, document_id, "--json")

    shown = json.loads(result.stdout)
    assert result.exit_code == 1
    assert shown["value"] == VALUE
    assert shown["problems"][0].startswith(str(torn.relative_to(data)))


def test_export_saves_each_document_whole(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"

    result = invoke("doc", "export", data, "--to", out)

    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == [
        f"{each}.automerge" for each in ids(data)
    ]
    for path in out.iterdir():
        assert _automerge.Replica.load(path.read_bytes()).value() == VALUE


def test_export_of_some_documents_as_json(data: Path, tmp_path: Path) -> None:
    first = ids(data)[0]
    out = tmp_path / "out"

    result = invoke("doc", "export", data, f"automerge:{first}", first, "--to", out, "--json")

    (exported,) = json.loads(result.stdout)["exported"]
    path = out / f"{first}.automerge"
    assert exported == {
        "document_id": first,
        "path": str(path),
        "changes": 1,
        "bytes": path.stat().st_size,
        "is_written": True,
    }
    assert [each.name for each in out.iterdir()] == [path.name]


def test_export_again_leaves_equal_files_alone(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    invoke("doc", "export", data, "--to", out)
    before = snapshot(out)

    result = invoke("doc", "export", data, "--to", out)

    assert result.exit_code == 0
    assert "0 documents saved, 2 were there already" in result.stdout
    assert {name: state for name, state in snapshot(out).items() if name != "."} == {
        name: state for name, state in before.items() if name != "."
    }


def test_export_replaces_other_content_only_when_forced(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, second = ids(data)
    other = out / f"{first}.automerge"
    out.mkdir()
    other.write_bytes(b"something else")

    refused = invoke("doc", "export", data, "--to", out)
    content = other.read_bytes()
    forced = invoke("doc", "export", data, "--to", out, "--force")

    assert refused.exit_code == 1
    assert str(other) in refused.stderr
    assert content == b"something else"
    assert (out / f"{second}.automerge").exists()
    assert forced.exit_code == 0
    assert _automerge.Replica.load(other.read_bytes()).value() == VALUE


def test_export_says_what_is_not_in_it(data: Path, tmp_path: Path) -> None:
    document_id = ids(data)[0]
    replica = _automerge.Replica(b"12345678")
    for number in range(3):
        replica.put("key", number)
    folder = data / document_id[:2] / document_id[2:] / "incremental"
    (folder / "last").write_bytes(replica.changes()[2])

    result = invoke("doc", "export", data, "--to", tmp_path / "out")

    assert result.exit_code == 1
    assert f"{document_id}: not all of it is saved: 1 changes wait" in result.stderr
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_export_of_what_is_not_there_goes_on_with_the_others(data: Path, tmp_path: Path) -> None:
    missing, deleted = amsync.generate_document_id(), deleted_id(data)
    first = ids(data)[0]

    result = invoke("doc", "export", data, missing, deleted, first, "--to", tmp_path / "out")

    assert result.exit_code == 1
    assert f"there is no document {missing}" in result.stderr
    assert f"{deleted} was deleted" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{first}.automerge"]


@pytest.mark.parametrize("place", ["", "below", "../data/again"])
def test_export_into_the_directory_itself_is_refused(data: Path, place: str) -> None:
    before = snapshot(data)

    result = invoke("doc", "export", data, "--to", data / place)

    assert result.exit_code == 2
    assert snapshot(data) == before


INTERRUPTED = """
import sys
from amsync import cli
from amsync.storage import durable
from amsync.storage.files import RealFileSystem

def rename(self, source, target):
    raise KeyboardInterrupt

RealFileSystem.rename = rename
cli.main()
"""


def test_an_interrupted_export_leaves_nothing_half(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    done = run_to_end(
        [sys.executable, "-c", INTERRUPTED, "doc", "export", str(data), "--to", str(out)],
        environment=environment({}),
    )

    assert done.returncode == 1
    assert "Aborted" in done.stderr
    assert list(out.iterdir()) == []


def test_nothing_is_changed_by_list_show_and_export(tmp_path: Path) -> None:
    document_id = amsync.generate_document_id()
    with Serving(tmp_path, "--data-dir", "data") as serving:
        with ReplicaClient(serving.url, document_id) as client:
            client.put("kept", True)
            client.wait_acknowledged()
        serving.kill9()
    data = tmp_path / "data"
    (data / f"{amsync.generate_document_id()}.automerge").write_bytes(
        _automerge.build_document(VALUE)
    )
    before = snapshot(data)

    listed = invoke("doc", "list", data)
    shown = invoke("doc", "show", data, document_id, "--json")
    exported = invoke("doc", "export", data, "--to", tmp_path / "out")

    assert len(listed.stdout.split()) == 2
    assert json.loads(shown.stdout)["value"] == {"kept": True}
    assert exported.exit_code == 0
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert snapshot(data) == before


def test_a_directory_of_automerge_repo_stays_one(tmp_path: Path) -> None:
    document_id = amsync.generate_document_id()
    folder = tmp_path / "data" / document_id[:2] / document_id[2:] / "snapshot"
    folder.mkdir(parents=True)
    (folder / "x").write_bytes(_automerge.build_document(VALUE))
    before = snapshot(tmp_path / "data")

    assert invoke("doc", "list", tmp_path / "data").stdout == f"{document_id}\n"
    assert snapshot(tmp_path / "data") == before


EVERY_COMMAND = {
    "list": ["doc", "list", "DIR"],
    "show": ["doc", "show", "DIR", "4NMNnkMhL8jXrdJ9jamS58PAVdXu"],
    "export": ["doc", "export", "DIR", "--to", "OUT"],
    "import": ["doc", "import", "DIR", "FILE"],
    "checkpoint": ["checkpoint", "DIR"],
    "fsck": ["fsck", "DIR"],
}


@pytest.mark.parametrize("command", EVERY_COMMAND)
@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_dir_that_is_none_is_refused_and_not_made(
    tmp_path: Path, command: str, name: str
) -> None:
    for each in ("file", "FILE"):
        (tmp_path / each).write_text("")
    places = {"DIR": tmp_path / name, "OUT": tmp_path / "out", "FILE": tmp_path / "FILE"}
    before = snapshot(tmp_path)

    result = invoke(*(places.get(each, each) for each in EVERY_COMMAND[command]))

    assert result.exit_code == 2
    assert name in result.stderr
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("command", [each for each in EVERY_COMMAND if each != "fsck"])
def test_a_directory_that_a_server_holds_is_refused(tmp_path: Path, command: str) -> None:
    document_id = amsync.generate_document_id()
    with Serving(tmp_path, "--data-dir", "data") as serving:
        with ReplicaClient(serving.url, document_id) as client:
            client.put("kept", True)
            client.wait_acknowledged()
        (tmp_path / "FILE").write_text("")
        places = {"DIR": tmp_path / "data", "OUT": tmp_path / "out", "FILE": tmp_path / "FILE"}

        result = invoke(*(places.get(each, each) for each in EVERY_COMMAND[command]))

        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert f"is held by a server of its own, process {serving.process.pid}" in result.stderr
        assert result.stdout == ""
        assert not (tmp_path / "out").exists()
        assert serving.signal(signal.SIGTERM) == 0
