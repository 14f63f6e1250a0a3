"""The admin port: health, readiness and metrics that move."""

import json
import os
import re
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import pytest

import amsync
from amsync import Server, Share
from amsync.ids import DocumentId
from amsync.storage import LoadedDocument, Store
from amsync.worker.engine import build_document
from amsync.worker.worker import Worker
from support import admin
from support.rawclient import RawClient, refused

from .conftest import StartServer
from .replicas import ReplicaClient, eventually, samples


def get(server: Server, path: str) -> tuple[int, str, str]:
    """Status, content type and body."""
    try:
        with urllib.request.urlopen(f"{server.admin_url}{path}", timeout=20) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def get_json(server: Server, path: str) -> tuple[int, Any]:
    status, _, body = get(server, path)
    return status, json.loads(body)


def test_no_admin_port_unless_asked(start: StartServer) -> None:
    assert start().admin_url is None


def test_health_and_readiness(start: StartServer) -> None:
    server = start(admin_port=0)
    assert get_json(server, "/healthz") == (200, {"status": "ok"})
    assert get_json(server, "/readyz") == (200, {"status": "ready", "reasons": []})
    assert get(server, "/nothing")[0] == 404


def test_nothing_can_be_changed(start: StartServer) -> None:
    server = start(admin_port=0)
    for path in ("/healthz", "/readyz", "/metrics"):
        request = urllib.request.Request(f"{server.admin_url}{path}", b"x", method="POST")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=20)
        assert caught.value.code == 405
        caught.value.close()


def test_admin_port_is_gone_after_close(start: StartServer) -> None:
    server = start(admin_port=0)
    url = f"{server.admin_url}/healthz"
    server.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=2)


def test_metrics_have_names_help_and_bounded_labels(start: StartServer) -> None:
    server = start(admin_port=0, share=lambda client_id, document_id: Share.ALLOW)
    document_id = amsync.generate_document_id()
    with ReplicaClient(server.url, document_id, peer_id="secret-peer") as client:
        client.put("n", 1)
        client.wait_acknowledged()
        status, kind, body = get(server, "/metrics")

    assert status == 200
    assert kind.startswith(("text/plain", "application/openmetrics-text"))
    described = dict(re.findall(r"^# HELP (\S+) (.+)$", body, re.M))
    typed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", body, re.M))
    assert described.keys() == typed.keys()
    for name, kind in {
        "amsync_connections": "gauge",
        "amsync_handshakes": "counter",
        "amsync_messages": "counter",
        "amsync_message_bytes": "counter",
        "amsync_refusals": "counter",
        "amsync_closes": "counter",
        "amsync_documents_open": "gauge",
        "amsync_document_bytes": "gauge",
        "amsync_commit_seconds": "histogram",
        "amsync_fsync_seconds": "histogram",
        "amsync_edit_to_peer_seconds": "histogram",
        "amsync_load_seconds": "histogram",
        "amsync_storage_errors": "counter",
    }.items():
        assert typed[name] == kind
    assert all(text.endswith(".") and len(text) > 10 for text in described.values())
    assert all(name.startswith(("amsync_", "process_")) for name in described)
    assert document_id not in body
    assert "secret-peer" not in body


def test_metrics_of_two_servers_are_apart(start: StartServer, tmp_path: Path) -> None:
    one = start(admin_port=0, data_dir=tmp_path / "one")
    two = start(admin_port=0, data_dir=tmp_path / "two")
    with RawClient(one.url) as client:
        client.join()
        assert samples(one)["amsync_connections"] == 1
        assert samples(two)["amsync_connections"] == 0


def test_connections_handshakes_and_closes_are_counted(start: StartServer) -> None:
    server = start()
    with RawClient(server.url) as client:
        assert samples(server)["amsync_connections"] == 0  # not joined yet
        client.join()
        eventually(lambda: samples(server)["amsync_connections"] == 1)
    eventually(lambda: samples(server)["amsync_connections"] == 0)
    found = samples(server)
    assert found["amsync_handshakes_total{result=accepted}"] == 1
    assert found["amsync_closes_total{reason=client}"] == 1

    assert found["amsync_reconnects_total"] == 0
    with RawClient(server.url) as client:
        client.join()
        eventually(lambda: samples(server)["amsync_reconnects_total"] == 1)
    with RawClient(server.url, peer_id="somebody else") as client:
        client.join()
        eventually(lambda: samples(server)["amsync_connections"] == 1)
    assert samples(server)["amsync_reconnects_total"] == 1

    with refused(403), RawClient(server.url, origin="https://example.org"):
        pass
    assert samples(server)["amsync_handshakes_total{result=foreign_origin}"] == 1


def test_messages_and_bytes_are_counted_by_type_and_direction(start: StartServer) -> None:
    server = start()
    document_id = amsync.generate_document_id()
    with (
        ReplicaClient(server.url, document_id, peer_id="one") as one,
        ReplicaClient(server.url, document_id, peer_id="two") as two,
    ):
        one.wait_loaded()
        two.wait_loaded()
        one.raw.ephemeral(document_id, {"cursor": 1})
        assert two.raw.receive_type("ephemeral")
        one.raw.send(one.raw.message("bogus-type"))
        one.raw.ping()
        found = samples(server)

    def count(kind: str, direction: str, of: str = "messages") -> float:
        return found.get(f"amsync_{of}_total{{type={kind},direction={direction}}}", 0)

    assert count("join", "in") == 2
    assert count("peer", "out") == 2
    assert count("request", "in") == 2
    assert count("sync", "out") >= 2
    assert count("ephemeral", "in") == 1
    assert count("ephemeral", "out") == 1
    for kind, direction in (("join", "in"), ("peer", "out"), ("sync", "out")):
        assert count(kind, direction, "message_bytes") > 20 * count(kind, direction)
    assert "bogus" not in str(found)


