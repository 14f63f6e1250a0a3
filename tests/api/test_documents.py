"""The calls about documents, on an embedded server; each answer is as the description says."""

import asyncio
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from amsync import generate_document_id
from amsync._automerge import Replica
from amsync.jsonvalue import to_json
from server.replicas import ReplicaClient

from .conftest import Api, StartApi

UUID = "12345678-1234-4234-8234-123456789abc"


def replica(**values: object) -> Replica:
    made = Replica(uuid.uuid4().bytes)
    for name, value in values.items():
        made.put(name, value)
    return made


class TestCreate:
    def test_value_becomes_a_document(self, api: Api) -> None:
        value = {"title": "grüß 🎈", "list": [1, -2.5, None, True], "deep": {"": {}}}

        status, said = api.call("POST", "/documents", {"value": value})

        assert status == 201
        assert said["url"] == f"automerge:{said['document_id']}"
        shown = api.call("GET", f"/documents/{said['document_id']}/value")[1]
        assert shown == {**shown, "value": value, "heads": said["heads"]}
        assert api.server.list_documents() == [said["document_id"]]

    def test_value_is_written_beside_the_loop(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loops: list[object] = []

        def write(value: object, most_bytes: int) -> bytes:
            loops.append(asyncio._get_running_loop())
            return to_json(value, most_bytes)

        monkeypatch.setattr("amsync.gateway.api.documents.to_json", write, raising=False)
        value = {"long": "x" * 1_000_000}
        name = api.put(value)

        assert loops == [None]
        assert api.call("GET", f"/documents/{name}/value")[1]["value"] == value

    def test_nothing_becomes_an_empty_document(self, api: Api) -> None:
        status, said = api.call("POST", "/documents")
        assert (status, len(said["heads"])) == (201, 1)
        assert api.call("GET", f"/documents/{said['document_id']}/value")[1]["value"] == {}

    def test_saved_document_becomes_a_copy(self, api: Api) -> None:
        original = replica(a=1)

        status, said = api.bytes("POST", "/documents", original.save())

        assert status == 201
        assert said["heads"] == [head.hex() for head in original.heads()]

    @pytest.mark.parametrize("spelling", [UUID, f"automerge:{UUID}", UUID.upper()])
    def test_id_may_be_chosen_once(self, api: Api, spelling: str) -> None:
        status, said = api.call("POST", "/documents", {"document_id": spelling})
        assert status == 201
        assert (
            api.call("GET", f"/documents/{quote(spelling)}")[1]["document_id"]
            == (said["document_id"])
        )
        assert api.call("POST", "/documents", {"document_id": spelling, "value": {}})[0] == 409

    @pytest.mark.parametrize(
        "body",
        [
            {"document_id": "nonsense"},
            {"document_id": 7},
            {"value": 7},
            {"value": None},
            {"value": {"n": 2**80}},
            {"value": {"\ud800": 1}},
            {"values": {}},
            [],
            b"{",
            b'{"value": {"a": NaN}}',
            b'{"value": {"a": ' + b"[" * 300 + b"]" * 300 + b"}}",
            b'{"value": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        ],
    )
    def test_what_is_no_document_is_refused(self, still: Api, body: Any) -> None:
        status, problem = still.call("POST", "/documents", body)
        assert status == 400, problem
        assert still.server.list_documents() == []

    @pytest.mark.parametrize("data", [b"", b"nonsense", b"\x85\x6f\x4a\x83"])
    def test_what_is_no_saved_document_is_refused(self, still: Api, data: bytes) -> None:
        assert still.bytes("POST", "/documents", data)[0] == 400
        assert still.server.list_documents() == []


class TestRead:
    def test_details_come_without_opening(self, api: Api) -> None:
        document_id = api.put({"a": 1})
        with ReplicaClient(api.server.url, document_id, peer_id="reader") as client:
            client.wait_value({"a": 1})
            _, said = api.call("GET", f"/documents/{document_id}")
        saved = client.replica.save()

        assert said["heads"] == [head.hex() for head in client.replica.heads()]
        assert (said["changes"], said["is_open"], said["peer_count"]) == (1, True, 1)
        assert 0 < said["stored_bytes"] <= 2 * len(saved)
        assert said["memory_bytes"] > 0
        (peer,) = said["peers"]
        assert (peer["peer_id"], peer["access"], peer["syncs"]) == ("reader", "write", True)
        assert peer["gateway"] == api.call("GET", "/connections")[1]["gateway"]

    def test_looking_at_a_document_is_no_use_of_it(self, start: StartApi) -> None:
        first = start()
        document_id = first.put({"a": 1})
        first.server.close()
        api = start()

        for _ in range(2):
            said = api.call("GET", f"/documents/{document_id}")[1]
            assert (said["is_open"], said["memory_bytes"], said["peers"]) == (False, None, [])

    def test_saved_document_comes_under_its_name(self, api: Api) -> None:
        document_id = api.put({"a": 1})
        status, saved = api.call("GET", f"/documents/{document_id}/automerge")
        assert (status, Replica.load(saved).value()) == (200, {"a": 1})

    def test_bytes_and_times_are_shown_as_text(self, api: Api) -> None:
        made = api.server.create_document(data={"b": b"\x00\xff", "f": float("inf")})
        shown = api.call("GET", f"/documents/{made}/value")[1]["value"]
        assert shown == {"b": "AP8=", "f": "inf"}

    @pytest.mark.parametrize("path", ["", "/automerge", "/value"])
    def test_absent_and_deleted_are_told_apart(self, api: Api, path: str) -> None:
        absent, deleted = generate_document_id(), api.put({})
        assert api.call("DELETE", f"/documents/{deleted}") == (204, None)
        assert api.call("GET", f"/documents/{absent}{path}")[0] == 404
        assert api.call("GET", f"/documents/{deleted}{path}")[0] == 410

    @pytest.mark.parametrize("name", ["x", "..", "%2e%2e%2f", "a%2Fb", "automerge:", "%00", "é"])
    @pytest.mark.parametrize("path", ["", "/automerge", "/value"])
    def test_what_is_no_id_is_refused(self, still: Api, name: str, path: str) -> None:
        assert still.call("GET", f"/documents/{quote(name, safe='%:')}{path}")[0] in (400, 404)


class TestImport:
    def test_import_stores_and_merges(self, api: Api) -> None:
        document_id = generate_document_id()
        made = replica(a=1)
        path = f"/documents/{document_id}/automerge"

        first = api.bytes("PUT", path, made.save())
        again = api.bytes("PUT", path, made.save())
        made.put("b", 2)
        more = api.bytes("PUT", path, made.changes()[-1])

        heads = [head.hex() for head in made.heads()]
        common = {"document_id": document_id, "is_new": False}
        assert first == (200, {**first[1], "is_new": True, "new_changes": 1})
        assert again == (200, {**first[1], "is_new": False, "new_changes": 0})
        assert more == (200, {**common, "new_changes": 1, "heads": heads})

    def test_clients_get_what_is_imported(self, api: Api) -> None:
        document_id = api.put({"a": 1})
        with ReplicaClient(api.server.url, document_id) as client:
            client.wait_value({"a": 1})
            made = replica(b=2)
            assert api.bytes("PUT", f"/documents/{document_id}/automerge", made.save())[0] == 200
            client.wait_value({"a": 1, "b": 2})

    @pytest.mark.parametrize("data", [b"", b"nonsense", bytes(100_000)])
    def test_what_is_damaged_is_refused_and_changes_nothing(self, api: Api, data: bytes) -> None:
        document_id = api.put({"a": 1})
        for name in (document_id, generate_document_id()):
            assert api.bytes("PUT", f"/documents/{name}/automerge", data)[0] == 400
        assert api.server.list_documents() == [document_id]
        assert api.call("GET", f"/documents/{document_id}/value")[1]["value"] == {"a": 1}

    def test_changes_whose_past_is_missing_are_refused(self, api: Api) -> None:
        made = replica(a=1, b=2)
        path = f"/documents/{generate_document_id()}/automerge"
        status, problem = api.bytes("PUT", path, made.changes()[-1])
        assert status == 400
        assert "missing" in problem["detail"]

    def test_deleted_document_stays_deleted(self, api: Api) -> None:
        document_id = api.put({"a": 1})
        api.call("DELETE", f"/documents/{document_id}")
        path = f"/documents/{document_id}/automerge"
        assert api.bytes("PUT", path, replica(a=1).save())[0] == 410
        assert api.call("POST", "/documents", {"document_id": document_id})[0] == 410


class TestDelete:
    def test_document_is_gone_for_clients_too(self, api: Api) -> None:
        document_id = api.put({"a": 1})
        with ReplicaClient(api.server.url, document_id) as client:
            client.wait_value({"a": 1})
            assert api.call("DELETE", f"/documents/{document_id}") == (204, None)
            client.wait(lambda: client.unavailable == 1)
        assert api.call("DELETE", f"/documents/{document_id}")[0] == 410
        assert api.call("DELETE", f"/documents/{generate_document_id()}")[0] == 404
        assert api.call("GET", "/documents")[1]["documents"] == []


class TestList:
    def test_pages_have_every_document_once_in_order(self, api: Api) -> None:
        wanted = sorted(api.server.create_document() for _ in range(25))
        seen: list[str] = []
        after = ""
        while True:
            _, page = api.call("GET", f"/documents?limit=4&after={after}")
            assert len(page["documents"]) <= 4
            seen += [each["document_id"] for each in page["documents"]]
            if page["next"] is None:
                break
            after = page["next"]
        assert seen == wanted

    def test_pages_are_the_same_from_log_and_folders(self, start: StartApi, tmp_path: Path) -> None:
        api = start()
        wanted = sorted(api.server.create_document() for _ in range(10))
        before = api.call("GET", "/documents?limit=7")
        assert api.call("POST", "/checkpoint")[0] == 200
        assert api.call("GET", "/documents?limit=7") == before
        assert [each["document_id"] for each in before[1]["documents"]] == wanted[:7]

    def test_prefix_narrows_it(self, api: Api) -> None:
        made = [api.server.create_document() for _ in range(12)]
        for length in (0, 1, 2, 3, 20):
            prefix = made[0][:length]
            for spelling in (prefix, f"automerge:{prefix}"):
                _, page = api.call("GET", f"/documents?prefix={spelling}")
                names = [each["document_id"] for each in page["documents"]]
                assert names == sorted(each for each in made if each.startswith(prefix))
        assert api.call("GET", "/documents?prefix=..%2F")[1] == {"documents": [], "next": None}

    def test_row_tells_who_uses_it(self, api: Api) -> None:
        document_id = api.put({"a": 1})
        other = api.put({})
        with ReplicaClient(api.server.url, document_id) as client:
            client.wait_value({"a": 1})
            rows = api.call("GET", "/documents")[1]["documents"]
        cluster = api.call("GET", "/cluster")[1]
        by_id = {each["document_id"]: each for each in rows}
        assert by_id[document_id]["peers"] == 1
        assert by_id[document_id]["is_open"]
        assert by_id[other]["peers"] == 0
        assert {each["owner"] for each in rows} == {cluster["workers"][0]["worker_id"]}

    @pytest.mark.parametrize("query", ["limit=0", "limit=x", "after=1&after=2", "before=x"])
    def test_what_is_no_page_is_refused(self, still: Api, query: str) -> None:
        assert still.call("GET", f"/documents?{query}")[0] == 400
