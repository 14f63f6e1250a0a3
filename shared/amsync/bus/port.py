"""The `Bus` port: append-only streams of opaque entries.

Guarantees, held by every implementation and tested by one contract suite:
- B1 Entries of one stream are read in the order of their positions, each once per reader, and
  positions only grow. After a lost connection a reader may begin again at the start of each
  stream: it may repeat entries, and positions may go back, but it never skips one that is there.
- B2 An append that returned is in the stream; one that raised is not; one that was cancelled
  or lost its connection may be (writers number their entries, readers drop repetitions).
- B3 A reader starts anywhere after a position that it names; entries stay until trimmed, so a
  reader may start again at an older position.
- B4 A stream has a byte bound. An append to a full stream raises `BusFull`, at once and without
  taking the entry; an empty stream takes one entry of any size.
- B5 The bus is a transport and not the truth: it may lose everything. `cluster_epoch` is a
  random text that is then another one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from amsync.values import cheap


class Parcel(Protocol):
    """An entry that is put into bytes only when it leaves the process.

    It is shared between its writer and its readers, who must not change it.
    """

    @property
    def size_bytes(self) -> int:
        """What it counts for in the bounds of streams and reads."""

    def pack(self) -> bytes:
        """The entry in bytes."""


Position = tuple[int, int]
"""Where an entry stands in its stream; grows; (0, 0) is before the first."""

START: Position = (0, 0)


@cheap
@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One entry as read: bytes, or what was appended if it never left the process."""

    stream: str
    position: Position
    data: "bytes | Parcel"
    size_bytes: int


class Reader(Protocol):
    """Reads several streams for one consumer, who either waits in `read`, or uses `take`.

    Attributes:
        on_ready: For `take`: called on the loop when an entry has come, or the bus was closed.
            Must neither raise nor take; what had come before it was set is not reported.
    """

    on_ready: Callable[[], None]

    def follow(self, stream: str, after: Position) -> None:
        """Read a stream, from the first entry behind `after`; again for a stream to rewind."""

    def unfollow(self, stream: str) -> None:
        """Stop reading a stream; unknown names are ignored."""

    async def read(self, max_bytes: int) -> Sequence[StreamEntry]:
        """Wait until there is something, and return it: at least one entry, in stream order.

        Stops before `max_bytes` would be passed, but for a single larger entry.
        Raises BusError when the bus was closed. While it is out of reach nothing comes.
        """

    def take(self, max_bytes: int) -> Sequence[StreamEntry]:
        """What `read` would return now, or nothing. Raises BusError when closed."""

    @property
    def has_entries(self) -> bool:
        """There is something to take."""

    @property
    def oldest(self) -> StreamEntry | None:
        """What would be taken next, if it is there; it stays."""


class Bus(Protocol):
    """See the module's text for what holds."""

    on_change: Callable[[], None]

    @property
    def is_connected(self) -> bool:
        """Appends can be made now; `on_change` is called on the loop when it has changed."""

    @property
    def cluster_epoch(self) -> str:
        """Changes when the bus has lost its streams."""

    async def append(self, stream: str, data: bytes | Parcel) -> Position:
        """Add an entry.

        Raises:
            BusFull: The stream is at its bound; wait and append again.
            BusError: Not known whether it was added; append again with the same sequence.
        """

    def reader(self) -> Reader:
        """Make a reader that follows nothing yet."""

    @property
    def unread_bytes(self) -> int:
        """What readers have got and their consumers have not taken."""

    async def held_bytes(self, streams: Sequence[str]) -> int:
        """Bytes of the entries in these streams, all together. Raises BusError."""

    async def trim(self, stream: str, through: Position) -> None:
        """Forget the entries up to and including a position."""

    async def delete(self, stream: str) -> None:
        """Forget a stream with all its entries."""

    async def close(self) -> None:
        """Release everything; reads that wait raise BusError."""


def shard_stream(prefix: str, shard: int) -> str:
    """Name of a shard's inbound stream; the braces keep a shard in one Redis Cluster slot."""
    return f"{{{prefix}:s{shard}}}:in"


def gateway_stream(prefix: str, incarnation: str) -> str:
    """Name of one gateway's stream."""
    return f"{{{prefix}:g{incarnation}}}:out"


def access_stream(prefix: str) -> str:
    """Name of the stream of operators' orders, which every gateway reads."""
    return f"{{{prefix}}}:access"


def is_access_stream(stream: str) -> bool:
    """Tell whether `access_stream` made this name."""
    return stream.endswith("}:access")


def is_gateway_stream(stream: str) -> bool:
    """Tell whether `gateway_stream` made this name."""
    return stream.endswith("}:out")
