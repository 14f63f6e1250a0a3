"""The leases that a worker holds, and until when it may act on them.

Sans-IO. Redis counts a lease from when it answered, we from when we asked; so ours ends first. A
lease whose time is over is not lost yet: nobody may have taken the shard, and the next renewal
tells. Until then the worker does nothing for the shard.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

TTL_SECONDS = 5.0
RENEW_SECONDS = 1.5
MARGIN_SECONDS = 0.5
"""For the clocks of two machines to differ in speed, and for what is on its way."""


@dataclass(slots=True)
class _Held:
    epoch: int
    until: float


@dataclass(slots=True)
class LeaseBook:
    """See the module's text. Times are of a monotonic clock, in seconds."""

    _held: dict[int, _Held] = field(default_factory=dict)
    _epochs: Mapping[int, int] | None = None

    def __contains__(self, shard: int) -> bool:
        return shard in self._held

    def epochs(self) -> Mapping[int, int]:
        """Epoch of each shard that we hold or may hold, as of now."""
        if self._epochs is None:
            self._epochs = {shard: held.epoch for shard, held in self._held.items()}
        return self._epochs

    def granted(self, shard: int, epoch: int, asked_at: float) -> None:
        """A lease that we had asked for is ours, at first or again."""
        known = self._held.get(shard)
        if known is None or known.epoch != epoch:
            self._epochs = None
        self._held[shard] = _Held(epoch, asked_at + TTL_SECONDS - MARGIN_SECONDS)

    def gone(self, shard: int) -> None:
        """The lease is somebody else's, or given back."""
        if self._held.pop(shard, None) is not None:
            self._epochs = None

    def lost(self, shards: Iterable[int], now: float) -> Collection[int] | None:
        """Which of these shards are not ours; None while that is not known of all."""
        lost = []
        for shard in shards:
            held = self._held.get(shard)
            if held is None:
                lost.append(shard)
            elif now >= held.until:
                return None
        return lost
