"""`amsync health`: what it asks of whom, and its exit status, which is all that Docker looks at."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from amsync.admin import AdminServer
from amsync.cli import health
from amsync.metrics import Metrics

from .running import Serving, invoke


@contextlib.contextmanager
def admin_port(*reasons: str) -> Iterator[int]:
    """The admin port of a process that is not ready for these reasons, or ready."""

    async def refresh() -> None:
        pass

    loop = asyncio.new_event_loop()
    server = AdminServer(Metrics(), lambda: list(reasons), refresh)
    port = loop.run_until_complete(server.start("127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield port
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def program_that_says(answer: bytes) -> Iterator[int]:
    """Something that takes one connection, answers this and closes; b"": it stays silent."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:

        def serve() -> None:
            connection, _ = listener.accept()
            stack.enter_context(connection)
            if answer:
                connection.recv(65536)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_a_running_server_is_well_and_ready(tmp_path: Path) -> None:
    with Serving(tmp_path, "--admin-port", "0") as serving:
        port = urlsplit(serving.admin_url).port

        alive = invoke("health", "--admin-port", port)
        ready = invoke("health", "--admin-port", port, "--ready")

    assert (alive.exit_code, alive.output) == (0, "ok\n")
    assert (ready.exit_code, ready.output) == (0, "ready\n")


def test_one_that_is_not_ready_is_alive_and_says_why() -> None:
    with admin_port("the bus is away", "draining") as port:
        alive = invoke("health", "--admin-port", port)
        ready = invoke("health", "--admin-port", port, "--ready")

    assert alive.exit_code == 0
    assert ready.exit_code == 1
    assert f"127.0.0.1:{port}/readyz answers 503" in ready.stderr
    assert "not ready; the bus is away; draining" in ready.stderr


def test_nobody_there_is_a_failure() -> None:
    port = free_port()

    asked = invoke("health", "--admin-port", port)

    assert asked.exit_code == 1
    assert f"nobody listens at 127.0.0.1, port {port}" in asked.stderr


def test_the_variables_of_the_process_that_is_asked_are_obeyed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with admin_port() as port:
        monkeypatch.setenv("AMSYNC_ADMIN_HOST", "0.0.0.0")
        monkeypatch.setenv("AMSYNC_ADMIN_PORT", str(port))

        assert invoke("health", "--ready").exit_code == 0


def test_a_worker_is_found_where_there_is_no_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    with admin_port() as port:
        monkeypatch.setattr(health, "USUAL_PORTS", (free_port(), port))

        assert invoke("health").exit_code == 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "timed out"),
        (b"hello\r\n", "hello"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot here\n", "answers 404: not here"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\n[42]", "answers 500: [42]"),
    ],
    ids=["silence", "no HTTP", "another program", "other JSON"],
)
def test_anything_but_a_good_answer_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, said: str
) -> None:
    monkeypatch.setattr(health, "SECONDS", 0.2)
    with program_that_says(answer) as port:
        asked = invoke("health", "--admin-port", port)

    assert asked.exit_code == 1
    assert said in asked.stderr


@pytest.mark.parametrize("port", ["off", "0", "70000"])
def test_a_port_that_none_can_be_is_refused(port: str) -> None:
    assert invoke("health", "--admin-port", port).exit_code == 2
