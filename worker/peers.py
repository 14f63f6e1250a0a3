"""Who takes part in a document, and what waits to be dealt with for it."""

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
from amsync.worker.ports import Address

OFFER_SECONDS = 10.0
"""So long the others wait for a document that somebody has offered."""

LOAD_RETRY_SECONDS = 1.0
LOAD_RETRY_DOUBLINGS = 6
LOADS_UNTIL_REFUSED = 3
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


@dataclass(slots=True)
class WriteGate:
    """Whether what peers write can be saved; one for all documents of a shard.

    Attributes:
        error: Why not; None while the gate is open.
    """

    error: StorageError | None = None

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

    def silence(self, now: float) -> None:
        """Don't listen for a while, longer each time; then start over with a reset."""
        self.silenced_until = now + self.silence_seconds
        self.silence_seconds = min(2 * self.silence_seconds, LONGEST_SILENCE_SECONDS)
        self.needs_reset = True


class Peers(dict[Address, Peer]):
    """The peers of one document, by address and by the number that the engine knows."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[int, Peer] = {}

    def join(self, peer: Peer) -> Peer:
        """Add a peer, or return the one of this address that there is already."""
        known = self.setdefault(peer.address, peer)
        self.numbers[known.number] = known
        return known

    def leave(self, peer: Peer) -> None:
        """Remove a peer that is there."""
        del self[peer.address]
        del self.numbers[peer.number]

    def audience(self, sender: Peer, target_id: str | None) -> list[Address]:
        """Who gets a broadcast: all but the sender's own id, or those with the target's."""
        return [
            peer.address
            for peer in self.values()
            if peer.peer_id != sender.peer_id
            and target_id in (None, peer.peer_id)
            and peer.access > Access.NONE
        ]

    def asking(self) -> list[Peer]:
        """Who has asked for the document and has got no answer."""
        return [peer for peer in self.values() if peer.asks and not peer.told_unavailable]

    def is_awaited(self, now: float) -> bool:
        """Somebody has offered the document, not too long ago to be believed."""
        return any(p.offered and now - p.offered_at < OFFER_SECONDS for p in self.values())

    def forgiven(self, now: float) -> list[Peer]:
        """Who is to start over with a reset, and may now."""
        return [
            peer
            for peer in self.values()
            if peer.needs_reset
            and not peer.in_engine
            and peer.access > Access.NONE
            and now >= peer.silenced_until
        ]


@dataclass(slots=True)
class LoadRetry:
    """When a document that could not be read is tried again: after 1 s, then ever later."""

    failures: int = 0
    retry_at: float = 0.0

    def failed(self, now: float) -> None:
        """Note a failure."""
        self.failures += 1
        doublings = min(self.failures - 1, LOAD_RETRY_DOUBLINGS)
        self.retry_at = now + LOAD_RETRY_SECONDS * 2**doublings

    @property
    def lasts(self) -> bool:
        """It fails for so long that nobody should wait for it any more."""
        return self.failures >= LOADS_UNTIL_REFUSED


DocumentItem = SyncIn | UnavailableIn | AccessIn | Greet | Close | Call | Resume


@cheap
@dataclass(frozen=True, slots=True)
class Waiting:
    """An item in the inbox."""

    ticket: Ticket
    address: Address
    item: DocumentItem
