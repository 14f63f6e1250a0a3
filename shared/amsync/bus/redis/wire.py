"""One connection to Redis: commands out, replies in, first in first out.

Not here: connecting, logging in, doing it again (`client`). A wire that is lost stays lost.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis

from amsync.errors import BusError

Argument = bytes | str | int
pack = cast(Callable[[tuple[Argument, ...]], bytes], hiredis.pack_command)

TICKS = 10
"""A time limit is counted in so many steps of our own running: a process that was stopped finds
the answers in its socket, and must not take its own sleep for the server's. A step in which bytes
went either way doesn't count: what is large takes its time, and sent again would take it again."""

_LOST = frozenset({"LOADING", "READONLY", "MASTERDOWN", "UNBLOCKED"})


class ReplyError(BusError):
    """Redis answered with an error: the command was not done.

    Attributes:
        code: Its first word, such as NOSCRIPT.
    """

    def __init__(self, text: str) -> None:
        super().__init__(f"Redis refused a command: {text}")
        self.code = text.partition(" ")[0]


class Wire(asyncio.Protocol):
    """The connection.

    Args:
        on_lost: Called once, with the reason, after every outstanding call has failed.
        answer_seconds: A call that waits longer for its answer, while no bytes go either way,
            loses the connection.
        on_push: Called with everything that comes while no call waits, errors too. None: there
            is no such thing.

    Attributes:
        lost_because: Why it was lost, None while it can be used.
        is_closed: Done when its socket is closed.
    """

    def __init__(
        self,
        on_lost: Callable[["Wire", str], None],
        answer_seconds: float,
        on_push: Callable[[Any], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_lost, self._on_push = on_lost, on_push
        self._reader = hiredis.Reader(protocolError=BusError, replyError=ReplyError)
        self._waiting: deque[tuple[asyncio.Future[Any], int]] = deque()
        self._transport: asyncio.Transport | None = None
        self._step_seconds = answer_seconds / TICKS
        self._tick = 0
        self._has_moved = False
        self._unsent_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self.lost_because: str | None = None
        self.is_closed: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

    def call(self, command: tuple[Argument, ...], wait_seconds: float = 0) -> asyncio.Future[Any]:
        """Send a command. The server may take `wait_seconds` longer over it than over others."""
        return self.call_many([command], wait_seconds)[0]

    def call_many(
        self, commands: Sequence[tuple[Argument, ...]], wait_seconds: float = 0
    ) -> list[asyncio.Future[Any]]:
        """Send commands in one write."""
        packed = b"".join([pack(command) for command in commands])
        return self.send(packed, len(commands), wait_seconds)

    def send(self, packed: bytes, count: int, wait_seconds: float) -> list[asyncio.Future[Any]]:
        """Send so many commands that are packed already."""
        answers: list[asyncio.Future[Any]] = [self._loop.create_future() for _ in range(count)]
        if self.lost_because is not None or self._transport is None:
            for answer in answers:
                answer.set_exception(BusError("Redis is out of reach; nothing was sent"))
            return answers
        last = self._tick + TICKS + 1 + int(wait_seconds / self._step_seconds)
        self._waiting.extend((answer, last) for answer in answers)
        if self._timer is None:
            self._timer = self._loop.call_later(self._step_seconds, self._watch)
        self._transport.write(packed)
        return answers

    def post(self, packed: bytes) -> None:
        """Send commands whose answers are for `on_push`."""
        if self.lost_because is None and self._transport is not None:
            self._transport.write(packed)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._has_moved = True
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._answer(reply)
        except BusError as error:
            self.lose(f"it does not speak Redis: {error}")
        if self._timer is not None and not self._waiting:
            self._timer.cancel()  # a wake of an idle process costs more than a timer
            self._timer = None

    def _answer(self, reply: Any) -> None:
        if not self._waiting:
            if self._on_push is not None:
                self._on_push(reply)
                return
            self.lose("an answer that nobody asked for")
            return
        answer, _ = self._waiting.popleft()
        if isinstance(reply, ReplyError):
            if not answer.done():
                answer.set_exception(reply)
            if reply.code in _LOST:
                self.lose(f"it answers {reply.code}")
        elif not answer.done():
            answer.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.lose(str(exc) if exc else "closed by the other side")
        self.is_closed.set_result(None)

    def lose(self, reason: str) -> None:
        """Close it; every outstanding call fails with BusError."""
        if self.lost_because is not None:
            return
        self.lost_because = reason
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            answer, _ = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(BusError(f"Redis was lost before it answered: {reason}"))
        self._on_lost(self, reason)

    def _watch(self) -> None:
        unsent = 0 if self._transport is None else self._transport.get_write_buffer_size()
        if not self._has_moved and unsent >= self._unsent_bytes:
            self._tick += 1
        self._has_moved, self._unsent_bytes = False, unsent
        self._timer = None
        if not self._waiting:
            return
        if self._waiting[0][1] < self._tick:
            self.lose("no answer for too long")
        else:
            self._timer = self._loop.call_later(self._step_seconds, self._watch)
