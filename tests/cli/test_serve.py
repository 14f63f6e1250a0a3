"""`amsync serve` as an operator uses it: what it prints, how it ends, how it fails."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import urllib.request
from pathlib import Path

import pytest
from websockets.exceptions import WebSocketException

import amsync
from amsync import Server, write_cert
from server.replicas import ReplicaClient, eventually
from support.rawclient import RawClient

from .running import Serving, run_command

NODE_MODULES = Path(__file__).parent.parent / "js" / "node_modules"


def wal_segments(data_dir: Path) -> list[Path]:
    return list((data_dir / ".amsync" / "wal").glob("**/*.wal"))


def store_something(url: str, document_id: str, key: str = "kept") -> None:
    with ReplicaClient(url, document_id) as client:
        client.put(key, True)
        client.wait_acknowledged()


def test_greeting_says_where_and_what(tmp_path: Path) -> None:
    with Serving(tmp_path, "--data-dir", "docs", "--storage-id", "my-id") as serving:
        lines = serving.greeting.splitlines()
        assert lines[0] == f"amsync {amsync.__version__} listening on {serving.url}"
        assert str(tmp_path / "docs") in serving.greeting
        assert "my-id" in serving.greeting
        assert "created on request" in serving.greeting
        assert serving.url in serving.snippet
        with RawClient(serving.url) as client:
            client.join()
            assert client.is_answered(amsync.generate_document_id())


def test_greeting_says_that_unknown_documents_are_unavailable(tmp_path: Path) -> None:
    with Serving(tmp_path, "--no-auto-create-docs") as serving:
        assert "created on request" not in serving.greeting
        assert "unavailable" in serving.greeting
        with RawClient(serving.url) as client:
            client.join()
            client.request(amsync.generate_document_id())
            client.receive_type("doc-unavailable")


def test_greeting_names_the_issuers_and_shows_how_to_bring_a_token(tmp_path: Path) -> None:
    issuer = ("--auth-client-id", "us", "--auth-issuer", "https://issuer.invalid")
    with Serving(tmp_path, "--trusted-proxies", "127.0.0.1", *issuer) as serving:
        assert "tokens of          https://issuer.invalid" in serving.greeting
        assert "getToken" in serving.snippet
        assert serving.url in serving.snippet
        assert "ANYBODY" not in serving.greeting


def test_greeting_warns_of_anonymous_access_and_shows_limits(tmp_path: Path) -> None:
    with Serving(tmp_path, "--host", "0.0.0.0", "--allow-anonymous") as serving:
        assert "ANYBODY" in serving.greeting
        for name in ("max_connections_per_address", "creations_per_minute"):
            assert name in serving.greeting
        assert serving.url.startswith("ws://127.0.0.1:")


@pytest.mark.node
def test_snippet_works_when_pasted(tmp_path: Path) -> None:
    assert shutil.which("node"), "Node 20 or newer is missing"
    assert NODE_MODULES.exists(), "run `npm ci` in tests/js first"
    (tmp_path / "node_modules").symlink_to(NODE_MODULES.resolve())
    with Serving(tmp_path) as serving:
        (tmp_path / "snippet.mjs").write_text(serving.snippet)
        node = subprocess.Popen(
            ["node", "snippet.mjs"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        try:
            assert node.stdout is not None
            killer = threading.Timer(60, node.kill)
            killer.start()
            line = node.stdout.readline()
            killer.cancel()
            assert line.startswith("created automerge:")
            document_id = line.removeprefix("created automerge:").strip()
            with ReplicaClient(serving.url, document_id) as client:
                client.wait_value({"hello": "world"}, timeout=20)
        finally:
            node.kill()
            node.wait(5)
            if node.stdout is not None:
                node.stdout.close()
        assert serving.signal(signal.SIGTERM) == 0
    with Server(data_dir=tmp_path / ".automerge") as server:
        view = server.get_document(document_id)
        assert view is not None
        assert view.value == {"hello": "world"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_cleanly(tmp_path: Path, number: int) -> None:
    document_id = amsync.generate_document_id()
    with Serving(tmp_path) as serving:
        store_something(serving.url, document_id)
        watching = RawClient(serving.url, peer_id="watching")
        watching.join()

        assert serving.signal(number) == 0

        assert watching.wait_closed()[0] == 1012
        watching.close()
        assert not any("Traceback" in line for line in serving.errors)
    assert wal_segments(tmp_path / ".automerge") == []
    with Server(data_dir=tmp_path / ".automerge") as server:
        assert server.list_documents() == [document_id]


def test_kill_9_loses_nothing_acknowledged_and_needs_no_cleaning(tmp_path: Path) -> None:
    document_id = amsync.generate_document_id()
    with Serving(tmp_path) as serving:
        store_something(serving.url, document_id)
        serving.kill9()

    with Serving(tmp_path) as serving:
        with ReplicaClient(serving.url, document_id) as client:
            client.wait_value({"kept": True})
        assert serving.signal(signal.SIGTERM) == 0


def test_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        other_ports = [
            ("--port", port, "--admin-port", "off"),
            ("--port", "0", "--admin-port", port),
        ]
        for arguments in other_ports:
            done = run_command(tmp_path, *arguments)
            assert done.returncode == 1
            assert len(done.stderr.splitlines()) == 1, done.stderr
            assert port in done.stderr
            assert "in use" in done.stderr
            assert done.stdout == ""


def test_data_dir_that_can_not_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    (tmp_path / "locked").mkdir(mode=0o500)
    unusable = ["file/below"]
    if os.geteuid() != 0:
        unusable.append("locked/below")
    for data_dir in unusable:
        done = run_command(tmp_path, "--port", "0", "--admin-port", "off", "--data-dir", data_dir)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert data_dir in done.stderr


def test_busy_data_dir_is_one_line_that_names_the_holder(tmp_path: Path) -> None:
    with Serving(tmp_path) as serving:
        done = run_command(tmp_path, "--port", "0", "--admin-port", "off")
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert ".automerge" in done.stderr
        assert str(serving.process.pid) in done.stderr
        with RawClient(serving.url) as client:
            client.join()


def test_share_of_a_module_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "policy.py").write_text(
        "from amsync import Share\n"
        "def decide(client_id, document_id):\n"
        "    return Share.DENY if client_id == 'mallory' else Share.ALLOW\n"
    )
    document_id = amsync.generate_document_id()
    with Serving(tmp_path, "--share", "policy:decide") as serving:
        with ReplicaClient(serving.url, document_id, peer_id="mallory") as refused:
            refused.wait(lambda: refused.unavailable == 1)
        with ReplicaClient(serving.url, document_id, peer_id="alice") as served:
            served.wait_loaded()


def test_admin_port_off_and_free(tmp_path: Path) -> None:
    with Serving(tmp_path, "--admin-port", "off") as serving:
        assert "metrics" not in serving.greeting
    with (
        Serving(tmp_path, "--admin-port", "0") as serving,
        urllib.request.urlopen(serving.admin_url + "/readyz", timeout=20) as answer,
    ):
        assert json.load(answer)["status"] == "ready"


def test_tls(tmp_path: Path) -> None:
    pair = write_cert(tmp_path)
    arguments = ["--tls-cert", str(pair.cert), "--tls-key", str(pair.key)]
    with Serving(tmp_path, *arguments) as serving:
        assert serving.url.startswith("wss://")
        assert 'WebSocketClientAdapter("wss://' in serving.snippet


def test_json_logs_are_json(tmp_path: Path) -> None:
    (tmp_path / "policy.py").write_text("def decide(client_id, document_id):\n    raise OSError\n")
    arguments = ["--log-format", "json", "--log-level", "debug", "--share", "policy:decide"]
    with Serving(tmp_path, *arguments) as serving:
        document_id = amsync.generate_document_id()
        with ReplicaClient(serving.url, document_id) as client:
            client.wait(lambda: client.unavailable == 1)
        assert serving.signal(signal.SIGTERM) == 0
        entries = [json.loads(line) for line in serving.errors]
    assert entries
    for entry in entries:
        assert {"time", "level", "logger", "event"} <= entry.keys()
    refused = [entry for entry in entries if entry["level"] == "warning"]
    assert refused[0]["event"] == "who decides on access can't be asked; it counts as a no"
    assert "OSError" in refused[0]["error"]


def test_wrong_option_ends_with_status_2(tmp_path: Path) -> None:
    done = run_command(tmp_path, "--port", "many")
    assert done.returncode == 2
    assert "'many'" in done.stderr
    assert "65535" in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def refuses(url: str) -> bool:
    try:
        RawClient(url).close()
    except (OSError, WebSocketException):
        return True
    return False


def test_second_signal_does_not_wait_for_the_drain(tmp_path: Path) -> None:
    """Ctrl-C twice: the operator has no patience left; nothing acknowledged is at stake."""
    document_id = amsync.generate_document_id()
    with Serving(tmp_path, "--drain-seconds", "600") as serving:
        store_something(serving.url, document_id)
        clients = [RawClient(serving.url, peer_id=f"p{n}") for n in range(5)]
        for client in clients:
            client.join()
        serving.process.send_signal(signal.SIGINT)
        # Two signals at once would be one.
        eventually(lambda: refuses(serving.url))
        assert serving.signal(signal.SIGINT) == 0
        for client in clients:
            client.close()
    with Server(data_dir=tmp_path / ".automerge") as server:
        assert server.list_documents() == [document_id]
