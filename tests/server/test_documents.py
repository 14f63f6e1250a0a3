"""Documents through the `Server` object, and what connected clients see of it."""

import datetime
import random
import threading
from pathlib import Path

import pytest

import amsync
from amsync import (
    DocumentDeleted,
    DocumentExists,
    DocumentNotFound,
    InvalidDocument,
    InvalidDocumentId,
    Server,
)
from amsync._automerge import Replica, build_document, initial_change
from amsync.node import DocumentView

from .conftest import StartServer
from .replicas import ReplicaClient, eventually

UUID = "12345678-1234-4234-8234-123456789abc"
MEGABYTE = 1 << 20


@pytest.fixture
def server(start: StartServer) -> Server:
    return start()


def view(server: Server, document_id: str) -> DocumentView:
    found = server.get_document(document_id)
    assert found is not None
    return found


def changes_of(replica: Replica) -> bytes:
    return b"".join(replica.changes())


class TestCreate:
    def test_new_id_and_content(self, server: Server) -> None:
        document_id = server.create_document(data={"title": "Hello"})

        found = view(server, document_id)

        assert found.document_id == document_id
        assert found.value == {"title": "Hello"}
        assert [len(head) for head in found.heads] == [32]
        assert server.list_documents() == [document_id]
        replica = Replica.load(found.saved)
        assert replica.value() == found.value
        assert tuple(replica.heads()) == found.heads

    def test_every_kind_of_value_comes_back(self, server: Server) -> None:
        data = {
            "text": "grüß 🎈",
            "int": -(2**40),
            "float": 1.5,
            "bool": True,
            "none": None,
            "bytes": b"\x00\xff",
            "when": datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC),
            "list": [1, "two", [3.0, {"deep": [None]}]],
            "dict": {"": "empty key", "nested": {}},
            "empty": [],
        }
        document_id = server.create_document(data=data)
        assert view(server, document_id).value == data

    @pytest.mark.parametrize("data", [None, {}])
    def test_empty_document_is_stored(
        self, start: StartServer, data: dict[str, object] | None
    ) -> None:
        server = start()
        document_id = server.create_document(data=data)
        assert view(server, document_id).value == {}
        server.close()

        again = start()
        assert again.list_documents() == [document_id]
        assert view(again, document_id).value == {}

    def test_given_id_is_made_canonical(self, server: Server) -> None:
        chosen = server.generate_document_id()

        assert server.create_document(chosen) == chosen
        by_url = server.create_document("automerge:" + amsync.generate_document_id())
        by_uuid = server.create_document(UUID)

        assert server.list_documents() == sorted([chosen, by_url, by_uuid])
        assert view(server, UUID).document_id == by_uuid
        assert view(server, f"automerge:{by_uuid}").value == {}
        with pytest.raises(DocumentExists):
            server.create_document(UUID.upper())

    def test_existing_id_is_refused(self, server: Server) -> None:
        document_id = server.create_document(data={"n": 1})

        with pytest.raises(DocumentExists, match=document_id):
            server.create_document(document_id, {"n": 2})

        assert view(server, document_id).value == {"n": 1}

    def test_only_one_of_many_creators_wins(self, server: Server) -> None:
        document_id = server.generate_document_id()
        won: list[int] = []
        lost: list[DocumentExists] = []

        def create(number: int) -> None:
            try:
                server.create_document(document_id, {"n": number})
                won.append(number)
            except DocumentExists as error:
                lost.append(error)

        threads = [threading.Thread(target=create, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)

        assert len(won) == 1
        assert len(lost) == 7
        assert view(server, document_id).value == {"n": won[0]}

    @pytest.mark.parametrize(
        "bad", ["", "no", "../../etc/passwd", "0OIl", "automerge:", "x" * 10_000, "\x00", "ünï"]
    )
    def test_bad_id_is_refused_everywhere(self, server: Server, bad: str) -> None:
        for call in (
            lambda: server.create_document(bad),
            lambda: server.get_document(bad),
            lambda: server.apply_changes(bad, initial_change()),
            lambda: server.delete_document(bad),
        ):
            with pytest.raises(InvalidDocumentId):
                call()
        assert server.list_documents() == []

    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            ({"a": object()}, TypeError),
            ({"a": {"b": [1j]}}, TypeError),
            ({1: "int key"}, TypeError),
            ({"a": 2**70}, ValueError),
            ({"a": "\ud800"}, ValueError),
            ([1], TypeError),
            ("text", (TypeError, ValueError)),
            (5, TypeError),
        ],
    )
    def test_content_that_does_not_fit_is_refused(
        self, server: Server, data: object, kind: type[Exception] | tuple[type[Exception], ...]
    ) -> None:
        with pytest.raises(kind):
            server.create_document(data=data)  # type: ignore[arg-type]
        assert server.list_documents() == []

    def test_error_names_the_place_of_the_value(self, server: Server) -> None:
        with pytest.raises(TypeError, match=r"b"):
            server.create_document(data={"a": {"b": [1, object()]}})

    def test_content_that_contains_itself_is_refused(self, server: Server) -> None:
        data: dict[str, object] = {}
        data["self"] = data
        with pytest.raises(ValueError, match=r"deep|nest"):
            server.create_document(data=data)


