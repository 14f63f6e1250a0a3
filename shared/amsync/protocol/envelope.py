"""What gateways and workers say to each other: msgpack, versioned, tolerant of newer versions.

An `Entry` is one element of a stream: who wrote it, its sequence, and a list of items. Each
item is a list: its kind, then its fields in the order of the dataclass. A reader skips kinds
that it doesn't know (`Entry.unknown` counts them) and fields behind those it knows; new fields
go to the end, with a default.

`Inbound` items go from a gateway to a shard, `Outbound` items back. `connection` is a number
that the gateway made, unique within its incarnation. Nothing here is input from outside: the
bus is ours, so a malformed entry is a defect and raises.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, ClassVar, Protocol

import msgpack

from amsync.errors import BusError
from amsync.ids import DocumentId
from amsync.values import cheap

VERSION = 1

ITEM_BYTES = 64
"""About what an item takes besides its data, for bounds."""


PACK_BYTES = 4096
"""Of a packer's buffer, which grows. The 256 KiB that it would begin with are fetched from the
system and given back for each entry."""


class _Item:
    KIND: ClassVar[int]
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Open(_Item):
    """First word of a connection to a shard: who it is and what it wants.

    `wants_announcements`: offer it the documents of the shard, now and later. `identity`: equal
    for the connections of one identity; "" without authentication.
    """

    KIND: ClassVar[int] = 1
    connection: int
    peer_id: str
    storage_id: str | None
    wants_announcements: bool
    subscriptions: Sequence[str]
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Close(_Item):
    """The connection has ended; forget everything about it."""

    KIND: ClassVar[int] = 2
    connection: int


@cheap
@dataclass(frozen=True, slots=True)
class SyncIn(_Item):
    """A sync or request message. `access` was decided at the gateway, as was `may_create`."""

    KIND: ClassVar[int] = 3
    connection: int
    document_id: DocumentId
    access: int
    may_create: bool
    is_request: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class UnavailableIn(_Item):
    """The peer says that it neither has nor wants the document."""

    KIND: ClassVar[int] = 4
    connection: int
    document_id: DocumentId


@cheap
@dataclass(frozen=True, slots=True)
class EphemeralIn(_Item):
    """A broadcast; `target_id` names one peer of the document, or None for all."""

    KIND: ClassVar[int] = 5
    connection: int
    document_id: DocumentId
    session_id: str
    count: int
    data: bytes
    target_id: str | None


@dataclass(frozen=True, slots=True)
class AccessIn(_Item):
    """The connection's right on a document it has open has changed; 0 drops it.

    `may_create`: should the document be unknown, it is asked for what it has of it.
    """

    KIND: ClassVar[int] = 6
    connection: int
    document_id: DocumentId
    access: int
    may_create: bool = False


@dataclass(frozen=True, slots=True)
class Greet(_Item):
    """Answer to an `Offer`: announce this document to the connection."""

    KIND: ClassVar[int] = 7
    connection: int
    document_id: DocumentId
    access: int


@dataclass(frozen=True, slots=True)
class OfferDone(_Item):
    """Every document of an `Offer` was decided; the next batch may come."""

    KIND: ClassVar[int] = 8
    connection: int


@dataclass(frozen=True, slots=True)
class SubscribeIn(_Item):
    """remote-subscription-change of the peer."""

    KIND: ClassVar[int] = 9
    connection: int
    add: Sequence[str]
    remove: Sequence[str]


@dataclass(frozen=True, slots=True)
class HeadsIn(_Item):
    """remote-heads-changed of the peer, one storage id."""

    KIND: ClassVar[int] = 10
    connection: int
    document_id: DocumentId
    storage_id: str
    heads: Sequence[str]
    timestamp: int


@dataclass(frozen=True, slots=True)
class Call(_Item):
    """The application asks (embedded API, admin). `call` names the answer, a `Reply`.

    Operations and what their payloads are: see `worker.calls`.
    """

    KIND: ClassVar[int] = 11
    call: int
    operation: str
    document_id: DocumentId
    payload: bytes


@dataclass(frozen=True, slots=True)
class HandOver(_Item):
    """The gateway hands a shard over to the owner of this epoch: forget what you know of it.

    Every connection that the shard concerns follows, as `Open` and a `Resume` for each of its
    documents, then a `HandedOver`. `generation` numbers the gateway's hand-overs of the shard.
    `may_be_lost`: the gateway knows that entries of its are missing, and says so of every document
    until its reset has come.
    """

    KIND: ClassVar[int] = 12
    connection: int
    epoch: int
    generation: int
    may_be_lost: bool = False


@cheap
@dataclass(frozen=True, slots=True)
class Resume(_Item):
    """A document that a connection had open under an earlier owner.

    Attributes:
        access: As decided at the gateway.
        syncs: It takes part in the sync; else it only hears broadcasts.
        token: Of the last sync message that it was sent; empty if there was none.
        may_be_lost: Something that it said may never have reached an owner.
        asks: Its last word named no heads, and nothing with heads has answered it.
        told_unavailable: We spoke last, and said that there is no such document.
    """

    KIND: ClassVar[int] = 13
    connection: int
    document_id: DocumentId
    access: int
    may_create: bool
    syncs: bool
    token: bytes
    may_be_lost: bool
    asks: bool
    told_unavailable: bool


@dataclass(frozen=True, slots=True)
class HandedOver(_Item):
    """End of a hand-over."""

    KIND: ClassVar[int] = 14
    connection: int
    generation: int


@dataclass(frozen=True, slots=True)
class Query(_Item):
    """An operator asks the owner of a shard for something that is no document's.

    Operations and what their payloads are: see `worker.queries`. As with `Call`, a `Reply` is the
    answer; a worker that does not know this kind gives none.
    """

    KIND: ClassVar[int] = 15
    call: int
    operation: str
    payload: bytes


@cheap
@dataclass(frozen=True, slots=True)
class SyncOut(_Item):
    """One sync message for many connections.

    `created`: the document was made for them. `edited_at`: when the oldest change that it tells
    of came to a gateway, in seconds since 1970, for the edit-to-peer histogram; 0 for none.
    `token`: with it another owner goes on from here; empty where there is only one. `resets`: the
    client sends again what may have been lost.
    """

    KIND: ClassVar[int] = 101
    connections: Sequence[int]
    document_id: DocumentId
    data: bytes
    created: bool = False
    edited_at: float = 0.0
    token: bytes = b""
    resets: bool = False


@dataclass(frozen=True, slots=True)
class UnavailableOut(_Item):
    """doc-unavailable for these connections."""

    KIND: ClassVar[int] = 102
    connections: Sequence[int]
    document_id: DocumentId


@cheap
@dataclass(frozen=True, slots=True)
class EphemeralOut(_Item):
    """A broadcast for these connections; `sender_id` made it."""

    KIND: ClassVar[int] = 103
    connections: Sequence[int]
    document_id: DocumentId
    sender_id: str
    session_id: str
    count: int
    data: bytes


@dataclass(frozen=True, slots=True)
class HeadsOut(_Item):
    """remote-heads-changed for these connections."""

    KIND: ClassVar[int] = 104
    connections: Sequence[int]
    document_id: DocumentId
    storage_id: str
    heads: Sequence[str]
    timestamp: int


@dataclass(frozen=True, slots=True)
class SubscribeOut(_Item):
    """remote-subscription-change for these connections."""

    KIND: ClassVar[int] = 105
    connections: Sequence[int]
    add: Sequence[str]
    remove: Sequence[str]


@dataclass(frozen=True, slots=True)
class Offer(_Item):
    """Documents that this connection could be told of, if its access says announce."""

    KIND: ClassVar[int] = 106
    connection: int
    documents: Sequence[DocumentId]


@dataclass(frozen=True, slots=True)
class Reply(_Item):
    """Answer to a `Call` or `Query`: an error's class name and text, or a payload."""

    KIND: ClassVar[int] = 107
    call: int
    error: str | None
    message: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Progress(_Item):
    """Everything that the gateway sent up to this sequence has been dealt with, durably."""

    KIND: ClassVar[int] = 108
    sequence: int


