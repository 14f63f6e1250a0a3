"""`amsync backup` of a cluster in which clients type, workers die, and gateways come and go."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from amsync import Server, generate_document_id
from amsync.backup import open_backup
from amsync.cli import cli
from amsync.worker.engine import build_document, value_of
from server.replicas import ReplicaClient

from .processes import ClusterProcesses, Process

TOKEN = "an-admin-token-for-tests"
DOCUMENTS = 60
OPTIONS = ("--admin-token", TOKEN)


def run(command: str, *arguments: str | Path) -> Result:
    environment = {"AMSYNC_ADMIN_TOKEN": TOKEN}
    given = [command, *map(os.fspath, arguments)]
    return CliRunner().invoke(cli, given, env=environment, prog_name="amsync")


def put_documents(gateway: Process, folder: Path) -> dict[str, object]:
    """Documents that a cluster has from now on, by id."""
    folder.mkdir()
    values: dict[str, object] = {}
    for number in range(DOCUMENTS):
        document_id = generate_document_id()
        values[document_id] = {"number": number}
        path = folder / f"{document_id}.automerge"
        path.write_bytes(build_document({"number": number}))
    result = run("doc", "import", gateway.admin, folder)
    assert result.exit_code == 0, result.output
    return values


def saved_values(path: Path) -> dict[str, object]:
    backup = open_backup(path)
    return {document_id: value_of(saved) for document_id, saved in backup.documents()}


@contextmanager
def typing(gateway: Process) -> Iterator[ReplicaClient]:
    """A client that edits a document all the time, in a thread of its own."""
    with ReplicaClient(gateway.url, generate_document_id()) as client:
        client.put("first", 0)
        client.wait_acknowledged()
        ends = threading.Event()

        def edit() -> None:
            number = 0
            while not ends.is_set():
                number += 1
                client.put(f"key{number}", number)
                client.listen(0.01)

        thread = threading.Thread(target=edit)
        thread.start()
        try:
            yield client
        finally:
            ends.set()
            thread.join()


def test_a_live_cluster_is_saved_and_comes_back_elsewhere(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, gateways=2, workers=2, gateway_options=OPTIONS) as cluster:
        one, two = cluster.gateways
        values = put_documents(one, tmp_path / "in")
        with typing(two) as client:
            result = run("backup", one.admin, "--to", tmp_path / "out.tar")
        assert result.exit_code == 0, result.output

        found = saved_values(tmp_path / "out.tar")
        typed = found.pop(client.document_id)
        assert found == values
        assert isinstance(typed, dict)
        assert typed["first"] == 0

        gone = next(iter(values))
        deleted = run("doc", "delete", two.admin, gone, "--yes")
        again = run("restore", tmp_path / "out.tar", "--to", two.admin, "--json")
    assert deleted.exit_code == 0, deleted.output
    assert again.exit_code == 1
    said = json.loads(again.stdout)
    assert (said["taken"], said["new"], said["new_changes"]) == (DOCUMENTS, 0, 0)
    assert [each["document_id"] for each in said["refused"]] == [gone]

    elsewhere = run("restore", tmp_path / "out.tar", "--to", tmp_path / "other")
    assert elsewhere.exit_code == 0, elsewhere.output
    with Server(data_dir=tmp_path / "other") as server:
        views = {name: server.get_document(name) for name in server.list_documents()}
    assert {name: view.value for name, view in views.items() if view} == values | {
        client.document_id: typed
    }


@pytest.mark.slow
def test_a_worker_that_is_killed_meanwhile_costs_time_only(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, gateways=1, workers=2, gateway_options=OPTIONS) as cluster:
        (gateway,) = cluster.gateways
        values = put_documents(gateway, tmp_path / "in")
        killed = threading.Timer(0.2, cluster.workers[0].kill9)
        killed.start()
        result = run("backup", gateway.admin, "--to", tmp_path / "out")
        killed.join()

    assert result.exit_code == 0, result.output
    assert saved_values(tmp_path / "out") == values


def test_a_wrong_token_saves_nothing(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, gateway_options=("--admin-token", TOKEN + "x")) as cluster:
        result = run("backup", cluster.gateways[0].admin, "--to", tmp_path / "out")

    assert result.exit_code == 1
    assert "401" in result.stderr
    assert not (tmp_path / "out").exists()
