"""Group commit: many batches, one fsync, in a thread of its own.

Not here: the WAL itself. While one commit runs the next batches gather. A dedicated thread
with a SimpleQueue costs half of what an executor does, and committing on the loop would stop
every socket for as long as the disk takes (measured: HOTPATH 4).
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from amsync.errors import StorageBehind, StorageError
from amsync.storage.batch import WalBatch

Done = Callable[[BaseException | None], None]
Append = Callable[[Sequence[WalBatch]], None]
Observe = Callable[[float, int], None]

QUEUE_BYTES = 256 * 1024 * 1024
"""Chunk bytes that may wait for the disk; a batch beyond it is refused with StorageFull."""

GROUP_BYTES = 16 * 1024 * 1024
"""A group stops taking further batches at this size, to bound the time of one fsync."""


class Commit(Protocol):
    """Makes batches durable, in the order of the calls."""

    def submit(self, batch: WalBatch, done: Done) -> None:
        """Commit a batch, then call done(None), or done(error) if it is not acknowledged.

        `done` may run in another thread, must be quick and must not raise.
        """
        ...

    async def commit(self, batch: WalBatch) -> None:
        """Commit a batch and wait for it; the commit goes on when the caller is cancelled.

        Raises:
            StorageError, StorageFull
        """
        ...

    @property
    def waiting_bytes(self) -> int:
        """Chunk bytes that were submitted and are not done."""
        ...

    def close(self) -> None:
        """Commit what waits, then take nothing more. A second call does nothing."""
        ...


class InlineCommit:
    """Commits in the caller's thread: for single-threaded simulations and tools."""

    def __init__(self, append: Append, observe: Observe | None = None) -> None:
        self._append = append
        self._observe = observe
        self._closed = False

    def submit(self, batch: WalBatch, done: Done) -> None:
        """Commit a batch, then call `done` before returning."""
        if self._closed:
            done(StorageError("the store is closed"))
            return
        done(_append_group(self._append, [batch], self._observe))

    async def commit(self, batch: WalBatch) -> None:
        """Commit a batch.

        Raises:
            StorageError, StorageFull
        """
        errors: list[BaseException | None] = []
        self.submit(batch, errors.append)
        if errors[0] is not None:
            raise errors[0]

    @property
    def waiting_bytes(self) -> int:
        """Nothing ever waits."""
        return 0

    def close(self) -> None:
        """Take nothing more."""
        self._closed = True


class GroupCommit:
    """Commits in a dedicated thread. Thread-safe.

    Args of the constructor:
        append: Makes batches durable; raises StorageError.
        observe: Called with (seconds, chunk bytes) after each fsync that worked; must not raise.
    """

    def __init__(self, append: Append, observe: Observe | None = None) -> None:
        self._append = append
        self._observe = observe
        self._queue: queue.SimpleQueue[tuple[WalBatch, int, Done] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting_bytes = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="amsync-commit", daemon=True)
        self._thread.start()

    def submit(self, batch: WalBatch, done: Done) -> None:
        """Commit a batch, then call `done` in the commit thread (or here, if refused)."""
        size = batch.size_bytes
        with self._lock:
            refused: StorageError | None = None
            if self._closed:
                refused = StorageError("the store is closed")
            elif self._waiting_bytes and self._waiting_bytes + size > QUEUE_BYTES:
                refused = StorageBehind(
                    f"{self._waiting_bytes} bytes wait for the disk, at most {QUEUE_BYTES} may"
                )
            else:
                self._waiting_bytes += size
                self._queue.put((batch, size, done))
        if refused is not None:
            done(refused)

    async def commit(self, batch: WalBatch) -> None:
        """Commit a batch and wait for it.

        Raises:
            StorageError, StorageFull
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def finish(error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        def done(error: BaseException | None) -> None:
            # A loop that was closed meanwhile has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(finish, error)

        self.submit(batch, done)
        await future

    @property
    def waiting_bytes(self) -> int:
        """Chunk bytes that were submitted and are not done."""
        return self._waiting_bytes

    def close(self) -> None:
        """Commit what waits and end the thread."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group = [first]
            size = first[1]
            last = False
            while size < GROUP_BYTES:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                    break
                group.append(more)
                size += more[1]
            error = _append_group(self._append, [item[0] for item in group], self._observe)
            with self._lock:
                self._waiting_bytes -= size
            for _, _, done in group:
                done(error)
            if last:
                return


def _append_group(
    append: Append, batches: Sequence[WalBatch], observe: Observe | None
) -> BaseException | None:
    started = time.perf_counter()
    try:
        append(batches)
    except Exception as error:
        return error
    if observe is not None:
        observe(time.perf_counter() - started, sum(batch.size_bytes for batch in batches))
    return None
