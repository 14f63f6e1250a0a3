"""What must be true after any fault, found out from the bytes of the volume and from the clients.

The processes of the cluster must be dead by then, or nothing is proved: what they would still
write is then not counted for them.
"""

import signal
from pathlib import Path

from amsync.ids import DocumentId
from amsync.offline import read_document
from amsync.storage import open_store
from amsync.worker.engine import NativeCodec
from support.rawvolume import RawVolume

from .fleet import Fleet
from .processes import ClusterProcesses

LOG_LINES = 100
"""Of one process in one test, at the most."""

FRAMES_PER_EDIT = 3.0
"""Of one client: for each edit of its document, its own or another's, at most so many..."""

FRAMES_OF_FAULT = 60
"""...and so many for hellos, hand-overs and repetitions of a test's faults."""


def assert_kept(data: Path, named: dict[str, set[bytes]]) -> None:
    """Every head that the server named is in the volume's bytes, in folders or WALs."""
    stored = RawVolume(data).changes()
    for document_id, heads in named.items():
        lost = heads - stored.get(document_id, set())
        assert not lost, f"{document_id}: {len(lost)} of {len(heads)} named heads are not stored"


def assert_opens(data: Path, heads: dict[str, set[bytes]]) -> None:
    """A server of its own that opens the volume finds exactly these heads, and no damage."""
    store = open_store(data, codec=NativeCodec())
    try:
        for document_id, wanted in heads.items():
            document = read_document(store, DocumentId(document_id))
            assert set(document.heads) == wanted, document_id
            assert document.losses == []
        assert store.volume.findings.count == 0
        assert store.quarantined_count == 0
    finally:
        store.close()


def assert_bounded(fleet: Fleet) -> None:
    """No client had more frames than edits and faults can explain: there is no loop."""
    for clients in fleet.by_document().values():
        edits = sum(client.edits for client in clients)
        for client in clients:
            allowed = FRAMES_PER_EDIT * edits + FRAMES_OF_FAULT * (1 + len(client.losses))
            for frames in (client.frames_in, client.frames_out):
                assert frames <= allowed, f"{client.name}: {frames} frames, allowed {allowed}"


def assert_calm(cluster: ClusterProcesses) -> None:
    """No process ended by itself, and what they logged can be read at three in the morning."""
    for process in (*cluster.workers, *cluster.gateways):
        ended = process.process.poll()
        said = process.log()
        assert ended in (None, 0, -signal.SIGKILL), f"{process.kind} ended with {ended}: {said}"
        assert "Traceback" not in said, said
        assert said.count("\n") < LOG_LINES, said


def assert_survived(
    cluster: ClusterProcesses, fleet: Fleet, *, seconds: float = 60.0
) -> dict[str, set[bytes]]:
    """All of it, once a fault is over: they agree, fall silent, and nothing named is lost.

    Kills what is left of the cluster. Returns the heads that all agree on.
    """
    heads = fleet.converge(seconds)
    fleet.wait_quiet()
    assert_bounded(fleet)
    assert_calm(cluster)
    for process in cluster.living():
        process.kill9()
    assert_kept(cluster.data, fleet.named())
    assert_opens(cluster.data, heads)
    return heads


__all__ = ["assert_bounded", "assert_calm", "assert_kept", "assert_opens", "assert_survived"]
