"""What clients can bring about is logged once in a while, not each time."""

from collections.abc import Callable


class Seldom:
    """Says yes at most once in so many seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds, self._clock = seconds, clock
        self._next: float | None = None

    def __call__(self) -> bool:
        """Tell whether it may be done now; then it counts as done."""
        now = self._clock()
        if self._next is not None and now < self._next:
            return False
        self._next = now + self._seconds
        return True
