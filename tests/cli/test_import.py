"""`amsync doc import`: what is taken in, what is refused, and that doing it again is harmless."""

import json
import os
import sys
from pathlib import Path

import pytest

import amsync
from amsync import Server, _automerge
from server.replicas import ReplicaClient
from support.program import run_to_end

from .running import Serving, environment, invoke

VALUE = {"title": "Hello"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def values(data: Path) -> dict[str, object]:
    with Server(data_dir=data) as server:
        views = [server.get_document(each) for each in server.list_documents()]
    return {view.document_id: view.value for view in views if view is not None}


def put(folder: Path, content: bytes, name: str | None = None) -> tuple[str, Path]:
    document_id = amsync.generate_document_id()
    folder.mkdir(exist_ok=True)
    path = folder / (name or f"{document_id}.automerge")
    path.write_bytes(content)
    return document_id, path


def test_export_and_import_into_another_directory_keep_everything(
    data: Path, tmp_path: Path
) -> None:
    with Server(data_dir=tmp_path / "first") as server:
        for number in range(5):
            server.create_document(data={"number": number})
    invoke("doc", "export", tmp_path / "first", "--to", tmp_path / "out")

    result = invoke("doc", "import", data, tmp_path / "out")

    assert result.exit_code == 0, result.output
    assert "5 documents taken in with 5 new changes, 0 refused" in result.stdout
    assert values(data) == values(tmp_path / "first")
    invoke("doc", "export", data, "--to", tmp_path / "again")
    for path in (tmp_path / "out").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_import_again_takes_nothing(data: Path, tmp_path: Path) -> None:
    put(tmp_path / "in", _automerge.build_document(VALUE))
    invoke("doc", "import", data, tmp_path / "in")
    before = sorted(data.glob("??/*/*/*"))

    result = invoke("doc", "import", data, tmp_path / "in", "--json")

    (taken,) = json.loads(result.stdout)["taken"]
    assert (taken["is_new"], taken["new_changes"]) == (False, 0)
    assert result.exit_code == 0
    assert sorted(data.glob("??/*/*/*")) == before


def test_import_merges_with_what_is_there(data: Path, tmp_path: Path) -> None:
    saved = _automerge.build_document(VALUE)
    document_id, path = put(tmp_path / "in", saved)
    invoke("doc", "import", data, path)
    ours, theirs = _automerge.Replica.load(saved), _automerge.Replica.load(saved)
    ours.put("ours", 1)
    theirs.put("theirs", 2)
    with Server(data_dir=data) as server:
        server.apply_changes(document_id, ours.save())
    path.write_bytes(theirs.save())

    result = invoke("doc", "import", data, path)

    assert f"{document_id}: 1 new changes" in result.stdout
    assert values(data) == {document_id: VALUE | {"ours": 1, "theirs": 2}}


def test_bad_files_are_refused_and_the_others_taken(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    good, _ = put(folder, _automerge.build_document(VALUE))
    replica = _automerge.Replica(b"12345678")
    replica.put("key", 1)
    replica.put("key", 2)
    bad = {
        put(folder, _automerge.build_document(VALUE)[:-1])[1]: "malformed",
        put(folder, b"")[1]: "no change",
        put(folder, b"notes")[1]: "malformed",
        put(folder, replica.changes()[1])[1]: "missing_dependency",
        put(folder, _automerge.build_document(VALUE), "notes.automerge")[1]: "--id",
    }
    os.mkfifo(folder / f"{amsync.generate_document_id()}.automerge")

    result = invoke("doc", "import", data, folder, "--json")

    shown = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [each["document_id"] for each in shown["taken"]] == [good]
    reasons = {each["source"]: each["reason"] for each in shown["refused"]}
    assert len(reasons) == len(bad) + 1
    for path, reason in bad.items():
        assert reason in reasons[str(path)]
        assert f"Error: {path}: " in result.stderr
    assert values(data) == {good: VALUE}


def test_a_change_that_contradicts_what_is_stored_is_refused(data: Path, tmp_path: Path) -> None:
    first, second = (_automerge.Replica(b"12345678") for _ in range(2))
    first.put("key", "one")
    second.put("key", "another")
    document_id, path = put(tmp_path / "in", first.save())
    invoke("doc", "import", data, path)
    path.write_bytes(second.save())

    result = invoke("doc", "import", data, path)

    assert result.exit_code == 1
    assert "duplicate_sequence" in result.stderr
    assert values(data) == {document_id: {"key": "one"}}


def test_a_file_of_any_name_with_an_id(data: Path, tmp_path: Path) -> None:
    _, path = put(tmp_path / "in", _automerge.build_document(VALUE), "notes")
    document_id = amsync.generate_document_id()

    assert invoke("doc", "import", data, path).exit_code == 1
    result = invoke("doc", "import", data, path, "--id", f"automerge:{document_id}")

    assert result.exit_code == 0
    assert values(data) == {document_id: VALUE}


def test_a_new_id_makes_a_copy_each_time(data: Path, tmp_path: Path) -> None:
    document_id, path = put(tmp_path / "in", _automerge.build_document(VALUE))
    invoke("doc", "import", data, path)

    for _ in range(2):
        shown = json.loads(invoke("doc", "import", data, path, "--new-id", "--json").stdout)
        assert shown["taken"][0]["is_new"] is True
        assert shown["taken"][0]["document_id"] != document_id

    assert list(values(data).values()) == [VALUE] * 3


@pytest.mark.parametrize("options", [["--id", "3uQLXrx4C7D8TPUoYUsWQYp1tytD", "--new-id"], ["two"]])
def test_options_that_contradict_each_other_are_refused(
    data: Path, tmp_path: Path, options: list[str]
) -> None:
    _, path = put(tmp_path / "in", b"", "a")
    arguments: list[object] = [*options]
    if options == ["two"]:
        arguments = [path, "--id", amsync.generate_document_id()]

    result = invoke("doc", "import", data, path, *arguments)

    assert result.exit_code == 2
    assert list(data.iterdir()) == []


def test_a_deleted_document_is_refused_with_that_reason(data: Path, tmp_path: Path) -> None:
    document_id, path = put(tmp_path / "in", _automerge.build_document(VALUE))
    with Server(data_dir=data) as server:
        server.create_document(document_id, VALUE)
        server.delete_document(document_id)

    result = invoke("doc", "import", data, path)

    assert result.exit_code == 1
    assert "was deleted and stays deleted" in result.stderr
    assert values(data) == {}


def test_a_data_directory_is_taken_in_with_its_log_and_flat_files(
    data: Path, tmp_path: Path
) -> None:
    in_log = amsync.generate_document_id()
    with Serving(tmp_path, "--data-dir", "other") as serving:
        with ReplicaClient(serving.url, in_log) as client:
            client.put("kept", True)
            client.wait_acknowledged()
        serving.kill9()
    flat, _ = put(tmp_path / "other", _automerge.build_document(VALUE))
    _, bad = put(tmp_path / "other", b"notes")

    result = invoke("doc", "import", data, tmp_path / "other")

    assert values(data) == {in_log: {"kept": True}, flat: VALUE}
    assert result.exit_code == 1
    assert f"Error: {bad}: " in result.stderr


def test_a_damaged_directory_of_automerge_repo_gives_what_loads(data: Path, tmp_path: Path) -> None:
    document_id = amsync.generate_document_id()
    folder = tmp_path / "other" / document_id[:2] / document_id[2:] / "snapshot"
    folder.mkdir(parents=True)
    (folder / "good").write_bytes(_automerge.build_document(VALUE))
    (folder / "torn").write_bytes(_automerge.build_document(VALUE)[:-1])

    result = invoke("doc", "import", data, tmp_path / "other")

    assert result.exit_code == 1
    assert "snapshot/torn" in result.stderr
    assert values(data) == {document_id: VALUE}


def test_a_directory_that_a_server_holds_is_not_taken_in(data: Path, tmp_path: Path) -> None:
    with Serving(tmp_path, "--data-dir", "other") as serving:
        result = invoke("doc", "import", data, tmp_path / "other")

        assert result.exit_code == 1
        assert f"is held by a server of its own, process {serving.process.pid}" in result.stderr


def test_a_folder_without_documents_and_the_directory_itself_are_refused(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()

    itself = invoke("doc", "import", data, data / ".." / "data")
    empty = invoke("doc", "import", data, tmp_path / "empty")

    assert itself.exit_code == 2
    assert (empty.exit_code, "no documents" in empty.stderr) == (1, True)


INTERRUPTED = """
import sys
from amsync import cli, offline

take_in = offline.DocumentIntake.take_in

def interrupted(self, *arguments):
    take_in(self, *arguments)
    raise KeyboardInterrupt

offline.DocumentIntake.take_in = interrupted
cli.main()
"""


def test_an_interrupted_import_has_taken_documents_whole(data: Path, tmp_path: Path) -> None:
    for _ in range(3):
        put(tmp_path / "in", _automerge.build_document(VALUE))

    done = run_to_end(
        [sys.executable, "-c", INTERRUPTED, "doc", "import", str(data), str(tmp_path / "in")],
        environment=environment({}),
    )

    assert done.returncode == 1
    assert "Aborted" in done.stderr
    assert invoke("fsck", data).stdout.endswith("0 errors, 0 warnings, 0 notes\n")
    assert list(values(data).values()) == [VALUE]
