"""When our client comes back: pauses, what the server asks for, restarts, ends."""

import json
import os
import socket
from pathlib import Path

import pytest

from amsync import Limits, Server, TLSConfig
from jsclient.clients import FAILS, Clients
from jsclient.conftest import Serve
from support.issuer import IssuerServer, answering
from support.program import run_to_end

ENDING = Path(__file__).parents[1] / "js" / "ending.mjs"


@pytest.fixture
def nowhere() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"wss://127.0.0.1:{free.getsockname()[1]}"


class TestPauses:
    @pytest.mark.parametrize(("random", "pauses"), [(1.0, [20, 40, 80, 100, 100]), (0.5, [10, 20])])
    def test_windows_double_up_to_a_bound(
        self, nowhere: str, clients: Clients, random: float, pauses: list[int]
    ) -> None:
        client = clients.come(nowhere, "a.b.c", random=random, maxRetryMs=100)
        client.wait_status("waiting", "network", count=len(pauses))

        shown = [each["retryInMs"] for each in client.statuses() if each["state"] == "waiting"]

        assert shown[: len(pauses)] == pauses
        assert set(client.asked()[1:]) <= {"reconnect"}

    def test_pauses_are_spread_over_the_window(self, nowhere: str, clients: Clients) -> None:
        window = {"minRetryMs": 10_000, "maxRetryMs": 10_000}
        crowd = [clients.come(nowhere, "a.b.c", **window) for _ in range(20)]

        pauses = [client.wait_status("waiting")["retryInMs"] for client in crowd]

        assert all(0 <= pause <= 10_000 for pause in pauses)
        assert len(set(pauses)) > 10
        assert max(pauses) - min(pauses) > 2000

    def test_they_are_kept(self, nowhere: str, clients: Clients) -> None:
        client = clients.come(nowhere, "a.b.c", random=1.0, minRetryMs=300, maxRetryMs=300)
        client.wait_status("connecting", "reconnect")

        waiting, again = (
            next(each["at"] for each in client.statuses() if each["state"] == state and more(each))
            for state, more in (
                ("waiting", lambda each: True),
                ("connecting", lambda each: each["reason"] == "reconnect"),
            )
        )

        assert again - waiting >= 299

    @pytest.mark.parametrize(("stable_ms", "pause"), [(1, 20), (1_000_000, 80)])
    def test_connection_that_lasted_ends_the_doubling(
        self,
        server: Server,
        issuer: IssuerServer,
        clients: Clients,
        stable_ms: int,
        pause: int,
    ) -> None:
        tokens = [FAILS, FAILS, issuer.token()]  # pauses of 20 and 40
        client = clients.come(server.url, *tokens, random=1.0, stableMs=stable_ms, wait=True)
        client.create({}).wait_saved()
        client.drop()

        assert client.wait_status("waiting", "closed")["retryInMs"] == pause

    def test_retry_cuts_a_pause_short(
        self, server: Server, issuer: IssuerServer, clients: Clients
    ) -> None:
        pause = {"minRetryMs": 100_000, "maxRetryMs": 100_000}
        client = clients.come(server.url, FAILS, issuer.token(), random=1.0, **pause)
        client.wait_status("waiting")

        client.retry(times=3)
        client.wait_status("connected")

        assert client.sockets()["opened"] == 1


class TestWhatTheServerSays:
    def test_who_tries_too_often_waits_as_told(
        self, serve: Serve, issuer: IssuerServer, clients: Clients
    ) -> None:
        server = serve(limits=Limits(handshakes_per_minute=1))
        clients.come(server.url, issuer.token(), wait=True)

        status = clients.come(server.url, issuer.token(), random=0.5).wait_status("waiting")

        assert status["reason"] == "busy"
        assert status["detail"] == "too many handshakes"
        assert status["retryInMs"] == 5000 + 10

    @pytest.mark.parametrize(
        ("value", "milliseconds"),
        [
            ("120", 120_000),
            ("999999999", 3_600_000),
            ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 3_600_000),
            ("soon", 0),
            ("-5", 0),
        ],
    )
    def test_times_to_wait_are_read_and_bounded(
        self, odd: IssuerServer, clients: Clients, value: str, milliseconds: int
    ) -> None:
        odd.fail(answering(503, b"away", Retry_After=value))
        client = clients.come(odd.url.replace("https", "wss"), "a.b.c", random=0.0)

        status = client.wait_status("waiting")

        assert (status["reason"], status["retryInMs"]) == ("unavailable", milliseconds)

    @pytest.mark.parametrize("status", [200, 302, 404, 500])
    def test_other_answers_are_tried_again(
        self, odd: IssuerServer, clients: Clients, status: int
    ) -> None:
        odd.fail(answering(status, b"?", Location="/elsewhere"))
        client = clients.come(odd.url.replace("https", "wss"), "a.b.c")

        client.wait_status("waiting", "network", count=2)

        assert odd.asked["/elsewhere"] == 0  # the token goes nowhere else


class TestRestarts:
    def test_restarted_server_gets_what_was_edited_meanwhile(
        self, serve: Serve, issuer: IssuerServer, clients: Clients
    ) -> None:
        server = serve()
        port = server.port
        client = clients.come(server.url, issuer.token(), wait=True)
        doc = client.create({"list": [1]})
        doc.wait_saved()
        server.close()
        client.wait_status("waiting")
        doc.edit(["push", ["list"], 2])

        again = serve(port=port)
        client.wait_status("connected", count=2)
        doc.wait_saved()

        reader = clients.come(again.url, issuer.token(), wait=True)
        assert reader.find(doc.id).value() == {"list": [1, 2]}
        assert client.sockets()["standing"] == 1

    def test_repo_that_is_shut_down_at_once_never_connects(
        self, server: Server, issuer: IssuerServer, clients: Clients
    ) -> None:
        args = {"url": server.url, "token": issuer.token()}

        found = clients.driver.call("shutDownAtOnce", args)

        assert found["opened"] == 0
        assert found["status"]["state"] == "stopped"


class TestEnd:
    @pytest.mark.parametrize("until", ["connecting", "connected", "waiting", "stopped"])
    def test_nothing_keeps_a_process_alive_after_shutdown(
        self, server: Server, issuer: IssuerServer, pair: TLSConfig, nowhere: str, until: str
    ) -> None:
        url = nowhere if until == "waiting" else server.url
        tokens = {"connecting": [], "stopped": [None]}.get(until, [issuer.token()])
        options = json.dumps({"url": url, "tokens": tokens, "until": until})
        environment = {**os.environ, "NODE_EXTRA_CA_CERTS": str(pair.cert)}

        run = run_to_end(["node", ENDING, options], environment=environment)

        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout) == {"state": "stopped", "reason": "disconnected"}
