"""Gateways and workers as processes: what clients see of a cluster."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from amsync import generate_document_id
from amsync.ids import DocumentId, shard_of
from server.replicas import ReplicaClient

from .processes import ClusterProcesses

SHARDS = 64


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


def test_worker_killed_costs_a_pause_and_nothing_else(cluster: ClusterProcesses) -> None:
    document = generate_document_id()
    owner = cluster.worker_of(shard_of(DocumentId(document), SHARDS))
    with ExitStack() as stack:
        first, second = pair(stack, cluster, document)
        first.put("before", 1)
        second.wait_value({"before": 1})
        first.wait_acknowledged()

        owner.kill9()
        killed_at = time.monotonic()
        first.put("after", 2)
        second.wait_value({"before": 1, "after": 2})
        print(f"pause after kill -9: {time.monotonic() - killed_at:.2f} s")
        first.wait_acknowledged()
        second.put("more", 3)
        first.wait_value({"before": 1, "after": 2, "more": 3})


def test_worker_told_to_end_hands_over(cluster: ClusterProcesses) -> None:
    document = generate_document_id()
    owner = cluster.worker_of(shard_of(DocumentId(document), SHARDS))
    with ExitStack() as stack:
        first, second = pair(stack, cluster, document)
        first.put("before", 1)
        second.wait_value({"before": 1})

        owner.process.send_signal(signal.SIGTERM)
        told_at = time.monotonic()
        for number in range(40):
            first.put(f"n{number}", number)
            second.wait(lambda number=number: f"n{number}" in (second.replica.value() or {}))  # type: ignore[misc]
            time.sleep(0.02)
        print(f"40 edits during a hand-over took {time.monotonic() - told_at:.2f} s")
        assert owner.wait() == 0
