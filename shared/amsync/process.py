"""Small parts that every process of a server is made of."""

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from amsync.errors import AmsyncError, StorageError
from amsync.metrics import Metrics
from amsync.options import Ephemeral, KeepOptions
from amsync.storage import Store
from amsync.worker.engine import NativeCodec

log = logging.getLogger("amsync")

T = TypeVar("T", bound=Store)


class Life(ABC):
    """How a server, gateway or worker lives and ends; `close` as often as you like.

    Attributes:
        left_behind: `close` could not finish everything in time: a job, a commit or folders.
    """

    def __init__(self) -> None:
        self._main: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self.left_behind = False

    def _begin(self, name: str, *parts: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the parts, until they are cancelled or one fails."""
        self._main = asyncio.create_task(_together(name, parts), name=f"amsync-{name}")

    @property
    def _is_alive(self) -> bool:
        """The parts run: begun, not ended, and none has failed."""
        return self._main is not None and not self._main.done()

    async def _end(self) -> None:
        """Cancel the parts."""
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait([self._main])

    async def wait(self) -> None:
        """Return when it was closed.

        Raises:
            BaseExceptionGroup: A part of it failed; it has stopped to work.
        """
        if self._main is not None:
            await asyncio.wait([self._main])
            await self.close()
            failure = None if self._main.cancelled() else self._main.exception()
            if failure is not None:
                raise failure

    async def close(self) -> None:
        """Drain, stop, let everything go.

        Bounded in time also when the disk or the bus fails: what was not acknowledged is then
        lost.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    @abstractmethod
    async def _close(self) -> None:
        """What `close` does, once."""


async def _together(name: str, parts: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part())
    except Exception:
        log.critical("a part failed; all of it ends", extra={"part": name}, exc_info=True)
        raise


async def open_in_thread(opening: Callable[[], T]) -> T:
    """Open a store in a thread; when the caller is cancelled, what it opens is closed again.

    Raises:
        ConfigError, VolumeError, StorageError: Of `open_store`.
    """
    task = asyncio.create_task(asyncio.to_thread(opening))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # The thread goes on; what it opens must not stay locked.
        with contextlib.suppress(AmsyncError):
            (await task).close()
        raise


def store_arguments(options: KeepOptions, metrics: Metrics) -> dict[str, Any]:
    """What both kinds of stores are opened with, beside their directory."""
    wanted = options.storage_id
    return {
        "codec": NativeCodec(),
        "storage_id": wanted if isinstance(wanted, str) else None,
        "ephemeral": isinstance(wanted, Ephemeral),
        "observe": lambda seconds, _bytes: metrics.fsync_seconds.observe(seconds),
    }


async def close_store(store: Store) -> bool:
    """Write everything into the folders and give the volume back; False if some is left."""
    try:
        await asyncio.to_thread(store.close)
    except StorageError as error:
        log.error(
            "not everything could be written into the document folders; the WAL keeps it",
            extra={"error": str(error)},
        )
        return False
    return True


def url_of(scheme: str, host: str, port: int) -> str:
    """A URL that works on this machine for a server that listens on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound here
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
