"""A document is deleted on the server while clients have it, are away with edits, or come later.

They keep their own copies; the server takes nothing of them any more, and tells so without
talking in circles. The clock of "nothing more is said" is the traffic of another document on the
same connections: whatever the server or a client had to say about the deleted one was said
before that traffic came through.
"""

import uuid
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest

from amsync._automerge import Replica
from interop.driver import Driver
from interop.embedded import EmbeddedServer
from interop.repos import Doc, Repo, UnavailableError
from server.replicas import ReplicaClient, eventually
from support.rawvolume import RawVolume

MARKER = "only-in-the-deleted-document"
RETRY_SECONDS = 0.05
ROUNDS = 8
UNAVAILABLE = "in doc-unavailable"
TOLD = 'amsync_messages_total{direction="out",type="doc-unavailable"}'
RARE = tuple(
    f"amsync_{name}_total"
    for name in ("events", "refusals", "changes_refused", "engine_faults", "loop_breaker_trips")
)

pytestmark = pytest.mark.usefixtures("amsync_only")

StartEmbedded = Callable[..., EmbeddedServer]


@pytest.fixture
def start_embedded(tmp_path: Path) -> Iterator[StartEmbedded]:
    started: list[EmbeddedServer] = []

    def start(**options: bool) -> EmbeddedServer:
        server = EmbeddedServer(tmp_path / "data", tmp_path / "server.log", **options)
        started.append(server)
        return server

    yield start
    for server in started:
        server.close()


def test_deletion_under_open_clients_refuses_their_edits_and_leaves_the_rest_alone(
    js: Driver, start_embedded: StartEmbedded
) -> None:
    server = start_embedded()
    volume = RawVolume(server.data_dir)
    one, two = _clients(js, server, 2)
    gone, other = _documents(one, two)
    # An old core, which doesn't know of v2 messages nor of resets.
    with ReplicaClient(server.url, gone[0].id, Replica(v1=True), peer_id="old") as old:
        old.wait_loaded()
        assert _mentions(volume, gone[0].id) != set()

        server.delete(gone[0].id)
        for doc in gone:
            doc.wait_traffic(UNAVAILABLE, 1)
        old.wait(lambda: old.unavailable == 1)
        heard = [doc.traffic()["in sync"] for doc in gone]
        for number in range(5):
            for doc in gone:
                doc.edit(["push", ["list"], f"refused-{number}"])
            old.put("refused", number)
            _go_on(other, f"meanwhile-{number}")
        old.wait(lambda: old.unavailable >= 2)

        _assert_silence(server, gone, other)
        assert [doc.traffic()["in sync"] for doc in gone] == heard
        assert all(doc.traffic()[UNAVAILABLE] <= 6 for doc in gone)
        assert old.unavailable <= 6
    with pytest.raises(UnavailableError):
        js.connect(server.url).find(gone[0].id)
    _assert_only_the_other_is_left(js, server, gone[:1], other[0])


def test_deletion_under_typing_clients_ends_in_silence(
    js: Driver, start_embedded: StartEmbedded
) -> None:
    server = start_embedded()
    clients = _clients(js, server, 3)
    gone, other = _documents(*clients)
    for number, doc in enumerate(gone):
        doc.start_typing(["list"], f"typist-{number}", 0.01)
    for doc in gone:
        doc.wait_typed(20)

    server.delete(gone[0].id)
    for doc in gone:
        doc.wait_traffic(UNAVAILABLE, 1)
        doc.wait_typed(150)
    written = [len(doc.stop_typing()) for doc in gone]

    _assert_silence(server, gone, other)
    for doc, count in zip(gone, written, strict=True):
        traffic = doc.traffic()
        assert traffic["out sync"] <= 3 * count
        assert traffic[UNAVAILABLE] <= count
    _assert_only_the_other_is_left(js, server, gone[:1], other[0])


def test_client_that_returns_with_unsent_edits_does_not_bring_the_document_back(
    js: Driver, start_embedded: StartEmbedded, tmp_path: Path
) -> None:
    """Neither to the server that deleted it, nor after its restart, nor after kill -9."""
    server = start_embedded()
    steady = js.connect(server.url, retry_seconds=RETRY_SECONDS)
    traveller = js.connect(server.url, retry_seconds=RETRY_SECONDS, storage=tmp_path / "traveller")
    gone, other = _documents(steady, traveller)
    traveller.go_offline()
    for number in range(5):
        gone[1].edit(["push", ["list"], f"unsent-{number}"])
        other[1].edit(["push", ["list"], f"unsent-{number}"])
    server.delete(gone[0].id)

    ends: list[Callable[[], None]] = [lambda: None, server.stop, server.kill9]
    for visit, end in enumerate(ends):
        end()
        if end in (server.stop, server.kill9):
            server.start()
            steady.wait_connected(welcomes=visit + 1)
        traveller.go_online()
        traveller.wait_connected(welcomes=visit + 2)
        gone[1].wait_traffic(UNAVAILABLE, visit + 1)

        assert set(gone[1].value()["list"]) >= {"unsent-0", "unsent-4"}, "its own copy is its own"
        _assert_silence(server, gone, other)
        assert gone[1].traffic()[UNAVAILABLE] <= 2 * (visit + 1)
        with pytest.raises(UnavailableError):
            js.connect(server.url).find(gone[0].id)
        traveller.go_offline()
        gone[1].edit(["push", ["list"], f"later-{visit}"])

    # The same person in a new process, from what it has kept on its disk.
    traveller.close()
    again = js.connect(server.url, storage=tmp_path / "traveller")
    again.find(gone[0].id).wait_traffic(UNAVAILABLE, 1)
    assert "unsent-4" in again.find(other[0].id).wait(path=["list"])["list"]
    _assert_only_the_other_is_left(js, server, gone[:1], other[0])


