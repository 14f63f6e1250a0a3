"""The R server's directory: `<id>.automerge`, each a whole saved document, beside our folders."""

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import amsync
from amsync._automerge import Replica, build_document
from interop.conftest import ServerStarter
from interop.driver import Driver
from interop.repos import UnavailableError
from interop.servers import AmsyncServer
from server.replicas import ReplicaClient
from simulation.oracle import heads_of
from support.rawclient import DEFAULT_SECONDS, RawClient
from support.rawvolume import RawVolume

DOCUMENTS = 30
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda good: b"",
    "torn": lambda good: good[:-7],
    "zeros": lambda good: bytes(len(good)),
}
OLD_NS = 1_600_000_000_123_456_789

pytestmark = pytest.mark.usefixtures("amsync_only")


class Flat:
    """One flat file, written as the R server does: whole, each time."""

    def __init__(self, data_dir: Path, value: dict[str, object]) -> None:
        self.document_id = amsync.generate_document_id()
        self.path = data_dir / f"{self.document_id}.automerge"
        self.replica = Replica.load(build_document(value))
        data_dir.mkdir(parents=True, exist_ok=True)
        self.save()

    def save(self) -> None:
        self.path.write_bytes(self.replica.save())
        os.utime(self.path, ns=(OLD_NS, OLD_NS))

    def edit(self, key: str, value: object, *, at_ns: int) -> None:
        self.replica.put(key, value)
        self.path.write_bytes(self.replica.save())
        os.utime(self.path, ns=(at_ns, at_ns))


