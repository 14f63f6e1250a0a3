"""The disk fails for a while: nothing unsaved is named, and everything goes on afterwards.

The failing disk is the file system port of the store, in memory, with faults by operation.
"""

import errno
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import amsync
from amsync import Server, node
from amsync._automerge import Replica, build_document
from amsync.errors import StorageFull
from amsync.storage import open_store
from amsync.worker.engine import NativeCodec
from support import admin
from support.memfs import KEEP_EVERYTHING, MemoryFileSystem

from .replicas import ReplicaClient, eventually, names, samples

ROOT = Path("/volume/data")


class Disk(MemoryFileSystem):
    """A disk that can be made to fail.

    Attributes:
        error: errno with which WAL writes fail, or None.
        everything: Whether all other changes fail too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.error: int | None = None
        self.everything = False
        self.put(ROOT.parent / "other", b"")
        self.fault = self._fault

    def _fault(self, operation: str, path: Path) -> int | None:
        is_wal = path.suffix == ".wal" and operation in ("write", "fsync")
        return self.error if is_wal or self.everything else None

    def again(self) -> None:
        """The process ended; the disk is as it was and works."""
        self.restart(KEEP_EVERYTHING)
        self.error, self.everything = None, False
        self.fault = self._fault


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(node, "open_store", partial(open_store, files=disk))
    monkeypatch.setattr("amsync.worker.worker.PROBE_SECONDS", (0.02, 0.1))
    monkeypatch.setattr("amsync.worker.worker.TICK_SECONDS", 0.05)
    return disk


@pytest.fixture
def server(disk: Disk) -> Iterator[Server]:
    server = Server(data_dir=ROOT, admin_port=0).start()
    yield server
    disk.error, disk.everything = None, False
    server.close()


def readiness(server: Server) -> tuple[int, Any]:
    assert server.admin_url is not None
    return admin.readiness(server.admin_url)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_unsaved_heads_are_named_to_nobody(disk: Disk, server: Server, number: int) -> None:
    document_id = server.create_document(data={"n": 0})
    with (
        ReplicaClient(server.url, document_id, peer_id="writer") as writer,
        ReplicaClient(server.url, document_id, peer_id="reader") as reader,
    ):
        writer.wait_loaded()
        reader.wait_loaded()
        writer.listen(0.1)
        writer.frames.clear()
        reader.frames.clear()

        disk.error = number
        writer.put("n", 1)
        unsaved = writer.replica.heads()
        writer.listen(0.3)
        reader.listen(0.3)

        for client in (writer, reader):
            assert not any(names(frame, unsaved) for frame in client.frames)
        assert reader.replica.value() == {"n": 0}
        assert samples(server)["amsync_storage_errors_total{operation=commit}"] > 0

        disk.error = None
        writer.wait_acknowledged()
        reader.wait_value({"n": 1})
        view = server.get_document(document_id)
        assert view is not None
        assert view.value == {"n": 1}


def test_readiness_follows_the_disk(disk: Disk, server: Server) -> None:
    assert readiness(server) == (200, {"status": "ready", "reasons": []})
    with ReplicaClient(server.url, amsync.generate_document_id()) as client:
        client.wait_loaded()
        disk.error = errno.EIO
        client.put("n", 1)

        eventually(lambda: readiness(server)[0] == 503)
        said = readiness(server)[1]
        assert said["status"] == "not ready"
        assert said["reasons"][0].startswith("storage")
        with urllib.request.urlopen(f"{server.admin_url}/healthz", timeout=20) as answer:
            assert answer.status == 200  # a restart would not help

        disk.error = None
        eventually(lambda: readiness(server)[0] == 200)
        client.wait_acknowledged()


def test_how_long_nothing_was_saved_is_told(disk: Disk, server: Server) -> None:
    document_id = server.create_document(data={"n": 0})
    saved = samples(server)["amsync_edit_to_disk_seconds_count"]
    with ReplicaClient(server.url, document_id) as client:
        client.wait_loaded()
        disk.error = errno.EIO
        client.put("n", 1)
        eventually(lambda: unsaved_seconds(server) > 0.05)
        before = unsaved_seconds(server)
        eventually(lambda: unsaved_seconds(server) > before)
        assert samples(server)["amsync_edit_to_disk_seconds_count"] == saved

        disk.error = None
        client.wait_acknowledged()
        eventually(lambda: unsaved_seconds(server) < 0.05)
    assert samples(server)["amsync_edit_to_disk_seconds_count"] > saved


def unsaved_seconds(server: Server) -> float:
    assert server.admin_url is not None
    return admin.metrics(server.admin_url)["amsync_oldest_unsaved_change_seconds"]


def test_edits_made_meanwhile_are_all_there_afterwards(disk: Disk, server: Server) -> None:
    document_id = server.create_document(data={})
    with (
        ReplicaClient(server.url, document_id, peer_id="one") as one,
        ReplicaClient(server.url, document_id, peer_id="two") as two,
    ):
        one.wait_loaded()
        two.wait_loaded()
        disk.error = errno.EIO
        for number in range(5):
            one.put(f"one{number}", number)
            two.put(f"two{number}", number)
            one.listen(0.02)
            two.listen(0.02)
        disk.error = None

        everything = {f"{who}{n}": n for who in ("one", "two") for n in range(5)}
        deadline = time.monotonic() + 30
        while one.replica.value() != everything or two.replica.value() != everything:
            assert time.monotonic() < deadline
            one.listen(0.05)
            two.listen(0.05)
        one.wait_acknowledged()


def test_acknowledged_edits_survive_a_kill_after_failures(disk: Disk, server: Server) -> None:
    document_id = server.create_document(data={})
    with ReplicaClient(server.url, document_id) as client:
        client.wait_loaded()
        for number in range(3):
            disk.error = errno.EIO
            client.put("n", number)
            client.listen(0.05)
            disk.error = None
            client.wait_acknowledged()
        heads = client.replica.heads()
    image = disk.tree(ROOT)

    killed = MemoryFileSystem()
    for name, data in image.items():
        if name != ".amsync/lock":
            killed.put(ROOT / name, data)
    store = open_store(ROOT, codec=NativeCodec(), files=killed)
    blobs = b"".join(store.load(document_id).blobs)
    store.close()

    assert Replica.load(blobs).heads() == heads


def test_calls_that_can_not_be_saved_say_so_and_change_nothing(disk: Disk, server: Server) -> None:
    document_id = server.create_document(data={"n": 0})
    disk.error = errno.ENOSPC

    for _ in range(3):
        with pytest.raises(StorageFull, match="make room"):
            server.apply_changes(document_id, build_document({"m": 1}))
        with pytest.raises(StorageFull, match="make room"):
            server.create_document(data={"new": True})
    view = server.get_document(document_id)
    assert view is not None
    assert view.value == {"n": 0}
    assert server.list_documents() == [document_id]

    disk.error = None
    eventually(lambda: samples(server)["amsync_volume_writable"] == 1)
    server.apply_changes(document_id, build_document({"m": 1}))
    view = server.get_document(document_id)
    assert view is not None
    assert view.value == {"n": 0, "m": 1}


def test_reading_goes_on_while_nothing_can_be_written(disk: Disk, server: Server) -> None:
    opened = server.create_document(data={"opened": "before"})
    closed = server.create_document(data={"opened": "meanwhile"})
    writer = ReplicaClient(server.url, opened, peer_id="writer").start()
    writer.wait_loaded()
    disk.error = errno.ENOSPC
    writer.put("unsaved", True)
    eventually(lambda: samples(server)["amsync_volume_writable"] == 0)

    with (
        ReplicaClient(server.url, opened, peer_id="one") as one,
        ReplicaClient(server.url, closed, peer_id="two") as two,
        ReplicaClient(server.url, amsync.generate_document_id(), peer_id="three") as three,
    ):
        one.wait_value({"opened": "before"})
        two.wait_value({"opened": "meanwhile"})
        three.wait_loaded()  # created for it; that costs no disk before it is edited

        disk.error = None
        writer.wait_acknowledged()
        one.wait_value({"opened": "before", "unsaved": True})
        three.put("n", 1)
        three.wait_acknowledged()
    writer.close()


def test_a_disk_that_stays_full_costs_few_messages(disk: Disk, server: Server) -> None:
    """No loop: what is refused is neither asked for nor sent again and again."""
    document_id = server.create_document(data={})
    clients = [
        ReplicaClient(server.url, document_id, peer_id=f"client{number}").start()
        for number in range(3)
    ]
    for client in clients:
        client.wait_loaded()
        client.frames.clear()
    disk.error = errno.ENOSPC
    for client in clients:
        client.put(client.raw.peer_id, 1)
    for _ in range(10):
        for client in clients:
            client.listen(0.1)  # some 30 failed tries of the server's, three seconds

    assert sum(len(client.frames) for client in clients) < 30
    assert samples(server)["amsync_storage_errors_total{operation=commit}"] > 5
    assert samples(server).get("amsync_events_total{event=documents_rewound,label=}", 0) < 5

    disk.error = None
    expected = {client.raw.peer_id: 1 for client in clients}
    while any(client.replica.value() != expected for client in clients):
        for client in clients:
            client.listen(0.05)
    for client in clients:
        client.close()


def test_a_new_document_that_could_not_be_saved_is_taken_afterwards(
    disk: Disk, server: Server
) -> None:
    document_id = amsync.generate_document_id()
    disk.error = errno.EIO
    replica = Replica()
    replica.put("made", "while the disk failed")
    with (
        ReplicaClient(server.url, document_id, replica, peer_id="maker") as maker,
        ReplicaClient(server.url, document_id, peer_id="reader") as reader,
    ):
        maker.listen(0.3)
        reader.listen(0.1)
        assert not any(names(frame, replica.heads()) for frame in reader.frames)

        disk.error = None

        maker.wait_acknowledged()
        reader.wait_value({"made": "while the disk failed"})


def test_close_while_the_disk_fails_is_bounded(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "SETTLE_SECONDS", 0.3)
    server = Server(data_dir=ROOT).start()
    document_id = server.create_document(data={"saved": True})
    client = ReplicaClient(server.url, document_id).start()
    client.wait_loaded()
    disk.error, disk.everything = errno.EIO, True
    client.put("unsaved", True)

    def commit_failed() -> bool:
        client.listen(0.05)  # the server asks for the change before it can fail to store it
        return samples(server).get("amsync_storage_errors_total{operation=commit}", 0) > 0

    eventually(commit_failed)

    started = time.monotonic()
    server.close()
    server.close()
    assert time.monotonic() - started < 20
    client.raw.close()

    disk.again()
    with Server(data_dir=ROOT) as again:
        view = again.get_document(document_id)
        assert view is not None
        assert view.value in ({"saved": True}, {"saved": True, "unsaved": True})


def test_delete_that_fails_says_so_and_can_be_repeated(disk: Disk, server: Server) -> None:
    document_id = server.create_document(data={"n": 1})
    disk.error, disk.everything = errno.EIO, True
    with pytest.raises(amsync.StorageError):
        server.delete_document(document_id)
    disk.error, disk.everything = None, False

    if server.get_document(document_id) is not None:
        server.delete_document(document_id)
    assert server.get_document(document_id) is None


def test_document_that_can_not_be_read_is_tried_again(disk: Disk) -> None:
    with Server(data_dir=ROOT) as server:
        document_id = server.create_document(data={"n": 1})
    disk.again()
    failing = True
    read = disk.read

    def read_or_fail(path: Path) -> bytes:
        if failing and "incremental" in path.parts:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read(path)

    disk.read = read_or_fail  # type: ignore[method-assign]
    with (
        Server(data_dir=ROOT) as server,
        ReplicaClient(server.url, document_id) as client,
    ):
        client.listen(0.3)
        assert client.frames == []
        assert client.unavailable == 0
        failing = False
        client.wait_value({"n": 1})
