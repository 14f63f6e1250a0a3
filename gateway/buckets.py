"""Rates: how much of something may still be done by one client, address or identity.

Sans-IO; `now` is handed in, in seconds of any clock that doesn't go back.
"""

from collections.abc import Callable

_NO_BOUND = 1e15
_SHORT_SECONDS = 0.001
"""To wait for less would cost more than it spares."""


class Bucket:
    """As many at once as per minute, then at that pace. `per_minute` 0: no bound."""

    __slots__ = ("_at", "_per_minute", "_tokens")

    def __init__(self, per_minute: float) -> None:
        self._per_minute = per_minute
        self._tokens = float(per_minute)
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Take one; False if there is none left."""
        if self._per_minute == 0:
            return True
        self._refill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def is_empty(self, now: float) -> bool:
        """The next `take` would fail."""
        if self._per_minute == 0:
            return False
        self._refill(now)
        return self._tokens < 1

    def is_full(self, now: float) -> bool:
        """Nothing is spent: forgetting this object would change nothing."""
        if self._at is None or self._per_minute == 0:
            return True
        self._refill(now)
        return self._tokens >= self._per_minute

    def give_back(self) -> None:
        """What was taken did not happen."""
        self._tokens = min(self._per_minute, self._tokens + 1)

    def _refill(self, now: float) -> None:
        elapsed = 0.0 if self._at is None else now - self._at
        self._at = now
        self._tokens = min(self._per_minute, self._tokens + elapsed * self._per_minute / 60)


class Rate:
    """Messages and bytes, at an even pace after a burst of a few seconds' worth.

    What comes is never refused but may be a debt: who is in debt is not read from until it is
    paid. So one large message passes, and what comes behind it waits. A rate of 0 has no bound.
    """

    __slots__ = ("_at", "_bytes", "_bytes_per_second", "_messages", "_messages_per_second")

    BURST_SECONDS = 5.0

    def __init__(self, messages_per_second: float, bytes_per_second: float, now: float) -> None:
        self._messages_per_second = messages_per_second or _NO_BOUND
        self._bytes_per_second = bytes_per_second or _NO_BOUND
        self._messages = self.BURST_SECONDS * self._messages_per_second
        self._bytes = self.BURST_SECONDS * self._bytes_per_second
        self._at = now

    def spend(self, size: int, now: float) -> float:
        """Take a message; returns for how many seconds to read no more, mostly 0."""
        self._messages -= 1
        self._bytes -= size
        if self._messages >= 0 and self._bytes >= 0:
            return 0.0
        # Only now the clock counts: until a burst is used up, nothing is reckoned.
        elapsed, self._at = now - self._at, now
        pace, bytes_pace = self._messages_per_second, self._bytes_per_second
        self._messages = min(self.BURST_SECONDS * pace, self._messages + elapsed * pace)
        self._bytes = min(self.BURST_SECONDS * bytes_pace, self._bytes + elapsed * bytes_pace)
        owed = max(-self._messages / pace, -self._bytes / bytes_pace)
        return owed if owed > _SHORT_SECONDS else 0.0

    def is_full(self, now: float) -> bool:
        """Nothing is owed, and nobody was in debt for a while: a new one would do as well."""
        return min(self._messages, self._bytes) >= 0 and now - self._at >= self.BURST_SECONDS


class Offenders:
    """Says of each offender at most once a minute what it does.

    Args:
        say: Called with (offender, offence, how often since it was said last).
    """

    MAX_KNOWN = 10_000

    def __init__(self, say: Callable[[str, str, int], None], *, seconds: float = 60.0) -> None:
        self._say, self._seconds = say, seconds
        self._known: dict[tuple[str, str], tuple[float, int]] = {}

    def note(self, offender: str, offence: str, now: float) -> None:
        """An offence has happened."""
        said_at, count = self._known.get((offender, offence), (now - self._seconds, 0))
        count += 1
        if now - said_at >= self._seconds:
            if len(self._known) >= self.MAX_KNOWN and (offender, offence) not in self._known:
                self._known.pop(next(iter(self._known)))
            self._say(offender, offence, count)
            said_at, count = now, 0
        self._known[offender, offence] = (said_at, count)

    def prune(self, now: float) -> None:
        """Forget those that were quiet."""
        quiet = [k for k, (at, _) in self._known.items() if now - at >= 2 * self._seconds]
        for key in quiet:
            del self._known[key]
