"""Calls of the operator's that may never return: their threads, and how many there are at once.

`concurrent.futures` joins its threads when the process ends, so one call that hangs would keep
it from ending; these are daemons.
"""

import asyncio
import inspect
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_Job = Callable[[], None]


class DaemonThreads:
    """At most `limit` threads, started as they are needed; calls beyond that wait."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit, self._name = limit, name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = 0
        self._idle = 0

    async def run(self, call: Callable[[], T]) -> T:
        """Call in a thread; raises what it raises. When cancelled, the call goes on alone."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def deliver(result: T | None, error: BaseException | None) -> None:
            self._idle += 1
            if future.cancelled():
                return
            if error is None:
                future.set_result(result)  # type: ignore[arg-type]
            elif isinstance(error, StopIteration):  # a future refuses it
                future.set_exception(RuntimeError("StopIteration"))
            else:
                future.set_exception(error)

        def job() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = call()
            except BaseException as caught:
                error = caught
            if not loop.is_closed():
                loop.call_soon_threadsafe(deliver, result, error)

        if self._idle > 0:
            self._idle -= 1
        elif self._threads < self._limit:
            self._threads += 1
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        self._jobs.put(job)
        return await future

    def close(self) -> None:
        """Let the threads end as they become free."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


class OutsideCall:
    """A callable of the operator's, plain or async, with a bound on how many calls run at once.

    Plain ones are called in threads, and may return something to be awaited. The place of a call
    is given back when it ends, not when nobody waits for it any more: else calls that hang would
    fill the queue of the threads without bound.
    """

    def __init__(self, function: Callable[..., Any], limit: int, name: str) -> None:
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an instance with an async __call__
        )
        self._threads = DaemonThreads(limit, name)
        self._places = asyncio.Semaphore(limit)

    async def __call__(self, *arguments: Any) -> Any:
        """Call it; raises what it raises."""
        if self._is_async:
            async with self._places:
                return await self._function(*arguments)
        answer = await self._in_a_thread(*arguments)
        return await answer if inspect.isawaitable(answer) else answer

    async def _in_a_thread(self, *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        await self._places.acquire()

        def call() -> Any:
            try:
                return self._function(*arguments)
            finally:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(self._places.release)

        return await self._threads.run(call)

    def close(self) -> None:
        """Let go of the threads; one whose call hangs ends with the process."""
        self._threads.close()