class TestGetAndList:
    def test_unknown_document_is_none(self, server: Server) -> None:
        assert server.get_document(server.generate_document_id()) is None
        assert server.list_documents() == []

    def test_getting_an_unknown_document_creates_nothing(self, server: Server) -> None:
        document_id = server.generate_document_id()
        server.get_document(document_id)
        assert server.get_document(document_id) is None

    def test_repr_of_a_view_has_no_bytes(self, server: Server) -> None:
        document_id = server.create_document(data={"a": 1})
        assert "saved" not in repr(view(server, document_id))

    def test_list_is_sorted_and_complete(self, server: Server) -> None:
        made = [server.create_document() for _ in range(20)]
        assert server.list_documents() == sorted(made)

    def test_large_document(self, start: StartServer) -> None:
        server = start()
        data = {"text": "automerge " * 1000, "blob": random.Random(1).randbytes(3 * MEGABYTE)}
        document_id = server.create_document(data=data)
        found = view(server, document_id)
        assert len(found.saved) > 3 * MEGABYTE
        assert found.value == data

        client = ReplicaClient(server.url, document_id).start()
        client.wait_value(data, timeout=20)
        client.raw.close()

        server.close()
        assert view(start(), document_id) == found


class TestApply:
    def test_changes_are_saved(self, start: StartServer) -> None:
        server = start()
        replica = Replica()
        replica.put("n", 1)
        document_id = server.create_document()

        server.apply_changes(document_id, changes_of(replica))
        server.close()

        assert view(start(), document_id).value == {"n": 1}

    def test_saved_document_is_merged(self, server: Server) -> None:
        document_id = server.create_document(data={"ours": 1})
        server.apply_changes(document_id, build_document({"theirs": 2}))
        assert view(server, document_id).value == {"ours": 1, "theirs": 2}

    def test_applying_again_is_harmless(self, server: Server) -> None:
        document_id = server.create_document(data={"n": 1})
        before = view(server, document_id)
        server.apply_changes(document_id, before.saved)
        server.apply_changes(document_id, before.saved)
        assert view(server, document_id) == before

    def test_bytearray_is_taken(self, server: Server) -> None:
        document_id = server.create_document()
        server.apply_changes(document_id, bytearray(build_document({"a": 1})))  # type: ignore[arg-type]
        assert view(server, document_id).value == {"a": 1}

    def test_bad_bytes_change_nothing(self, server: Server) -> None:
        document_id = server.create_document(data={"n": 1})
        before = view(server, document_id)
        replica = Replica.load(before.saved)
        replica.put("n", 2)
        replica.put("n", 3)
        saved = replica.save()
        last = replica.changes()[-1]
        torn = saved[:-3]
        flipped = bytes([*saved[:40], saved[40] ^ 0xFF, *saved[41:]])

        cases = {
            "text": b"hello",
            "torn": torn,
            "flipped": flipped,
            "good then bad": changes_of(replica) + b"\x85\x6f\x4a\x83garbage",
            "dependency missing": last,
        }
        for case, data in cases.items():
            with pytest.raises(InvalidDocument, match=document_id):
                server.apply_changes(document_id, data)
            assert view(server, document_id) == before, case

    def test_no_bytes_are_refused(self, server: Server) -> None:
        """They stand for the initial change inside, where a document is created."""
        document_id = server.create_document(data={"n": 1})
        before = view(server, document_id)
        with pytest.raises(InvalidDocument, match="empty"):
            server.apply_changes(document_id, b"")
        assert view(server, document_id) == before

    @pytest.mark.parametrize("data", ["text", 5, None, [1, 2]])
    def test_what_is_not_bytes_is_refused(self, server: Server, data: object) -> None:
        document_id = server.create_document()
        with pytest.raises(TypeError, match="bytes"):
            server.apply_changes(document_id, data)  # type: ignore[arg-type]

    def test_unknown_document_is_refused(self, server: Server) -> None:
        with pytest.raises(DocumentNotFound):
            server.apply_changes(server.generate_document_id(), initial_change())

    def test_error_message_has_no_document_bytes(self, server: Server) -> None:
        document_id = server.create_document()
        with pytest.raises(InvalidDocument) as caught:
            server.apply_changes(document_id, b"secret-content" * 10)
        assert "secret" not in str(caught.value)


