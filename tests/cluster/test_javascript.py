"""Real automerge-repo clients at two gateways: what they were promised, and what they notice."""

import signal
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from interop.driver import Driver
from interop.repos import Doc, Repo

from .checker import assert_calm, assert_kept, assert_opens
from .processes import ClusterProcesses
from .scenes import shard

TYPING_SECONDS = 0.05
TYPED = 20
DEADLINE_SECONDS = 90.0

pytestmark = pytest.mark.node


class Typists:
    """Two Repos, each at a gateway of its own; both type into each document."""

    def __init__(self, js: Driver, cluster: ClusterProcesses) -> None:
        self._js, self._cluster = js, cluster
        self.repos: list[Repo] = [js.connect(gateway.url) for gateway in cluster.gateways]
        first, second = self.repos
        self.documents = [first.create({"list": []}) for _ in range(3)]
        for doc in self.documents:
            doc.wait_saved(DEADLINE_SECONDS)
        copies = [second.find(doc.id, DEADLINE_SECONDS) for doc in self.documents]
        self.pairs: list[tuple[Doc, Doc]] = list(zip(self.documents, copies, strict=True))
        for pair in self.pairs:
            for number, doc in enumerate(pair):
                doc.start_typing(["list"], f"c{number}", TYPING_SECONDS)
        self._typed = 0
        self.go_on()

    def go_on(self) -> None:
        """Wait until each has typed more."""
        self._typed += TYPED
        for pair in self.pairs:
            for doc in pair:
                doc.wait_typed(self._typed, DEADLINE_SECONDS)

    def welcomes(self) -> list[int]:
        """How often each Repo has joined: 1 for one whose socket was never lost."""
        return [repo.connection()["welcomes"] for repo in self.repos]

    def finish(self) -> list[int]:
        """Stop; all that was typed is everywhere, and on disk when everything is killed.

        Returns `welcomes` as they were before that.
        """
        typed = {
            first.id: first.stop_typing() + second.stop_typing() for first, second in self.pairs
        }
        heads = {}
        for first, second in self.pairs:
            value = self._js.converge([first, second], DEADLINE_SECONDS)
            assert sorted(value["list"]) == sorted(typed[first.id])
            saved = first.wait_saved(DEADLINE_SECONDS)
            heads[first.id] = {bytes.fromhex(head) for head in saved}
            assert second.wait_saved(DEADLINE_SECONDS) == saved
        named: dict[str, set[bytes]] = defaultdict(set)
        for repo in self.repos:
            for document_id, found in repo.named_heads().items():
                named[document_id] |= {bytes.fromhex(head) for head in found}
        welcomes = self.welcomes()
        assert_calm(self._cluster)
        for process in self._cluster.living():
            process.kill9()
        assert_kept(self._cluster.data, named)
        assert_opens(self._cluster.data, heads)
        return welcomes


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    with ClusterProcesses(tmp_path, gateways=2, workers=2) as processes:
        yield processes


@pytest.fixture
def typists(cluster: ClusterProcesses, tmp_path: Path) -> Iterator[Typists]:
    with ExitStack() as stack:
        js = stack.enter_context(Driver(tmp_path / "node.log"))
        yield Typists(js, cluster)


def test_worker_killed_under_javascript_clients(
    cluster: ClusterProcesses, typists: Typists
) -> None:
    cluster.worker_of(shard(typists.documents[0].id)).kill9()
    typists.go_on()

    assert typists.finish() == [1, 1]


@pytest.mark.slow
def test_rolling_restart_under_javascript_clients(
    cluster: ClusterProcesses, typists: Typists
) -> None:
    for old in list(cluster.workers):
        cluster.add_worker()
        cluster.wait_ready()
        assert old.signal(signal.SIGTERM) == 0
        typists.go_on()
    assert typists.welcomes() == [1, 1]

    for old in list(cluster.gateways):
        port = int(old.url.rpartition(":")[2])
        assert old.signal(signal.SIGTERM) == 0
        cluster.add_gateway(port=port)
        cluster.wait_ready()
        typists.go_on()

    assert typists.finish() == [2, 2]