@dataclass(frozen=True, slots=True)
class Welcome(_Item):
    """A hand-over has begun to be taken: what comes behind this belongs to it."""

    KIND: ClassVar[int] = 109
    generation: int


@dataclass(frozen=True, slots=True)
class Owned(_Item):
    """The shards that the sender owns, each with its epoch; said every second, and when new."""

    KIND: ClassVar[int] = 110
    shards: Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Resync(_Item):
    """Entries of the gateway are missing: hand this shard over again, with what may be lost."""

    KIND: ClassVar[int] = 111


Inbound = (
    Open
    | Close
    | SyncIn
    | UnavailableIn
    | EphemeralIn
    | AccessIn
    | Greet
    | OfferDone
    | SubscribeIn
    | HeadsIn
    | Call
    | HandOver
    | Resume
    | HandedOver
    | Query
)
Outbound = (
    SyncOut
    | UnavailableOut
    | EphemeralOut
    | HeadsOut
    | SubscribeOut
    | Offer
    | Reply
    | Progress
    | Welcome
    | Owned
    | Resync
)
Addressed = SyncOut | UnavailableOut | EphemeralOut | HeadsOut | SubscribeOut
"""Outbound items that go to a list of connections."""


@cheap
@dataclass(frozen=True, slots=True)
class Stamped:
    """An outbound item with the shard and the lease epoch under which it was made."""

    shard: int
    epoch: int
    item: Outbound


