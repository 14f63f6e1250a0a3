"""A TCP proxy between processes and Redis that a test can cut, stall, or point elsewhere."""

import asyncio
import contextlib
import threading
from typing import Any

from support.closing import Closing

BLOCK_BYTES = 64 * 1024


class Proxy(Closing):
    """Listens on a port of loopback; one thread.

    Args of the constructor:
        port: Of loopback, where connections are passed on to.

    Attributes:
        url: For Redis clients.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._is_cut = False
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._call(self._listen())
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset every connection, and refuse new ones, until `mend`."""
        self._is_cut = True
        self._call(self._end_all())

    def stall(self) -> None:
        """Pass nothing on, in either direction, and close nothing, until `mend`."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def mend(self) -> None:
        """Pass on again."""
        self._is_cut = False
        self._loop.call_soon_threadsafe(self._flows.set)

    def switch(self, port: int) -> None:
        """Pass new connections on to another port, and reset those that are."""
        self._target = port
        self._call(self._end_all())

    def close(self) -> None:
        self._server.close()
        self._call(self._end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if not self._is_cut:
                await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the end of a connection, of either side or by ourselves
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection("127.0.0.1", self._target)
        ways = [
            asyncio.ensure_future(self._pump(reader, there)),
            asyncio.ensure_future(self._pump(back, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            there.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(BLOCK_BYTES):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()

    async def _end_all(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)
