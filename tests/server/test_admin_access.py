"""The admin port's calls that look at connections and withdraw access, on an embedded server."""

from typing import Any

import pytest

import amsync
from amsync import Server
from support.admin import AdminCalls, DescribedCalls
from support.rawclient import RawClient

from .conftest import StartServer
from .replicas import ReplicaClient, eventually

TOKEN = "an-admin-token-for-tests"


class Admin(DescribedCalls):
    """Calls of one server's admin port."""

    def __init__(self, server: Server, token: str | None = TOKEN) -> None:
        super().__init__(server.admin_url or "", token)
        self.server = server


@pytest.fixture
def admin(start: StartServer) -> Admin:
    return Admin(start(admin_port=0, admin_token=TOKEN))


CALLS = [
    ("GET", "/connections"),
    ("POST", "/access/kick"),
    ("POST", "/access/restrict"),
    ("POST", "/access/refresh"),
    ("GET", "/access/restrictions"),
    ("DELETE", "/access/restrictions/x"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_without_an_admin_token_there_are_no_calls(
    start: StartServer, method: str, path: str
) -> None:
    admin = AdminCalls(start(admin_port=0).admin_url or "", TOKEN)
    assert admin.call(method, path)[0] == 404


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", f"{TOKEN} {TOKEN}"])
def test_other_tokens_open_nothing(admin: Admin, method: str, path: str, token: str | None) -> None:
    admin.token = token
    status, problem = admin.call(method, path)
    assert (status, admin.kind.partition(";")[0]) == (401, "application/problem+json")
    assert problem["title"] == "Unauthorized"
    assert TOKEN not in str(problem)


def test_token_is_taken_as_bearer_only(admin: Admin) -> None:
    admin.token = None
    assert admin.call("GET", "/connections", Authorization=f"Basic {TOKEN}")[0] == 401
    assert admin.call("GET", "/connections", Authorization=f"bearer {TOKEN}")[0] == 200
    assert admin.call("GET", f"/connections?token={TOKEN}")[0] == 401


def test_connections_are_shown_in_pages(admin: Admin) -> None:
    with (
        RawClient(admin.server.url, peer_id="one") as one,
        RawClient(admin.server.url, peer_id="two") as two,
        RawClient(admin.server.url) as silent,
    ):
        one.join()
        two.join()
        two.is_answered(amsync.generate_document_id())
        status, first = admin.call("GET", "/connections?limit=1")
        _, second = admin.call("GET", f"/connections?limit=1&after={first['next']}")
        silent.close()

    assert status == 200
    (shown,) = first["connections"]
    assert shown["peer_id"] == "one"
    assert shown["address"] == "127.0.0.1"
    assert (shown["issuer"], shown["subject"], shown["documents"]) == (None, None, 0)
    assert [each["peer_id"] for each in second["connections"]] == ["two"]
    assert second["connections"][0]["documents"] == 1
    assert second["next"] is None


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "limit=-1", "after=x", "after=-1", "limit=%D9%A1"]
)
def test_page_that_can_not_be_is_refused(admin: Admin, query: str) -> None:
    assert admin.call("GET", f"/connections?{query}")[0] == 400


def test_connection_is_kicked_and_may_come_back(admin: Admin) -> None:
    with RawClient(admin.server.url) as client:
        client.join()
        _, shown = admin.call("GET", "/connections")
        (connection,) = shown["connections"]
        body = {"gateway": shown["gateway"], "connection": connection["connection"]}

        assert admin.call("POST", "/access/kick", {**body, "gateway": "x"}) == (
            200,
            {"closed_here": 0},
        )
        assert admin.call("POST", "/access/kick", body) == (200, {"closed_here": 1})
        assert client.wait_closed()[0] == 1012  # 4403 would be final for our client
    with RawClient(admin.server.url) as client:
        client.join()


def everybody(document_id: str, access: str, **more: Any) -> dict[str, Any]:
    return {"everybody": True, "document_id": document_id, "access": access, **more}


