"""A data directory moves between automerge-repo's NodeFS adapter and our server, both ways."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from interop.conftest import ServerStarter
from interop.driver import Driver
from interop.repos import Doc, Repo


def test_directory_of_automerge_repo_is_served_as_it_is(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    data_dir = tmp_path / "moved"
    reference = js.listen(storage=data_dir)
    docs = _some_documents(js.connect(reference.url))
    expected = {doc.id: (doc.heads(), doc.value()) for doc in docs}
    storage_id = reference.storage_id()
    reference.close()

    server = start_server(data_dir)
    reader = js.connect(server.url)

    assert _seen(reader, list(expected)) == expected
    assert reader.connection()["serverMetadata"]["storageId"] == storage_id


def test_directory_of_ours_is_read_by_automerge_repo_after_a_clean_stop(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    data_dir = tmp_path / "moved"
    server = start_server(data_dir)
    writer = js.connect(server.url)
    docs = _some_documents(writer)
    expected = {doc.id: (doc.heads(), doc.value()) for doc in docs}
    storage_id = writer.connection()["serverMetadata"]["storageId"]
    server.stop()
    writer.close()

    reference = js.listen(storage=data_dir)
    reader = js.connect(reference.url)

    assert _seen(reader, list(expected)) == expected
    assert reference.storage_id() == storage_id


def test_directory_goes_there_and_back_with_edits_in_between(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    data_dir = tmp_path / "moved"
    reference = js.listen(storage=data_dir)
    client = js.connect(reference.url)
    doc = client.create({"visits": ["js"]})
    doc.wait_saved()
    document_id = doc.id
    client.close()
    reference.close()

    server = start_server(data_dir)
    for _ in range(2):
        _visit(js.connect(server.url), document_id, "ours")
        server.stop()
        reference = js.listen(storage=data_dir)
        _visit(js.connect(reference.url), document_id, "js")
        reference.close()
        server.start()

    value = js.connect(server.url).find(document_id).value()
    assert value == {"visits": ["js", "ours", "js", "ours", "js"]}


def test_edits_after_kill_9_are_in_the_directory_after_the_next_clean_stop(
    js: Driver, start_server: ServerStarter, tmp_path: Path, amsync_only: None
) -> None:
    """automerge-repo's own server acknowledges before it saves."""
    data_dir = tmp_path / "moved"
    server = start_server(data_dir)
    writer = js.connect(server.url)
    docs = _some_documents(writer)
    expected = {doc.id: (doc.heads(), doc.value()) for doc in docs}
    server.kill9()
    writer.close()
    server.start()
    server.stop()

    reference = js.listen(storage=data_dir)

    assert _seen(js.connect(reference.url), list(expected)) == expected


@pytest.mark.usefixtures("amsync_only")
def test_directory_of_a_killed_server_is_read_by_automerge_repo_after_amsync_checkpoint(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    data_dir = tmp_path / "moved"
    server = start_server(data_dir)
    writer = js.connect(server.url)
    docs = _some_documents(writer)
    expected = {doc.id: (doc.heads(), doc.value()) for doc in docs}
    server.kill9()
    writer.close()

    command = [sys.executable, "-m", "amsync", "checkpoint", str(data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    reference = js.listen(storage=data_dir)
    reader = js.connect(reference.url)
    assert _seen(reader, list(expected)) == expected
    _visit(reader, docs[0].id, "js")
    reference.close()
    server.start()
    assert js.connect(server.url).find(docs[0].id).value()["visits"] == ["js"]


@pytest.mark.usefixtures("amsync_only")
def test_torn_file_in_a_moved_directory_costs_only_its_own_changes(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    """automerge-repo drops all increments of a document when one of them is torn."""
    data_dir = tmp_path / "moved"
    reference = js.listen(storage=data_dir)
    client = js.connect(reference.url)
    whole = client.create({"whole": True})
    # More than 1 KiB in the snapshot, or automerge-repo compacts instead of adding increments.
    torn = client.create({"torn": 0})
    torn.edit(["text", ["text"], 4000])
    folder = data_dir / torn.id[:2] / torn.id[2:]
    _wait_for_file(folder / "snapshot", at_least_bytes=1024)
    torn.edit(["set", ["torn"], 1])
    increment = _wait_for_file(folder / "incremental", at_least_bytes=1)
    whole.wait_saved()
    client.close()
    reference.close()
    content = increment.read_bytes()
    increment.write_bytes(content[: len(content) // 2])

    reader = js.connect(start_server(data_dir).url)

    assert reader.find(whole.id).value() == {"whole": True}
    assert reader.find(torn.id).value()["torn"] == 0
    kept = [path for path in (data_dir / ".amsync").rglob("*") if path.is_file()]
    assert content[: len(content) // 2] in [path.read_bytes() for path in kept]


def _some_documents(client: Repo) -> list[Doc]:
    """Documents whose storage holds snapshots, increments, big values, and nothing but a start."""
    typed = client.create({"text": "", "visits": []})
    typed.type_text(["text"], "many small changes " * 20)
    big = client.create({"name": "big"})
    big.edit(["bytes", ["blob"], 300_000])
    edited = client.create({"list": []})
    edited.edit(["text", ["text"], 4000])
    for number in range(5):
        edited.edit(["push", ["list"], number])
        edited.wait_saved()
    docs = [typed, big, edited, client.create({"small": None}), client.create()]
    for doc in docs:
        doc.wait_saved()
    return docs


def _seen(reader: Repo, document_ids: list[str]) -> dict[str, tuple[list[str], object]]:
    return {doc.id: (doc.heads(), doc.value()) for doc in reader.find_many(document_ids)}


def _visit(client: Repo, document_id: str, name: str) -> None:
    doc = client.find(document_id)
    doc.edit(["push", ["visits"], name])
    doc.wait_saved()
    client.close()


def _wait_for_file(folder: Path, at_least_bytes: int) -> Path:
    """automerge-repo saves some time after it acknowledged, and tells nobody."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for path in folder.glob("*"):
            if path.stat().st_size >= at_least_bytes:
                return path
        time.sleep(0.02)
    raise TimeoutError(f"no file of {at_least_bytes} bytes in {folder}")
