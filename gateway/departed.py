"""Who was connected a moment ago, so that a client that comes back is told from a new one.

Sans-IO, and for metrics only: what is forgotten, or was at another gateway, counts as new.
"""

from collections import OrderedDict

MOST = 10_000
"""A mebibyte or so."""

REMEMBERED_SECONDS = 600.0


class Departed:
    """Those who left, the longest ago first; only hashes of who they were are kept."""

    def __init__(self) -> None:
        self._left_at: OrderedDict[int, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left_at)

    def left(self, who: tuple[str, str], now: float) -> None:
        """Note who left: identity and peer id."""
        key = hash(who)
        self._left_at.pop(key, None)
        self._left_at[key] = now
        while len(self._left_at) > MOST:
            self._left_at.popitem(last=False)

    def comes_back(self, who: tuple[str, str], now: float) -> bool:
        """Tell whether who joins had left a moment ago; that is then forgotten."""
        left_at = self._left_at.pop(hash(who), None)
        return left_at is not None and now - left_at <= REMEMBERED_SECONDS

    def prune(self, now: float) -> None:
        """Forget those who left too long ago."""
        while self._left_at:
            key, left_at = next(iter(self._left_at.items()))
            if now - left_at <= REMEMBERED_SECONDS:
                return
            del self._left_at[key]
