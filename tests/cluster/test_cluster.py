"""Gateways and workers as processes: what clients see of a cluster."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from amsync import generate_document_id
from server.replicas import ReplicaClient

from .processes import ClusterProcesses


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    with ClusterProcesses(tmp_path, gateways=2, workers=2) as processes:
        yield processes


def pair(stack: ExitStack, cluster: ClusterProcesses, document: str) -> list[ReplicaClient]:
    """Two clients of a document, each at a gateway of its own."""
    urls = [gateway.url for gateway in cluster.gateways[:2]]
    clients = [
        stack.enter_context(ReplicaClient(url, document, peer_id=f"client-{number}"))
        for number, url in enumerate(urls)
    ]
    for client in clients:
        client.wait_loaded()
    return clients


def test_edits_pass_between_gateways(cluster: ClusterProcesses) -> None:
    with ExitStack() as stack:
        first, second = pair(stack, cluster, generate_document_id())

        first.put("a", 1)
        second.wait_value({"a": 1})
        second.put("b", 2)
        first.wait_value({"a": 1, "b": 2})
        first.wait_acknowledged()
        assert first.peer["senderId"] == second.peer["senderId"]
        assert first.peer["peerMetadata"] == second.peer["peerMetadata"]
