"""The table of bad tokens again, over wss: embedded, and at a gateway of a cluster of processes."""

import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from amsync import Limits, Server, TLSConfig
from cluster.processes import ClusterProcesses
from support.badtokens import ACCEPTED, BAD_TOKENS, BadToken, auth_of, validator
from support.issuer import CLIENT_ID, IssuerServer
from support.rawclient import RawClient
from support.upgrading import Answer, ask

TESTS = Path(__file__).parents[1]
Count = Callable[[str], float]


class Wss:
    """A server that wants tokens; `sample` reads one of its metrics, by name and labels."""

    def __init__(self, url: str, pair: TLSConfig, sample: Count) -> None:
        assert url.startswith("wss://")
        self.url, self.sample = url, sample
        self._context = ssl.create_default_context(cafile=os.fspath(pair.cert))

    def ask(self, token: str) -> Answer:
        return ask(self.url, {"Authorization": f"Bearer {token}"}, self._context)

    def come(self, token: str) -> RawClient:
        headers = {"Authorization": f"Bearer {token}"}
        return RawClient(self.url, headers=headers, context=self._context)


@pytest.fixture(scope="module")
def embedded(
    issuer: IssuerServer, pair: TLSConfig, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Wss]:
    limits = Limits(failures_per_minute=0, handshakes_per_minute=0)
    directory = tmp_path_factory.mktemp("embedded")
    with Server(auth=auth_of(issuer), tls=pair, limits=limits, data_dir=directory) as server:

        def sample(name: str) -> float:
            lines = server.aio.metrics.exposition()[0].decode().splitlines()
            found = (line.rpartition(" ") for line in lines)
            return next((float(value) for key, _, value in found if key == name), 0.0)

        yield Wss(server.url, pair, sample)


@pytest.fixture(scope="module")
def gateway(
    issuer: IssuerServer, pair: TLSConfig, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Wss]:
    options = (
        *("--tls-cert", os.fspath(pair.cert), "--tls-key", os.fspath(pair.key)),
        *("--auth-client-id", CLIENT_ID, "--auth-issuer", issuer.url),
        *("--auth-issuer-ca", str(issuer.ca), "--auth-allowed-domains", "example.com"),
        *("--auth-required-claim", "team=docs"),
        *("--auth-validator", f"{validator.__module__}:{validator.__name__}"),
        *("--failures-per-minute", "0", "--handshakes-per-minute", "0"),
    )
    directory = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS))
        with ClusterProcesses(directory, gateway_options=options) as cluster:
            process = cluster.gateways[0]
            yield Wss(process.url, pair, lambda name: process.samples().get(name, 0.0))
            assert "Traceback" not in process.log()


@pytest.fixture(params=["embedded", "gateway"])
def server(request: pytest.FixtureRequest) -> Wss:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Wss)
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bad", BAD_TOKENS, ids=lambda bad: bad.name)
def test_bad_token_is_refused_before_the_upgrade(
    server: Wss, issuer: IssuerServer, bad: BadToken
) -> None:
    counters = (
        f'amsync_handshakes_total{{result="{bad.reason}"}}',
        'amsync_handshakes_total{result="accepted"}',
    )
    before = [server.sample(name) for name in counters]

    answer = server.ask(bad.make(issuer))

    if bad.reason == "token_too_large":  # no line of a request may be so long
        assert answer.status == 431
        return
    assert (answer.status, answer.body) == (bad.status, bad.reason.replace("_", " ") + "\n")
    assert ("WWW-Authenticate" in answer.headers) is (bad.status == 401)
    after = [server.sample(name) for name in counters]
    assert after == [before[0] + 1, before[1]]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ACCEPTED)
def test_good_token_lets_in(server: Wss, issuer: IssuerServer, name: str) -> None:
    with server.come(ACCEPTED[name](issuer)) as client:
        assert client.join()["type"] == "peer"
