"""Who comes in, over real sockets: tokens and their places, bounds, proxies, web pages, ends."""

import asyncio
import contextlib
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from amsync import AuthConfig, ConfigError, Limits, Server, TLSConfig
from support.issuer import CLIENT_ID, IssuerServer
from support.rawclient import RawClient
from support.upgrading import Answer, ask

Serve = Callable[..., Server]
PROXY = {"X-Forwarded-Proto": "https"}


@pytest.fixture
def serve(tmp_path: Path, issuer: IssuerServer, pair: TLSConfig) -> Iterator[Serve]:
    """Start a server that wants tokens of the issuer."""
    with contextlib.ExitStack() as stack:

        def start(auth: dict[str, Any] | None = None, **options: Any) -> Server:
            auth = {"issuer_ca": issuer.ca, "leeway_seconds": 0, **(auth or {})}
            config = AuthConfig(CLIENT_ID, auth.pop("issuer", issuer.url), **auth)
            options = {"tls": pair, "data_dir": tmp_path / "data", **options}
            return stack.enter_context(Server(auth=config, **options))

        yield start


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve()


def trusting(pair: TLSConfig) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=os.fspath(pair.cert))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Door:
    """Clients of one server."""

    def __init__(self, server: Server, pair: TLSConfig | None) -> None:
        self.server = server
        self.context = trusting(pair) if pair is not None else None

    def come(self, token: str | None = None, **options: Any) -> RawClient:
        headers = {**(bearer(token) if token else {}), **options.pop("headers", {})}
        return RawClient(self.server.url, context=self.context, headers=headers, **options)

    def ask(
        self,
        token: str | None = None,
        *,
        origin: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: str = "",
    ) -> Answer:
        """Ask for an upgrade, and see what is answered."""
        sent = {**(bearer(token) if token else {}), **(headers or {})}
        if origin is not None:
            sent["Origin"] = origin
        return ask(self.server.url + query, sent, self.context)

    def refused(self, token: str | None = None, **options: Any) -> tuple[int, str]:
        """Status and reason."""
        answer = self.ask(token, **options)
        assert answer.status != 101
        return answer.status, answer.body.strip()

    def count(self, name: str, **labels: str) -> float:
        shown = ",".join(f'{key}="{value}"' for key, value in labels.items())
        for line in self.server.aio.metrics.exposition()[0].decode().splitlines():
            if line.startswith(f"amsync_{name}{{{shown}}} "):
                return float(line.rpartition(" ")[2])
        return 0.0


@pytest.fixture
def door(server: Server, pair: TLSConfig) -> Door:
    return Door(server, pair)


