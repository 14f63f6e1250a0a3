"""Access by tokens on live connections: kicked, restricted, decided anew; ids of others."""

import contextlib
import json
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from amsync import AccessConfig, AuthConfig, Server, Share, TLSConfig, Webhook
from amsync.version import API_PATH
from server.replicas import ReplicaClient, eventually
from support.issuer import CLIENT_ID, IssuerServer
from support.rawclient import RawClient
from support.upgrading import ask

TOKEN = "an-admin-token-for-tests"


class House:
    """A server that wants tokens, its clients, and its admin port."""

    def __init__(self, server: Server, issuer: IssuerServer, pair: TLSConfig) -> None:
        self.server, self.issuer = server, issuer
        self.context = ssl.create_default_context(cafile=os.fspath(pair.cert))

    def options(self, subject: str, **claims: Any) -> dict[str, Any]:
        token = self.issuer.token(sub=subject, **claims)
        return {"context": self.context, "headers": {"Authorization": f"Bearer {token}"}}

    def come(self, subject: str, peer_id: str = "peer", **claims: Any) -> RawClient:
        return RawClient(self.server.url, peer_id=peer_id, **self.options(subject, **claims))

    def replica(
        self, subject: str, document_id: str, peer_id: str = "peer", **claims: Any
    ) -> ReplicaClient:
        options = self.options(subject, **claims)
        return ReplicaClient(self.server.url, document_id, peer_id=peer_id, **options)

    def refusal(self, subject: str, **claims: Any) -> tuple[int, str]:
        answer = ask(self.server.url, **self.options(subject, **claims))
        return answer.status, answer.body.strip()

    def order(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.server.admin_url}{API_PATH}/access/{path}", json.dumps(body).encode()
        )
        request.add_header("Authorization", f"Bearer {TOKEN}")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def lift(self, order_id: str) -> None:
        request = urllib.request.Request(
            f"{self.server.admin_url}{API_PATH}/access/restrictions/{order_id}", method="DELETE"
        )
        request.add_header("Authorization", f"Bearer {TOKEN}")
        urllib.request.urlopen(request, timeout=20).close()

    def who(self, subject: str) -> dict[str, str]:
        return {"issuer": self.issuer.url, "subject": subject}


Open = Callable[..., House]


@pytest.fixture
def house(tmp_path: Path, issuer: IssuerServer, pair: TLSConfig) -> Iterator[Open]:
    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> House:
            auth = AuthConfig(CLIENT_ID, issuer.url, issuer_ca=issuer.ca, leeway_seconds=0)
            server = Server(
                auth=auth,
                tls=pair,
                data_dir=tmp_path / "data",
                admin_port=0,
                admin_token=TOKEN,
                **options,
            )
            return House(stack.enter_context(server), issuer, pair)

        yield start


# -- kicked


def test_kick_closes_every_connection_of_the_identity_and_no_other(house: Open) -> None:
    h = house()
    with h.come("bob", "one") as one, h.come("bob", "two") as two, h.come("carol") as carol:
        for client in (one, two, carol):
            client.join()

        assert h.order("kick", **h.who("bob"))["closed_here"] == 2

        assert one.wait_closed()[0] == two.wait_closed()[0] == 4403
        carol.ping()


def test_kicked_connection_that_has_not_joined_is_closed_too(house: Open) -> None:
    h = house()
    with h.come("bob") as client:
        client.ping()
        assert h.order("kick", **h.who("bob"))["closed_here"] == 1
        assert client.wait_closed()[0] == 4403


def test_token_of_before_the_kick_lets_nobody_in_again_and_a_later_one_does(house: Open) -> None:
    h = house()
    order = h.order("kick", **h.who("bob"))
    now = int(order["at"])

    assert h.refusal("bob", iat=now) == (403, "kicked")
    assert h.refusal("bob", iat=now - 100) == (403, "kicked")
    assert h.refusal("bob", iat=None) == (403, "kicked")
    h.come("carol", iat=now).close()
    # What the issuer says a second later is new enough; it must not be of the future.
    eventually(lambda: time.time() > now + 1)
    h.come("bob", iat=now + 1).close()


def test_banned_identity_can_not_come_back_until_the_ban_is_lifted(house: Open) -> None:
    h = house()
    order = h.order("kick", **h.who("bob"), ban=True)
    eventually(lambda: time.time() > order["at"] + 1.1)

    assert h.refusal("bob") == (403, "kicked")
    h.lift(order["id"])
    h.come("bob").close()


def test_kick_ends_by_itself(house: Open) -> None:
    h = house()
    issued = int(time.time())
    h.order("kick", **h.who("bob"), seconds=1)
    assert h.refusal("bob", iat=issued) == (403, "kicked")

    def comes_in() -> bool:
        return h.refusal("bob", iat=issued)[0] == 101

    eventually(comes_in)


def test_page_can_ask_why_its_token_is_refused(house: Open) -> None:
    h = house()
    h.order("kick", **h.who("bob"), ban=True)
    url = h.server.url.replace("wss:", "https:")
    request = urllib.request.Request(url, headers=h.options("bob")["headers"])

    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, context=h.context, timeout=20)

    with refused.value as answer:
        assert (answer.code, answer.read().strip()) == (403, b"kicked")


# -- restricted


