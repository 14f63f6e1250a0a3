"""A server with an admin port, and calls of it whose answers are held against its description."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amsync import Server
from support.admin import DescribedCalls

TOKEN = "an-admin-token-for-tests"


class Api(DescribedCalls):
    """Calls of one server's admin port."""

    def __init__(self, server: Server, token: str | None = TOKEN) -> None:
        super().__init__(server.admin_url or "", token)
        self.server = server

    def put(self, value: dict[str, Any], document_id: str | None = None) -> str:
        """Make a document; returns its id."""
        body: dict[str, Any] = {"value": value}
        if document_id is not None:
            body["document_id"] = document_id
        status, said = self.call("POST", "/documents", body)
        assert status == 201, said
        name: str = said["document_id"]
        return name

    def bytes(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """A call with a body of bytes."""
        return self.call(method, path, body, Content_Type="application/octet-stream")


StartApi = Callable[..., Api]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartApi]:
    """Start servers, by default on one directory; what still runs at the end is closed."""
    started: list[Server] = []

    def start_it(**options: Any) -> Api:
        options = {"data_dir": tmp_path / "data", "admin_port": 0, "admin_token": TOKEN, **options}
        server = Server(**options)
        started.append(server)
        server.start()
        return Api(server)

    yield start_it
    for server in reversed(started):
        server.close()


@pytest.fixture
def api(start: StartApi) -> Api:
    return start()


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One for all tests of a module that change nothing."""
    directory = tmp_path_factory.mktemp("still")
    with Server(data_dir=directory / "data", admin_port=0, admin_token=TOKEN) as server:
        yield Api(server)