def test_flat_document_is_shown_whole_at_first_sight_and_nothing_else_before(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    """To a client that is early as to one that is late; unknown documents are created here."""
    server = start_server(tmp_path / "moved")
    server.stop()
    values = [{"title": f"from R, {number}", "n": number} for number in range(DOCUMENTS)]
    flats = [Flat(tmp_path / "moved", value) for value in values]

    early = js.connect(server.url, retry_seconds=0.02, wait=False)
    sights = [early.watch(flat.document_id) for flat in flats]
    with FirstAnswers(server.url, [flat.document_id for flat in flats]) as first_answers:
        server.begin()
        _wait_for_port(server)
        prompt = js.connect(server.url, wait=False)
        sights += [prompt.watch(flat.document_id) for flat in flats]
        server.wait_listening()
        answers = first_answers.wait()

    for doc, value in zip(sights, [*values, *values], strict=True):
        seen = [(sight["state"], sight.get("value")) for sight in doc.wait_seen("ready")]
        # Before it has met a server, automerge-repo itself gives up after a second.
        if doc.repo is early:
            connected = [sight["connected"] for sight in doc.seen()]
            seen = seen[connected.index(True) :]
        assert [sight for sight in seen if sight[0] not in ("loading", "requesting")] == [
            ("ready", value)
        ]
        assert "in doc-unavailable" not in doc.traffic()
    for flat in flats:
        kind, heads = answers[flat.document_id]
        assert (kind, heads) == ("sync", flat.replica.heads())


def test_flat_files_are_never_touched_and_restarts_change_nothing(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    data_dir = tmp_path / "moved"
    flats = [Flat(data_dir, {"n": number}) for number in range(5)]
    states = data_dir / ".sync_states" / "3f0a2d5e-6f3e-4a3b-8c59-2f6d2c1a0b9c"
    states.mkdir(parents=True)
    (states / f"{flats[0].document_id}.sync").write_bytes(b"\x43\x00")
    (states / "torn.sync").write_bytes(b"")
    before = _found(data_dir)
    volume = RawVolume(data_dir)
    ids = [flat.document_id for flat in flats]

    server = start_server(data_dir)
    docs = js.connect(server.url).find_many(ids)
    assert [doc.value() for doc in docs] == [{"n": number} for number in range(5)]
    server.stop()
    tree = volume.tree()
    assert len(volume.document_files()) == 5
    for _ in range(2):
        server.start()
        docs = js.connect(server.url).find_many(ids)
        assert [doc.heads() for doc in docs] == [_hex(flat.replica) for flat in flats]
        server.stop()
        assert volume.tree() == tree

    assert {name: _found(data_dir)[name] for name in before} == before
    reference = js.listen(storage=data_dir)
    docs = js.connect(reference.url).find_many(ids)
    assert [doc.value() for doc in docs] == [{"n": number} for number in range(5)]


def test_kill_9_in_the_middle_of_taking_them_in_costs_nothing(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    server = start_server(tmp_path / "moved")
    server.stop()
    flats = [Flat(tmp_path / "moved", {"n": number}) for number in range(DOCUMENTS)]
    before = _found(tmp_path / "moved")
    volume = RawVolume(tmp_path / "moved")

    for count in (1, 7, 20):
        server.begin()
        while len(volume.document_files()) < count and not server.is_listening():
            assert server.running()
        server.kill9()
    server.start()

    docs = js.connect(server.url).find_many([flat.document_id for flat in flats])
    assert [doc.value() for doc in docs] == [{"n": number} for number in range(DOCUMENTS)]
    server.stop()
    assert len(volume.document_files()) == DOCUMENTS
    assert _found(tmp_path / "moved") == before


def test_flat_file_is_merged_with_what_the_folder_has(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    data_dir = tmp_path / "moved"
    flat = Flat(data_dir, {"n": 0})
    branch = Replica.load(flat.replica.save())
    branch.put("folder", 1)
    folder = data_dir / flat.document_id[:2] / flat.document_id[2:] / "snapshot"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(branch.save())
    flat.edit("flat", 2, at_ns=OLD_NS)

    found = js.connect(start_server(data_dir).url).find(flat.document_id)

    assert found.value() == {"n": 0, "folder": 1, "flat": 2}
    assert len(found.heads()) == 2


def test_flat_file_that_was_changed_between_two_runs_is_merged_again(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    data_dir = tmp_path / "moved"
    flat = Flat(data_dir, {"n": 0})
    server = start_server(data_dir)
    steady = js.connect(server.url, retry_seconds=0.05)
    doc = steady.find(flat.document_id)
    expected: dict[str, object] = {"n": 0}

    for run in range(1, 4):
        doc.edit(["set", [f"js-{run}"], run])
        doc.wait_saved()
        server.stop()
        flat.edit(f"r-{run}", run, at_ns=OLD_NS + run)
        expected |= {f"js-{run}": run, f"r-{run}": run}
        server.start()

        # Both to one who has had it open all the time, and to one who comes anew.
        doc.wait(equals=expected)
        assert js.connect(server.url).find(flat.document_id).value() == expected
    assert flat.path.read_bytes() == flat.replica.save()


@pytest.mark.parametrize("damage", DAMAGES)
def test_bad_flat_file_is_reported_left_and_taken_in_when_it_is_whole_again(
    js: Driver, start_server: ServerStarter, tmp_path: Path, damage: str
) -> None:
    data_dir = tmp_path / "moved"
    known, unknown, good = (Flat(data_dir, {"n": number}) for number in range(3))
    unknown.path.write_bytes(DAMAGES[damage](unknown.replica.save()))
    server = start_server(data_dir, auto_create_docs=False)
    assert js.connect(server.url).find(known.document_id).value() == {"n": 0}
    server.stop()
    known.replica.put("later", 1)
    known.path.write_bytes(DAMAGES[damage](known.replica.save()))
    before = _found(data_dir)

    server.start()
    client = js.connect(server.url)
    assert client.find(known.document_id).value() == {"n": 0}
    assert client.find(good.document_id).value() == {"n": 2}
    with pytest.raises(UnavailableError):
        client.find(unknown.document_id)
    assert {name: _found(data_dir)[name] for name in before} == before
    log = server.log.read_text()
    assert f"finding=bad_import path={known.path}" in log
    assert f"finding=bad_import path={unknown.path}" in log
    server.stop()

    known.save()
    unknown.save()
    server.start()
    docs = js.connect(server.url).find_many([known.document_id, unknown.document_id])
    assert [doc.value() for doc in docs] == [{"n": 0, "later": 1}, {"n": 1}]


def test_deleted_document_stays_deleted_whatever_its_flat_file_says(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    data_dir = tmp_path / "moved"
    gone, kept = Flat(data_dir, {"n": 0}), Flat(data_dir, {"n": 1})
    with amsync.Server(data_dir=data_dir) as embedded:
        embedded.delete_document(gone.document_id)
    server = start_server(data_dir)

    for run in range(1, 3):
        client = js.connect(server.url)
        with pytest.raises(UnavailableError):
            client.find(gone.document_id)
        assert client.find(kept.document_id).value()["n"] == 1
        with ReplicaClient(server.url, gone.document_id, gone.replica) as brings:
            brings.wait(lambda brings=brings: brings.unavailable == 1)  # type: ignore[misc]
            assert brings.frames == []
        server.stop()
        gone.edit("r", run, at_ns=OLD_NS + run)
        kept.edit("r", run, at_ns=OLD_NS + run)
        before = _found(data_dir)
        server.start()
        assert {name: _found(data_dir)[name] for name in before} == before
    server.stop()
    assert not [path for path in RawVolume(data_dir).document_files() if _is_of(gone, path)]


@pytest.mark.xfail(reason="a link that leads nowhere keeps the server from starting")
def test_flat_file_that_is_a_dangling_link_costs_only_its_own_document(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    flat = Flat(tmp_path / "moved", {"n": 0})
    link = tmp_path / "moved" / f"{amsync.generate_document_id()}.automerge"
    link.symlink_to("/nowhere")

    server = start_server(tmp_path / "moved")

    assert js.connect(server.url).find(flat.document_id).value() == {"n": 0}


class FirstAnswers:
    """Connects the instant the port opens, asks for documents, keeps each first answer."""

    def __init__(self, url: str, document_ids: list[str]) -> None:
        self._url = url
        self._document_ids = document_ids
        self._answers: dict[str, tuple[str, list[bytes]]] = {}
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "FirstAnswers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up.set()
        self._thread.join(DEFAULT_SECONDS)

    def wait(self) -> dict[str, tuple[str, list[bytes]]]:
        """For each document the type of the first message and the heads that it names."""
        self._thread.join(DEFAULT_SECONDS)
        return self._answers

    def _run(self) -> None:
        while not self._given_up.is_set():
            try:
                client = RawClient(self._url, peer_id="first")
            except OSError:
                continue
            with client:
                client.join()
                for document_id in self._document_ids:
                    client.request(document_id)
                while len(self._answers) < len(self._document_ids):
                    message = client.receive()
                    heads = heads_of(message["data"]) if "data" in message else []
                    self._answers.setdefault(message["documentId"], (message["type"], heads))
                return


def _wait_for_port(server: AmsyncServer) -> None:
    host, port = server.url.removeprefix("ws://").split(":")
    deadline = time.monotonic() + DEFAULT_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except ConnectionRefusedError:
            continue
    raise TimeoutError("the port did not open")


def _found(data_dir: Path) -> dict[str, tuple[int, int, bytes]]:
    """What the R server left: inode, time of change and content of its files."""
    paths = [*data_dir.glob("*.automerge"), *data_dir.glob(".sync_states/**/*")]
    found = {}
    for path in paths:
        if path.is_file():
            stat = path.stat()
            name = str(path.relative_to(data_dir))
            found[name] = (stat.st_ino, stat.st_mtime_ns, path.read_bytes())
    return found


def _hex(replica: Replica) -> list[str]:
    return sorted(head.hex() for head in replica.heads())


def _is_of(flat: Flat, path: Path) -> bool:
    return path.parts[-4] + path.parts[-3] == flat.document_id