def test_restriction_of_an_identity_concerns_nobody_else(house: Open) -> None:
    h = house()
    document_id = h.server.create_document(data={"a": 1})
    with h.come("bob") as bob, h.come("carol") as carol:
        for client in (bob, carol):
            client.join()
            client.request(document_id)
            client.receive_type("sync", document_id)

        order = h.order("restrict", **h.who("bob"), all_documents=True, access="none")

        assert order["connections_here"] == 1
        bob.receive_type("doc-unavailable", document_id)
        assert not bob.is_answered(document_id) or True
        assert [each["type"] for each in carol.receive_all()] in ([], ["sync"])


# -- sources


def test_claims_of_the_token_say_what_it_may(house: Open) -> None:
    h = house(access=AccessConfig(claim="amsync"))
    document_id = h.server.create_document(data={"a": 1})
    other = h.server.create_document(data={"a": 1})
    reads = {"amsync": {"read": [document_id]}}

    with h.replica("bob", document_id, **reads) as bob:
        bob.wait_value({"a": 1})
        bob.put("b", 2)
        bob.raw.ping()
        bob.raw.request(other)
        bob.raw.receive_type("doc-unavailable", other)
    with h.come("carol") as carol:
        carol.join()
        carol.request(document_id)
        carol.receive_type("doc-unavailable", document_id)

    view = h.server.get_document(document_id)
    assert view is not None
    assert view.value == {"a": 1}


def test_announced_are_only_documents_that_the_claim_names(house: Open) -> None:
    h = house(access=AccessConfig(claim="amsync"), share=Share.ANNOUNCE)
    document_id = h.server.create_document(data={"a": 1})
    h.server.create_document(data={"a": 1})
    claim = {"read": ["*"], "announce": [document_id]}

    with h.come("bob", amsync=claim) as bob:
        bob.join()
        bob.receive_type("sync", document_id)
        assert {each.get("documentId") for each in bob.receive_all()} <= {document_id, None}


def test_unknown_and_forbidden_documents_look_alike_to_who_may_not_create(house: Open) -> None:
    h = house(access=AccessConfig(claim="amsync"))
    forbidden = h.server.create_document(data={"a": 1})
    unknown = Server.generate_document_id()
    claim = {"write": [unknown], "create": False}
    with h.replica("carol", forbidden, "carol", amsync={"write": ["*"]}) as carol:
        carol.wait_value({"a": 1})
        heads = carol.frames[-1]
        with h.come("bob", amsync=claim) as bob:
            bob.join()
            said = {}
            for document_id in (forbidden, unknown):
                bob.request(document_id)
                bob.sync(document_id, heads)
                bob.sync(document_id, heads)
                bob.ephemeral(document_id, "hello")
                bob.request(document_id)
                found = bob.receive_all(1.0)
                said[document_id] = [{**each, "documentId": "x"} for each in found]

    assert said[forbidden] == said[unknown]
    assert [each["type"] for each in said[unknown]] == ["doc-unavailable"] * 4


class Hook:
    """A webhook that says what `access` says; its answers are good for a second."""

    def __init__(self) -> None:
        self.access = "write"
        self.asked = 0
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                hook.asked += 1
                body = json.dumps({"access": hook.access, "lifetime_seconds": 1}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def test_end_of_an_answers_lifetime_reaches_a_live_connection(house: Open) -> None:
    with contextlib.closing(Hook()) as hook:
        h = house(access=AccessConfig(webhook=Webhook(hook.url)))
        document_id = h.server.create_document(data={"a": 1})
        with h.replica("bob", document_id) as bob:
            bob.wait_value({"a": 1})
            bob.put("b", 2)
            bob.wait_acknowledged()
            hook.access = "read"
            asked = hook.asked
            eventually(lambda: hook.asked >= asked + 2)
            bob.raw.ping()
            bob.put("c", 3)
            bob.raw.ping()
            hook.access = "none"
            bob.raw.receive_type("doc-unavailable", document_id)

        view = h.server.get_document(document_id)
        assert view is not None
        assert view.value == {"a": 1, "b": 2}


def test_webhook_that_goes_away_ends_access_at_the_end_of_its_last_answer(house: Open) -> None:
    hook = Hook()
    h = house(access=AccessConfig(webhook=Webhook(hook.url)))
    document_id = h.server.create_document(data={"a": 1})
    with h.come("bob") as bob:
        bob.join()
        bob.request(document_id)
        bob.receive_type("sync", document_id)
        hook.close()
        started = time.monotonic()
        bob.receive_type("doc-unavailable", document_id)
        assert time.monotonic() - started < 10


# -- ids of others


def test_with_anothers_ids_one_gets_nothing_of_theirs_and_breaks_nothing(house: Open) -> None:
    h = house()
    document_id = h.server.create_document(data={"a": 1})
    storage = {"peerMetadata": {"storageId": "storage-of-bob", "isEphemeral": False}}
    with h.come("bob", "bob") as bob, h.come("carol", "carol") as carol:
        bob.join(**storage)
        carol.join()
        for client in (bob, carol):
            client.request(document_id)
            client.receive_type("sync", document_id)
        with h.come("mallory", "bob") as mallory:
            mallory.join(**storage)
            mallory.request(document_id)
            mallory.receive_type("sync", document_id)
            mallory.sync(document_id, b"\x42\x00\x00\x01\x00\x00\x00")

            message = carol.message(
                "ephemeral", document_id, targetId="bob", data=b"\x01", count=1, sessionId="s"
            )
            carol.send(message)
            assert bob.receive_type("ephemeral")["senderId"] == "carol"
            carol.ping()
            heard = [each["type"] for each in mallory.receive_all()]

            bob.ping()  # its connection is still there
            assert "ephemeral" not in heard
        # and so it is after the other has gone
        bob.ping()
