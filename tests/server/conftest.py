from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amsync import Server

StartServer = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartServer]:
    """Start servers, by default on one directory; what still runs at the end is closed."""
    started: list[Server] = []

    def start_it(**options: Any) -> Server:
        options.setdefault("data_dir", tmp_path / "data")
        server = Server(**options)
        started.append(server)
        return server.start()

    yield start_it
    for server in reversed(started):
        server.close()
