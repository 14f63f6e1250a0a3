"""The life of a `Server`: in a thread, in the caller's loop, and what it leaves alone."""

import asyncio
import gc
import logging
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import prometheus_client
import pytest

import amsync
from amsync import ConfigError, Server, ServerClosed, VolumeBusy
from amsync.worker.worker import Worker
from support.program import run_to_end
from support.rawclient import RawClient

from .conftest import StartServer
from .replicas import ReplicaClient, eventually


def server_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("amsync")]


def run_strictly(program: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in which every warning is an error, in asyncio's debug mode."""
    options = ["-X", "dev", "-W", "error"]
    return run_to_end([sys.executable, *options, "-c", program, str(data_dir)])


def test_with_block_serves_and_ends_its_thread(tmp_path: Path) -> None:
    with Server(data_dir=tmp_path / "data") as server:
        with RawClient(server.url) as client:
            assert client.join()["senderId"].startswith("amsync-")
        assert "amsync" in server_threads()

    eventually(lambda: not server_threads())


def test_close_may_be_called_twice_and_before_start(tmp_path: Path) -> None:
    server = Server(data_dir=tmp_path / "data").start()
    server.close()
    server.close()

    never_started = Server(data_dir=tmp_path / "data")
    never_started.close()
    never_started.close()

    with pytest.raises(ServerClosed, match="closed"):
        never_started.start()
    with pytest.raises(ServerClosed, match="closed"):
        server.start()


def test_start_twice_is_the_same_server(start: StartServer) -> None:
    server = start()
    url = server.url
    assert server.start() is server
    assert server.url == url


def test_close_from_many_threads_at_once(start: StartServer) -> None:
    server = start()
    threads = [threading.Thread(target=server.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_calls_during_close_answer_or_say_closed(start: StartServer) -> None:
    server = start()
    surprises: list[BaseException] = []
    ready = threading.Barrier(5)

    def call() -> None:
        ready.wait(5)
        try:
            while True:
                server.create_document()
                server.list_documents()
        except ServerClosed:
            pass
        except BaseException as error:
            surprises.append(error)

    threads = [threading.Thread(target=call, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    ready.wait(5)
    server.close()

    for thread in threads:
        thread.join(10)
        assert not thread.is_alive(), "a call never came back"
    assert surprises == []


def test_bind_error_raises_in_the_caller(start: StartServer, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
            start(port=port)
        with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
            start(admin_port=port)

    assert server_threads() == []
    start().close()  # nothing is left open: the directory can be used


def test_same_directory_twice_is_refused(start: StartServer, tmp_path: Path) -> None:
    first = start()

    with pytest.raises(VolumeBusy, match=str(tmp_path)):
        start()

    document_id = first.create_document()
    assert first.list_documents() == [document_id]


def test_two_servers_in_one_process_are_apart(start: StartServer, tmp_path: Path) -> None:
    one = start(data_dir=tmp_path / "one", admin_port=0)
    two = start(data_dir=tmp_path / "two", admin_port=0)
    document_id = one.create_document(data={"where": "one"})

    assert one.url != two.url
    assert one.storage_id != two.storage_id
    assert two.get_document(document_id) is None

    one.close()
    with RawClient(two.url) as client:
        client.join()


def test_restart_keeps_documents_and_storage_id(start: StartServer) -> None:
    first = start()
    document_id = first.create_document(data={"kept": True})
    view, storage_id = first.get_document(document_id), first.storage_id
    first.close()

    second = start()

    assert second.get_document(document_id) == view
    assert second.storage_id == storage_id
    assert second.list_documents() == [document_id]


def test_data_dir_is_made_with_its_parents(start: StartServer, tmp_path: Path) -> None:
    start(data_dir=str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()


def test_use_before_start_and_after_close_says_closed(start: StartServer, tmp_path: Path) -> None:
    fresh, closed = Server(data_dir=tmp_path / "fresh"), start()
    closed.close()
    document_id = amsync.generate_document_id()

    for server in (fresh, closed):
        uses: tuple[Callable[[Server], object], ...] = (
            lambda server: server.url,
            lambda server: server.port,
            lambda server: server.admin_url,
            lambda server: server.storage_id,
            lambda server: server.create_document(),
            lambda server: server.list_documents(),
            lambda server: server.get_document(document_id),
            lambda server: server.apply_changes(document_id, b"x"),
            lambda server: server.delete_document(document_id),
            lambda server: server.refresh_access(),
        )
        for use in uses:
            with pytest.raises(ServerClosed, match="not running"):
                use(server)
        assert "not running" in repr(server)


def test_repr_shows_url_and_directory(start: StartServer, tmp_path: Path) -> None:
    server = start()
    assert repr(server) == f"<amsync.Server {server.url} data_dir='{tmp_path / 'data'}'>"


def test_url_of_loopback_is_what_was_bound(start: StartServer) -> None:
    server = start()
    assert server.url == f"ws://127.0.0.1:{server.port}"
    assert server.port > 0
    assert server.admin_url is None


def test_url_of_all_interfaces_can_be_connected_to(start: StartServer) -> None:
    server = start(host="0.0.0.0", allow_anonymous=True, admin_port=0)
    assert server.url.startswith("ws://127.0.0.1:")
    with RawClient(server.url) as client:
        client.join()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback")
def test_url_of_ipv6_has_brackets(start: StartServer) -> None:
    server = start(host="::1", admin_host="::1", admin_port=0)
    assert server.url == f"ws://[::1]:{server.port}"
    assert server.admin_url is not None
    assert server.admin_url.startswith("http://[::1]:")
    with RawClient(server.url) as client:
        client.join()


def test_localhost_is_one_port(start: StartServer) -> None:
    """`localhost` may be two addresses; a client may pick either."""
    server = start(host="localhost")
    families = {info[0] for info in socket.getaddrinfo("localhost", server.port)}
    for family in families:
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        if family == socket.AF_INET6 and not has_ipv6():
            continue
        socket.create_connection((host, server.port), 2).close()


def test_close_while_clients_are_connected(start: StartServer) -> None:
    server = start()
    document_id = amsync.generate_document_id()
    client = ReplicaClient(server.url, document_id).start()
    client.wait_loaded()
    client.put("last", "words")
    client.wait_acknowledged()

    server.close()

    code, _ = client.raw.wait_closed()
    assert code == 1012
    again = start()
    view = again.get_document(document_id)
    assert view is not None
    assert view.value == {"last": "words"}
    client.raw.close()


class TestOwnLoop:
    """`async with`, `serve` and `aio`."""

    async def use(self, server: Server) -> None:
        document_id = await server.aio.create_document(data={"n": 1})
        view = await server.aio.get_document(document_id)
        assert view is not None
        assert view.value == {"n": 1}
        assert await server.aio.list_documents() == [document_id]

    def test_async_with(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with Server(data_dir=tmp_path) as server:
                await self.use(server)
                assert "amsync" not in [thread.name for thread in threading.enumerate()]
                assert len(asyncio.all_tasks()) > 1
            assert len(asyncio.all_tasks()) == 1
            with pytest.raises(ServerClosed):
                await server.aio.list_documents()
            server.close()

        asyncio.run(main())

    def test_serve_ends_when_cancelled(self, tmp_path: Path) -> None:
        async def main() -> None:
            server = Server(data_dir=tmp_path)
            serving = asyncio.create_task(server.serve())
            while "not running" in repr(server):
                await asyncio.sleep(0.001)
            await self.use(server)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            assert "not running" in repr(server)
            assert len(asyncio.all_tasks()) == 1

        asyncio.run(main())

    def test_serve_inside_async_with_returns_after_close_from_a_thread(
        self, tmp_path: Path
    ) -> None:
        async def main() -> None:
            async with Server(data_dir=tmp_path) as server:
                serving = asyncio.create_task(server.serve())
                await asyncio.sleep(0)
                await asyncio.to_thread(server.close)
                async with asyncio.timeout(20):
                    await serving

        asyncio.run(main())

    def test_sync_call_in_the_servers_loop_gives_advice(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with Server(data_dir=tmp_path) as server:
                with pytest.raises(RuntimeError, match=r"await server\.aio"):
                    server.create_document()
                with pytest.raises(RuntimeError, match="event loop"):
                    server.close()
                # The refused close has changed nothing.
                await self.use(server)

        asyncio.run(main())
        gc.collect()  # a coroutine that was never awaited would warn now

    def test_sync_calls_from_another_thread_work(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with Server(data_dir=tmp_path) as server:
                document_id = await asyncio.to_thread(server.create_document)
                assert await asyncio.to_thread(server.list_documents) == [document_id]

        asyncio.run(main())

    def test_background_server_in_a_running_loop(self, tmp_path: Path) -> None:
        """A Jupyter cell: a loop runs, and the blocking calls are used all the same."""

        async def cell() -> None:
            with Server(data_dir=tmp_path) as server:
                document_id = server.create_document(data={"n": 2})
                view = server.get_document(document_id)
                assert view is not None
                assert view.value == {"n": 2}

        asyncio.run(cell())

    def test_async_with_after_start_is_refused(self, start: StartServer) -> None:
        server = start()

        async def main() -> None:
            with pytest.raises(ServerClosed, match="started before"):
                async with server:
                    pass

        asyncio.run(main())
        assert server.list_documents() == []

    def test_serve_of_a_background_server_gives_advice(self, start: StartServer) -> None:
        server = start()

        async def main() -> None:
            async with asyncio.timeout(20):
                with pytest.raises(RuntimeError, match="thread"):
                    await server.serve()

        asyncio.run(main())
        assert server.list_documents() == []

    def test_volume_error_raises_in_async_with(self, start: StartServer, tmp_path: Path) -> None:
        start()

        async def main() -> None:
            with pytest.raises(VolumeBusy):
                async with Server(data_dir=tmp_path / "data"):
                    pass
            assert len(asyncio.all_tasks()) == 1

        asyncio.run(main())


def test_process_wide_things_are_left_alone(tmp_path: Path) -> None:
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    root, own = logging.getLogger(), logging.getLogger("amsync")
    before = (list(root.handlers), root.level, list(own.handlers), own.level, own.propagate)
    collectors = {family.name for family in prometheus_client.REGISTRY.collect()}
    hook = threading.excepthook

    with Server(data_dir=tmp_path, admin_port=0) as server:
        server.create_document()
        assert {n: signal.getsignal(n) for n in signals} == signals
        assert {f.name for f in prometheus_client.REGISTRY.collect()} == collectors

    assert {number: signal.getsignal(number) for number in signals} == signals
    after = (list(root.handlers), root.level, list(own.handlers), own.level, own.propagate)
    assert after == before
    assert threading.excepthook is hook


def test_nothing_is_printed_or_warned_in_debug_mode(tmp_path: Path) -> None:
    """asyncio's debug mode: slow callbacks, unawaited coroutines, unclosed transports."""
    program = textwrap.dedent(
        """
        import asyncio, sys
        import amsync, cbor2
        from amsync.errors import DocumentExists
        from websockets.asyncio.client import connect

        async def main():
            loop = asyncio.get_running_loop()
            loop.slow_callback_duration = 5
            async with amsync.Server(data_dir=sys.argv[1], admin_port=0) as server:
                document_id = await server.aio.create_document(data={"a": 1})
                async with connect(server.url) as socket:
                    join = {"type": "join", "senderId": "p", "supportedProtocolVersions": ["1"]}
                    await socket.send(cbor2.dumps(join))
                    await socket.recv()
                try:
                    await server.aio.create_document(document_id)
                except DocumentExists:
                    pass

        asyncio.run(main(), debug=True)
        with amsync.Server(data_dir=sys.argv[1]) as server:
            server.list_documents()
        """
    )
    done = run_strictly(program, tmp_path / "data")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_failed_start_leaves_nothing_behind(start: StartServer, tmp_path: Path) -> None:
    cert = tmp_path / "no-such-file"
    with pytest.raises(ConfigError, match="no-such-file"):
        start(tls=amsync.TLSConfig(cert, cert))
    assert server_threads() == []
    assert not (tmp_path / "data").exists()


def test_server_that_fails_inside_says_closed_and_can_be_closed(
    start: StartServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fail = threading.Event()

    async def ticks(_worker: Worker) -> None:
        while not fail.is_set():
            await asyncio.sleep(0.01)
        raise RuntimeError("planted")

    monkeypatch.setattr(Worker, "_ticks", ticks)
    server = start(admin_port=0)
    document_id = server.create_document(data={"n": 1})
    client = RawClient(server.url)
    client.join()

    fail.set()

    eventually(lambda: "not running" in repr(server))
    with pytest.raises(ServerClosed):
        server.list_documents()
    client.wait_closed()
    client.close()
    server.close()
    assert [r.levelname for r in caplog.records if r.name == "amsync"] == ["CRITICAL"]

    monkeypatch.undo()
    assert start().list_documents() == [document_id]


def test_program_that_forgets_to_close_ends(tmp_path: Path) -> None:
    program = (
        "import sys, amsync\n"
        "server = amsync.Server(data_dir=sys.argv[1]).start()\n"
        "print(server.create_document(data={'kept': True}))\n"
    )
    done = run_strictly(program, tmp_path / "data")
    assert (done.returncode, done.stderr) == (0, "")
    with Server(data_dir=tmp_path / "data") as server:
        assert server.list_documents() == [done.stdout.strip()]


def test_alias_makes_a_server(tmp_path: Path) -> None:
    server = amsync.amsync_server(data_dir=tmp_path, auto_create_docs=False)
    assert isinstance(server, Server)