class TestPlaces:
    def test_token_in_the_authorization_header_lets_in(
        self, door: Door, issuer: IssuerServer
    ) -> None:
        with door.come(issuer.token()) as client:
            assert client.join()["type"] == "peer"
        assert door.count("handshakes_total", result="accepted") == 1
        assert door.count("auth_accepted_total", algorithm="RS256") == 1

    def test_token_in_a_subprotocol_lets_in_and_is_not_sent_back(
        self, door: Door, issuer: IssuerServer
    ) -> None:
        token = issuer.token()
        offered = [Subprotocol("amsync"), Subprotocol(f"amsync.token.{token}")]

        with connect(door.server.url, ssl=door.context, subprotocols=offered) as socket:
            assert socket.subprotocol == "amsync"
            assert socket.response is not None
            assert token not in str(socket.response.headers)

    def test_token_in_the_query_is_taken_only_where_it_is_allowed(
        self, door: Door, serve: Serve, issuer: IssuerServer, pair: TLSConfig, tmp_path: Path
    ) -> None:
        query = f"/?access_token={issuer.token()}"
        other = serve(auth={"allow_query_token": True}, data_dir=tmp_path / "other")

        assert door.ask(query=query).status == 401
        with RawClient(other.url + query, context=trusting(pair)) as client:
            assert client.join()["type"] == "peer"

    def test_token_is_in_no_log_and_no_answer(
        self,
        serve: Serve,
        issuer: IssuerServer,
        pair: TLSConfig,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(0)
        door = Door(serve(auth={"allow_query_token": True}), pair)
        token = issuer.token(aud="somebody-else")

        refused = door.ask(query=f"/?access_token={token}")
        door.refused(token)
        ours = [record for record in caplog.records if record.name.startswith("amsync")]

        assert ours
        assert not any(token in str(record.__dict__) for record in ours)
        assert refused.status == 401
        assert token not in refused.body

    def test_token_missing_is_refused_with_a_challenge(self, door: Door) -> None:
        answer = door.ask()

        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.body == "token missing\n"
        assert door.count("handshakes_total", result="token_missing") == 1

    def test_subprotocol_without_ours_beside_the_token_is_explained(
        self, door: Door, issuer: IssuerServer
    ) -> None:
        offered = {"Sec-WebSocket-Protocol": f"amsync.token.{issuer.token()}"}

        status, reason = door.refused(headers=offered)

        assert status == 400
        assert reason == "offer the subprotocol amsync beside the token"

    def test_anonymous_server_takes_ours_and_no_other_subprotocol(self, tmp_path: Path) -> None:
        with Server(data_dir=tmp_path / "open") as server:
            for offered, chosen in ((["amsync", "x"], "amsync"), (["x"], None)):
                protocols = [Subprotocol(each) for each in offered]
                with connect(server.url, subprotocols=protocols) as socket:
                    assert socket.subprotocol == chosen


class TestRefusals:
    def test_too_many_failures_are_refused_unread_and_others_are_not(
        self, serve: Serve, issuer: IssuerServer, pair: TLSConfig
    ) -> None:
        door = Door(serve(limits=Limits(failures_per_minute=3)), pair)
        for _ in range(3):
            assert door.refused("nonsense")[0] == 401

        answer = door.ask(issuer.token())  # even a good one: nothing is looked at

        assert answer.status == 429
        assert int(answer.headers["Retry-After"]) > 0
        assert door.count("handshakes_total", result="too_many_failures") == 1
        assert door.count("auth_accepted_total", algorithm="RS256") == 0

    def test_client_that_comes_back_is_logged_once(
        self, door: Door, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(5):
            door.refused("nonsense")

        refusals = [r for r in caplog.records if r.getMessage() == "a client is refused"]
        assert len(refusals) == 1
        assert refusals[0].__dict__["address"] == "127.0.0.1"

    def test_handshakes_of_an_address_are_bounded(
        self, serve: Serve, issuer: IssuerServer, pair: TLSConfig
    ) -> None:
        door = Door(serve(limits=Limits(handshakes_per_minute=2)), pair)
        for _ in range(2):
            door.come(issuer.token()).close()

        assert door.refused(issuer.token()) == (429, "too many handshakes")

    def test_connections_of_an_identity_are_bounded(
        self, serve: Serve, issuer: IssuerServer, pair: TLSConfig
    ) -> None:
        door = Door(serve(limits=Limits(max_connections_per_identity=1)), pair)

        with door.come(issuer.token()):
            assert door.refused(issuer.token()) == (429, "too many connections of identity")
            door.come(issuer.token(sub="another")).close()
        deadline = time.monotonic() + 20
        while True:  # the server hears of the end a moment later
            if door.ask(issuer.token()).status == 101:
                break
            assert time.monotonic() < deadline

    def test_validator_that_takes_its_time_is_waited_for(
        self, serve: Serve, issuer: IssuerServer, pair: TLSConfig
    ) -> None:
        async def validator(claims: Mapping[str, Any]) -> bool:
            await asyncio.sleep(0.2)
            return bool(claims["sub"] == "somebody")

        door = Door(serve(auth={"custom_validator": validator}), pair)

        with door.come(issuer.token()) as client:
            assert client.join()["type"] == "peer"
        assert door.refused(issuer.token(sub="nobody"))[0] == 403

    def test_issuer_that_is_down_lets_nobody_in_and_stops_no_start(
        self, serve: Serve, tmp_path: Path, pair: TLSConfig
    ) -> None:
        with IssuerServer(tmp_path / "down") as down:
            token = down.token()
            down.stop()
            door = Door(serve(auth={"issuer": down.url, "issuer_ca": down.ca}), pair)

            assert door.refused(token) == (401, "keys unavailable")


class TestEnds:
    def test_connection_ends_when_its_token_does(self, door: Door, issuer: IssuerServer) -> None:
        with door.come(issuer.token(exp=int(time.time()) + 3)) as client:
            client.join()
            code, _ = client.wait_closed()

        assert code == 4401
        assert door.count("refusals_total", reason="token_ended") == 1

    def test_leeway_is_granted_to_connections_too(
        self, serve: Serve, issuer: IssuerServer, pair: TLSConfig
    ) -> None:
        door = Door(serve(auth={"leeway_seconds": 60}), pair)

        with door.come(issuer.token(exp=int(time.time()) - 5)) as client:
            client.join()
            with pytest.raises(TimeoutError):
                client.wait_closed(2.5)

    def test_same_peer_id_of_another_identity_ends_nobody(
        self, door: Door, issuer: IssuerServer
    ) -> None:
        with door.come(issuer.token(), peer_id="p") as first:
            first.join()
            with door.come(issuer.token(sub="another"), peer_id="p") as second:
                second.join()
                first.ping()
                second.ping()
                with door.come(issuer.token(), peer_id="p") as third:
                    third.join()
                    assert first.wait_closed()[0] == 1001
                    second.ping()


class TestProxies:
    @pytest.fixture
    def door(self, serve: Serve) -> Door:
        return Door(serve(tls=None, trusted_proxies=["127.0.0.1"]), None)

    def test_proxy_that_ends_tls_is_believed(self, door: Door, issuer: IssuerServer) -> None:
        with door.come(issuer.token(), headers=PROXY) as client:
            assert client.join()["type"] == "peer"

    def test_client_that_came_to_the_proxy_without_tls_is_refused(
        self, door: Door, issuer: IssuerServer
    ) -> None:
        plain = {"X-Forwarded-Proto": "http"}
        assert door.refused(issuer.token(), headers=plain) == (403, "tls required")

    def test_who_comes_round_the_proxy_is_refused(self, serve: Serve, issuer: IssuerServer) -> None:
        door = Door(serve(tls=None, trusted_proxies=["10.0.0.0/8"]), None)

        assert door.refused(issuer.token(), headers=PROXY) == (403, "not through the proxy")

    def test_bounds_count_the_client_and_not_the_proxy(
        self, serve: Serve, issuer: IssuerServer
    ) -> None:
        limits = Limits(max_connections_per_address=1)
        door = Door(serve(tls=None, trusted_proxies=["127.0.0.1"], limits=limits), None)
        here = {**PROXY, "X-Forwarded-For": "203.0.113.5"}
        there = {**PROXY, "X-Forwarded-For": "203.0.113.6"}

        with door.come(issuer.token(), headers=here), door.come(issuer.token(), headers=there):
            reason = "too many connections of address"
            assert door.refused(issuer.token(), headers=here) == (429, reason)

    def test_proxy_that_names_no_client_is_not_taken_for_one(
        self, serve: Serve, issuer: IssuerServer
    ) -> None:
        limits = Limits(failures_per_minute=1, handshakes_per_minute=1)
        door = Door(serve(tls=None, trusted_proxies=["127.0.0.1"], limits=limits), None)
        for _ in range(3):
            assert door.refused("nonsense")[0] == 401

        door.come(issuer.token()).close()


class TestWebPages:
    PAGE = "https://app.example.org"

    @pytest.fixture
    def door(self, serve: Serve, pair: TLSConfig) -> Door:
        return Door(serve(allowed_origins=[self.PAGE]), pair)

    def test_only_pages_of_the_list_connect(self, door: Door, issuer: IssuerServer) -> None:
        door.come(issuer.token(), origin=self.PAGE).close()
        door.come(issuer.token()).close()  # no web page
        for origin in ("https://evil.example.org", "http://app.example.org", "null"):
            assert door.refused(issuer.token(), origin=origin) == (403, "foreign origin")

    def test_without_a_list_any_page_with_a_token_connects(
        self, serve: Serve, issuer: IssuerServer, pair: TLSConfig, tmp_path: Path
    ) -> None:
        door = Door(serve(data_dir=tmp_path / "any"), pair)

        door.come(issuer.token(), origin="https://anything.example").close()

    def asks(self, door: Door, method: str = "GET", **headers: str) -> tuple[int, Any]:
        """What a page can find out about its token; it can't see why an upgrade was refused."""
        url = door.server.url.replace("wss:", "https:")
        asked = urllib.request.Request(url, method=method, headers=headers)
        try:
            with urllib.request.urlopen(asked, context=door.context, timeout=20) as answer:
                return answer.status, answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers

    def test_page_can_ask_whether_its_token_is_good(self, door: Door, issuer: IssuerServer) -> None:
        good, headers = self.asks(door, Origin=self.PAGE, **bearer(issuer.token()))
        bad, refused = self.asks(door, Origin=self.PAGE, **bearer(issuer.token(aud="x")))

        assert (good, bad) == (200, 401)
        assert headers["Access-Control-Allow-Origin"] == self.PAGE
        assert refused["Access-Control-Allow-Origin"] == self.PAGE
        assert door.count("handshakes_total", result="accepted") == 0

    def test_browser_that_asks_first_is_told_that_it_may(self, door: Door) -> None:
        asked = {"Access-Control-Request-Method": "GET"}
        status, headers = self.asks(door, "OPTIONS", Origin=self.PAGE, **asked)

        assert status == 204
        assert headers["Access-Control-Allow-Headers"] == "Authorization"
        assert headers["Access-Control-Allow-Origin"] == self.PAGE

    def test_page_that_has_to_wait_can_read_how_long(
        self, serve: Serve, pair: TLSConfig, tmp_path: Path
    ) -> None:
        limits = Limits(failures_per_minute=1)
        door = Door(serve(limits=limits, data_dir=tmp_path / "strict"), pair)
        asked = {"Access-Control-Request-Method": "GET"}
        assert door.refused("nonsense")[0] == 401

        may_ask, _ = self.asks(door, "OPTIONS", Origin=self.PAGE, **asked)
        status, headers = self.asks(door, Origin=self.PAGE, **bearer("nonsense"))

        assert (may_ask, status) == (204, 429)
        assert int(headers["Retry-After"]) > 0
        assert headers["Access-Control-Expose-Headers"] == "Retry-After"

    def test_foreign_page_may_read_nothing(self, door: Door, issuer: IssuerServer) -> None:
        for method in ("GET", "OPTIONS"):
            origin = "https://evil.example.org"
            status, headers = self.asks(door, method, Origin=origin, **bearer(issuer.token()))
            assert status == 403
            assert headers["Access-Control-Allow-Origin"] is None

    def test_without_a_token_there_is_the_page_that_balancers_look_at(self, door: Door) -> None:
        assert self.asks(door)[0] == 200


class TestConfiguration:
    @pytest.fixture
    def auth(self, issuer: IssuerServer) -> AuthConfig:
        return AuthConfig(CLIENT_ID, issuer.url, issuer_ca=issuer.ca)

    def test_tokens_in_the_open_are_refused(self, auth: AuthConfig, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="needs TLS"):
            Server(auth=auth, data_dir=tmp_path)

    def test_anonymous_and_known_clients_exclude_each_other(
        self, auth: AuthConfig, pair: TLSConfig, tmp_path: Path
    ) -> None:
        with pytest.raises(ConfigError, match="exclude each other"):
            Server(auth=auth, tls=pair, allow_anonymous=True, data_dir=tmp_path)

    def test_with_tokens_any_address_may_be_listened_on(
        self, auth: AuthConfig, pair: TLSConfig, tmp_path: Path
    ) -> None:
        with Server(auth=auth, tls=pair, host="0.0.0.0", data_dir=tmp_path / "d") as server:
            assert server.aio.limits == Limits()  # the clients are no strangers

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"auth": "client"}, "auth"),
            ({"allowed_origins": "https://a.example"}, "allowed_origins"),
            ({"allowed_origins": ["https://a.example/path"]}, "allowed_origins"),
            ({"allowed_origins": ["https://A.example"]}, "allowed_origins"),
            ({"allowed_origins": ["*"]}, "allowed_origins"),
            ({"trusted_proxies": ["proxy"]}, "trusted_proxies"),
        ],
    )
    def test_what_can_not_be_is_refused(
        self, options: dict[str, Any], named: str, tmp_path: Path
    ) -> None:
        with pytest.raises(ConfigError, match=named):
            Server(data_dir=tmp_path, **options)
