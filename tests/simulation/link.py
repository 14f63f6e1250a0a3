"""One WebSocket: two ordered pipes that take time and may be cut, each end noticing later."""

from collections import deque
from collections.abc import Callable
from random import Random

from .clock import Clock


class Pipe:
    """One direction. Frames never overtake each other; `cut` loses all but a few of them."""

    def __init__(self, clock: Clock, random: Random, slowness: float) -> None:
        self._clock, self._random, self._slowness = clock, random, slowness
        self._frames: deque[bytes] = deque()
        self._last = 0.0
        self.is_open = True
        self.deliver: Callable[[bytes], None] = lambda frame: None

    def put(self, frame: bytes) -> None:
        if not self.is_open:
            return
        delay = self._random.random() ** 3 * self._slowness
        self._last = max(self._last, self._clock.now + delay)
        self._frames.append(frame)
        self._clock.later(self._last - self._clock.now, self._arrive)

    def _arrive(self) -> None:
        if self._frames:
            self.deliver(self._frames.popleft())

    def cut(self, *, keep: bool) -> None:
        """End it; what is under way still arrives, or some first part of it, or nothing."""
        self.is_open = False
        left = len(self._frames) if keep else self._random.randint(0, len(self._frames))
        while len(self._frames) > left:
            self._frames.pop()

    def stop(self) -> None:
        """Nobody listens any more."""
        self.is_open = False
        self._frames.clear()

    def empty_in(self) -> float:
        """Seconds until what is under way has arrived."""
        return max(0.0, self._last - self._clock.now) if self._frames else 0.0


class Link:
    """Both directions of a connection and who is told of its end."""

    def __init__(self, clock: Clock, random: Random) -> None:
        slowness = random.choice((0.005, 0.05, 0.3))
        self._clock, self._random = clock, random
        self.up = Pipe(clock, random, slowness)
        self.down = Pipe(clock, random, slowness)
        self.client_lost: Callable[[], None] = lambda: None
        self.server_lost: Callable[[], None] = lambda: None

    @property
    def is_open(self) -> bool:
        return self.up.is_open and self.down.is_open

    def cut(self) -> None:
        """The network fails: messages under way are lost, each end notices at its own time."""
        self.up.cut(keep=False)
        self.down.cut(keep=False)
        random = self._random
        self._tell_client(self.down.empty_in() + random.choice((0.0, 0.1, 2.0)))
        self._tell_server(self.up.empty_in() + random.choice((0.0, 0.1, 2.0, 20.0)))

    def client_closes(self) -> None:
        """The client ends it: what it sent before still arrives, or not."""
        self.down.stop()
        self.up.cut(keep=self._random.random() < 0.5)
        self._tell_server(self.up.empty_in())

    def server_closes(self) -> None:
        """The server ends it, or its process dies."""
        self.up.stop()
        self.down.cut(keep=self._random.random() < 0.5)
        self._tell_server(0.01)
        self._tell_client(self.down.empty_in() + 0.01)

    def _tell_client(self, seconds: float) -> None:
        self._clock.later(seconds, lambda: self.client_lost())  # noqa: PLW0108 - set later

    def _tell_server(self, seconds: float) -> None:
        self._clock.later(seconds, lambda: self.server_lost())  # noqa: PLW0108 - set later
