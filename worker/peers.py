"""Who takes part in a document, and what waits to be dealt with for it."""

from dataclasses import dataclass

from amsync.protocol.access import Access
from amsync.protocol.envelope import AccessIn, Call, Close, Greet, SyncIn, UnavailableIn
from amsync.worker.ports import Address

SILENCE_SECONDS = 10.0
LONGEST_SILENCE_SECONDS = 300.0


@dataclass(slots=True)
class Ticket:
    """An entry of the shard's stream, with how many of its items are still unfinished."""

    position: tuple[int, int]
    outstanding: int
    written_at: float = 0.0

    def done(self) -> None:
        """One of its items is finished."""
        self.outstanding -= 1


@dataclass(slots=True)
class Peer:
    """A connection that takes part in this document."""

    address: Address
    number: int
    peer_id: str
    storage_id: str | None
    access: int = Access.READ
    in_engine: bool = False
    offered: bool = False
    offered_at: float = 0.0
    asks: bool = False
    may_create: bool = False
    told_unavailable: bool = False
    needs_reset: bool = False
    reset_due: bool = False
    silenced_until: float = 0.0
    silence_seconds: float = SILENCE_SECONDS


DocumentItem = SyncIn | UnavailableIn | AccessIn | Greet | Close | Call


@dataclass(frozen=True, slots=True)
class Waiting:
    """An item in the inbox."""

    ticket: Ticket
    address: Address
    item: DocumentItem
