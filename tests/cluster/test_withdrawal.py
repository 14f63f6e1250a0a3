"""Orders given to one gateway reach the clients of another, and hold for gateways to come."""

import json
import os
import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from amsync import generate_document_id, write_cert
from amsync.version import API_PATH
from server.replicas import ReplicaClient, eventually
from support.issuer import CLIENT_ID, IssuerServer
from support.rawclient import RawClient

from .processes import ClusterProcesses, Process
from .redisview import RedisView

TOKEN = "an-admin-token-for-tests"
WANTED_SECONDS = 1.0
GENEROUS_SECONDS = 5.0
"""Many processes on a machine that does other things too; what was measured is printed."""


class Town:
    """A cluster that wants tokens, with two gateways."""

    def __init__(self, cluster: ClusterProcesses, issuer: IssuerServer, ca: Path) -> None:
        self.cluster, self.issuer = cluster, issuer
        self.context = ssl.create_default_context(cafile=os.fspath(ca))

    def options(self, subject: str, **claims: Any) -> dict[str, Any]:
        token = self.issuer.token(sub=subject, **claims)
        return {"context": self.context, "headers": {"Authorization": f"Bearer {token}"}}

    def come(self, gateway: Process, subject: str, **claims: Any) -> RawClient:
        return RawClient(gateway.url, peer_id=subject, **self.options(subject, **claims))

    def refusal(self, gateway: Process, subject: str, **claims: Any) -> tuple[int, str]:
        with pytest.raises(InvalidStatus) as refused:
            self.come(gateway, subject, **claims).close()
        response = refused.value.response
        return response.status_code, (response.body or b"").decode().strip()

    def call(self, gateway: Process, method: str, path: str, **body: Any) -> Any:
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(f"{gateway.admin}{API_PATH}{path}", data, method=method)
        request.add_header("Authorization", f"Bearer {TOKEN}")
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read()
            return json.loads(text) if text else None

    def who(self, subject: str) -> dict[str, str]:
        return {"issuer": self.issuer.url, "subject": subject}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("town")
    tls = write_cert(folder / "tls")
    with IssuerServer(folder / "issuer") as issuer:
        options = {
            "--tls-cert": tls.cert,
            "--tls-key": tls.key,
            "--auth-client-id": CLIENT_ID,
            "--auth-issuer": issuer.url,
            "--auth-issuer-ca": issuer.ca,
            "--admin-token": TOKEN,
        }
        flat = tuple(os.fspath(each) for pair in options.items() for each in pair)
        with ClusterProcesses(folder, gateways=2, gateway_options=flat) as cluster:
            yield Town(cluster, issuer, Path(tls.cert))


def test_kick_at_one_gateway_closes_the_connections_of_another(town: Town) -> None:
    one, two = town.cluster.gateways[:2]
    times = []
    for number in range(5):
        subject = f"kicked-{number}"
        with town.come(two, subject) as client, town.come(two, "stays") as other:
            client.join()
            other.join()
            started = time.monotonic()
            answer = town.call(one, "POST", "/access/kick", **town.who(subject))
            code, _ = client.wait_closed()
            times.append(time.monotonic() - started)
            other.ping()
        assert (code, answer["closed_here"]) == (4403, 0)
        for gateway in (one, two):
            assert town.refusal(gateway, subject, iat=int(answer["at"])) == (403, "kicked")
    print(f"kick, from the call to the close at another gateway: {max(times):.3f} s at most")
    assert min(times) < WANTED_SECONDS
    assert max(times) < GENEROUS_SECONDS


def test_restriction_at_one_gateway_concerns_live_connections_of_another(town: Town) -> None:
    one, two = town.cluster.gateways[:2]
    document_id = generate_document_id()
    options = town.options("writer")
    with ReplicaClient(one.url, document_id, peer_id="writer", **options) as writer:
        writer.put("a", 1)
        writer.wait_acknowledged()
        with town.come(two, "reader") as reader:
            reader.join()
            reader.request(document_id)
            reader.receive_type("sync", document_id)

            started = time.monotonic()
            order = town.call(
                one,
                "POST",
                "/access/restrict",
                **town.who("reader"),
                document_id=document_id,
                access="none",
            )
            reader.receive_type("doc-unavailable", document_id)
            elapsed = time.monotonic() - started
            print(f"restriction, from the call to the client of another gateway: {elapsed:.3f} s")
            assert elapsed < GENEROUS_SECONDS

            town.call(two, "DELETE", f"/access/restrictions/{order['id']}")
            reader.receive_type("sync", document_id)
        eventually(
            lambda: (
                town.call(one, "GET", "/access/restrictions")["restrictions"]
                == town.call(two, "GET", "/access/restrictions")["restrictions"]
            )
        )


def test_gateway_that_starts_later_knows_every_order_before_it_lets_anybody_in(
    town: Town,
) -> None:
    one = town.cluster.gateways[0]
    town.call(one, "POST", "/access/kick", **town.who("banned"), ban=True)

    fresh = town.cluster.add_gateway()

    assert town.refusal(fresh, "banned") == (403, "kicked")
    found = town.call(fresh, "GET", "/access/restrictions")["restrictions"]
    assert "banned" in [each["subject"] for each in found]


def test_orders_outlive_a_redis_that_loses_everything(town: Town) -> None:
    one = town.cluster.gateways[0]
    order = town.call(one, "POST", "/access/kick", **town.who("outlives"), ban=True)
    lifted = town.call(one, "POST", "/access/kick", **town.who("lifted"), ban=True)
    town.call(one, "DELETE", f"/access/restrictions/{lifted['id']}")
    stream = "{amsync}:access"
    with RedisView(town.cluster.redis.socket) as view:
        view.redis.flushall()
        eventually(lambda: view.redis.xlen(stream) >= 2, 30.0)
        town.cluster.wait_ready()
        fresh = town.cluster.add_gateway()

        assert town.refusal(fresh, "outlives") == (403, "kicked")
        town.come(fresh, "lifted").close()
        found = town.call(fresh, "GET", "/access/restrictions")["restrictions"]
        assert order["id"] in [each["id"] for each in found]
        assert lifted["id"] not in [each["id"] for each in found]


def test_what_is_over_leaves_redis(town: Town) -> None:
    one, two = town.cluster.gateways[:2]
    for number in range(20):
        town.call(one, "POST", "/access/kick", **town.who(f"short-{number}"), seconds=1)
    eventually(
        lambda: (
            not [
                each
                for each in town.call(two, "GET", "/access/restrictions")["restrictions"]
                if each["subject"].startswith("short-")
            ]
        )
    )
