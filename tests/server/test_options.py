"""Every option of a `Server`: its default, what it does, and what is refused."""

import asyncio
import inspect
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import amsync
from amsync import ConfigError, Limits, Server, Share
from amsync._automerge import Replica
from amsync.gateway.limits import default_limits
from support.rawclient import RawClient, refused

from .conftest import StartServer
from .replicas import ReplicaClient, eventually, names, samples


def test_defaults_are_those_of_the_table() -> None:
    parameters = inspect.signature(Server).parameters
    defaults = {name: each.default for name, each in parameters.items()}
    wanted = {
        "port": 0,
        "host": "127.0.0.1",
        "data_dir": ".automerge",
        "auto_create_docs": True,
        "storage_id": None,
        "tls": None,
        "admin_port": None,
        "auth": None,
        "share": Share.ALLOW,
        "allow_anonymous": False,
    }
    assert {name: defaults[name] for name in wanted} == wanted
    assert list(parameters)[:9] == list(wanted)[:9]


def test_default_directory_is_dot_automerge(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with Server():
        assert (tmp_path / ".automerge" / ".amsync").is_dir()


@pytest.mark.parametrize(
    ("option", "value", "found", "allowed"),
    [
        ("port", -1, "-1", "65535"),
        ("port", 65536, "65536", "65535"),
        ("port", "3030", "'3030'", "65535"),
        ("port", None, "None", "65535"),
        ("port", True, "True", "65535"),
        ("port", 1.5, "1.5", "65535"),
        ("admin_port", 70000, "70000", "65535"),
        ("admin_port", "off", "'off'", "65535"),
        ("host", "", "''", "name or an address"),
        ("host", 127, "127", "name or an address"),
        ("data_dir", "", "''", "directory"),
        ("data_dir", None, "None", "directory"),
        ("auto_create_docs", "yes", "'yes'", "True or False"),
        ("auto_create_docs", None, "None", "True or False"),
        ("storage_id", 5, "5", "EPHEMERAL"),
        ("tls", ("cert", "key"), "'cert'", "TLSConfig"),
        ("share", "allow", "'allow'", "Share.ALLOW"),
        ("share", 1, "1", "Share.ALLOW"),
        ("share", lambda: None, "lambda", "client_id"),
        ("share", lambda a, b, c, d: None, "lambda", "client_id"),
        ("allow_anonymous", "no", "'no'", "True or False"),
        ("allow_anonymous", None, "None", "True or False"),
        ("limits", 5, "5", "Limits"),
        ("limits", {"max_connections": 5}, "max_connections", "Limits"),
        ("admin_host", "", "''", "name or an address"),
        ("drain_seconds", -1, "-1", "0"),
        ("drain_seconds", "long", "'long'", "0"),
        ("drain_seconds", float("nan"), "nan", "0"),
    ],
)
def test_wrong_value_says_option_found_and_allowed(
    option: str, value: Any, found: str, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Server(**{option: value})
    message = str(caught.value)
    assert option in message
    assert found in message
    assert allowed in message


@pytest.mark.parametrize("name", ["max_frame_bytes", "max_connections", "handshake_seconds"])
@pytest.mark.parametrize("value", [-1, 0, "many"])
def test_wrong_limit_says_option_found_and_allowed(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        Server(limits=Limits(**{name: value}))


@pytest.mark.parametrize("auth", [False, "token", lambda token: True], ids=["False", "str", "call"])
def test_auth_is_not_built_yet(auth: Any) -> None:
    with pytest.raises(ConfigError, match="auth"):
        Server(auth=auth)


class TestAutoCreate:
    def test_unknown_document_is_created_with_the_same_hash_everywhere(
        self, start: StartServer, tmp_path: Path
    ) -> None:
        document_id = amsync.generate_document_id()
        heads = []
        for name in ("one", "two"):
            server = start(data_dir=tmp_path / name)
            with ReplicaClient(server.url, document_id) as client:
                client.wait_loaded()
                assert client.replica.value() == {}
                heads.append(client.replica.heads())
        assert heads[0] == heads[1]
        assert len(heads[0]) == 1

    def test_off_says_unavailable_without_an_empty_sync(self, start: StartServer) -> None:
        server = start(auto_create_docs=False)
        document_id = amsync.generate_document_id()
        with ReplicaClient(server.url, document_id) as client:
            client.wait(lambda: client.unavailable == 1)
            client.listen(0.1)
            assert client.frames == []
        assert server.list_documents() == []
        assert server.get_document(document_id) is None

    def test_off_lets_clients_bring_documents_and_serves_who_waits(
        self, start: StartServer
    ) -> None:
        server = start(auto_create_docs=False)
        document_id = amsync.generate_document_id()
        with ReplicaClient(server.url, document_id, peer_id="waits") as waiting:
            waiting.wait(lambda: waiting.unavailable == 1)
            with ReplicaClient(server.url, document_id, peer_id="brings") as bringing:
                bringing.put("brought", 1)
                bringing.wait_acknowledged()
            waiting.wait_value({"brought": 1})
        assert server.list_documents() == [document_id]


class TestStorageId:
    def peer_metadata(self, server: Server) -> dict[str, Any]:
        with RawClient(server.url) as client:
            metadata: dict[str, Any] = client.join()["peerMetadata"]
            return metadata

    def test_none_makes_one_and_keeps_it(self, start: StartServer) -> None:
        first = start()
        told = self.peer_metadata(first)
        assert told == {"storageId": first.storage_id, "isEphemeral": False}
        first.close()

        assert self.peer_metadata(start()) == told

    def test_given_one_is_used_and_kept(self, start: StartServer) -> None:
        server = start(storage_id="my-storage")
        assert server.storage_id == "my-storage"
        assert self.peer_metadata(server) == {"storageId": "my-storage", "isEphemeral": False}
        server.close()

        again = start()
        assert again.storage_id == "my-storage"
        again.close()
        assert start(storage_id="my-storage").storage_id == "my-storage"

    def test_other_one_is_refused_later(self, start: StartServer) -> None:
        start(storage_id="first").close()

        with pytest.raises(ConfigError, match="storage_id") as caught:
            start(storage_id="second")

        assert "first" in str(caught.value)
        assert "second" in str(caught.value)
        assert start().storage_id == "first"

    def test_ephemeral_tells_none_and_keeps_documents(self, start: StartServer) -> None:
        server = start(storage_id=amsync.EPHEMERAL)
        assert server.storage_id is None
        assert self.peer_metadata(server) == {"isEphemeral": True}
        document_id = server.create_document(data={"kept": 1})
        server.close()

        again = start(storage_id=amsync.EPHEMERAL)
        assert again.list_documents() == [document_id]
        assert self.peer_metadata(again) == {"isEphemeral": True}

    @pytest.mark.parametrize("bad", ["", "x" * 257, "a\nb"])
    def test_bad_one_is_refused(self, start: StartServer, bad: str) -> None:
        with pytest.raises(ConfigError, match="storage_id"):
            start(storage_id=bad)


class Answers:
    """A share callable that remembers what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[Any, ...]] = []
        self.threads: set[str] = set()

    def __call__(self, client_id: str, document_id: str) -> Any:
        self.asked.append((client_id, document_id))
        self.threads.add(threading.current_thread().name)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class TestShare:
    def outcome(self, server: Server, document_id: str, peer_id: str = "someone") -> str:
        """What one who asks for a stored document gets."""
        with ReplicaClient(server.url, document_id, peer_id=peer_id) as client:
            client.wait(lambda: bool(client.unavailable or client.replica.heads()))
            return "unavailable" if client.unavailable else "served"

    def announced(self, server: Server, count: int) -> set[str]:
        """What is announced to one who asks for nothing."""
        with RawClient(server.url, peer_id="silent") as client:
            client.join()
            found: set[str] = set()
            deadline = time.monotonic() + (20.0 if count else 0.3)
            while time.monotonic() < deadline and (len(found) < count or not count):
                try:
                    message = client.receive(deadline - time.monotonic())
                except TimeoutError:
                    break
                if message["type"] == "sync":
                    found.add(message["documentId"])
            return found

    @pytest.mark.parametrize("share", [Share.ALLOW, None])
    def test_allow_serves_and_announces_nothing(self, start: StartServer, share: Any) -> None:
        server = start(share=share)
        document_id = server.create_document(data={"n": 1})
        assert self.announced(server, 0) == set()
        assert self.outcome(server, document_id) == "served"

    @pytest.mark.parametrize("share", [Share.ANNOUNCE, True])
    def test_announce_tells_of_every_stored_document(self, start: StartServer, share: Any) -> None:
        server = start(share=share)
        made = {server.create_document(data={"n": n}) for n in range(30)}
        assert self.announced(server, len(made)) == made
        server.close()

        again = start(share=share)  # none of them is in memory now
        assert self.announced(again, len(made)) == made
        assert self.outcome(again, min(made)) == "served"

    def test_announce_tells_of_documents_created_later(self, start: StartServer) -> None:
        server = start(share=Share.ANNOUNCE)
        with RawClient(server.url, peer_id="early") as client:
            client.join()
            by_application = server.create_document(data={"n": 1})
            assert client.receive_type("sync")["documentId"] == by_application
            by_client = amsync.generate_document_id()
            with ReplicaClient(server.url, by_client, peer_id="maker") as maker:
                maker.put("n", 2)
                maker.wait_acknowledged()
                assert client.receive_type("sync", by_client)

    @pytest.mark.parametrize("share", [Share.DENY, False])
    def test_deny_refuses_and_creates_nothing(self, start: StartServer, share: Any) -> None:
        server = start(share=share)
        document_id = server.create_document(data={"n": 1})
        unknown = amsync.generate_document_id()
        assert self.outcome(server, document_id) == "unavailable"
        assert self.outcome(server, unknown) == "unavailable"
        assert self.announced(server, 0) == set()
        with ReplicaClient(server.url, document_id, peer_id="writer") as client:
            client.put("n", 2)
            client.wait(lambda: client.unavailable >= 1)
        assert server.get_document(document_id).value == {"n": 1}  # type: ignore[union-attr]
        assert server.list_documents() == [document_id]

    @pytest.mark.parametrize(
        ("answer", "outcome"),
        [
            (Share.ALLOW, "served"),
            (None, "served"),
            (Share.ANNOUNCE, "served"),
            (True, "served"),
            (Share.DENY, "unavailable"),
            (False, "unavailable"),
            ("allow", "unavailable"),
            (1, "unavailable"),
            (RuntimeError("broken"), "unavailable"),
        ],
        ids=repr,
    )
    def test_callable_decides(self, start: StartServer, answer: Any, outcome: str) -> None:
        answers = Answers(answer)
        server = start(share=answers)
        document_id = server.create_document(data={"n": 1})

        assert self.outcome(server, document_id, "alice") == outcome

        assert ("alice", document_id) in answers.asked
        assert not any(name == "amsync" for name in answers.threads), "it blocks the loop"

    def test_callable_may_take_the_identity(self, start: StartServer) -> None:
        asked: list[tuple[Any, ...]] = []

        def share(client_id: str, document_id: str, identity: object) -> Share:
            asked.append((client_id, document_id, identity))
            return Share.ALLOW

        server = start(share=share)
        document_id = server.create_document(data={"n": 1})
        assert self.outcome(server, document_id, "alice") == "served"
        assert ("alice", document_id, None) in asked

    def test_callable_may_be_async(self, start: StartServer) -> None:
        async def share(client_id: str, document_id: str) -> Share:
            await asyncio.sleep(0)
            return Share.DENY if client_id == "mallory" else Share.ALLOW

        server = start(share=share)
        document_id = server.create_document(data={"n": 1})
        assert self.outcome(server, document_id, "alice") == "served"
        assert self.outcome(server, document_id, "mallory") == "unavailable"

    def test_callable_announces_what_it_names(self, start: StartServer) -> None:
        chosen: set[str] = set()

        def share(client_id: str, document_id: str) -> Share:
            return Share.ANNOUNCE if document_id in chosen else Share.ALLOW

        server = start(share=share)
        made = [server.create_document(data={"n": n}) for n in range(6)]
        chosen.update(made[:3])
        assert self.announced(server, 3) == set(made[:3])

    def test_decisions_are_remembered_until_refreshed(self, start: StartServer) -> None:
        answers = Answers(Share.ALLOW)
        server = start(share=answers)
        document_id = server.create_document(data={"n": 1})
        assert self.outcome(server, document_id, "alice") == "served"
        asked = len(answers.asked)

        answers.answer = Share.DENY
        assert self.outcome(server, document_id, "alice") == "served"
        assert len(answers.asked) == asked

        server.refresh_access()
        assert self.outcome(server, document_id, "alice") == "unavailable"

    def test_refresh_takes_access_from_live_connections(self, start: StartServer) -> None:
        answers = Answers(Share.ALLOW)
        server = start(share=answers)
        document_id = server.create_document(data={"n": 1})
        with ReplicaClient(server.url, document_id, peer_id="alice") as client:
            client.wait_value({"n": 1})

            answers.answer = Share.DENY
            server.refresh_access()
            client.wait(lambda: client.unavailable == 1)
            client.put("n", 2)
            client.wait(lambda: client.unavailable == 2)
            assert server.get_document(document_id).value == {"n": 1}  # type: ignore[union-attr]

            answers.answer = Share.ALLOW
            server.refresh_access()
            for number in range(100):  # the decision is made while we talk
                client.replica.connect(0)
                client.put("n", number)
                client.listen(0.02)
                if names(client.frames[-1], client.replica.heads()):
                    break
            assert server.get_document(document_id).value == {"n": number}  # type: ignore[union-attr]

    @pytest.mark.parametrize("had_it", [True, False])
    def test_regained_access_brings_the_document_by_itself(
        self, start: StartServer, had_it: bool
    ) -> None:
        """automerge-repo asks once per connection: who was refused does not ask again."""
        answers = Answers(Share.ALLOW if had_it else Share.DENY)
        server = start(share=answers)
        document_id = server.create_document(data={"n": 1})
        with ReplicaClient(server.url, document_id, peer_id="alice") as client:
            if had_it:
                client.wait_value({"n": 1})
                answers.answer = Share.DENY
                server.refresh_access()
            client.wait(lambda: client.unavailable == 1)
            server.apply_changes(document_id, edited(server, document_id, "later", 2))
            client.listen(0.1)
            assert "later" not in str(client.replica.value())

            answers.answer = Share.ALLOW
            server.refresh_access()

            client.wait_value({"n": 1, "later": 2})


def edited(server: Server, document_id: str, key: str, value: int) -> bytes:
    """One edit on top of what the server has."""
    view = server.get_document(document_id)
    assert view is not None
    replica = Replica.load(view.saved)
    replica.put(key, value)
    return b"".join(replica.changes())


class TestSafeBind:
    @pytest.mark.parametrize(
        "host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "10.0.0.1", "127.0.0.1.example.org"]
    )
    def test_beyond_loopback_needs_a_word(self, host: str) -> None:
        with pytest.raises(ConfigError, match="allow_anonymous") as caught:
            Server(host=host)
        assert repr(host) in str(caught.value)
        assert "--allow-anonymous" in str(caught.value)

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.5", "::1", "localhost"])
    def test_loopback_is_open(self, host: str) -> None:
        Server(host=host)

    def test_beyond_loopback_limits_are_stricter(self, start: StartServer) -> None:
        server = start(host="0.0.0.0", allow_anonymous=True)
        assert server.aio.limits == default_limits(strangers=True)
        assert server.aio.limits.max_connections < Limits().max_connections

    def test_limits_that_were_asked_for_hold_beyond_loopback_too(self, start: StartServer) -> None:
        chosen = Limits(max_connections=60_000)
        server = start(host="0.0.0.0", allow_anonymous=True, limits=chosen)
        assert server.aio.limits == chosen

    def test_allow_anonymous_on_loopback_changes_nothing(self, start: StartServer) -> None:
        assert start(allow_anonymous=True).aio.limits == Limits()

    def test_foreign_origin_is_refused_on_loopback(self, start: StartServer) -> None:
        server = start()
        with refused(403), RawClient(server.url, origin="https://example.org"):
            pass
        with RawClient(server.url, origin="http://localhost:5173") as client:
            client.join()


def test_limits_are_used(start: StartServer) -> None:
    server = start(limits=Limits(max_connections_per_address=1, max_documents_per_connection=1))
    with RawClient(server.url) as client:
        client.join()
        with refused(429), RawClient(server.url):
            pass
        client.request(amsync.generate_document_id())
        client.receive_type("sync")
        client.request(amsync.generate_document_id())
        client.receive_type("doc-unavailable")
    assert samples(server)["amsync_refusals_total{reason=too_many_documents}"] == 1


def test_frame_limit_is_used(start: StartServer) -> None:
    server = start(limits=Limits(max_frame_bytes=300_000))
    with RawClient(server.url) as client:
        client.join()
        client.sync(amsync.generate_document_id(), b"x" * 200_000)
        client.receive_type("doc-unavailable")
        client.sync(amsync.generate_document_id(), b"x" * 400_000)
        code, _ = client.wait_closed()
    assert code == 1009


def test_drain_seconds_spread_the_closing(start: StartServer) -> None:
    server = start(drain_seconds=1.5)
    clients = [RawClient(server.url, peer_id=f"p{n}") for n in range(3)]
    for client in clients:
        client.join()
    closed_at: list[float] = []

    def watch(client: RawClient) -> None:
        client.wait_closed()
        closed_at.append(time.monotonic())

    threads = [threading.Thread(target=watch, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    server.close()
    for thread in threads:
        thread.join(20)
    eventually(lambda: len(closed_at) == 3)
    assert max(closed_at) - min(closed_at) > 0.3
    for client in clients:
        client.close()
