"""Small parts that every process of a server is made of."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from amsync.errors import AmsyncError, StorageError
from amsync.metrics import Metrics
from amsync.options import Ephemeral, KeepOptions
from amsync.storage import Store
from amsync.worker.engine import NativeCodec

log = logging.getLogger("amsync")

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
