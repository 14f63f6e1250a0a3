"""`amsync checkpoint`: a directory as a clean stop would have left it."""

import json
from pathlib import Path

import pytest

import amsync
from amsync import Server, _automerge
from server.replicas import ReplicaClient
from support.tree import snapshot

from .running import Serving, invoke

DOCUMENTS = 3


@pytest.fixture
def killed(tmp_path: Path) -> tuple[Path, list[str]]:
    """The directory of a server that was killed, and its documents."""
    document_ids = sorted(amsync.generate_document_id() for _ in range(DOCUMENTS))
    with Serving(tmp_path, "--data-dir", "data") as serving:
        for document_id in document_ids:
            with ReplicaClient(serving.url, document_id) as client:
                client.put("kept", document_id)
                client.wait_acknowledged()
        serving.kill9()
    return tmp_path / "data", list(document_ids)


def test_after_a_kill_9_everything_is_in_the_folders(killed: tuple[Path, list[str]]) -> None:
    data, document_ids = killed
    assert list((data / ".amsync" / "wal").rglob("*.wal"))

    result = invoke("checkpoint", data)

    assert result.exit_code == 0, result.output
    assert f"changes of {DOCUMENTS} documents brought out of" in result.stdout
    assert list((data / ".amsync" / "wal").rglob("*")) == []
    for document_id in document_ids:
        # As automerge-repo reads it: all files of the folder, one after the other.
        files = list((data / document_id[:2] / document_id[2:]).rglob("*/*"))
        replica = _automerge.Replica.load(b"".join(path.read_bytes() for path in files))
        assert replica.value() == {"kept": document_id}
    assert invoke("fsck", data).stdout.endswith("0 errors, 0 warnings, 0 notes\n")


def test_it_reports_as_json_and_a_second_one_has_nothing_to_do(
    killed: tuple[Path, list[str]],
) -> None:
    data, _ = killed

    first = json.loads(invoke("checkpoint", data, "--json").stdout)
    folders = snapshot(data)
    second = json.loads(invoke("checkpoint", data, "--json").stdout)

    assert first["documents"] == DOCUMENTS
    assert first["wal_bytes"] > 0
    assert second == {
        "documents": 0,
        "deleted": 0,
        "wal_bytes": 0,
        "wal_bytes_left": 0,
        "compacted": 0,
        "findings": [],
    }
    after = snapshot(data)
    assert {name for name in after if "/" in name} == {name for name in folders if "/" in name}


def test_documents_of_many_files_are_compacted(tmp_path: Path) -> None:
    with Server(data_dir=tmp_path / "data") as server:
        document_id = server.create_document(data={"number": -1})
        view = server.get_document(document_id)
    assert view is not None
    replica = _automerge.Replica.load(view.saved)
    folder = tmp_path / "data" / document_id[:2] / document_id[2:]
    for number in range(100):
        replica.put("number", number)
        (folder / "incremental" / str(number)).write_bytes(replica.changes()[-1])

    result = invoke("checkpoint", tmp_path / "data", "--json")

    assert json.loads(result.stdout)["compacted"] == 1
    (path,) = (each for each in folder.rglob("*") if each.is_file())
    assert _automerge.Replica.load(path.read_bytes()).value() == {"number": 99}


def test_a_damaged_log_is_brought_out_as_far_as_it_is_good(
    killed: tuple[Path, list[str]],
) -> None:
    data, _ = killed
    (segment,) = (data / ".amsync" / "wal").rglob("*.wal")
    content = bytearray(segment.read_bytes())
    content[60] ^= 0xFF  # in the first record
    segment.write_bytes(bytes(content))

    result = invoke("checkpoint", data, "--json")

    shown = json.loads(result.stdout)
    assert result.exit_code == 0
    assert {each["kind"] for each in shown["findings"]} >= {"bad_record", "quarantined"}
    assert shown["wal_bytes_left"] == 0
    assert "quarantined" in invoke("fsck", data).stdout


def test_a_directory_that_no_server_has_used_is_refused_and_left(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    before = snapshot(tmp_path)

    result = invoke("checkpoint", tmp_path)

    assert result.exit_code == 2
    assert "no server of amsync has used" in result.stderr
    assert snapshot(tmp_path) == before
