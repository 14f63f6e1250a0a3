"""Fixtures: a server that wants tokens, their issuer, and clients of ours that trust it."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amsync import AuthConfig, Server, TLSConfig, write_cert
from interop.driver import Driver
from jsclient.clients import Clients
from support.issuer import CLIENT_ID, IssuerServer

Serve = Callable[..., Server]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.node)


@pytest.fixture(scope="session")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IssuerServer]:
    with IssuerServer(tmp_path_factory.mktemp("issuer")) as issuer:
        yield issuer


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> TLSConfig:
    # Of another name than that of `odd`: who trusts two of one name may look at the wrong one.
    return write_cert(tmp_path_factory.mktemp("tls"), hosts=("127.0.0.1", "localhost"))


@pytest.fixture(scope="session")
def odd_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IssuerServer]:
    with IssuerServer(tmp_path_factory.mktemp("odd")) as odd:
        yield odd


@pytest.fixture
def odd(odd_session: IssuerServer) -> Iterator[IssuerServer]:
    """A web server that is no sync server: it answers as a test tells it to (`odd.fail`)."""
    yield odd_session
    odd_session.recover()
    odd_session.asked.clear()


@pytest.fixture(scope="session")
def driver(
    tmp_path_factory: pytest.TempPathFactory,
    odd_session: IssuerServer,
    pair: TLSConfig,
) -> Iterator[Driver]:
    folder = tmp_path_factory.mktemp("js")
    trusted = folder / "trusted.pem"
    trusted.write_bytes(Path(pair.cert).read_bytes() + odd_session.ca.read_bytes())
    with Driver(folder / "node.log", extra_ca=trusted) as driver:
        yield driver


@pytest.fixture
def clients(driver: Driver) -> Iterator[Clients]:
    """Nothing that a client does may throw where nobody can catch it."""
    driver.errors()
    yield Clients(driver)
    driver.close_repos()
    assert driver.errors() == []


@pytest.fixture
def serve(tmp_path: Path, issuer: IssuerServer, pair: TLSConfig) -> Iterator[Serve]:
    """Start a server that wants tokens of the issuer; it ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(auth: dict[str, Any] | None = None, **options: Any) -> Server:
            auth = {"issuer_ca": issuer.ca, "leeway_seconds": 0, **(auth or {})}
            config = AuthConfig(CLIENT_ID, issuer.url, **auth)
            options = {"tls": pair, "data_dir": tmp_path / "data", **options}
            return stack.enter_context(Server(auth=config, **options))

        yield start


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve()
