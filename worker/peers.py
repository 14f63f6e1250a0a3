"""Who takes part in a document, and what waits to be dealt with for it."""

from collections.abc import Iterator
from dataclasses import dataclass

from amsync.errors import StorageError
from amsync.protocol.access import Access
from amsync.protocol.envelope import (
    AccessIn,
    Call,
    Close,
    Greet,
    Resume,
    SyncIn,
    UnavailableIn,
)
from amsync.values import cheap
from amsync.worker.ports import Address, EngineDocument

OFFER_SECONDS = 10.0
"""So long the others wait for a document that somebody has offered."""

LOAD_RETRY_SECONDS = 1.0
LOAD_RETRY_DOUBLINGS = 6
LOADS_UNTIL_REFUSED = 3
FEW = 3
"""So many peers need no tables."""

SILENCE_SECONDS = 10.0
LONGEST_SILENCE_SECONDS = 300.0


@dataclass(slots=True)
class Ticket:
    """An entry of the shard's stream, with how many of its items are still unfinished."""

    position: tuple[int, int]
    outstanding: int
    sender: str
    sequence: int = 0
    written_at: float = 0.0

    def done(self) -> None:
        """One of its items is finished."""
        self.outstanding -= 1


@dataclass(frozen=True, slots=True)
class DocumentBounds:
    """How large a document may become by what peers write; 0: no bound.

    One message may go beyond it, and the application always may.
    """

    max_bytes: int = 0
    max_changes: int = 0

    def are_reached(self, engine: EngineDocument) -> bool:
        """The document is as large as it may be."""
        return bool(
            (self.max_changes and engine.change_count() >= self.max_changes)
            or (self.max_bytes and engine.stored_bytes() >= self.max_bytes)
        )


NO_BOUNDS = DocumentBounds()


@dataclass(slots=True)
class WriteGate:
    """Whether what peers write can be saved, and is wanted; one for all documents of a shard.

    Attributes:
        error: Why not; None while the gate is open.
        bounds: Of every document.
    """

    error: StorageError | None = None
    bounds: DocumentBounds = NO_BOUNDS

    @property
    def is_open(self) -> bool:
        """Changes can be saved, as far as is known."""
        return self.error is None


@dataclass(slots=True)
class Peer:
    """A connection that takes part in this document.

    `held`: it may write, but the engine takes nothing from it because nothing can be saved.
    `was_reset`: this owner has reset it, and may be the only one who knows that it had to.
    `token`: where to go on with it when the document is opened again; empty while that is open.
    `has_peer_id`: the peer id does not belong to another identity.
    """

    address: Address
    number: int
    peer_id: str
    storage_id: str | None
    access: int = Access.READ
    in_engine: bool = False
    held: bool = False
    offered: bool = False
    offered_at: float = 0.0
    asks: bool = False
    may_create: bool = False
    told_unavailable: bool = False
    needs_reset: bool = False
    reset_due: bool = False
    was_reset: bool = False
    token: bytes = b""
    silenced_until: float = 0.0
    silence_seconds: float = SILENCE_SECONDS
    has_peer_id: bool = True

    @property
    def syncs(self) -> bool:
        """It is kept in sync, be the document open or not."""
        return self.in_engine or bool(self.token)

    def silence(self, now: float) -> None:
        """Don't listen for a while, longer each time; then start over with a reset."""
        self.silenced_until = now + self.silence_seconds
        self.silence_seconds = min(2 * self.silence_seconds, LONGEST_SILENCE_SECONDS)
        self.needs_reset = True


class Peers:
    """The peers of one document, by address and by the number that the engine knows.

    A few are looked through; tables would take 460 bytes, and most documents have one peer.
    """

    __slots__ = ("_few", "_tables")

    def __init__(self) -> None:
        self._few: tuple[Peer, ...] = ()
        self._tables: tuple[dict[Address, Peer], dict[int, Peer]] | None = None

    def __len__(self) -> int:
        return len(self._few if self._tables is None else self._tables[0])

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._few if self._tables is None else self._tables[0].values())

    def get(self, address: Address) -> Peer | None:
        """The peer of this address, if there is one."""
        if self._tables is not None:
            return self._tables[0].get(address)
        for peer in self._few:
            if peer.address == address:
                return peer
        return None

    def numbered(self, number: int) -> Peer | None:
        """The peer of this number, if there is one."""
        if self._tables is not None:
            return self._tables[1].get(number)
        for peer in self._few:
            if peer.number == number:
                return peer
        return None

    def join(self, peer: Peer) -> Peer:
        """Add a peer, or return the one of this address that there is already."""
        known = self.get(peer.address)
        if known is not None:
            return known
        if self._tables is None and len(self._few) < FEW:
            self._few = (*self._few, peer)
            return peer
        if self._tables is None:
            few, self._few = self._few, ()
            self._tables = {each.address: each for each in few}, {each.number: each for each in few}
        by_address, by_number = self._tables
        by_address[peer.address] = by_number[peer.number] = peer
        return peer

    def leave(self, peer: Peer) -> None:
        """Remove a peer that is there."""
        if self._tables is None:
            self._few = tuple(each for each in self._few if each is not peer)
            return
        by_address, by_number = self._tables
        del by_address[peer.address], by_number[peer.number]
        if len(by_address) <= FEW:
            self._few, self._tables = tuple(by_address.values()), None

    def audience(self, sender: Peer, target_id: str | None) -> list[Address]:
        """Who gets a broadcast: all but the sender's own id, or those with the target's."""
        return [
            peer.address
            for peer in self
            if peer.peer_id != sender.peer_id
            and (target_id is None or (target_id == peer.peer_id and peer.has_peer_id))
            and peer.access > Access.NONE
        ]

    def asking(self) -> list[Peer]:
        """Who has asked for the document and has got no answer."""
        return [peer for peer in self if peer.asks and not peer.told_unavailable]

    def is_awaited(self, now: float) -> bool:
        """Somebody has offered the document, not too long ago to be believed."""
        return any(p.offered and now - p.offered_at < OFFER_SECONDS for p in self)

    def forgiven(self, now: float) -> list[Peer]:
        """Who is to start over with a reset, and may now."""
        return [
            peer
            for peer in self
            if peer.needs_reset
            and not peer.in_engine
            and peer.access > Access.NONE
            and now >= peer.silenced_until
        ]


@dataclass(frozen=True, slots=True)
class LoadRetry:
    """When a document that could not be read is tried again: after 1 s, then ever later."""

    failures: int = 0
    retry_at: float = 0.0

    def failed(self, now: float) -> "LoadRetry":
        """What follows a failure."""
        doublings = min(self.failures, LOAD_RETRY_DOUBLINGS)
        return LoadRetry(self.failures + 1, now + LOAD_RETRY_SECONDS * 2**doublings)

    @property
    def lasts(self) -> bool:
        """It fails for so long that nobody should wait for it any more."""
        return self.failures >= LOADS_UNTIL_REFUSED


NEVER_FAILED = LoadRetry()
"""Of nearly every document."""

DocumentItem = SyncIn | UnavailableIn | AccessIn | Greet | Close | Call | Resume


@cheap
@dataclass(frozen=True, slots=True)
class Waiting:
    """An item in the inbox."""

    ticket: Ticket
    address: Address
    item: DocumentItem
