"""Reads many streams over a connection of its own, ahead of its consumer but not far.

Holds: what was queued of a stream is dropped when that is followed anew, and so is what was on
its way. A stream that is to be read from behind a position which it has never reached has lost
entries, and is read from its start. So is every stream when the connection was lost, since a
Redis that came back may have lost entries and number new ones below the old.

Not here: dropping repetitions, which is the consumer's (B1 of the port).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from amsync.bus.port import START, Position, StreamEntry
from amsync.bus.redis.client import RedisClient
from amsync.bus.redis.scripts import LAST_ID
from amsync.bus.redis.wire import ReplyError, Wire
from amsync.errors import BusError, ConfigError

logger = logging.getLogger(__name__)

AHEAD_BYTES = 8 * 1024 * 1024
BLOCK_SECONDS = 2.0
FIRST_COUNT = 16
MOST_COUNT = 256
UNBLOCK_AGAIN_SECONDS = 0.005
REFUSED_SECONDS = 1.0


class _Followed:
    """A stream as it was followed once; followed anew it is another one."""

    __slots__ = ("after", "is_checked", "packed_id", "packed_name", "stream")

    def __init__(self, stream: str, after: Position) -> None:
        self.stream = stream
        self.packed_name = _bulk(stream.encode())
        self.is_checked = after == START
        self.begin_after(after)

    def begin_after(self, after: Position) -> None:
        self.after = after
        self.packed_id = _bulk(b"%d-%d" % after)


class RedisReader:
    """`Reader` over Redis.

    Args:
        url, name, answer_seconds: Of its connection, see `RedisClient`.
        unblock: Make Redis end a wait of this client id; gives how many it has ended.
        ahead_bytes: It reads no further while its consumer has left so many. One answer may pass
            the bound: by COUNT entries of every stream, and COUNT shrinks when it does.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        answer_seconds: float,
        unblock: Callable[[int], asyncio.Future[Any]],
        ahead_bytes: int = AHEAD_BYTES,
    ) -> None:
        self._client = RedisClient(
            url, name=name, answer_seconds=answer_seconds, prepare=self._from_the_start
        )
        self._unblock = unblock
        self._ahead_bytes = ahead_bytes
        self._followed: dict[bytes, _Followed] = {}
        self._queue: deque[StreamEntry] = deque()
        self._queued_bytes = 0
        self._count = FIRST_COUNT
        self._waiting: asyncio.Future[Any] | None = None
        self._is_stale = False  # a stream was followed that the XREAD on its way does not name
        self._is_unblocking = False
        self._was_connected = False
        self._is_closed = False
        self._go_on = asyncio.Event()
        self._ready = asyncio.Event()
        self.on_ready: Callable[[], None] = lambda: None
        self._client.start()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def follow(self, stream: str, after: Position) -> None:
        """Read a stream from behind `after`; what was queued of it before is dropped."""
        self.unfollow(stream)
        self._followed[stream.encode()] = _Followed(stream, after)
        self._end_waiting()

    def unfollow(self, stream: str) -> None:
        """Stop reading a stream."""
        if self._followed.pop(stream.encode(), None) is not None:
            self._queue = deque(entry for entry in self._queue if entry.stream != stream)
            self._queued_bytes = sum(entry.size_bytes for entry in self._queue)
            self._go_on.set()

    def begin_again(self) -> None:
        """Read every followed stream from its start: Redis lost them, or may have."""
        self._followed = {
            name: _Followed(one.stream, START) for name, one in self._followed.items()
        }
        self._end_waiting()

    def take(self, max_bytes: int) -> list[StreamEntry]:
        """What can be read now, possibly nothing. Raises BusError when the bus is closed."""
        if self._is_closed:
            raise BusError("the bus is closed")
        taken: list[StreamEntry] = []
        size = 0
        while self._queue:
            size += self._queue[0].size_bytes
            if taken and size > max_bytes:
                break
            entry = self._queue.popleft()
            self._queued_bytes -= entry.size_bytes
            taken.append(entry)
        if self._queued_bytes < self._ahead_bytes:
            self._go_on.set()
        return taken

    @property
    def has_entries(self) -> bool:
        """There is something to take."""
        return bool(self._queue)

    @property
    def queued_bytes(self) -> int:
        """What was read and not taken, for metrics."""
        return self._queued_bytes

    @property
    def client_id(self) -> int:
        """What Redis calls its present connection."""
        return self._client.client_id

    async def read(self, max_bytes: int) -> Sequence[StreamEntry]:
        """Wait for something to read. Raises BusError when the bus is closed."""
        while True:
            taken = self.take(max_bytes)
            if taken:
                return taken
            self._ready.clear()
            await self._ready.wait()

    async def close(self) -> None:
        """Stop, and wake who waits."""
        if self._is_closed:
            return
        self._is_closed = True
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._client.close()
        self._ready.set()
        self.on_ready()

    async def _run(self) -> None:
        while True:
            try:
                await self._client.wait_connected()
                if not self._followed or self._queued_bytes >= self._ahead_bytes:
                    self._go_on.clear()
                    await self._go_on.wait()
                elif await self._check():
                    await self._read_once()
            except (ReplyError, ConfigError) as error:
                logger.warning("Redis refuses to be read, trying on", extra={"reason": str(error)})
                await asyncio.sleep(REFUSED_SECONDS)
            except BusError:
                await asyncio.sleep(0)  # lost: what follows waits for the next connection

    async def _read_once(self) -> None:
        asked = dict(self._followed)
        self._is_stale = False
        (self._waiting,) = self._client.send(self._command(asked), 1, BLOCK_SECONDS)
        try:
            reply = await self._waiting
        finally:
            self._waiting = None
        if reply is not None:
            self._take_in(reply, asked)

    def _command(self, asked: dict[bytes, _Followed]) -> bytes:
        """XREAD of all streams, by parts packed before: 64 names and ids are 90 us to pack."""
        options = (b"COUNT", b"%d" % self._count, b"BLOCK", b"%d" % round(BLOCK_SECONDS * 1000))
        parts = [b"*%d\r\n" % (2 + len(options) + 2 * len(asked))]
        parts += [_bulk(word) for word in (b"XREAD", *options, b"STREAMS")]
        parts += [one.packed_name for one in asked.values()]
        parts += [one.packed_id for one in asked.values()]
        return b"".join(parts)

    async def _check(self) -> bool:
        """A stream that has never come as far as where we are to begin has lost its entries."""
        unchecked = [one for one in self._followed.values() if not one.is_checked]
        ids = await asyncio.gather(
            *(self._client.script(LAST_ID, (one.stream,)) for one in unchecked)
        )
        for one, last in zip(unchecked, ids, strict=True):
            one.is_checked = True
            if last is None or _position(last) < one.after:
                one.begin_after(START)
        return bool(self._followed) and all(one.is_checked for one in self._followed.values())

    def _take_in(self, reply: list[Any], asked: dict[bytes, _Followed]) -> None:
        size = 0
        is_cut = False
        for name, entries in reply:
            is_cut |= len(entries) == self._count
            followed = asked[name]
            if self._followed.get(name) is not followed:
                continue
            for entry_id, fields in entries:
                position = _position(entry_id)
                data = fields[1]
                size += len(data)
                self._queue.append(StreamEntry(followed.stream, position, data, len(data)))
            followed.begin_after(position)
        self._queued_bytes += size
        if size > self._ahead_bytes:
            self._count = max(1, self._count // 2)
        elif is_cut and size < self._ahead_bytes // 8:
            self._count = min(MOST_COUNT, self._count * 2)
        if self._queue:
            self._ready.set()
            self.on_ready()

    def _end_waiting(self) -> None:
        self._is_stale = True
        self._go_on.set()
        if self._waiting is not None and not self._is_unblocking:
            self._is_unblocking = True
            asyncio.get_running_loop().call_soon(self._end_wait)

    def _end_wait(self) -> None:
        """Make the XREAD on its way return; it may not have begun to wait, so try until it has."""
        if self._waiting is None or not self._is_stale:
            self._is_unblocking = False
        else:
            self._unblock(self._client.client_id).add_done_callback(self._unblocked)

    def _unblocked(self, answer: asyncio.Future[Any]) -> None:
        if not answer.cancelled() and answer.exception() is None and answer.result() == 1:
            self._is_unblocking = False
        else:
            asyncio.get_running_loop().call_later(UNBLOCK_AGAIN_SECONDS, self._end_wait)

    async def _from_the_start(self, _: Wire) -> None:
        if self._was_connected:
            self.begin_again()
        self._was_connected = True


def _position(entry_id: bytes) -> Position:
    ms, _, sequence = entry_id.partition(b"-")
    return int(ms), int(sequence)


def _bulk(data: bytes) -> bytes:
    """A word of a command, as Redis reads it."""
    return b"$%d\r\n%b\r\n" % (len(data), data)
