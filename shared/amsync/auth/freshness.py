"""When the keys of an issuer are fetched, and how long they are good. No clock, no network here.

Keys are fetched again before their time is over, so that nobody waits. When the issuer is down
they are used for a while longer, and asked for ever more seldom. A token with an unknown key
asks for a fetch at once: its issuer may have new keys; but anybody can make up such a token, so
that is bounded.
"""

from collections.abc import Callable

MIN_LIFETIME_SECONDS = 300.0
DEFAULT_LIFETIME_SECONDS = 3600.0
MAX_LIFETIME_SECONDS = 86_400.0
"""A key that an issuer takes back is used no longer than this while the issuer can be reached."""

ASK_SECONDS = 30.0
"""Least time between fetches that are made for unknown keys, and from the last fetch to one."""

FIRST_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 60.0
_EARLY = 0.8  # of their lifetime


class Freshness:
    """The state of one issuer's keys. All times are of one clock, which the caller reads.

    Attributes:
        due_at: When they are to be fetched.
    """

    def __init__(self, max_stale_seconds: float, random: Callable[[], float]) -> None:
        """Begin without keys; `random` returns 0 to 1, so that gateways don't ask together."""
        self.due_at = 0.0
        self._max_stale = max_stale_seconds
        self._random = random
        self._usable_until = 0.0
        self._asked_at: float | None = None
        self._failures = 0

    def begins(self, now: float) -> None:
        """A fetch begins."""
        self._asked_at = now

    def succeeded(self, now: float, max_age: float | None) -> None:
        """Keys came; `max_age` is what the issuer said of their lifetime, in seconds."""
        lifetime = DEFAULT_LIFETIME_SECONDS if max_age is None else max_age
        lifetime = min(max(lifetime, MIN_LIFETIME_SECONDS), MAX_LIFETIME_SECONDS)
        self._failures = 0
        self._usable_until = now + lifetime + self._max_stale
        self.due_at = now + lifetime * _EARLY * (1 - 0.1 * self._random())

    def failed(self, now: float) -> None:
        """No keys came."""
        pause = min(FIRST_RETRY_SECONDS * 2.0**self._failures, MAX_RETRY_SECONDS)
        self._failures = min(self._failures + 1, 10)
        self.due_at = now + pause * (1 - 0.5 * self._random())

    def is_usable(self, now: float) -> bool:
        """Tell whether the last keys that came may be used still."""
        return now < self._usable_until

    def may_ask(self, now: float) -> bool:
        """Tell whether a token may bring about a fetch that is not due."""
        return self._asked_at is None or now >= self._asked_at + ASK_SECONDS


def max_age_of(cache_control: str) -> float | None:
    """The lifetime that an answer's Cache-Control names; None: it names none that can be read."""
    lifetime = None
    for each in cache_control.lower().split(","):
        name, _, value = each.strip().partition("=")
        if name in ("no-store", "no-cache"):
            return 0.0
        if name == "max-age":
            digits = value.strip('"')
            if not (digits.isascii() and digits.isdigit()) or len(digits) > 10:
                return None
            lifetime = float(digits)
    return lifetime
