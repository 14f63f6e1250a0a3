"""Two gateways and two workers: they are one server to their clients."""

from pathlib import Path

from amsync import generate_document_id
from server.replicas import ReplicaClient

from .processes import ClusterProcesses


def test_edits_pass_between_gateways(tmp_path: Path) -> None:
    document = generate_document_id()
    with ClusterProcesses(tmp_path, gateways=2, workers=2) as cluster:
        one, other = cluster.gateways
        with (
            ReplicaClient(one.url, document, peer_id="first") as first,
            ReplicaClient(other.url, document, peer_id="second") as second,
        ):
            first.wait_loaded()
            second.wait_loaded()
            first.put("a", 1)
            second.wait_value({"a": 1})
            second.put("b", 2)
            first.wait_value({"a": 1, "b": 2})
            first.wait_acknowledged()

            assert first.peer["senderId"] == second.peer["senderId"]
            assert first.peer["peerMetadata"] == second.peer["peerMetadata"]
