"""A whole cluster on one machine, to try it out: Redis, workers and gateways as child processes.

Their output comes out line by line with a name in front. When one of them ends by itself, or
when we are told to end, all are ended in order: gateways, workers, Redis.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from amsync.config import variable
from amsync.errors import ConfigError

REDIS_PROGRAMS = ("redis-server", "valkey-server")
REDIS_HZ = "2"
"""So often a second it looks after itself: its default of 10 is half of what it costs at rest."""

END_SECONDS = 30.0
START_SECONDS = 60.0
LINE_BYTES = 1024 * 1024


class Child:
    """One process, its lines passed on as they come.

    Attributes:
        admin_url: Of its admin port, once it is up.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name, self.process = name, process
        self.admin_url = ""
        self.is_up = asyncio.Event()
        self.ended = asyncio.create_task(process.wait())

    async def end(self) -> None:
        """Ask it to end, and see that it does."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self.ended), END_SECONDS)
        if self.process.returncode is None:
            self.process.kill()
            await self.ended


class LocalCluster:
    """See the module's text.

    Args:
        say: Takes one line of output, with its name.
        directory: For Redis, and by default for documents.
    """

    def __init__(self, directory: Path, say: Callable[[str, str], None]) -> None:
        self._directory, self._say = directory, say
        self._children: list[Child] = []
        self._readers: list[asyncio.Task[None]] = []

    async def start_redis(self) -> str:
        """Start a Redis of our own, on a socket in the directory; returns its URL.

        Raises:
            ConfigError: There is no such program here.
        """
        program = next(filter(None, map(shutil.which, REDIS_PROGRAMS)), None)
        if program is None:
            raise ConfigError(
                "neither redis-server nor valkey-server is installed; install one, or name a"
                " running one with --redis"
            )
        socket = self._directory / "redis.sock"
        arguments = [
            *("--port", "0", "--unixsocket", str(socket), "--dir", str(self._directory)),
            *("--appendonly", "yes", "--save", ""),
            *("--hz", REDIS_HZ),
        ]
        child = await self._start("redis", [program, *arguments])
        for _ in range(int(START_SECONDS * 20)):
            if socket.exists() or child.process.returncode is not None:
                break
            await asyncio.sleep(0.05)
        return f"unix://{socket}"

    async def start(self, name: str, *arguments: str, **secrets: str) -> bool:
        """Start an amsync process, and wait for its greeting; False when any process ends.

        `secrets` are options, as the URL of Redis, that are handed over where `ps` doesn't show
        them.
        """
        command = [sys.executable, "-m", "amsync", *arguments]
        given = {variable(option): value for option, value in secrets.items()}
        child = await self._start(name, command, {**os.environ, **given})
        up = asyncio.create_task(child.is_up.wait())
        ends = [each.ended for each in self._children]
        try:
            await asyncio.wait(
                [up, *ends], timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            up.cancel()
        return not any(each.done() for each in ends)

    def admin_url(self, name: str) -> str:
        """Where the admin port of a started process is."""
        return next(child.admin_url for child in self._children if child.name == name)

    async def wait(self) -> str:
        """Return the name of a process that has ended by itself."""
        tasks = {child.ended: child.name for child in self._children}
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[done.pop()]

    async def close(self) -> list[tuple[str, int | None]]:
        """End all, the last started first; returns their names and exit statuses."""
        for child in reversed(self._children):
            await child.end()
        await asyncio.gather(*self._readers)
        return [(child.name, child.process.returncode) for child in self._children]

    async def _start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Child:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LINE_BYTES,
            start_new_session=True,  # a Ctrl-C is ours to pass on, in order
        )
        child = Child(name, process)
        self._children.append(child)
        self._readers.append(asyncio.create_task(self._pass_on(child)))
        return child

    async def _pass_on(self, child: Child) -> None:
        assert child.process.stdout is not None
        async for line in child.process.stdout:
            text = line.decode(errors="replace").rstrip()
            self._say(child.name, text)
            if text.endswith("/metrics") and not child.admin_url:
                child.admin_url = text.split()[-1].removesuffix("/metrics")
                child.is_up.set()
