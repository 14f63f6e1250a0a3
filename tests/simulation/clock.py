"""Manual time: calls that are due later, in one thread, in an order that a seed repeats."""

import heapq
from collections.abc import Callable, Coroutine, Generator
from typing import Any

Call = Callable[[], object]


class Pause:
    """Awaitable: whoever drives the coroutine goes on after so many simulated seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __await__(self) -> Generator[float, None, None]:
        yield self.seconds


class Clock:
    """Seconds since the start, and what is to happen when."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._number = 0
        self._due: list[tuple[float, int, Call]] = []

    def later(self, seconds: float, call: Call) -> None:
        self._number += 1
        heapq.heappush(self._due, (self.now + seconds, self._number, call))

    def next_at(self) -> float:
        """When the next call is due; infinity if nothing is."""
        return self._due[0][0] if self._due else float("inf")

    def run_next(self) -> None:
        due, _, call = heapq.heappop(self._due)
        self.now = max(self.now, due)
        call()

    def drive(
        self, coroutine: Coroutine[Any, Any, Any], done: Call, may_run: Callable[[], bool]
    ) -> None:
        """Run a coroutine to its end without a loop; a `Pause` in it takes simulated time."""
        try:
            seconds = coroutine.send(None)
        except StopIteration:
            done()
            return
        self.later(
            seconds,
            lambda: self.drive(coroutine, done, may_run) if may_run() else coroutine.close(),
        )
