from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amsync import Server
from amsync.gateway.limits import Limits

from .friends import Witness

Serve = Callable[..., Server]

SMALL = Limits(max_frame_bytes=1024 * 1024)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server of one's own."""
    started: list[Server] = []

    def start(**options: Any) -> Server:
        directory = tmp_path / f"data-{len(started)}"
        started.append(Server(**{"port": 0, "data_dir": directory, **options}).start())
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture(scope="package")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("wire")
    with Server(port=0, data_dir=directory, limits=SMALL) as server:
        yield server


@pytest.fixture(scope="package")
def witness(shared_server: Server) -> Iterator[Witness]:
    with Witness(shared_server) as witness:
        yield witness


@pytest.fixture
def server(shared_server: Server, witness: Witness) -> Iterator[Server]:
    """A server for hostile cases: after each, clients that were there before still sync."""
    yield shared_server
    witness.check()


@pytest.fixture(autouse=True)
def no_errors_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Bad input is counted; an ERROR in the log, or an exception in the loop, is a defect."""
    yield
    records = [*caplog.get_records("call"), *caplog.get_records("teardown")]
    errors = [record.getMessage() for record in records if record.levelname == "ERROR"]
    assert errors == []
