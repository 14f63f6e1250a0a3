"""The Redis client among faults: lost, hung, refusing and moving servers."""

import asyncio
import contextlib
import gc
import logging
import shutil
import signal
import ssl
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from amsync.bus.port import START
from amsync.bus.redis import RedisBus, RedisClient
from amsync.bus.redis.wire import ReplyError
from amsync.errors import BusError, ConfigError
from amsync.tls import write_cert
from amsync.turns import Routine, Turns
from support.redisserver import RedisServer, free_port

EVERYTHING = 1 << 30


@asynccontextmanager
async def connected(url: str, answer_seconds: float = 5.0) -> AsyncIterator[RedisClient]:
    async with asyncio.timeout(90):
        client = RedisClient(url, answer_seconds=answer_seconds)
        client.start()
        try:
            await client.wait_connected()
            yield client
        finally:
            await client.close()


async def is_connected(client: RedisClient, wanted: bool) -> None:
    while client.is_connected != wanted:
        await asyncio.sleep(0.01)


def test_replies_come_to_who_asked(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with connected(redis_server.url) as client:
            echoes = [client.call("ECHO", f"{number}") for number in range(1000)]
            wrong = client.call("NO-SUCH-COMMAND")
            after = client.call("ECHO", b"\x00\r\n\xff")

            assert [await echo for echo in echoes] == [b"%d" % number for number in range(1000)]
            with pytest.raises(ReplyError) as caught:
                await wrong
            assert caught.value.code == "ERR"
            assert await after == b"\x00\r\n\xff"
            assert client.is_connected

    asyncio.run(main())


def test_given_up_call_does_not_shift_the_answers_of_others(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with connected(redis_server.url) as client:
            first, second = client.call("ECHO", "1"), client.call("ECHO", "2")
            first.cancel()

            assert await second == b"2"
            assert await client.call("ECHO", "3") == b"3"

    asyncio.run(main())


def test_calls_can_be_awaited_where_there_is_no_task(redis_server: RedisServer) -> None:
    """What appends and trims await has to work in `amsync.turns.Routine`."""

    async def main() -> None:
        async with asyncio.timeout(60):
            bus = RedisBus(redis_server.url, prefix="routine")
            await bus.open()
            done = asyncio.get_running_loop().create_future()

            async def work() -> None:
                position = await bus.append("{routine}", b"x")
                await bus.client.call("SCRIPT", "FLUSH")
                await bus.trim("{routine}", position)
                done.set_result(await bus.client.call("XLEN", "{routine}"))

            routine = Routine(Turns(), work)
            routine.set()
            running = asyncio.ensure_future(routine.run())
            await asyncio.wait([done, running], return_when=asyncio.FIRST_COMPLETED)
            assert done.result() == 0
            running.cancel()
            await bus.close()

    asyncio.run(main())


def test_killed_server_fails_what_is_outstanding_and_comes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "amsync")

    async def main(server: RedisServer) -> None:
        async with connected(server.tcp_url) as client:
            blocked = client.call("BLPOP", "nothing", 0, wait_seconds=60)
            later = client.call("ECHO", "1")
            server.kill9()

            for call in (blocked, later):
                with pytest.raises(BusError):
                    await call
            with pytest.raises(BusError):
                await client.call("ECHO", "2")
            server.start()
            await client.wait_connected()
            assert await client.call("ECHO", "3") == b"3"

    with RedisServer(port=free_port()) as server:
        asyncio.run(main(server))

    texts = [record.getMessage() for record in caplog.records]
    assert texts.count("Redis was lost") == 1
    assert texts.count("Redis is back") == 1
    assert len(texts) <= 3


def test_no_append_that_returned_is_lost_when_redis_is_killed_and_keeps_its_log() -> None:
    """Those that failed may be there or not, and what was read may be read again."""

    async def main(server: RedisServer) -> None:
        async with asyncio.timeout(90):
            bus = RedisBus(server.tcp_url, prefix="p")
            await bus.open()
            reader = bus.reader()
            reader.follow("s", START)
            read: list[int] = []
            returned: list[int] = []
            tried: list[int] = []

            async def take() -> None:
                while True:
                    read.extend(int(bytes(e.data)) for e in await reader.read(EVERYTHING))  # type: ignore[arg-type]

            async def append() -> None:
                for number in range(1_000_000):
                    tried.append(number)
                    try:
                        await bus.append("s", b"%d" % number)
                        returned.append(number)
                    except BusError:
                        await asyncio.sleep(0.01)

            tasks = [asyncio.ensure_future(take()), asyncio.ensure_future(append())]
            for _ in range(4):
                wanted = len(returned) + 200
                while len(returned) < wanted:
                    await asyncio.sleep(0.01)
                server.kill9()
                server.start()
            wanted = len(returned) + 10
            while len(returned) < wanted:
                await asyncio.sleep(0.01)
            tasks[1].cancel()
            while not set(returned) <= set(read):
                await asyncio.sleep(0.01)

            assert set(read) <= set(tried)
            fresh = bus.reader()
            fresh.follow("s", START)
            there: list[int] = []
            while not set(returned) <= set(there):
                there += [int(bytes(e.data)) for e in await fresh.read(EVERYTHING)]  # type: ignore[arg-type]
            assert there == sorted(set(there))
            tasks[0].cancel()
            await asyncio.wait(tasks)
            await bus.close()

    with RedisServer("--appendfsync", "always", port=free_port(), persists=True) as server:
        asyncio.run(main(server))


def test_connection_that_hangs_is_cut_and_comes_back() -> None:
    async def main(server: RedisServer) -> None:
        async with connected(server.url, answer_seconds=0.3) as client:
            server.signal(signal.SIGSTOP)
            with pytest.raises(BusError, match="no answer"):
                await client.call("ECHO", "1")
            assert not client.is_connected

            server.signal(signal.SIGCONT)
            await client.wait_connected()
            assert await client.call("ECHO", "2") == b"2"

    with RedisServer() as server:
        asyncio.run(main(server))


def test_server_that_hangs_while_we_log_in_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(server: RedisServer) -> None:
        server.signal(signal.SIGSTOP)
        client = RedisClient(server.url, answer_seconds=0.1)
        client.start()
        while not caplog.records:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        server.signal(signal.SIGCONT)

        await client.wait_connected()
        assert await client.call("ECHO", "1") == b"1"
        await client.close()

    with RedisServer() as server:
        asyncio.run(main(server))

    gc.collect()  # futures whose errors nobody took would complain now
    assert [record.getMessage() for record in caplog.records] == [
        "Redis can't be reached, trying on"
    ]


@asynccontextmanager
async def slow_way(server: RedisServer, bytes_per_second: int) -> AsyncIterator[str]:
    """The URL of a relay to a server that passes commands and answers on slowly."""
    folder = Path(tempfile.mkdtemp(prefix="amsync-slow-"))

    async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
            await asyncio.sleep(len(data) / bytes_per_second)
        target.close()
        await target.wait_closed()

    async def relay(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(server.socket)
        tasks.append(asyncio.current_task())
        await asyncio.gather(
            pass_on(source, to_server), pass_on(from_server, target), return_exceptions=True
        )

    tasks: list[asyncio.Task[None] | None] = []
    relaying = await asyncio.start_unix_server(relay, folder / "s")
    try:
        yield f"unix://{folder / 's'}"
    finally:
        relaying.close()
        await asyncio.wait([task for task in tasks if task is not None])
        shutil.rmtree(folder)


def test_what_takes_long_because_it_is_large_comes_through(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with (
            slow_way(redis_server, 2_000_000) as url,
            connected(url, answer_seconds=1.5) as client,
        ):
            await client.call("SET", "large", bytes(4_000_000))
            assert len(await client.call("GET", "large")) == 4_000_000
            await client.call("DEL", "large")

    asyncio.run(main())


def test_command_that_blocks_has_its_own_time(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with connected(redis_server.url, answer_seconds=0.2) as client:
            assert await client.call("BLPOP", "nothing", "0.6", wait_seconds=0.6) is None
            with pytest.raises(BusError):
                await client.call("BLPOP", "nothing", 60)

    asyncio.run(main())


def test_client_at_rest_is_woken_by_no_timer(redis_server: RedisServer) -> None:
    class CountingLoop(asyncio.SelectorEventLoop):
        timers = 0

        def call_at(self, when: float, callback: Any, *args: Any, **options: Any) -> Any:
            def run(*args: Any) -> None:
                self.timers += 1
                callback(*args)

            return super().call_at(when, run, *args, **options)

    async def main() -> None:
        async with connected(redis_server.url, answer_seconds=0.2) as client:
            for _ in range(3):
                await client.call("PING")
            before = loop.timers
            await asyncio.sleep(0.1)  # five steps of its time limit

            assert loop.timers == before + 1  # the sleep's own

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, CountingLoop)
        runner.run(main())


def test_own_sleep_is_not_taken_for_the_servers(redis_server: RedisServer) -> None:
    """An answer of many reads: the timer that is due comes before the last of them."""

    async def main() -> None:
        async with connected(redis_server.url, answer_seconds=0.5) as client:
            await client.call("SET", "large", bytes(30_000_000))
            answer = client.call("GET", "large")
            await asyncio.sleep(0)
            time.sleep(1)

            assert len(await answer) == 30_000_000
            assert client.is_connected
            await client.call("DEL", "large")

    asyncio.run(main())


def test_server_that_becomes_a_replica_counts_as_lost() -> None:
    async def main(server: RedisServer) -> None:
        async with connected(server.url) as client:
            assert await command(server, b"REPLICAOF 127.0.0.1 1") == b"+OK\r\n"
            with pytest.raises(BusError):
                await client.call("SET", "key", "value")
            await is_connected(client, False)
            await asyncio.sleep(0.2)
            assert not client.is_connected

            assert await command(server, b"REPLICAOF NO ONE") == b"+OK\r\n"
            await client.wait_connected()
            assert await client.call("SET", "key", "value") == b"OK"

    with RedisServer() as server:
        asyncio.run(main(server))


async def command(server: RedisServer, text: bytes) -> bytes:
    """Send one command over a connection that is not the client's; returns the answer's line."""
    reader, writer = await asyncio.open_unix_connection(server.socket)
    writer.write(text + b"\r\n")
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize("login", ["", "user:wrong@", ":wrong@"])
def test_wrong_password_is_a_fault_of_configuration(login: str) -> None:
    async def main(server: RedisServer) -> None:
        with pytest.raises(ConfigError, match="password") as caught:
            async with connected(server.tcp_url.replace("//", f"//{login}")):
                pass
        assert "wrong" not in str(caught.value).replace("WRONGPASS", "")

    with RedisServer("--requirepass", "right", port=free_port()) as server:
        asyncio.run(main(server))


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+sentinel"])
@pytest.mark.parametrize("password", ["hunter/2", "hunter#2", "hunter?2"])
def test_password_with_a_bare_separator_is_refused_and_not_shown(
    scheme: str, password: str
) -> None:
    with pytest.raises(ConfigError, match="%2F") as caught:
        RedisClient(f"{scheme}://:{password}@localhost:6379/master")

    assert "hunter" not in str(caught.value)


def test_what_can_be_no_host_is_a_fault_of_configuration() -> None:
    async def scenario() -> None:
        client = RedisClient("redis://cache..example:6379")
        client.start()
        try:
            async with asyncio.timeout(20):
                with pytest.raises(ConfigError, match="host"):
                    await client.wait_connected()
        finally:
            await client.close()

    asyncio.run(scenario())


def test_right_user_and_database_are_used() -> None:
    async def main(server: RedisServer) -> None:
        url = server.tcp_url.replace("//", "//amsync:p%40ss@") + "/3"
        async with connected(url) as client:
            assert await client.call("ACL", "WHOAMI") == b"amsync"
            info = await client.call("CLIENT", "INFO")
            assert b" db=3 " in info
            assert b" name=amsync " in info

    user = ["--user", "amsync", "on", ">p@ss", "allkeys", "allcommands"]
    with RedisServer("--requirepass", "right", *user, port=free_port()) as server:
        asyncio.run(main(server))


def test_password_that_was_changed_later_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """It may be changed back, or Redis restarted with the right one: sockets are kept meanwhile."""

    async def main(server: RedisServer) -> None:
        async with connected(server.url) as client, connected(server.url) as other:
            await other.call("CONFIG", "SET", "requirepass", "new")
            await other.call("CLIENT", "KILL", "ID", client.client_id)
            await is_connected(client, False)
            while not any("refuses" in str(vars(record)) for record in caplog.records):
                await asyncio.sleep(0.01)

            await other.call("CONFIG", "SET", "requirepass", "")
            await client.wait_connected()
            assert await client.call("ECHO", "1") == b"1"

    with RedisServer() as server:
        asyncio.run(main(server))


def test_database_that_is_not_there_is_a_fault_of_configuration(redis_server: RedisServer) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match="database"):
            async with connected(f"{redis_server.url}?db=1000"):
                pass

    asyncio.run(main())


def test_what_is_no_redis_is_tried_again_and_again(tmp_path: Path) -> None:
    async def main() -> None:
        served = 0

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal served
            served += 1
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(serve, tmp_path / "s")
        client = RedisClient(f"unix://{tmp_path}/s")
        client.start()
        async with asyncio.timeout(60):
            while served < 3:
                await asyncio.sleep(0.01)
        assert not client.is_connected
        await client.close()
        server.close()
        await server.wait_closed()

    asyncio.run(main())


@asynccontextmanager
async def behind_tls(server: RedisServer, context: ssl.SSLContext) -> AsyncIterator[int]:
    """A port that speaks TLS for a Redis, which may be built without it."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(server.socket)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))
        for one in (writer, inner_writer):
            with contextlib.suppress(ConnectionError):
                await one.wait_closed()

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield proxy.sockets[0].getsockname()[1]
    finally:
        proxy.close()
        await proxy.wait_closed()


def test_tls_is_checked_against_the_authority(redis_server: RedisServer, tmp_path: Path) -> None:
    pair = write_cert(tmp_path)

    async def main() -> None:
        async with behind_tls(redis_server, pair.server_context()) as port:
            url = f"rediss://localhost:{port}"
            for query in (f"ssl_ca_certs={pair.cert}", "ssl_cert_reqs=none"):
                async with connected(f"{url}?{query}") as client:
                    assert await client.call("ECHO", "1") == b"1"
                    assert await client.call("ECHO", bytes(300_000)) == bytes(300_000)

            stranger = RedisClient(url)
            stranger.start()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await stranger.wait_connected()
            await stranger.close()

    asyncio.run(main())


def test_sentinel_leads_to_the_new_master() -> None:
    async def main(old: RedisServer, sentinel: RedisServer) -> None:
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster/2"
        async with connected(url) as client:
            assert b" db=2 " in await client.call("CLIENT", "INFO")
            await client.call("SET", "key", "value")
            while await client.call("WAIT", 1, 1000, wait_seconds=1) != 1:
                pass

            while await command(sentinel, b"SENTINEL REPLICAS mymaster") != b"*1\r\n":
                await asyncio.sleep(0.05)
            old.kill9()
            await is_connected(client, False)
            await client.wait_connected()

            assert await client.call("GET", "key") == b"value"
            assert await client.call("SET", "key", "new") == b"OK"
            info = await client.call("CLIENT", "INFO")
            assert b":%d " % new.port in info

    port = free_port()
    with (
        RedisServer(port=port) as old,
        RedisServer("--replicaof", f"127.0.0.1 {port}", port=free_port()) as new,
        RedisServer(
            *("--sentinel monitor mymaster 127.0.0.1", str(port), "1"),
            *("--sentinel down-after-milliseconds mymaster 500",),
            *("--sentinel failover-timeout mymaster 5000",),
            port=free_port(),
            is_sentinel=True,
        ) as sentinel,
    ):
        asyncio.run(main(old, sentinel))
