"""The bus inside one process: same guarantees and same failures as any other.

Everything here belongs to one event loop. `MemoryStreams` is the sans-IO part, which the
simulated network drives directly; `MemoryBus` adds the waiting.
"""

import asyncio
import uuid
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence

from amsync.bus.port import START, Parcel, Position, StreamEntry
from amsync.errors import BusError, BusFull

STREAM_BYTES = 64 * 1024 * 1024


class _Stream:
    def __init__(self) -> None:
        self.entries: deque[StreamEntry] = deque()
        self.bytes = 0
        self.readers: list[MemoryReader] = []

    def after(self, position: Position) -> list[StreamEntry]:
        """Entries behind a position."""
        positions = [entry.position for entry in self.entries]
        return list(self.entries)[bisect_right(positions, position) :]


class MemoryReader:
    """A queue of what the followed streams hold and its consumer has not read."""

    def __init__(self, streams: "MemoryStreams") -> None:
        self._streams = streams
        self._queue: deque[StreamEntry] = deque()
        self.on_ready: Callable[[], None] = lambda: None

    def follow(self, stream: str, after: Position) -> None:
        """Read a stream from behind `after`; what was queued of it before is dropped."""
        self.unfollow(stream)
        source = self._streams.open(stream)
        source.readers.append(self)
        self._queue.extend(source.after(after))
        if self._queue:
            self.on_ready()

    def unfollow(self, stream: str) -> None:
        """Stop reading a stream."""
        source = self._streams.open(stream)
        if self in source.readers:
            source.readers.remove(self)
            self._queue = deque(entry for entry in self._queue if entry.stream != stream)

    def push(self, entry: StreamEntry) -> None:
        """Called by the stream for every entry."""
        self._queue.append(entry)
        self.on_ready()

    def take(self, max_bytes: int) -> list[StreamEntry]:
        """What can be read now, possibly nothing."""
        taken: list[StreamEntry] = []
        size = 0
        while self._queue:
            size += self._queue[0].size_bytes
            if taken and size > max_bytes:
                break
            taken.append(self._queue.popleft())
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
        """What is there to take; adds it up."""
        return sum(entry.size_bytes for entry in self._queue)


class MemoryStreams:
    """All streams of one bus, without waiting."""

    def __init__(self, stream_bytes: int = STREAM_BYTES) -> None:
        self._stream_bytes = stream_bytes
        self._streams: dict[str, _Stream] = {}
        self._last = 0  # of all streams: a stream that is deleted and made again goes on growing

    def open(self, name: str) -> _Stream:
        """The stream of that name, made when missing."""
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = _Stream()
        return stream

    def append(self, name: str, data: bytes | Parcel) -> Position:
        """Add an entry and hand it to the readers. Raises BusFull."""
        stream = self.open(name)
        size = len(data) if isinstance(data, bytes) else data.size_bytes
        if stream.entries and stream.bytes + size > self._stream_bytes:
            raise BusFull(f"stream {name} holds {stream.bytes} bytes, allowed {self._stream_bytes}")
        self._last += 1
        entry = StreamEntry(name, (0, self._last), data, size)
        stream.entries.append(entry)
        stream.bytes += size
        for reader in stream.readers:
            reader.push(entry)
        return entry.position

    def trim(self, name: str, through: Position) -> None:
        """Forget entries up to and including a position."""
        stream = self.open(name)
        while stream.entries and stream.entries[0].position <= through:
            stream.bytes -= stream.entries.popleft().size_bytes

    def delete(self, name: str) -> None:
        """Forget a stream's entries; its readers keep what they have queued, and go on."""
        stream = self.open(name)
        stream.entries.clear()
        stream.bytes = 0
        if not stream.readers:
            del self._streams[name]

    def bytes_held(self, names: Sequence[str]) -> int:
        """Bytes in these streams."""
        found = (self._streams.get(name) for name in names)
        return sum(stream.bytes for stream in found if stream is not None)


class _WaitingReader(MemoryReader):
    def __init__(self, streams: MemoryStreams, bus: "MemoryBus") -> None:
        super().__init__(streams)
        self._bus = bus
        self._ready = asyncio.Event()
        self.on_ready = self._ready.set

    def wake(self) -> None:
        self._ready.set()
        self.on_ready()

    def take(self, max_bytes: int) -> list[StreamEntry]:
        """What can be read now, possibly nothing. Raises BusError when the bus is closed."""
        if self._bus.closed:
            raise BusError("the bus is closed")
        return super().take(max_bytes)

    async def read(self, max_bytes: int) -> Sequence[StreamEntry]:
        """Wait for something to read. Raises BusError when the bus is closed."""
        while True:
            taken = self.take(max_bytes)
            if taken:
                return taken
            self._ready.clear()
            await self._ready.wait()


class MemoryBus:
    """`Bus` for one process and one event loop.

    Parcels are handed on as they are, unless `packs`: then as bytes, as between processes.
    """

    def __init__(self, stream_bytes: int = STREAM_BYTES, *, packs: bool = False) -> None:
        self.streams = MemoryStreams(stream_bytes)
        self._packs = packs
        self.closed = False
        self._epoch = uuid.uuid4().hex
        self._readers: list[_WaitingReader] = []
        self.on_change: Callable[[], None] = lambda: None

    @property
    def is_connected(self) -> bool:
        """Always: `on_change` is never called."""
        return True

    @property
    def cluster_epoch(self) -> str:
        """Never changes: these streams are lost only together with the process."""
        return self._epoch

    async def append(self, stream: str, data: bytes | Parcel) -> Position:
        """Add an entry. Raises BusFull, or BusError when closed."""
        if self.closed:
            raise BusError("the bus is closed")
        if self._packs and not isinstance(data, bytes):
            data = data.pack()
        return self.streams.append(stream, data)

    def reader(self) -> _WaitingReader:
        """Make a reader that follows nothing yet."""
        reader = _WaitingReader(self.streams, self)
        self._readers.append(reader)
        return reader

    @property
    def unread_bytes(self) -> int:
        """What readers have got and their consumers have not taken."""
        return sum(reader.queued_bytes for reader in self._readers)

    async def held_bytes(self, streams: Sequence[str]) -> int:
        """Bytes of the entries in these streams."""
        return self.streams.bytes_held(streams)

    async def trim(self, stream: str, through: Position) -> None:
        """Forget entries up to and including a position."""
        self.streams.trim(stream, through)

    async def delete(self, stream: str) -> None:
        """Forget a stream."""
        self.streams.delete(stream)

    async def close(self) -> None:
        """Wake every waiting read with BusError."""
        self.closed = True
        for reader in self._readers:
            reader.wake()


__all__ = ["START", "STREAM_BYTES", "MemoryBus", "MemoryReader", "MemoryStreams"]