def test_restricted_document_is_gone_for_live_and_new_connections_until_it_is_lifted(
    admin: Admin,
) -> None:
    server = admin.server
    document_id = server.create_document(data={"a": 1})
    other = server.create_document(data={"a": 1})
    with RawClient(server.url) as client:
        client.join()
        client.request(document_id)
        client.receive_type("sync", document_id)

        status, order = admin.call("POST", "/access/restrict", everybody(document_id, "none"))
        assert (status, order["connections_here"]) == (200, 1)
        client.receive_type("doc-unavailable", document_id)
        client.request(document_id)
        client.receive_type("doc-unavailable", document_id)
        client.request(other)
        client.receive_type("sync", other)
        with RawClient(server.url, peer_id="new") as new:
            new.join()
            new.request(document_id)
            new.receive_type("doc-unavailable", document_id)

        assert admin.call("DELETE", f"/access/restrictions/{order['id']}") == (204, None)
        client.receive_type("sync", document_id)  # it is greeted
        assert admin.call("GET", "/access/restrictions")[1]["restrictions"] == []


def test_writer_made_a_reader_for_a_while_loses_nothing(admin: Admin) -> None:
    document_id = admin.server.create_document(data={"a": 1})
    with (
        ReplicaClient(admin.server.url, document_id, peer_id="one") as one,
        ReplicaClient(admin.server.url, document_id, peer_id="two") as two,
    ):
        one.wait_value({"a": 1})
        two.wait_value({"a": 1})
        one.put("acknowledged", 1)
        one.wait_acknowledged()
        _, order = admin.call("POST", "/access/restrict", everybody(document_id, "read"))
        one.put("refused", 1)
        two.put("refused too", 1)
        eventually(lambda: _count(admin.server, "changes_refused") >= 2)
        view = admin.server.get_document(document_id)
        assert view is not None
        assert view.value == {"a": 1, "acknowledged": 1}

        admin.call("DELETE", f"/access/restrictions/{order['id']}")

        everything = {"a": 1, "acknowledged": 1, "refused": 1, "refused too": 1}
        one.wait_acknowledged()
        two.wait_value(everything)
        one.wait_value(everything)


def _count(server: Server, name: str) -> float:
    text = server.aio.metrics.exposition()[0].decode()
    start = f"amsync_{name}_total"
    rows = [row for row in text.splitlines() if row.startswith(start)]
    return sum(float(row.rpartition(" ")[2]) for row in rows)


def test_restriction_ends_by_itself(admin: Admin) -> None:
    document_id = admin.server.create_document(data={"a": 1})
    with RawClient(admin.server.url) as client:
        client.join()
        client.request(document_id)
        client.receive_type("sync", document_id)
        admin.call("POST", "/access/restrict", everybody(document_id, "none", seconds=1))
        client.receive_type("doc-unavailable", document_id)
        client.receive_type("sync", document_id)


def test_restrictions_are_listed_in_pages(admin: Admin) -> None:
    documents = [amsync.generate_document_id() for _ in range(3)]
    for document_id in documents:
        admin.call("POST", "/access/restrict", everybody(document_id, "read"))
    somebody = {"issuer": "https://issuer", "subject": "somebody"}
    admin.call("POST", "/access/kick", {**somebody, "seconds": 60, "ban": True})

    found, after = [], ""
    while after is not None:
        _, page = admin.call("GET", f"/access/restrictions?limit=1&after={after}")
        found += page["restrictions"]
        after = page["next"]

    assert {each.get("document_id") for each in found} == {*documents, None}
    (kick,) = [each for each in found if each["kind"] == "kick"]
    assert (kick["issuer"], kick["subject"], kick["ban"]) == ("https://issuer", "somebody", True)
    assert kick["until"] - kick["at"] == pytest.approx(60)


