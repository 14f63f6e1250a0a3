"""Follows many streams for one consumer, ahead of it but not far.

Entries are pushed: the script that appends one publishes it too (append.lua), over a connection
that only listens. What is missed there is read with XREAD over another one: what stood in a
stream before it was followed, what came while the consumer was behind, what is too large to be
pushed. A stream is *live* when a whole XREAD, asked after its subscription began, has come with
nothing missed meanwhile; from then on pushes alone continue it.

Holds: an entry is queued only right behind the one before it, which Redis's count of bytes shows;
else the stream is read. While nothing is pushed, streams are read every `POLL_SECONDS`; when all
are live, every `CHECK_SECONDS`, and it is seen that the server is still the master. What was
queued of a stream is dropped when that is followed anew. A stream that is to be read from behind
a position which it has never reached has lost entries, and is read from its start. So is every
stream when the reading connection was lost, since a Redis that came back may have lost entries
and number new ones below the old.

Not here: dropping repetitions, which is the consumer's (B1 of the port).
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from amsync.bus.port import START, Position, StreamEntry
from amsync.bus.redis.client import RedisClient
from amsync.bus.redis.keys import channel_suffix
from amsync.bus.redis.scripts import LAST_ID
from amsync.bus.redis.wire import ReplyError, Wire, pack
from amsync.errors import BusError, ConfigError
from amsync.turns import STEP_MARGIN_SECONDS, seconds_to_step

logger = logging.getLogger(__name__)

AHEAD_BYTES = 8 * 1024 * 1024
CHECK_SECONDS = 2.0
POLL_SECONDS = 0.02
FIRST_COUNT = 16
MOST_COUNT = 256
REFUSED_SECONDS = 1.0
MOST_UNHEARD = 3
"""So many checks may pass without a sign of the pushing connection."""

_ROLE = pack(("ROLE",))
_PING = pack(("PING",))


class _Followed:
    """A stream as it was followed once; followed anew it is another one.

    Attributes:
        after: The last entry that was queued.
        added: The stream's count of bytes there; None if it is not known.
        is_subscribed: What is appended from now on is pushed to us.
        is_live: Everything up to `after` was queued, and what follows will be pushed.
        has_missed: Something may have been appended that the XREAD on its way does not bring.
    """

    __slots__ = (
        "added",
        "after",
        "has_missed",
        "is_checked",
        "is_live",
        "is_subscribed",
        "packed_name",
        "stream",
    )

    def __init__(self, stream: str, after: Position, *, is_subscribed: bool) -> None:
        self.stream = stream
        self.packed_name = _bulk(stream.encode())
        self.is_checked = after == START
        self.after = after
        self.added: int | None = None
        self.is_subscribed = is_subscribed
        self.is_live = False
        self.has_missed = False

    def miss(self) -> None:
        """Something came that is not queued: it has to be read."""
        self.is_live, self.has_missed = False, True

    def continues(self, added: int, size: int) -> bool:
        """Whether an entry that ends at this count is right behind the last one."""
        return self.added is None or added - size == self.added


class RedisReader:
    """`Reader` over Redis.

    Args:
        url, name, answer_seconds: Of its connections, see `RedisClient`.
        ahead_bytes: It queues no further while its consumer has left so many. One answer may pass
            the bound: by COUNT entries of every stream, and COUNT shrinks when it does.
    """

    def __init__(
        self, url: str, *, name: str, answer_seconds: float, ahead_bytes: int = AHEAD_BYTES
    ) -> None:
        self._client = RedisClient(
            url, name=name, answer_seconds=answer_seconds, prepare=self._from_the_start
        )
        self._pushes = RedisClient(
            url, name=f"{name}-pushes", answer_seconds=answer_seconds, on_push=self._push
        )
        self._pushes.on_change = self._pushes_changed
        self._suffix = channel_suffix(self._client.database).encode()
        self._ahead_bytes = ahead_bytes
        self._followed: dict[bytes, _Followed] = {}
        self._queue: deque[StreamEntry] = deque()
        self._queued_bytes = 0
        self._count = FIRST_COUNT
        self._next_check = 0.0
        self._unheard = 0
        self._is_refused = False
        self._is_full = False
        self._was_connected = False
        self._is_closed = False
        self._go_on = asyncio.Event()
        self._ready = asyncio.Event()
        self.on_ready: Callable[[], None] = lambda: None
        self._client.start()
        self._pushes.start()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def follow(self, stream: str, after: Position) -> None:
        """Read a stream from behind `after`; what was queued of it before is dropped."""
        name = stream.encode()
        known = self._followed.get(name)
        if known is None:
            self._pushes.post(pack(("SUBSCRIBE", name + self._suffix)))
        else:
            self._forget_queued(stream)
        is_subscribed = known is not None and known.is_subscribed
        self._followed[name] = _Followed(stream, after, is_subscribed=is_subscribed)
        self._go_on.set()

    def unfollow(self, stream: str) -> None:
        """Stop reading a stream."""
        name = stream.encode()
        if self._followed.pop(name, None) is not None:
            self._pushes.post(pack(("UNSUBSCRIBE", name + self._suffix)))
            self._forget_queued(stream)

    def _forget_queued(self, stream: str) -> None:
        self._queue = deque(entry for entry in self._queue if entry.stream != stream)
        self._queued_bytes = sum(entry.size_bytes for entry in self._queue)
        self._go_on.set()

    def begin_again(self) -> None:
        """Read every followed stream from its start: Redis lost them, or may have."""
        self._followed = {
            name: _Followed(one.stream, START, is_subscribed=one.is_subscribed)
            for name, one in self._followed.items()
        }
        self._go_on.set()

    def check(self) -> None:
        """See now whether something is missing, and whether the server is still the master."""
        self._next_check = 0.0
        self._go_on.set()

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
        if self._is_full and self._queued_bytes < self._ahead_bytes:
            self._go_on.set()
        return taken

    @property
    def has_entries(self) -> bool:
        """There is something to take."""
        return bool(self._queue)

    @property
    def oldest(self) -> StreamEntry | None:
        """What would be taken next."""
        return self._queue[0] if self._queue else None

    @property
    def queued_bytes(self) -> int:
        """What was read and not taken."""
        return self._queued_bytes

    @property
    def client_ids(self) -> tuple[int, int]:
        """What Redis calls its present connections: the reading and the pushing one."""
        return self._client.client_id, self._pushes.client_id

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
        await self._pushes.close()
        self._ready.set()
        self.on_ready()

    # -- what is pushed

    def _pushes_changed(self) -> None:
        self._unheard = 0
        for one in self._followed.values():
            one.is_subscribed = False
            one.miss()
        if self._pushes.is_connected and self._followed:
            channels = [name + self._suffix for name in self._followed]
            self._pushes.post(pack(("SUBSCRIBE", *channels)))
        self._go_on.set()

    def _push(self, reply: Any) -> None:
        self._unheard = 0
        if isinstance(reply, ReplyError):
            if not self._is_refused:
                self._is_refused = True
                extra = {"error": str(reply)}
                logger.warning("Redis refuses to push; streams are read often", extra=extra)
            return
        if not isinstance(reply, list):
            return
        kind, channel, rest = (*reply, b"")[:3]
        # Of an answer to PING there is no channel.
        followed = self._followed.get((channel or b"").removesuffix(self._suffix))
        if followed is None:
            return
        if kind == b"message":
            self._pushed(followed, rest)
        else:
            followed.is_subscribed = kind == b"subscribe"
            followed.miss()
            self._go_on.set()

    def _pushed(self, followed: _Followed, payload: bytes) -> None:
        if not followed.is_live:
            followed.has_missed = True
            return
        entry_id, _, rest = payload.partition(b" ")
        position = _position(entry_id)
        if position <= followed.after:
            return
        count, mark, data = rest.partition(b" ")
        size, added = len(data), int(count)
        if mark and followed.continues(added, size) and self._queued_bytes < self._ahead_bytes:
            followed.after, followed.added = position, added
            self._queue.append(StreamEntry(followed.stream, position, data, size))
            self._queued_bytes += size
            self._tell()
        else:
            followed.miss()
            self._go_on.set()

    def _tell(self) -> None:
        self._ready.set()
        self.on_ready()

    # -- what is read

    async def _run(self) -> None:
        while True:
            try:
                await self._client.wait_connected()
                self._go_on.clear()
                self._is_full = self._queued_bytes >= self._ahead_bytes
                if self._is_full or not self._followed:
                    await self._go_on.wait()
                else:
                    await self._look()
            except (ReplyError, ConfigError) as error:
                logger.warning("Redis refuses to be read, trying on", extra={"error": str(error)})
                await asyncio.sleep(REFUSED_SECONDS)
            except BusError:
                await asyncio.sleep(0)  # lost: what follows waits for the next connection

    async def _look(self) -> None:
        """Read what is not live, or all when it is time to; else rest."""
        now = time.monotonic()
        is_due = now >= self._next_check - STEP_MARGIN_SECONDS
        asked = {k: one for k, one in self._followed.items() if is_due or not one.is_live}
        if not asked:
            await self._rest(self._next_check - now)
            return
        if is_due:
            self._next_check = now + seconds_to_step(CHECK_SECONDS)
            self._listen()
        await self._check_positions(asked)
        found_some = await self._read_once(asked)
        if not found_some and not any(one.is_subscribed for one in asked.values()):
            await self._rest(POLL_SECONDS)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._go_on.wait()
        except TimeoutError:
            return

    def _listen(self) -> None:
        self._unheard += 1
        if self._unheard > MOST_UNHEARD:
            self._pushes.lose("nothing was heard for too long")
        self._pushes.post(_PING)

    async def _read_once(self, asked: dict[bytes, _Followed]) -> bool:
        """XREAD; returns whether something new came."""
        for one in asked.values():
            one.has_missed = not one.is_subscribed
        command = _ROLE + self._command(asked)
        role, reply = await asyncio.gather(*self._client.send(command, 2, 0))
        if role[0] != b"master":
            self._client.lose("it is no master any more")
            return False
        return self._take_in(dict(reply or ()), asked)

    def _command(self, asked: dict[bytes, _Followed]) -> bytes:
        """XREAD of these streams, by names packed before: 64 of them are 90 us to pack."""
        parts = [b"*%d\r\n" % (4 + 2 * len(asked))]
        parts += [_bulk(word) for word in (b"XREAD", b"COUNT", b"%d" % self._count, b"STREAMS")]
        parts += [one.packed_name for one in asked.values()]
        parts += [_bulk(b"%d-%d" % one.after) for one in asked.values()]
        return b"".join(parts)

    async def _check_positions(self, asked: dict[bytes, _Followed]) -> None:
        """A stream that has never come as far as where we are to begin has lost its entries."""
        unchecked = [one for one in asked.values() if not one.is_checked]
        ids = await asyncio.gather(
            *(self._client.script(LAST_ID, (one.stream,)) for one in unchecked)
        )
        for one, last in zip(unchecked, ids, strict=True):
            one.is_checked = True
            if last is None or _position(last) < one.after:
                one.after = START

    def _take_in(self, found: dict[bytes, Any], asked: dict[bytes, _Followed]) -> bool:
        size = 0
        is_cut = False
        for name, followed in asked.items():
            if self._followed.get(name) is not followed:
                continue
            entries = found.get(name, ())
            for entry_id, fields in entries:
                position = _position(entry_id)
                if position <= followed.after:  # was pushed meanwhile
                    continue
                data = fields[1]
                size += len(data)
                self._queue.append(StreamEntry(followed.stream, position, data, len(data)))
                followed.after, followed.added = position, int(fields[3])
            is_whole = len(entries) < self._count
            is_cut |= not is_whole
            followed.is_live = is_whole and not followed.has_missed
        self._queued_bytes += size
        if size > self._ahead_bytes:
            self._count = max(1, self._count // 2)
        elif is_cut and size < self._ahead_bytes // 8:
            self._count = min(MOST_COUNT, self._count * 2)
        if size:
            self._tell()
        return size > 0

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
