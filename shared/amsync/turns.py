"""What has to be done in one turn of the event loop, done in one go.

Every callback that is scheduled by itself costs the loop another turn, and a turn a system
call; a task costs a turn for each of its waits, also when there is nothing to wait for. So the
parts of a server that hand messages to each other in one process (router, worker, sockets) share
one `Turns`: what one of them leaves to the next is done in the same turn, in the order of the
calls, and never inside of the caller.

`Routine` runs a coroutine function in that way: at once as far as it goes without waiting, and
the rest when what it waits for is there. It is no task: a coroutine in it can't use
`asyncio.timeout`, nor what needs `current_task`; a bus that does so needs tasks of its own.

What is done every second is done in step (`seconds_to_step`): an idle process costs what its
wakes cost, and ten things that are due at once take one.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

MOST_CALLS = 32
"""In one turn; a message's whole way takes five. What is left has to let the sockets go first."""

STEP_MARGIN_SECONDS = 0.002
"""Loops count in milliseconds: what is due so soon is due, or it would be waited for twice."""

_PHASE_MS = random.randrange(60_000)  # noqa: S311 - processes of a machine keep out of step


def seconds_to_step(seconds: float, now: float | None = None) -> float:
    """How long to sleep for something that is done so often: to a moment common to all of these.

    The first time, and after a delay, that is sooner; never later, but for a few milliseconds.
    `now` is of `time.monotonic`.
    """
    now_ms = int((time.monotonic() if now is None else now) * 1000)  # as loops count
    step_ms = max(1, round(seconds * 1000))
    wait_ms = step_ms - (now_ms - _PHASE_MS) % step_ms
    return (wait_ms if wait_ms > STEP_MARGIN_SECONDS * 1000 else wait_ms + step_ms) / 1000


async def next_step(seconds: float) -> float:
    """Sleep until the next common step, as `seconds_to_step`; returns how late that was, in s."""
    pause = seconds_to_step(seconds)
    due = time.monotonic() + pause
    await asyncio.sleep(pause)
    return max(0.0, time.monotonic() - due)


class Turns:
    """Calls that are left for the end of the present turn of one event loop."""

    def __init__(self) -> None:
        self._calls: deque[Callable[[], None]] = deque()
        self._is_scheduled = False

    def soon(self, call: Callable[[], None]) -> None:
        """Call when the present callback of the loop is over; `call` must not raise."""
        self._calls.append(call)
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        calls = self._calls
        try:
            for _ in range(MOST_CALLS):
                if not calls:
                    break
                calls.popleft()()
        finally:
            self._is_scheduled = bool(calls)  # also when one has raised after all
            if calls:
                asyncio.get_running_loop().call_soon(self._run)


class Routine:
    """Work that is done when it was woken, one run at a time; see the module's text.

    A wake during a run leads to another run, in a later turn of the loop: sockets come first.
    """

    def __init__(self, turns: Turns, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._turns, self._work = turns, work
        self._is_woken = False
        self._is_started = False
        self._running: Coroutine[Any, Any, Any] | None = None
        self._awaited: asyncio.Future[Any] | None = None
        self._failed: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wake it; what was woken before `run` is done when that begins."""
        if self._is_woken:
            return
        self._is_woken = True
        if self._is_started and self._running is None:
            self._turns.soon(self._start)

    async def run(self) -> None:
        """Let it work, until cancelled; raises what the work raised."""
        self._failed = asyncio.get_running_loop().create_future()
        self._is_started = True
        if self._is_woken:
            self._turns.soon(self._start)
        try:
            await self._failed
        finally:
            self._is_started = False
            running, self._running = self._running, None
            if self._awaited is not None:
                self._awaited.cancel()
            if running is not None:
                running.close()

    def _start(self) -> None:
        if not self._is_started or self._running is not None:
            return
        self._is_woken = False
        self._running = self._work()
        self._go_on()

    def _go_on(self, _: object = None) -> None:
        coroutine, self._awaited = self._running, None
        if coroutine is None:  # ended meanwhile
            return
        try:
            awaited = coroutine.send(None)
        except StopIteration:
            self._running = None
            if self._is_woken:
                asyncio.get_running_loop().call_soon(self._start)
        except BaseException as error:
            self._running, self._is_started = None, False
            assert self._failed is not None
            if not self._failed.done():
                self._failed.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            if awaited is None:  # a bare turn of the loop
                asyncio.get_running_loop().call_soon(self._go_on)
            else:
                self._awaited = awaited
                awaited._asyncio_future_blocking = False
                awaited.add_done_callback(self._go_on)