class TestClients:
    """What clients get of the application's work."""

    def test_created_document_is_served(self, server: Server) -> None:
        document_id = server.create_document(data={"title": "Hello"})
        with ReplicaClient(server.url, document_id) as client:
            client.wait_value({"title": "Hello"})
        assert client.unavailable == 0

    def test_applied_changes_reach_connected_clients(self, server: Server) -> None:
        document_id = server.create_document(data={"n": 0})
        with (
            ReplicaClient(server.url, document_id, peer_id="one") as one,
            ReplicaClient(server.url, document_id, peer_id="two") as two,
        ):
            one.wait_value({"n": 0})
            two.wait_value({"n": 0})
            replica = Replica.load(view(server, document_id).saved)
            replica.put("n", 1)

            server.apply_changes(document_id, changes_of(replica))

            one.wait_value({"n": 1})
            two.wait_value({"n": 1})

    def test_edit_of_a_client_is_seen_by_get(self, server: Server) -> None:
        document_id = server.create_document()
        with ReplicaClient(server.url, document_id) as client:
            client.wait_loaded()
            client.put("from", "client")
            client.wait_acknowledged()
            assert view(server, document_id).value == {"from": "client"}

    def test_document_created_after_it_was_unavailable_arrives(self, start: StartServer) -> None:
        server = start(auto_create_docs=False)
        document_id = server.generate_document_id()
        with ReplicaClient(server.url, document_id) as client:
            client.wait(lambda: client.unavailable == 1)

            server.create_document(document_id, {"late": True})

            client.wait_value({"late": True})

    def test_deletion_tells_clients(self, server: Server) -> None:
        document_id = server.create_document(data={"n": 1})
        with ReplicaClient(server.url, document_id) as client:
            client.wait_value({"n": 1})

            server.delete_document(document_id)

            client.wait(lambda: client.unavailable == 1)
            client.put("n", 2)
            client.wait(lambda: client.unavailable == 2)
        assert server.get_document(document_id) is None

    def test_document_that_nobody_edited_costs_no_disk(
        self, server: Server, tmp_path: Path
    ) -> None:
        document_id = server.generate_document_id()
        with ReplicaClient(server.url, document_id) as client:
            client.wait_loaded()
        assert server.list_documents() == []
        server.close()
        assert not (tmp_path / "data" / document_id[:2]).exists()


class TestDelete:
    def test_deleted_document_is_gone(self, server: Server) -> None:
        document_id, other = server.create_document(), server.create_document()

        server.delete_document(document_id)

        assert server.get_document(document_id) is None
        assert server.list_documents() == [other]
        with pytest.raises(DocumentNotFound):
            server.delete_document(document_id)
        with pytest.raises(DocumentDeleted, match=document_id):
            server.apply_changes(document_id, initial_change())
        with pytest.raises(DocumentDeleted, match=document_id):
            server.create_document(document_id)

    def test_unknown_document_can_not_be_deleted(self, server: Server) -> None:
        with pytest.raises(DocumentNotFound):
            server.delete_document(server.generate_document_id())

    def test_deleted_document_stays_deleted_after_restart(self, start: StartServer) -> None:
        """Also where unknown documents are created, and for one who brings it back."""
        server = start()
        document_id = server.create_document(data={"n": 1})
        replica = Replica.load(view(server, document_id).saved)
        server.delete_document(document_id)
        server.close()

        again = start(auto_create_docs=True)

        for client in (
            ReplicaClient(again.url, document_id, peer_id="asks"),
            ReplicaClient(again.url, document_id, replica, peer_id="brings"),
        ):
            with client:
                client.wait(lambda client=client: client.unavailable == 1)  # type: ignore[misc]
                assert client.frames == []
        assert again.list_documents() == []
        with pytest.raises(DocumentDeleted):
            again.create_document(document_id)


class TestFlatFiles:
    """`<id>.automerge` files of the R server."""

    def test_flat_file_is_served_and_never_empty(self, start: StartServer, tmp_path: Path) -> None:
        document_id = amsync.generate_document_id()
        flat = tmp_path / "data" / f"{document_id}.automerge"
        flat.parent.mkdir()
        flat.write_bytes(build_document({"from": "R"}))
        server = start()
        original = flat.read_bytes()

        with ReplicaClient(server.url, document_id) as client:
            client.wait(lambda: bool(client.replica.heads()))
            assert client.replica.value() == {"from": "R"}

        assert server.list_documents() == [document_id]
        assert flat.read_bytes() == original

    def test_broken_flat_file_does_not_stop_the_server(
        self, start: StartServer, tmp_path: Path
    ) -> None:
        good, bad = amsync.generate_document_id(), amsync.generate_document_id()
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / f"{good}.automerge").write_bytes(build_document({"ok": 1}))
        (tmp_path / "data" / f"{bad}.automerge").write_bytes(b"not automerge")
        (tmp_path / "data" / "notes.txt").write_text("hello")
        (tmp_path / "data" / "x.automerge").write_bytes(b"")

        server = start()

        assert server.list_documents() == [good]
        assert view(server, good).value == {"ok": 1}
        assert server.get_document(bad) is None
        assert (tmp_path / "data" / f"{bad}.automerge").read_bytes() == b"not automerge"


def test_checkpoint_moves_documents_into_folders(start: StartServer, tmp_path: Path) -> None:
    """After a clean stop automerge-repo can open the directory: chunks are in its layout."""
    server = start()
    document_id = server.create_document(data={"n": 1})
    server.close()

    folder = tmp_path / "data" / document_id[:2] / document_id[2:]
    blobs = [path.read_bytes() for path in folder.glob("*/*")]

    assert Replica.load(b"".join(blobs)).value() == {"n": 1}
    eventually(lambda: not list((tmp_path / "data" / ".amsync").glob("wal/*/*.wal")))
