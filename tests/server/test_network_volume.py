"""The data directory is on a network file system: late names, and a server that loses its hold."""

import json
import logging
from functools import partial
from pathlib import Path

import pytest

from amsync import Server, node
from amsync._automerge import Replica, build_document
from amsync.errors import ServerClosed, StorageError
from amsync.ids import DocumentId, generate_document_id, shard_of
from amsync.storage import DocumentChunks, Store, WalBatch, open_store
from amsync.worker.engine import NativeCodec
from support.memfs import MemoryFileSystem

from .replicas import ReplicaClient, eventually, samples

ROOT = Path("/volume/data")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> MemoryFileSystem:
    """A network file system; our machine is `b`."""
    disk = MemoryFileSystem()
    disk.put(ROOT.parent / "other", b"")
    disk.is_network = True
    disk.locks = "own"
    opened = partial(open_store, files=disk.machine("b"), pause=lambda _: None)
    monkeypatch.setattr(node, "open_store", opened)
    monkeypatch.setattr("amsync.storage.hold.BEAT_SECONDS", 0.02)
    monkeypatch.setattr("amsync.storage.hold.SILENT_SECONDS", 0.1)
    monkeypatch.setattr("amsync.worker.worker.TICK_SECONDS", 0.05)
    return disk


def test_a_server_that_has_lost_its_volume_stops(
    disk: MemoryFileSystem, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    lock = ROOT / ".amsync" / "lock"
    server = Server(data_dir=ROOT).start()
    document_id = server.create_document(data={"n": 1})

    # Its machine stood still for so long that another one has taken over.
    record = json.loads(disk.read(lock)) | {"owner": "f" * 32, "host": "elsewhere"}
    hold = server.aio.store.volume.hold  # type: ignore[union-attr]

    def has_stopped() -> bool:
        # Again and again, as the other one beats: ours may be about to write at this instant.
        if server.aio.is_running:
            hold._file_lock.write(json.dumps(record).encode())  # type: ignore[union-attr]
        return not server.aio.is_running

    eventually(has_stopped)
    with pytest.raises(ServerClosed):
        server.apply_changes(document_id, build_document({"late": True}))
    server.close()
    assert json.loads(disk.read(lock))["host"] == "elsewhere"
    assert "data directory lost" in [entry.message for entry in caplog.records]


def test_what_another_machine_wrote_last_reaches_those_who_read_without_it(
    disk: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    document_id = generate_document_id()
    replica = Replica()
    replica.put("early", 1)
    with_early = len(replica.changes())
    replica.put("late", 2)
    old = open_store(ROOT, codec=NativeCodec(), files=disk.machine("a"), threaded=False)
    for chunks in (replica.changes()[:with_early], replica.changes()[with_early:]):
        shard = shard_of(document_id, old.volume.shard_count)
        batch = WalBatch(changes=(DocumentChunks(shard, 1, document_id, tuple(chunks)),))
        old.submit(batch, lambda error: None)
        old._writer.rotate()
        disk.now += 30
    disk.now += 29  # the first segment shows by now, the second one does not
    disk.kill("a")
    rescan, hidden = Store.rescan, [True]

    def rescan_when_nothing_is_hidden(store: Store) -> set[DocumentId]:
        if hidden:
            raise StorageError("the volume does not answer")  # the worker tries again
        return rescan(store)

    monkeypatch.setattr(Store, "rescan", rescan_when_nothing_is_hidden)
    monkeypatch.setattr("amsync.worker.worker.RESCAN_SECONDS", 0.05)

    with (
        Server(data_dir=ROOT) as server,
        ReplicaClient(server.url, document_id) as client,
    ):
        client.wait_value({"early": 1})
        client.put("meanwhile", 3)
        client.wait_acknowledged()
        disk.now += 60
        hidden.clear()

        client.wait_value({"early": 1, "late": 2, "meanwhile": 3})
        client.wait_acknowledged()
        assert samples(server)["amsync_events_total{event=documents_found_late,label=}"] == 1