def test_deletion_that_was_acknowledged_outlives_kill_9(
    js: Driver, start_embedded: StartEmbedded
) -> None:
    """Also of a document that others type into meanwhile, so that the WAL has its changes."""
    server = start_embedded()
    volume = RawVolume(server.data_dir)
    clients = _clients(js, server, 2)
    gone: list[list[Doc]] = []

    for visit in range(3):
        for client in clients:
            client.wait_connected(welcomes=visit + 1)
        copies, other = _documents(*clients)
        for number, doc in enumerate(copies):
            doc.start_typing(["list"], f"typist-{visit}-{number}", 0.005)
            doc.wait_typed(10 + 7 * visit)
        server.delete_and_kill9(copies[0].id)
        gone.append(copies)

        assert volume.tombstones() == {copies[0].id for copies in gone}
        server.start()

    for client in clients:
        client.wait_connected(welcomes=4)
    for doc in chain(*gone):
        doc.wait_traffic(UNAVAILABLE, 1)
        doc.stop_typing()
    _assert_silence(server, list(chain(*gone)), other)
    for copies in gone:
        with pytest.raises(UnavailableError):
            js.connect(server.url).find(copies[0].id)
    _assert_only_the_other_is_left(js, server, [copies[0] for copies in gone], other[0])


def test_deleted_document_is_not_announced(js: Driver, start_embedded: StartEmbedded) -> None:
    server = start_embedded(announce=True)
    one, two = _clients(js, server, 2)
    gone, other = _documents(one, two)

    server.delete(gone[0].id)
    gone[0].wait_traffic(UNAVAILABLE, 1)
    gone[0].edit(["push", ["list"], "refused"])
    two.drop()
    two.wait_connected(welcomes=2)
    newcomer = js.connect(server.url, announce=False)

    newcomer.wait_documents([other[0].id])
    _assert_silence(server, gone, [*other, newcomer.doc(other[0].id)])
    assert newcomer.documents() == {other[0].id}
    assert newcomer.doc(gone[0].id).traffic() == {}


def test_document_that_automerge_repo_was_given_again_is_deleted_again(
    js: Driver, start_embedded: StartEmbedded
) -> None:
    """Its own server knows no tombstones; ours keeps them when the directory comes back."""
    server = start_embedded()
    (one,) = _clients(js, server, 1)
    gone, other = _documents(one)
    server.delete(gone[0].id)
    server.stop()

    reference = js.listen(storage=server.data_dir, port=int(server.url.rpartition(":")[2]))
    one.wait_connected(welcomes=2)
    gone[0].wait_saved()
    other[0].wait_saved()
    reference.close()
    server.start()

    one.wait_connected(welcomes=3)
    with pytest.raises(UnavailableError):
        js.connect(server.url).find(gone[0].id)
    _assert_only_the_other_is_left(js, server, gone[:1], other[0])


def _clients(js: Driver, server: EmbeddedServer, count: int) -> list[Repo]:
    return [js.connect(server.url, retry_seconds=RETRY_SECONDS) for _ in range(count)]


def _documents(*clients: Repo) -> tuple[list[Doc], list[Doc]]:
    """One to be deleted and one to be kept, as each client has them."""
    found = []
    for value in ({"marker": MARKER, "list": []}, {"list": []}):
        first = clients[0].create(value)
        first.wait_saved()
        found.append([first, *(client.find(first.id) for client in clients[1:])])
    return found[0], found[1]


def _go_on(docs: list[Doc], label: str) -> None:
    """An edit of each client reaches all others."""
    for number, doc in enumerate(docs):
        doc.edit(["push", ["list"], f"{label}-{number}"])
    for doc in docs:
        doc.wait(path=["list"], contains=[f"{label}-{number}" for number in range(len(docs))])


def _assert_silence(server: EmbeddedServer, gone: list[Doc], other: list[Doc]) -> None:
    """What is still under way comes to an end, and from then on nothing is said of `gone`."""
    eventually(lambda: TOLD in server.metrics())
    label = uuid.uuid4()
    for number in range(3):
        _go_on(other, f"settle-{label}-{number}")
    traffic, rare = [doc.traffic() for doc in gone], _rare(server)
    for number in range(ROUNDS):
        _go_on(other, f"silence-{label}-{number}")
    assert [doc.traffic() for doc in gone] == traffic
    assert _rare(server) == rare


def _rare(server: EmbeddedServer) -> dict[str, float]:
    """What was refused, silenced or reset so far, and who was told that there is nothing."""
    return {
        name: count
        for name, count in server.metrics().items()
        if name == TOLD or name.startswith(RARE)
    }


def _assert_only_the_other_is_left(
    js: Driver, server: EmbeddedServer, gone: list[Doc], other: Doc
) -> None:
    """After a stop there are tombstones, and for automerge-repo there is nothing."""
    other.wait_saved()
    server.stop()
    volume = RawVolume(server.data_dir)
    for doc in gone:
        assert _mentions(volume, doc.id) == {f".amsync/tombstones/{doc.id}"}
    reference = js.listen(storage=server.data_dir)
    reader = js.connect(reference.url)
    assert reader.find(other.id).heads() == other.heads()
    for doc in gone:
        with pytest.raises(UnavailableError):
            reader.find(doc.id)


def _mentions(volume: RawVolume, document_id: str) -> set[str]:
    """Files that are named by a document, lie in its folder, or hold anything of it."""
    folder = f"{document_id[:2]}/{document_id[2:]}"
    wanted = MARKER.encode(), document_id.encode()
    return {
        name
        for name, content in volume.tree(control=True).items()
        if document_id in name or folder in name or any(each in content for each in wanted)
    }
