"""Small parts that every process of a server is made of."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

from amsync.errors import AmsyncError
from amsync.storage import Store

T = TypeVar("T", bound=Store)


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


def url_of(scheme: str, host: str, port: int) -> str:
    """A URL that works on this machine for a server that listens on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound here
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
