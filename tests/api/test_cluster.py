"""The calls about the whole, on an embedded server; and what every call has in common."""

import json
import urllib.request
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from amsync.version import __version__
from server.replicas import ReplicaClient
from support.admin import metrics

from .conftest import TOKEN, Api, StartApi


def test_embedded_server_is_a_cluster_of_one(api: Api) -> None:
    document_id = api.put({"a": 1})
    with ReplicaClient(api.server.url, document_id) as client:
        client.wait_value({"a": 1})
        client.put("b", 2)
        client.wait_acknowledged()
        status, said = api.call("GET", "/cluster")

    assert (status, said["mode"], said["version"], said["problems"]) == (
        200,
        "embedded",
        __version__,
        [],
    )
    (gateway,), (worker,) = said["gateways"], said["workers"]
    assert said["gateway"] == gateway["gateway_id"]
    assert (gateway["address"], gateway["state"]) == (api.server.url, "serving")
    assert gateway["connections"] == 1
    assert gateway["messages_in"] >= 3
    assert gateway["bytes_in"] > 0
    assert gateway["bytes_out"] > 0
    assert (worker["shards"], worker["documents"]) == (64, 1)
    assert worker["commits"] >= 2
    assert worker["committed_bytes"] > 0
    assert 0 < worker["edit_to_disk_p50_seconds"] <= worker["edit_to_disk_p99_seconds"]
    assert {shard["owner"] for shard in said["shards"]} == {worker["worker_id"]}
    assert sum(shard["documents"] for shard in said["shards"]) == 1


def test_checkpoint_empties_the_log(api: Api, tmp_path: Path) -> None:
    document_id = api.put({"a": 1})
    folder = tmp_path / "data" / document_id[:2] / document_id[2:]
    assert not folder.exists()

    status, said = api.call("POST", "/checkpoint")

    (worker,) = said["workers"]
    assert (status, worker["problem"]) == (200, None)
    assert worker["seconds"] > 0
    assert list(folder.rglob("*"))


def test_quarantined_files_are_told_with_their_reason(start: StartApi, tmp_path: Path) -> None:
    first = start()
    document_id = first.put({"a": 1})
    assert first.call("GET", "/quarantine") == (200, {"count": 0, "files": []})
    first.server.close()
    folder = tmp_path / "data" / document_id[:2] / document_id[2:] / "incremental"
    folder.mkdir(exist_ok=True)
    (folder / "bad\udcff").write_bytes(b"nonsense")

    api = start()
    assert api.call("GET", f"/documents/{document_id}")[0] == 200
    status, said = api.call("GET", "/quarantine")

    assert (status, said["count"]) == (200, 1)
    (found,) = said["files"]
    assert found["document_id"] == document_id
    assert (found["bytes"], found["path"]) == (8, ".amsync/quarantine/000001-bad?")
    assert found["reason"]
    assert found["quarantined_at"] > 1_600_000_000


def test_questions_beyond_what_a_worker_takes_are_refused(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amsync.worker.worker.MOST_QUERIES", 0)
    assert api.call("GET", "/documents")[0] == 503
    assert api.call("POST", "/checkpoint")[1]["workers"][0]["problem"] is not None
    monkeypatch.undo()
    assert api.call("GET", "/documents")[0] == 200


def test_description_is_open_and_well_formed(api: Api) -> None:
    with urllib.request.urlopen(f"{api.server.admin_url}/openapi.json", timeout=20) as answer:
        described = json.load(answer)

    assert described["openapi"] == "3.1.0"
    assert described["servers"] == [{"url": "/api/v1"}]
    names = [each["operationId"] for path in described["paths"].values() for each in path.values()]
    assert len(names) == len(set(names)) == 16
    for path in described["paths"].values():
        for operation in path.values():
            for response in operation["responses"].values():
                for content in response.get("content", {}).values():
                    Draft202012Validator.check_schema(content["schema"])


def test_every_described_call_is_there_and_wants_the_token(api: Api) -> None:
    api.token = None
    for path, operations in api.document["paths"].items():
        for method in operations:
            assert api.call(method.upper(), path.replace("{", "").replace("}", ""))[0] == 401


def test_unknown_paths_and_methods_are_problems(api: Api) -> None:
    for method, path, status in [
        ("GET", "/nothing", 404),
        ("GET", "/", 404),
        ("GET", "", 404),
        ("GET", "/documents/", 404),
        ("PATCH", "/documents", 405),
        ("POST", "/cluster", 405),
    ]:
        got, problem = api.call(method, path)
        assert (got, api.kind.partition(";")[0]) == (status, "application/problem+json"), path
        assert problem["status"] == status
    # Nothing behind the prefix is another call.
    api.token = TOKEN
    assert api.call("GET", "/documents/../cluster")[0] in (400, 404)


def test_calls_that_there_are_not_are_counted(api: Api) -> None:
    url = api.server.admin_url or ""
    name = 'amsync_events_total{event="bad_admin_requests",label=""}'
    before = metrics(url).get(name, 0)

    assert api.call("GET", "/nothing")[0] == 404
    assert api.call("PATCH", "/documents")[0] == 405

    assert metrics(url)[name] == before + 2


def test_calls_are_counted_by_operation_and_status(api: Api) -> None:
    api.call("GET", "/documents")
    api.call("GET", "/documents?limit=0")
    with urllib.request.urlopen(f"{api.server.admin_url}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    assert 'amsync_admin_calls_total{operation="list_documents",status="200"} 1.0' in text
    assert 'amsync_admin_calls_total{operation="list_documents",status="400"} 1.0' in text
    assert "amsync_admin_call_seconds_count 2.0" in text
