"""The bus over Redis or Valkey: the `Bus` port for gateways and workers in many processes.

Holds: an append is one script, so that its bound is kept whoever else appends; a gateway's
stream ends by itself 60 s after the last append to it, so a late append to a dead gateway leaves
nothing behind; every stream's keys are in one Redis Cluster slot. Redis is a transport: nothing
here survives its loss, and `cluster_epoch` tells. When Redis has reached its `maxmemory`, only
appends to shards' streams are refused: what empties these goes on, answers included, and what
operators order.

Not here: who owns a shard and who is alive (`leases`, `cluster`).
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence

from amsync.bus.memory import STREAM_BYTES
from amsync.bus.port import Parcel, Position, is_access_stream, is_gateway_stream
from amsync.bus.redis.client import ANSWER_SECONDS, RedisClient
from amsync.bus.redis.keys import channel_suffix, cluster_key, lease_key, size_key
from amsync.bus.redis.leases import Lease
from amsync.bus.redis.memory import ServerMemory, read_memory
from amsync.bus.redis.reader import AHEAD_BYTES, RedisReader
from amsync.bus.redis.scripts import APPEND, APPEND_WHEN_FULL, DELETE, TRIM
from amsync.bus.redis.wire import Wire
from amsync.errors import BusError, BusFull, StaleLease

GATEWAY_STREAM_MS = 60_000
DELETED_STREAM_MS = 60_000


class RedisBus:
    """`Bus` over one Redis. `open` it, on the loop on which it is used; `close` it at the end.

    Args:
        url: See `amsync.bus.redis.address`.
        prefix: Of every key; one cluster has one.
        name: What CLIENT LIST shows.
        stream_bytes: Bound of each stream.
        ahead_bytes: Bound of what each reader has read and its consumer has not taken.
        answer_seconds: A command that waits longer for its answer loses the connection.

    Attributes:
        client: The connection of everything but readers, free to use for other commands.
        on_change: Called on the loop when `is_connected` has changed. Must not raise.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "amsync",
        name: str = "amsync",
        stream_bytes: int = STREAM_BYTES,
        ahead_bytes: int = AHEAD_BYTES,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._url = url
        self._prefix = prefix
        self._name = name
        self._stream_bytes = stream_bytes
        self._ahead_bytes = ahead_bytes
        self._answer_seconds = answer_seconds
        self._epoch = ""
        self._readers: list[RedisReader] = []
        self._numbers = itertools.count(1)
        self._is_closed = False
        self.on_change: Callable[[], None] = lambda: None
        self.client = RedisClient(
            url, name=name, answer_seconds=answer_seconds, prepare=self._look_for_epoch
        )
        self.client.on_change = self._changed
        self._suffix = channel_suffix(self.client.database)

    async def open(self) -> None:
        """Connect, however long it takes.

        Raises:
            ConfigError: The URL is wrong, or Redis refuses our name and password.
        """
        self.client.start()
        await self.client.wait_connected()

    async def memory(self) -> ServerMemory | None:
        """What Redis may hold and holds; None if it doesn't say. Raises BusError."""
        return await read_memory(self.client)

    @property
    def is_connected(self) -> bool:
        """Appends can be made. Readers, which have connections of their own, don't count."""
        return self.client.is_connected

    @property
    def cluster_epoch(self) -> str:
        """Of the cluster's record, as of the last connecting or `look_for_epoch`; "" for none."""
        return self._epoch

    async def look_for_epoch(self) -> str:
        """Read the cluster epoch again: Redis may lose everything without losing us.

        When it is another one, or none, every reader begins again at the start of its streams.
        """
        self._take_epoch(await self.client.call("HGET", cluster_key(self._prefix), "epoch"))
        return self._epoch

    async def append(self, stream: str, data: bytes | Parcel) -> Position:
        """Add an entry. Raises BusFull, or BusError: not known whether it was added."""
        if self._is_closed:
            raise BusError("the bus is closed")
        if not isinstance(data, bytes):
            data = data.pack()
        is_outbound = is_gateway_stream(stream)
        life = GATEWAY_STREAM_MS if is_outbound else 0
        script = APPEND_WHEN_FULL if is_outbound or is_access_stream(stream) else APPEND
        keys = (stream, size_key(stream))
        channel = stream + self._suffix
        entry_id = await self.client.script(script, keys, data, self._stream_bytes, life, channel)
        if entry_id is None:
            raise BusFull(f"stream {stream} is full, allowed are {self._stream_bytes} bytes")
        ms, _, sequence = entry_id.partition(b"-")
        return int(ms), int(sequence)

    def reader(self) -> RedisReader:
        """Make a reader that follows nothing yet, with connections of its own."""
        reader = RedisReader(
            self._url,
            name=f"{self._name}-reader-{next(self._numbers)}",
            answer_seconds=self._answer_seconds,
            ahead_bytes=self._ahead_bytes,
        )
        self._readers.append(reader)
        return reader

    @property
    def unread_bytes(self) -> int:
        """What readers have got and their consumers have not taken."""
        return sum(reader.queued_bytes for reader in self._readers)

    async def held_bytes(self, streams: Sequence[str]) -> int:
        """Bytes of the entries in these streams, in one round trip. Raises BusError."""
        commands = [("HMGET", size_key(stream), "added", "trimmed") for stream in streams]
        sizes = await asyncio.gather(*self.client.call_many(commands))
        return sum(int(added or 0) - int(trimmed or 0) for added, trimmed in sizes)

    async def trim(self, stream: str, through: Position, lease: Lease | None = None) -> None:
        """Forget entries up to and including a position.

        Args:
            lease: Do so only if this lease is held now.

        Raises:
            StaleLease: It is not; nothing was forgotten.
            BusError: Not known whether it was done.
        """
        ms, sequence = through
        keys = [stream, size_key(stream)]
        held: tuple[str, int] | tuple[()] = ()
        if lease is not None:
            keys.append(lease_key(self._prefix, lease.shard))
            held = (lease.owner, lease.epoch)
        done = await self.client.script(
            TRIM, keys, f"{ms}-{sequence + 1}", f"{ms}-{sequence}", *held
        )
        if not done:
            raise StaleLease(f"{stream} was not trimmed: the lease of {held} is not held any more")

    async def delete(self, stream: str) -> None:
        """Forget a stream. It goes on if it is used again."""
        keys = (stream, size_key(stream))
        await self.client.script(DELETE, keys, DELETED_STREAM_MS)

    async def close(self) -> None:
        """Wake every waiting read with BusError, and close every connection."""
        self._is_closed = True
        readers, self._readers = self._readers, []
        await asyncio.gather(*(reader.close() for reader in readers))
        await self.client.close()

    async def _look_for_epoch(self, wire: Wire) -> None:
        self._take_epoch(await wire.call(("HGET", cluster_key(self._prefix), "epoch")))

    def _take_epoch(self, reply: bytes | None) -> None:
        epoch = reply.decode() if reply is not None else ""
        if self._epoch and epoch != self._epoch:
            for reader in self._readers:
                reader.begin_again()
        self._epoch = epoch

    def _changed(self) -> None:
        for reader in self._readers:
            reader.check()
        self.on_change()
