"""What operators ask: of one document, and of the worker that owns a shard."""

import json
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest

from amsync._automerge import Replica, build_document
from amsync.errors import StorageError, StorageFull
from amsync.ids import DocumentId
from amsync.protocol.envelope import Entry, Query, Reply, Stamped
from amsync.worker.publisher import ENTRY_BYTES, _parts
from amsync.worker.queries import Queries

from .net import Client, Net, new_document, stored


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def document_id() -> DocumentId:
    return new_document()


def told(reply: Reply) -> Any:
    assert reply.error is None, reply
    return msgpack.unpackb(reply.payload)


class TestOfDocuments:
    def test_details_of_a_document_that_nobody_uses(
        self, net: Net, document_id: DocumentId
    ) -> None:
        replica = stored(net, document_id, a=1, b=2)
        for _ in range(2):
            said = told(net.call("info", document_id))
            assert (said["heads"], said["changes"]) == (replica.heads(), 2)
            assert (said["is_open"], said["memory_bytes"]) == (False, None)
            assert (said["peers"], said["peer_count"]) == ([], 0)

    def test_details_of_a_document_with_peers(self, net: Net, document_id: DocumentId) -> None:
        stored(net, document_id, a=1)
        net.introduce(Client(net, document_id, 7, access=1, storage_id="storage"))
        said = told(net.call("info", document_id))
        assert said["is_open"]
        assert said["memory_bytes"] > 0
        assert said["peers"] == [
            {
                "gateway": "gateway",
                "connection": 7,
                "peer_id": "peer-7",
                "storage_id": "storage",
                "access": "read",
                "syncs": True,
            }
        ]

    def test_value_is_json(self, net: Net, document_id: DocumentId) -> None:
        net.call("create", document_id, build_document({"b": b"\xff", "n": [1.5, None]}))
        said = told(net.call("value", document_id))
        assert json.loads(said["value"]) == {"b": "/w==", "n": [1.5, None]}
        assert said["heads"] == told(net.call("info", document_id))["heads"]

    def test_value_that_is_too_large_is_refused_and_breaks_nothing(
        self, net: Net, document_id: DocumentId, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stored(net, document_id, a="x" * 10_000)
        monkeypatch.setattr("amsync.worker.calls.MAX_VALUE_BYTES", 9_000)
        for _ in range(5):
            assert net.call("value", document_id).error == "UnreadableDocument"
        monkeypatch.undo()
        assert net.call("value", document_id).error is None

    def test_value_whose_json_is_too_large_is_refused(
        self, net: Net, document_id: DocumentId, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stored(net, document_id, a="\x01" * 10_000)
        monkeypatch.setattr("amsync.worker.calls.MAX_VALUE_BYTES", 20_000)
        for _ in range(5):
            assert net.call("value", document_id).error == "UnreadableDocument"
        monkeypatch.undo()
        assert net.call("value", document_id).error is None

    def test_new_document_is_built(self, net: Net, document_id: DocumentId) -> None:
        heads = told(net.call("build", document_id, b'{"a": [1, "x"]}'))["heads"]
        assert told(net.call("info", document_id))["heads"] == heads
        assert net.call("build", document_id, b"{}").error == "DocumentExists"

    @pytest.mark.parametrize("value", [b'{"a": 99999999999999999999}', b'{"\\ud800": 1}'])
    def test_value_that_does_not_fit_is_refused(
        self, net: Net, document_id: DocumentId, value: bytes
    ) -> None:
        for _ in range(5):
            assert net.call("build", document_id, value).error == "InvalidDocument"
        assert net.stored == {}
        assert net.call("build", document_id, b"{}").error is None

    def test_taking_in_what_a_client_was_given_and_has_not_touched_stores_it(
        self, net: Net, document_id: DocumentId
    ) -> None:
        client = Client(net, document_id, 7)
        net.introduce(client)
        assert client.replica.heads()
        assert net.stored == {}

        said = told(net.call("take", document_id, client.replica.save()))

        assert said == {"is_new": False, "new_changes": 0, "heads": client.replica.heads()}
        assert list(net.stored) == [document_id]

    def test_taking_in_makes_and_merges(self, net: Net, document_id: DocumentId) -> None:
        replica = Replica(b"somebody")
        replica.put("a", 1)
        new = told(net.call("take", document_id, replica.save()))
        again = told(net.call("take", document_id, replica.save()))
        replica.put("b", 2)
        more = told(net.call("take", document_id, replica.save()))

        assert [(each["is_new"], each["new_changes"]) for each in (new, again, more)] == [
            (True, 1),
            (False, 0),
            (False, 1),
        ]
        assert more["heads"] == replica.heads()

    @pytest.mark.parametrize("data", [b"", b"nonsense"])
    def test_what_has_no_change_makes_no_document(
        self, net: Net, document_id: DocumentId, data: bytes
    ) -> None:
        assert net.call("take", document_id, data).error == "InvalidDocument"
        assert net.stored == {}
        assert net.call("info", document_id).error == "DocumentNotFound"

    def test_what_can_not_be_saved_is_not_acknowledged(
        self, net: Net, document_id: DocumentId
    ) -> None:
        net.disk_is_full = True
        for operation, payload in (("take", build_document({})), ("build", b"{}")):
            assert net.call(operation, document_id, payload).error == StorageFull.__name__
        net.make_room()
        assert net.call("info", document_id).error == "DocumentNotFound"

    def test_unknown_operation_is_refused(self, net: Net, document_id: DocumentId) -> None:
        stored(net, document_id, a=1)
        assert net.call("of the future", document_id).error == "InvalidDocument"

    def test_deleted_document_says_so(self, net: Net, document_id: DocumentId) -> None:
        stored(net, document_id, a=1)
        net.call("delete", document_id)
        for operation in ("info", "value", "take", "create", "build", "apply", "delete"):
            reply = net.call(operation, document_id, b"{}")
            assert reply.error == "DocumentDeleted", operation


class Store:
    """A volume that is a list of ids."""

    def __init__(self, names: list[DocumentId]) -> None:
        self.volume = SimpleNamespace(shard_count=2)
        self.names = sorted(names)
        self.error: Exception | None = None

    def list_page(self, prefix: str, after: str, limit: int, *, is_wanted: Any) -> list[DocumentId]:
        if self.error is not None:
            raise self.error
        return [name for name in self.names if name > after and is_wanted(name)][:limit]


class TestOfOwners:
    def ask(self, queries: Queries, operation: str, meanwhile: Any = None, **asked: Any) -> Reply:
        read = queries.begin(Query(5, operation, msgpack.packb(asked)))
        tell = read()
        if meanwhile is not None:
            meanwhile()
        return tell()

    def test_query_is_handed_to_the_shell(self, net: Net) -> None:
        effects = net.shard.effects()
        query = Query(5, "list", b"")
        net.give(query)
        net.shard.take((0, 99), Entry("gateway", 99, 0.0, [query]), effects, net.now)
        assert effects.queries == [("gateway", query)]
        assert net.shard.is_settled

    def test_list_covers_what_is_ours_before_and_after(self) -> None:
        nets = {number: Net(number=number, shard_count=2) for number in (0, 1)}
        shards = {number: each.shard for number, each in nets.items()}
        store = Store([new_document() for _ in range(30)])
        queries = Queries(store, shards, None)  # type: ignore[arg-type]
        asked = {"prefix": "", "after": "", "limit": 10}

        whole = told(self.ask(queries, "list", **asked))
        assert [name for name, _, _ in whole["documents"]] == store.names[:10]
        assert whole["through"] == store.names[9]
        assert whole["shards"] == [[0, 1], [1, 1]]

        half = told(self.ask(queries, "list", lambda: shards.pop(0), **asked))
        assert half["shards"] == [[1, 1]]
        assert {name for name, _, _ in half["documents"]} < set(store.names[:10])
        rest = told(self.ask(queries, "list", **{**asked, "limit": 1000}))
        assert rest["through"] is None
        assert 0 < len(rest["documents"]) < 30

    def test_list_covers_nothing_while_leases_are_in_doubt(self) -> None:
        net = Net(shard_count=2)
        tenure = SimpleNamespace(lost=lambda _shards: None)
        store = Store([new_document()])
        queries = Queries(store, {0: net.shard}, tenure)  # type: ignore[arg-type]
        said = told(self.ask(queries, "list", prefix="", after="", limit=10))
        assert (said["documents"], said["shards"]) == ([], [])

    def test_what_fails_is_said(self) -> None:
        store = Store([])
        queries = Queries(store, {}, None)  # type: ignore[arg-type]
        store.error = StorageError("no disk")
        asked = {"prefix": "", "after": "", "limit": 10}
        assert self.ask(queries, "list", **asked).error == "StorageError"
        store.error = RuntimeError("a defect")
        assert self.ask(queries, "list", **asked).error == "AmsyncError"
        assert self.ask(queries, "of the future").error == "AmsyncError"
        assert self.ask(queries, "list").error is not None
        assert queries.begin(Query(5, "list", b"\xc1"))()().error is not None


def test_reply_counts_for_the_size_of_an_entry() -> None:
    reply = Stamped(0, 1, Reply(1, None, "", bytes(ENTRY_BYTES - 1000)))
    parts = _parts([reply, reply, Stamped(0, 1, Reply(2, None, "", b"x"))])
    assert [len(items) for items, _ in parts] == [1, 2]
