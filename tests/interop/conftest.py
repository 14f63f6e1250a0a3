"""Fixtures: `js` and `samod` drive real clients, `server` is what they talk to.

`--against=js` puts automerge-repo's own server in our place, to check the scenarios themselves;
it is used by hand, and scenarios that ask for more than that server gives are skipped then.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from interop.clustered import ClusterServer
from interop.driver import CLIENT, DRIVER, Driver
from interop.samod import PROGRAM, SamodDriver
from interop.servers import AmsyncServer, ReferenceServer, Server, ServerOptions

StartServer = Callable[..., Server]

_KINDS: dict[str, Callable[[Path, Path, ServerOptions], Server]] = {
    "amsync": AmsyncServer,
    "cluster": ClusterServer,
    "js": ReferenceServer,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--against",
        choices=["amsync", "cluster", "js"],
        default="amsync",
        help="the server that the interop tests use: ours, a cluster of ours, or automerge-repo's",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.node)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the ends of the clients' and the server's logs with a failure."""
    outcome: Any = yield
    report = outcome.get_result()
    if not report.failed:
        return
    arguments = getattr(item, "funcargs", {})
    for name, log in _logs(arguments):
        if log.exists() and (tail := log.read_text(errors="replace")[-6000:]):
            report.sections.append((name, tail))


def _logs(arguments: dict[str, Any]) -> list[tuple[str, Path]]:
    logs = []
    for name in ("js", "samod", "server"):
        if name in arguments:
            logs.append((f"log of {name}", arguments[name].log))
    started = getattr(arguments.get("start_server"), "started", [])
    logs.extend((f"log of server {i}", server.log) for i, server in enumerate(started))
    return logs


@pytest.fixture(scope="session")
def against(request: pytest.FixtureRequest) -> str:
    """The kind of server under test: "amsync", "cluster" or "js"."""
    kind: str = request.config.getoption("--against", default="amsync")
    return kind


@pytest.fixture
def amsync_only(against: str) -> None:
    """Skip a scenario that the reference server cannot pass; its docstring says why."""
    if against == "js":
        pytest.skip("asks for more than automerge-repo's own server gives")


@pytest.fixture(scope="session")
def js_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    assert shutil.which("node"), "Node 20 or newer is missing"
    for folder in (DRIVER.parent, CLIENT):
        assert (folder / "node_modules").exists(), "the JavaScript packages are missing: make test"
    with Driver(tmp_path_factory.mktemp("js") / "node.log") as driver:
        yield driver


@pytest.fixture
def js(js_session: Driver) -> Iterator[Driver]:
    """Real clients; what the test leaves open is closed, and stray errors fail it."""
    js_session.errors()
    yield js_session
    js_session.close_repos()
    # A socket that is refused or reset while connecting throws inside the adapter's own event
    # handler; the client comes back after it, as in every application.
    # A find() that no server answers for a minute rejects a promise that nobody can catch.
    expected = (
        *("ECONNRESET", "ECONNREFUSED", "socket hang up", "closed before the connection"),
        "withTimeout: timed out",
    )
    stray = [e for e in js_session.errors() if not any(text in e for text in expected)]
    assert not stray, "\n".join(stray)


@pytest.fixture(scope="session")
def samod_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SamodDriver]:
    """`make test-all`, which builds the program, must not pass without it."""
    if not PROGRAM.exists():
        missing = "the samod client is not built: cargo build in tests/samod"
        assert not os.environ.get("AMSYNC_TEST_ALL"), missing
        pytest.skip(missing)
    with SamodDriver(tmp_path_factory.mktemp("samod") / "samod.log") as driver:
        yield driver


@pytest.fixture
def samod(samod_session: SamodDriver) -> Iterator[SamodDriver]:
    """Real samod clients; what the test leaves open is closed, and a panic fails it."""
    start = samod_session.log.stat().st_size
    yield samod_session
    samod_session.close_repos()
    said = samod_session.log.read_bytes()[start:].decode()
    assert "panicked" not in said, said[-4000:]


class ServerStarter:
    """Starts servers of the kind under test and ends them after the test."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.started: list[Server] = []
        self._kind = kind
        self._directory = directory

    def __call__(self, data_dir: Path | None = None, **options: Any) -> Server:
        number = len(self.started)
        data_dir = data_dir or self._directory / f"data-{number}"
        log = self._directory / f"server-{number}.log"
        make = _KINDS[self._kind]
        server: Server = make(data_dir, log, ServerOptions(**options))
        self.started.append(server)
        return server

    def close(self) -> None:
        for server in self.started:
            if isinstance(server, ClusterServer):
                server.close()
            elif server.running():
                server.kill9()


@pytest.fixture
def start_server(against: str, tmp_path: Path) -> Iterator[ServerStarter]:
    """Start a server of one's own: `start_server(announce=True)`."""
    starter = ServerStarter(against, tmp_path)
    yield starter
    starter.close()


@pytest.fixture(scope="session")
def shared_server(against: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    starter = ServerStarter(against, tmp_path_factory.mktemp("server"))
    yield [starter()]
    starter.close()


@pytest.fixture
def server(shared_server: list[Server]) -> Iterator[Server]:
    """A server with default options that many tests share; it must outlive each of them."""
    server = shared_server[0]
    if not server.running():
        server.start()
    yield server
    assert server.running(), "the server ended during this test"
