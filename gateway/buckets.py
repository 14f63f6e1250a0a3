"""Rates: how much of something may still be done by one client, address or identity.

Sans-IO; `now` is handed in, in seconds of any clock that doesn't go back.
"""

from collections.abc import Callable


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


class Buckets:
    """A bucket for each key; those that are full again are forgotten by `prune`."""

    def __init__(self, per_minute: float) -> None:
        self._per_minute = per_minute
        self._buckets: dict[str, Bucket] = {}

    def of(self, key: str) -> Bucket:
        """The bucket of a key, the same one as long as something is spent or `prune` keeps it."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(self._per_minute)
        return bucket

    def prune(self, now: float, is_in_use: Callable[[str], bool] = lambda _key: False) -> None:
        """Forget what is full and not in use by somebody who keeps the object."""
        full = [key for key, bucket in self._buckets.items() if bucket.is_full(now)]
        for key in full:
            if not is_in_use(key):
                del self._buckets[key]


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
