"""What most tests of faults begin with: a cluster that is up, and clients that type in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amsync import generate_document_id
from amsync.ids import DocumentId, shard_of

from .fleet import Fleet
from .processes import ClusterProcesses, Process

SHARDS = 64
TRICKS = (str(Path(__file__).with_name("tricks.py")),)
"""In place of `-m amsync`."""

PAUSE_SECONDS = 30.0
"""No pause may be longer, on a slow machine too; what was measured is printed."""


def shard(document_id: str) -> int:
    """The shard of a document, in a volume of the usual number."""
    return shard_of(DocumentId(document_id), SHARDS)


class Scene:
    """A cluster, its clients, and the documents that they have."""

    def __init__(self, cluster: ClusterProcesses, fleet: Fleet, documents: list[str]) -> None:
        self.cluster, self.fleet, self.documents = cluster, fleet, documents

    def shard(self, number: int = 0) -> int:
        """The shard of one of the documents."""
        return shard(self.documents[number])

    def owner(self, number: int = 0) -> Process:
        """The worker that owns one of the documents."""
        return self.cluster.worker_of(self.shard(number))

    def print_pause(self, what: str) -> None:
        """Print how long a client waited for news since `fleet.mark`; it must not be absurd."""
        pause = self.fleet.longest_pause()
        print(f"pause, {what}: {pause:.2f} s")
        assert pause < PAUSE_SECONDS


@contextmanager
def typing_in_a_cluster(
    directory: Path,
    *,
    documents: int = 4,
    clients: int = 3,
    interval_seconds: float = 0.1,
    gateways: int = 2,
    workers: int = 2,
    **options: Any,
) -> Iterator[Scene]:
    """Start everything; each document has clients at every gateway, all of which type."""
    with (
        ClusterProcesses(directory, gateways=gateways, workers=workers, **options) as cluster,
        Fleet() as fleet,
    ):
        names = [generate_document_id() for _ in range(documents)]
        urls = [gateway.url for gateway in cluster.gateways]
        for name in names:
            fleet.add(urls, name, clients)
        fleet.wait_loaded()
        fleet.start_typing(interval_seconds)
        fleet.wait_edits(5)
        fleet.mark()
        yield Scene(cluster, fleet, names)