def test_refusals_are_counted_by_reason(start: StartServer) -> None:
    server = start()
    cases: dict[str, dict[str, Any]] = {
        "bad_document_id": {"type": "request", "documentId": "no", "data": b"\x42\0\0\0\0"},
        "other_sender": {"type": "leave", "senderId": "somebody-else"},
        "unknown_type": {"type": "bogus"},
    }
    with RawClient(server.url) as client:
        client.join()
        for reason, fields in cases.items():
            client.send({**client.message("x"), **fields})
            client.ping()
            assert samples(server).get(f"amsync_refusals_total{{reason={reason}}}") == 1, reason
        client.send_bytes(b"\xff")
        client.wait_closed()
    found = samples(server)
    assert found["amsync_refusals_total{reason=bad_frame}"] == 1
    eventually(lambda: samples(server).get("amsync_closes_total{reason=bad_frame}") == 1)

    with RawClient(server.url) as client:
        client.send({"type": "sync"})
        client.wait_closed()
    assert sum(v for k, v in samples(server).items() if k.startswith("amsync_closes_total")) == 2


def test_labels_made_of_input_are_bounded(start: StartServer) -> None:
    server = start()
    with RawClient(server.url) as client:
        client.join()
        for number in range(300):
            client.send({"type": f"kind-{number}", "senderId": client.peer_id})
        client.ping()
    assert not [name for name in samples(server) if "kind-" in name]
    assert len(samples(server)) < 500


def test_commit_and_edit_to_peer_latency_are_measured(start: StartServer) -> None:
    server = start()
    document_id = server.create_document(data={"n": 0})
    before = samples(server)
    with (
        ReplicaClient(server.url, document_id, peer_id="one") as one,
        ReplicaClient(server.url, document_id, peer_id="two") as two,
    ):
        one.wait_value({"n": 0})
        two.wait_value({"n": 0})
        started = time.monotonic()
        for number in range(1, 6):
            one.put("n", number)
            one.wait_acknowledged()
        two.wait_value({"n": 5})
        elapsed = time.monotonic() - started
        after = samples(server)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    for name in ("commit_seconds", "fsync_seconds", "edit_to_peer_seconds"):
        # One message may bring a slow reader several changes.
        assert grown(f"amsync_{name}_count") >= (1 if name.startswith("edit") else 5), name
        assert 0 < grown(f"amsync_{name}_sum") < elapsed * 2, name
    assert grown("amsync_committed_bytes_total") > 0


def test_compaction_is_measured(start: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def hasty(bus: Any, store: Any, metrics: Any, options: Any, **settings: Any) -> Worker:
        return Worker(bus, store, metrics, replace(options, checkpoint_seconds=0.0), **settings)

    monkeypatch.setattr("amsync.node.Worker", hasty)
    server = start()
    document_id = server.create_document(data={"text": os.urandom(3000).hex()})

    def compacted() -> dict[str, float]:
        server.apply_changes(document_id, build_document({"more": os.urandom(3000).hex()}))
        time.sleep(0.2)
        return samples(server)

    eventually(lambda: compacted()["amsync_compaction_seconds_count"] >= 1)

    found = samples(server)
    assert found["amsync_compaction_seconds_sum"] > 0
    assert found["amsync_compaction_read_bytes_total"] > 6000
    assert found["amsync_compaction_written_bytes_total"] > 6000
    assert found["amsync_checkpoint_seconds_count"] >= 1


def test_lag_and_jobs_that_wait_are_shown(
    start: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(admin_port=0)
    documents = [server.create_document(data={"n": number}) for number in range(6)]
    server.close()
    may_load, load = threading.Event(), Store.load

    def slow(store: Store, document_id: DocumentId) -> LoadedDocument:
        may_load.wait(60)
        return load(store, document_id)

    monkeypatch.setattr(Store, "load", slow)
    server = start(admin_port=0)
    assert server.admin_url is not None

    def shown(name: str) -> float:
        return admin.metrics(server.admin_url or "")[f"amsync_{name}"]

    assert (shown("lag_entries"), shown("lag_seconds"), shown("jobs_waiting")) == (0, 0, 0)
    with RawClient(server.url) as client:
        client.join()
        for document_id in documents:
            client.request(document_id)
        eventually(lambda: shown("jobs_waiting") == 2)  # of six documents in four threads
        assert shown("lag_entries") >= 1
        before = shown("lag_seconds")
        eventually(lambda: shown("lag_seconds") > before > 0)
        assert shown("oldest_unsaved_change_seconds") >= before

        may_load.set()
        eventually(lambda: shown("lag_entries") == 0)
        assert (shown("lag_seconds"), shown("jobs_waiting")) == (0, 0)


def test_documents_in_memory_are_shown(start: StartServer) -> None:
    server = start(admin_port=0)
    document_id = server.create_document(data={"text": os.urandom(10_000).hex()})
    with ReplicaClient(server.url, document_id) as client:
        client.wait_loaded()
        eventually(lambda: samples(server)["amsync_documents_open"] == 1)
        eventually(lambda: samples(server)["amsync_document_bytes"] > 10_000)
        assert "amsync_stream_bytes" in get(server, "/metrics")[2]


def test_scrape_while_clients_talk(start: StartServer) -> None:
    server = start(admin_port=0)
    with RawClient(server.url) as client:
        client.join()
        for _ in range(20):
            client.send_bytes(cbor2.dumps(client.message("leave")))
            assert get(server, "/metrics")[0] == 200
