"""Connections that come and go: offline work, drops while typing, the same peer twice, TLS."""

from pathlib import Path

import pytest

import amsync
from interop.conftest import ServerStarter
from interop.driver import Driver
from interop.servers import Server


def test_offline_edits_of_both_sides_merge_on_reconnect(js: Driver, server: Server) -> None:
    here, there = js.connect(server.url), js.connect(server.url)
    doc = here.create({"list": ["start"]})
    doc.wait_saved()
    found = there.find(doc.id)

    here.go_offline()
    for number in range(20):
        doc.edit(["push", ["list"], f"offline-{number}"])
        found.edit(["push", ["list"], f"online-{number}"])
    found.wait_saved()
    here.go_online()
    value = js.converge([doc, found])

    assert len(value["list"]) == 41
    assert here.connection()["welcomes"] == 2


def test_document_made_before_the_first_connection_is_uploaded(js: Driver, server: Server) -> None:
    writer = js.connect(server.url, offline=True)
    doc = writer.create({"text": ""})
    doc.type_text(["text"], "written at sea")

    writer.go_online()
    doc.wait_saved()

    assert js.connect(server.url).find(doc.id).value() == {"text": "written at sea"}


def test_client_with_storage_goes_on_in_a_new_process(
    js: Driver, server: Server, tmp_path: Path
) -> None:
    first = js.connect(server.url, peer_id="laptop-morning", storage=tmp_path / "client")
    doc = first.create({"list": ["morning"]})
    doc.wait_saved()
    other = js.connect(server.url).find(doc.id)
    storage_id = first.storage_id()
    first.close()
    other.edit(["push", ["list"], "meanwhile"])

    again = js.connect(server.url, peer_id="laptop-evening", storage=tmp_path / "client")
    found = again.find(doc.id)
    found.edit(["push", ["list"], "evening"])
    value = js.converge([found, other])

    assert again.storage_id() == storage_id
    assert sorted(value["list"]) == ["evening", "meanwhile", "morning"]


def test_same_peer_drops_and_returns_while_both_type(
    js: Driver, start_server: ServerStarter, against: str
) -> None:
    # automerge-repo 2.5.6 as a server that doesn't announce keeps a peer's sync state over
    # its reconnects and then stays silent (PROTOCOL 5.7, rule 5); announcing, it renews it.
    server = start_server(announce=against == "js")
    steady = js.connect(server.url, peer_id="steady")
    shaky = js.connect(server.url, peer_id="shaky", retry_seconds=0.05)
    doc = steady.create({"list": []})
    doc.wait_saved()
    found = shaky.find(doc.id)
    doc.start_typing(["list"], "steady", 0.01)
    found.start_typing(["list"], "shaky", 0.01)

    for welcomes in range(2, 12):
        shaky.drop()
        shaky.wait_connected(welcomes=welcomes)
    found.wait_typed(30)
    written = doc.stop_typing() + found.stop_typing()
    value = js.converge([doc, found])

    assert sorted(value["list"]) == sorted(written)
    assert steady.connection()["welcomes"] == 1


def test_peer_that_returns_before_the_server_noticed_its_loss_is_served(
    js: Driver, server: Server
) -> None:
    other = js.connect(server.url).create({"list": []})
    other.wait_saved()
    # The first socket stays open on a Repo of its own; the second one joins with its peer id.
    stale = js.connect(server.url, peer_id="twin")
    stale.come_no_more()
    stale.find(other.id)
    fresh = js.connect(server.url, peer_id="twin")
    found = fresh.find(other.id)

    stale.wait_disconnected()
    found.edit(["push", ["list"], "fresh"])
    other.edit(["push", ["list"], "other"])
    value = js.converge([other, found])

    assert sorted(value["list"]) == ["fresh", "other"]
    assert fresh.connection()["welcomes"] == 1


def test_server_keeps_one_peer_id_and_storage_id(js: Driver, start_server: ServerStarter) -> None:
    server = start_server()
    client = js.connect(server.url)
    before = client.wait_connected()
    server.restart()
    after = client.wait_connected(welcomes=2)

    assert after["serverPeerId"] == before["serverPeerId"]
    assert after["serverMetadata"] == before["serverMetadata"]
    assert after["serverMetadata"]["storageId"]
    assert after["serverMetadata"].get("isEphemeral") is False


@pytest.fixture(scope="module")
def tls_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, made by `amsync.write_cert`."""
    pair = amsync.write_cert(tmp_path_factory.mktemp("tls"))
    return Path(pair.cert), Path(pair.key)


def test_clients_sync_over_tls(
    start_server: ServerStarter, tls_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    server = start_server(tls=tls_pair)
    assert server.url.startswith("wss://")
    with Driver(tmp_path / "node.log", extra_ca=tls_pair[0]) as trusting:
        writer, reader = trusting.connect(server.url), trusting.connect(server.url)
        doc = writer.create({"secret": 1})
        doc.wait_saved()
        found = reader.find(doc.id)
        found.edit(["set", ["answer"], 2])
        assert trusting.converge([doc, found]) == {"secret": 1, "answer": 2}


def test_client_that_does_not_trust_the_certificate_stays_away(
    start_server: ServerStarter, tls_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    server = start_server(tls=tls_pair)
    with Driver(tmp_path / "node.log") as wary:
        client = wary.connect(server.url, retry_seconds=1, wait=False)
        wary.wait_error("self-signed certificate")
        assert not client.connection()["connected"]