DOCUMENT = "3uQLXrx4C7D8TPUoYUsWQYp1tytD"
SOMEBODY = {"issuer": "https://issuer", "subject": "somebody"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("kick", b"{"),
        ("kick", b"[]"),
        ("kick", b"[" * 30_000),
        ("kick", b"\xff"),
        ("kick", {}),
        ("kick", {"subject": "x"}),
        ("kick", {"issuer": "x"}),
        ("kick", {"issuer": 7, "subject": "x"}),
        ("kick", {"issuer": "", "subject": "x"}),
        ("kick", {"issuer": "x" * 2001, "subject": "x"}),
        ("kick", {"issuer": "a\nb", "subject": "x"}),
        ("kick", {"issuer": "\ud800", "subject": "x"}),
        ("kick", {**SOMEBODY, "seconds": 0}),
        ("kick", {**SOMEBODY, "seconds": 86_401}),
        ("kick", {**SOMEBODY, "seconds": True}),
        ("kick", b'{"issuer": "a", "subject": "b", "seconds": NaN}'),
        ("kick", {**SOMEBODY, "ban": "yes"}),
        ("kick", {**SOMEBODY, "sekonds": 5}),
        ("kick", {"gateway": "x"}),
        ("kick", {"gateway": "x", "connection": "1"}),
        ("kick", {"gateway": "x", "connection": 1, "issuer": "x"}),
        ("restrict", {}),
        ("restrict", {"access": "none"}),
        ("restrict", {"access": "none", "everybody": True}),
        ("restrict", {"access": "none", "document_id": DOCUMENT}),
        ("restrict", {**SOMEBODY, "everybody": True, "document_id": DOCUMENT, "access": "none"}),
        (
            "restrict",
            {**SOMEBODY, "all_documents": True, "document_id": DOCUMENT, "access": "none"},
        ),
        ("restrict", {"everybody": 1, "document_id": DOCUMENT, "access": "none"}),
        ("restrict", {**SOMEBODY, "document_id": DOCUMENT}),
        ("restrict", {**SOMEBODY, "document_id": DOCUMENT, "access": "write"}),
        ("restrict", {**SOMEBODY, "document_id": "../../etc", "access": "none"}),
        ("restrict", {**SOMEBODY, "document_id": 7, "access": "none"}),
        ("refresh", {"everybody": True}),
        ("refresh", {"subject": "x"}),
    ],
)
def test_order_that_can_not_be_is_refused_and_says_why(admin: Admin, path: str, body: Any) -> None:
    status, problem = admin.call("POST", f"/access/{path}", body)
    assert (status, problem["status"]) == (400, 400)
    assert admin.kind.startswith("application/problem+json")
    assert len(problem["detail"]) > 10
    assert admin.call("GET", "/access/restrictions")[1]["restrictions"] == []


def test_body_is_bounded(admin: Admin) -> None:
    assert admin.call("POST", "/access/kick", b" " * 70_000)[0] == 413


def test_unknown_restriction_is_not_found(admin: Admin) -> None:
    assert admin.call("DELETE", "/access/restrictions/nothing")[0] == 404


def test_orders_are_bounded(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amsync.gateway.orders.standing.MAX_ORDERS", 2)
    statuses = [
        admin.call("POST", "/access/restrict", everybody(amsync.generate_document_id(), "read"))[0]
        for _ in range(3)
    ]
    assert statuses == [200, 200, 507]


def test_refresh_asks_again_at_once(start: StartServer) -> None:
    answers = ["write"]
    config = amsync.AccessConfig(check=lambda _identity, _document_id: answers[0])
    admin = Admin(start(admin_port=0, admin_token=TOKEN, access=config))
    document_id = admin.server.create_document(data={"a": 1})
    with RawClient(admin.server.url) as client:
        client.join()
        client.request(document_id)
        client.receive_type("sync", document_id)
        answers[0] = "none"
        assert admin.call("POST", "/access/refresh") == (200, {"connections_here": 1})
        client.receive_type("doc-unavailable", document_id)