def _kinds(types: Any) -> dict[int, tuple[type[Any], int]]:
    return {kind.KIND: (kind, len(fields(kind))) for kind in types.__args__}


_INBOUND = _kinds(Inbound)
_OUTBOUND = _kinds(Outbound)


def _values(kind: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    names = ["KIND", *(field.name for field in fields(kind))]
    # With one name it would give no tuple.
    return attrgetter(*names) if len(names) > 1 else lambda item: (item.KIND,)


_VALUES = {kind: _values(kind) for kind, _ in [*_INBOUND.values(), *_OUTBOUND.values()]}


def _pack_item(item: Inbound | Outbound) -> tuple[Any, ...]:
    return _VALUES[type(item)](item)


@cheap
@dataclass(frozen=True, slots=True)
class Entry:
    """One stream element: as decoded, or one that never left the process.

    `written_at` is in seconds since 1970 of the sender's clock; `unknown` counts the items of
    kinds that we don't know; `size_bytes` is an estimate, for bounds, 0 for a decoded one.
    """

    sender: str
    sequence: int
    written_at: float
    items: list[Any]
    unknown: int = 0
    size_bytes: int = 0

    def pack(self) -> bytes:
        """The element in bytes."""
        if self.items and isinstance(self.items[0], Stamped):
            return pack_outbound(self.sender, self.sequence, self.written_at, self.items)
        return pack_inbound(self.sender, self.sequence, self.written_at, self.items)


class Packable(Protocol):
    """What knows how to become an entry's bytes: an `Entry`, for one."""

    def pack(self) -> bytes:
        """The bytes."""


_packb: Any = msgpack.packb  # its stubs know no buf_size


def _pack(sender: str, sequence: int, written_at: float, items: list[Any]) -> bytes:
    fields = [VERSION, sender, sequence, written_at, items]
    packed: bytes = _packb(fields, use_bin_type=True, buf_size=PACK_BYTES)
    return packed


def _unpack(data: bytes, make: Callable[[Sequence[Any]], Any]) -> Entry:
    """Unpack an entry; `make` turns a packed item into one of ours, or None if it is unknown."""
    try:
        entry = msgpack.unpackb(data, use_list=True, max_bin_len=len(data))
        _version, sender, sequence, written_at, packed, *_ = entry
        items = [item for item in map(make, packed) if item is not None]
    except (ValueError, TypeError, msgpack.exceptions.ExtraData) as error:
        raise BusError(f"{len(data)} bytes on the bus are no entry: {error}") from error
    return Entry(sender, sequence, written_at, items, len(packed) - len(items))


def _make(kinds: Mapping[int, tuple[type[Any], int]], kind: int, values: Sequence[Any]) -> Any:
    known = kinds.get(kind)
    return None if known is None else known[0](*values[: known[1]])


def _make_inbound(packed: Sequence[Any]) -> Inbound | None:
    kind, *values = packed
    item: Inbound | None = _make(_INBOUND, kind, values)
    return item


def _make_outbound(packed: Sequence[Any]) -> Stamped | None:
    shard, epoch, kind, *values = packed
    item = _make(_OUTBOUND, kind, values)
    return None if item is None else Stamped(shard, epoch, item)


def pack_inbound(sender: str, sequence: int, written_at: float, items: Sequence[Inbound]) -> bytes:
    """Pack items of one gateway for one shard."""
    return _pack(sender, sequence, written_at, [_pack_item(item) for item in items])


def unpack_inbound(data: bytes | Packable) -> Entry:
    """Unpack what `pack_inbound` made, or a newer version of it; an `Entry` is one already.

    Raises:
        BusError: It is not an entry.
    """
    if isinstance(data, Entry):
        return data
    return _unpack(data if isinstance(data, bytes) else data.pack(), _make_inbound)


def pack_outbound(sender: str, sequence: int, written_at: float, items: Sequence[Stamped]) -> bytes:
    """Pack items of one worker for one gateway."""
    packed = [[s.shard, s.epoch, *_pack_item(s.item)] for s in items]
    return _pack(sender, sequence, written_at, packed)


def unpack_outbound(data: bytes | Packable) -> Entry:
    """Unpack what `pack_outbound` made, or a newer version of it; items are `Stamped`.

    Raises:
        BusError: It is not an entry.
    """
    if isinstance(data, Entry):
        return data
    return _unpack(data if isinstance(data, bytes) else data.pack(), _make_outbound)
