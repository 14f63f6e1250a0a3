"""Our client in Node with a real server and a real issuer: its tokens, and where it stops."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web

from amsync import Server
from jsclient.clients import FAILS, HANGS, Clients
from jsclient.conftest import Serve
from support.issuer import Answer, IssuerServer

NOT_FOR_US: dict[str, Any] = {"aud": "somebody-else"}


def ending(code: int, text: str) -> Answer:
    """Take every WebSocket, and close it in this way."""

    async def answer(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=["amsync"])
        await socket.prepare(request)
        await socket.close(code=code, message=text.encode())
        return socket

    return answer


async def saying_nothing(request: web.Request) -> web.StreamResponse:
    """Take a WebSocket, and that was it."""
    socket = web.WebSocketResponse(protocols=["amsync"])
    await socket.prepare(request)
    async for _ in socket:
        pass
    return socket


class TestTokens:
    def test_every_connect_brings_a_token_of_its_own(
        self, server: Server, issuer: IssuerServer, clients: Clients
    ) -> None:
        client = clients.come(server.url, issuer.token(), issuer.token(jti="2"), wait=True)
        client.drop()
        client.wait_connected(welcomes=2)

        assert client.asked() == ["first", "reconnect"]
        story = ["connecting first", "connected", "waiting closed", "connecting reconnect"]
        assert client.story() == [*story, "connected"]

    def test_token_that_ends_is_renewed_and_no_edit_is_lost(
        self, server: Server, issuer: IssuerServer, clients: Clients
    ) -> None:
        good = issuer.token()
        reader = clients.come(server.url, good, wait=True)
        short = issuer.token(exp=int(time.time()) + 4)
        writer = clients.come(server.url, short, good, wait=True)
        doc = writer.create({"list": []})

        doc.start_typing(["list"], "edit", 0.02)
        writer.wait_status("connected", count=2)
        more = len(writer.call("get", documentId=doc.id)["value"]["list"]) + 20
        doc.wait_typed(more)
        written = doc.stop_typing()

        assert reader.find(doc.id).wait(path=["list"], equals=written) == {"list": written}
        assert writer.asked() == ["first", "expired"]
        assert "waiting" not in " ".join(writer.story())
        assert writer.sockets() == {"opened": 2, "mostAtOnce": 1, "standing": 1}

    def test_tokens_that_end_at_once_do_not_go_round_without_a_pause(
        self, odd: IssuerServer, clients: Clients
    ) -> None:
        odd.fail(ending(4401, "the token has expired"))
        client = clients.come(odd.url.replace("https", "wss"), "a.b.c", minRetryMs=1000)

        status = client.wait_status("waiting", "closed")

        assert status["detail"] == "the token has expired"

    def test_refused_token_is_replaced_once(
        self, server: Server, issuer: IssuerServer, clients: Clients
    ) -> None:
        bad = issuer.token(**NOT_FOR_US)
        client = clients.come(server.url, bad, issuer.token(), wait=True)

        assert client.asked() == ["first", "refused"]
        assert client.story() == ["connecting first", "connecting refused", "connected"]

    def test_second_refused_token_is_the_last(
        self, server: Server, issuer: IssuerServer, clients: Clients
    ) -> None:
        client = clients.come(server.url, issuer.token(**NOT_FOR_US))

        status = client.wait_status("stopped")

        assert (status["reason"], status["detail"]) == ("unauthorized", "audience refused")
        assert client.asked() == ["first", "refused"]
        assert client.sockets() == {"opened": 2, "mostAtOnce": 1, "standing": 0}

    def test_who_may_not_come_in_is_not_asked_for_another_token(
        self, serve: Serve, issuer: IssuerServer, clients: Clients
    ) -> None:
        async def nobody(claims: Mapping[str, Any]) -> bool:
            return False

        server = serve(auth={"custom_validator": nobody})
        client = clients.come(server.url, issuer.token())

        status = client.wait_status("stopped")

        assert status["reason"] == "forbidden"
        assert client.asked() == ["first"]

    def test_issuer_that_is_away_stops_nobody(
        self, serve: Serve, issuer: IssuerServer, clients: Clients
    ) -> None:
        issuer.stop()
        try:
            server = serve()
            client = clients.come(server.url, issuer.token())
            status = client.wait_status("waiting")
        finally:
            issuer.start()

        assert (status["reason"], status["detail"]) == ("unavailable", "keys unavailable")

    def test_validator_that_fails_stops_nobody(
        self, serve: Serve, issuer: IssuerServer, clients: Clients
    ) -> None:
        def broken(claims: Mapping[str, Any]) -> bool:
            raise RuntimeError

        server = serve(auth={"custom_validator": broken})
        client = clients.come(server.url, issuer.token())

        status = client.wait_status("waiting")

        assert (status["reason"], status["detail"]) == ("unavailable", "validator failed")

    def test_kicked_client_stops(self, odd: IssuerServer, clients: Clients) -> None:
        odd.fail(ending(4403, "access was withdrawn"))
        client = clients.come(odd.url.replace("https", "wss"), "a.b.c")

        status = client.wait_status("stopped")

        assert (status["reason"], status["detail"]) == ("withdrawn", "access was withdrawn")
        assert client.asked() == ["first"]

    def test_server_that_says_nothing_is_left(self, odd: IssuerServer, clients: Clients) -> None:
        odd.fail(saying_nothing)
        url = odd.url.replace("https", "wss")
        client = clients.come(url, "a.b.c", connectTimeoutMs=100)

        client.wait_status("waiting", "closed", count=2)

        assert client.sockets()["mostAtOnce"] <= 2  # the one that is being closed

    def test_token_is_in_no_status_and_no_log(
        self, server: Server, issuer: IssuerServer, clients: Clients
    ) -> None:
        good, bad = issuer.token(), issuer.token(**NOT_FOR_US)
        client = clients.come(server.url, good, bad, wait=True)
        client.drop()
        client.wait_status("stopped", "unauthorized")
        broken = clients.come(server.url, f"{bad} {good}")
        broken.wait_status("stopped", "bad_token")

        shown = f"{client.statuses()} {broken.statuses()} {clients.driver.log.read_text()}"

        assert good not in shown
        assert bad not in shown


class TestGetToken:
    def test_failing_is_tried_again(
        self, server: Server, issuer: IssuerServer, clients: Clients
    ) -> None:
        client = clients.come(server.url, FAILS, FAILS, issuer.token())
        client.wait_status("connected")

        assert client.asked() == ["first", "first", "first"]
        assert client.story().count("waiting token_failed") == 2
        assert client.sockets()["opened"] == 1

    def test_hanging_is_given_up_and_told_so(
        self, server: Server, issuer: IssuerServer, clients: Clients
    ) -> None:
        client = clients.come(server.url, HANGS, issuer.token(), tokenTimeoutMs=50)
        client.wait_status("connected")
        client.release(issuer.token())  # too late

        assert [each["abandoned"] for each in client.wait_asked(2)] == [True, False]
        assert "waiting token_timeout" in client.story()
        assert client.sockets()["opened"] == 1

    def test_none_stops_until_somebody_signs_in(
        self, server: Server, issuer: IssuerServer, clients: Clients
    ) -> None:
        client = clients.come(server.url, None)
        client.wait_status("stopped", "signed_out")
        doc = client.create({"offline": 1})
        doc.edit(["set", ["offline"], 2])

        client.set_tokens(issuer.token())
        client.retry(times=5)
        client.wait_status("connected")
        doc.wait_saved()

        assert client.asked() == ["first", "first"]
        assert client.sockets() == {"opened": 1, "mostAtOnce": 1, "standing": 1}

    def test_disconnect_while_it_hangs_opens_no_socket(
        self, server: Server, issuer: IssuerServer, clients: Clients
    ) -> None:
        client = clients.come(server.url, HANGS)
        client.wait_asked(1)

        client.call("disconnect")
        client.release(issuer.token())
        status = client.retry()

        assert [each["abandoned"] for each in client.wait_asked(1)] == [True]
        assert status == {"state": "stopped", "reason": "disconnected"}
        assert client.sockets()["opened"] == 0

    def test_reconnects_while_it_hangs_open_one_socket(
        self, server: Server, issuer: IssuerServer, clients: Clients
    ) -> None:
        client = clients.come(server.url, HANGS, HANGS, HANGS, HANGS, issuer.token())
        client.wait_asked(1)

        client.call("reconnect", times=4)
        client.release(issuer.token())
        client.wait_status("connected")

        assert client.sockets() == {"opened": 1, "mostAtOnce": 1, "standing": 1}


class TestFirstConnect:
    def test_document_is_looked_for_until_the_first_token_is_there(
        self, server: Server, issuer: IssuerServer, clients: Clients
    ) -> None:
        doc = clients.come(server.url, issuer.token(), wait=True).create({"list": [1]})
        doc.wait_saved()
        client = clients.come(server.url, HANGS, readyMs=1_000_000)
        client.wait_asked(1)

        finding = client.find_later(doc.id)
        client.release(issuer.token())

        assert finding.result(30)["value"] == {"list": [1]}

    def test_document_is_not_looked_for_without_end(self, server: Server, clients: Clients) -> None:
        client = clients.come(server.url, HANGS, readyMs=50)

        found = client.call("find", documentId=clients.driver.new_document_id())

        assert found["state"] == "unavailable"


class TestStopped:
    def test_stopped_client_that_is_let_in_again_brings_its_edits(
        self, serve: Serve, issuer: IssuerServer, clients: Clients
    ) -> None:
        banned = {"somebody"}

        async def validator(claims: Mapping[str, Any]) -> bool:
            await asyncio.sleep(0)
            return claims["sub"] not in banned

        server = serve(auth={"custom_validator": validator})
        client = clients.come(server.url, issuer.token(sub="guest"), issuer.token(), wait=True)
        doc = client.create({"list": ["before"]})
        doc.wait_saved()
        client.drop()
        client.wait_status("stopped", "forbidden")

        doc.edit(["push", ["list"], "meanwhile"])
        banned.clear()
        client.retry()
        client.wait_status("connected", count=2)

        reader = clients.come(server.url, issuer.token(sub="reader"), wait=True)
        reader.find(doc.id).wait(path=["list"], equals=["before", "meanwhile"])

    def test_document_that_nobody_has_is_unavailable_at_once(
        self, server: Server, clients: Clients
    ) -> None:
        client = clients.come(server.url, None, readyMs=1_000_000)
        client.wait_status("stopped")

        found = client.call("find", documentId=clients.driver.new_document_id())

        assert found["state"] == "unavailable"

    def test_what_is_sent_to_a_closing_socket_is_dropped(
        self, server: Server, issuer: IssuerServer, clients: Clients
    ) -> None:
        client = clients.come(server.url, issuer.token(), wait=True)
        doc = client.create({"list": []})
        doc.wait_saved()

        assert client.call("sendWhileClosing", documentId=doc.id) == 2  # CLOSING
        doc.edit(["push", ["list"], 1])
        client.wait_status("connected", count=2)

        doc.wait_saved()

    @pytest.mark.parametrize("reason", ["signed_out", "bad_token"])
    def test_reason_is_shown(self, server: Server, clients: Clients, reason: str) -> None:
        client = clients.come(server.url, None if reason == "signed_out" else "two words")

        assert client.wait_status("stopped")["reason"] == reason
        assert client.sockets()["opened"] == 0
