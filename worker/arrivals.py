"""What the entries of gateways are to a shard that can change hands: due, repeated, or too early.

Sans-IO. Gateways number their entries, so a missing or repeated one is seen. A new owner knows no
connection: until a gateway has handed its connections over under this owner's epoch, its sync
messages wait here, because some of them no earlier owner may have dealt with; everything else
that it says is in the hand-over too, but for reports of remote heads and broadcasts.

What is lost must not be forgotten with its owner: from a gap on, `may_count` keeps the durable
sequence of the gateway in front of it, so that the next owner sees the gap too, until a hand-over
shows that the gateway knows. Then the gateway remembers for us.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from amsync.ids import DocumentId
from amsync.protocol.envelope import HandOver, SyncIn
from amsync.worker.peers import Ticket
from amsync.worker.ports import Address

EARLY_BYTES = 32 * 1024 * 1024
"""Of one gateway; above it everything that it has said since counts as lost."""

EARLY_SECONDS = 3.0
"""So long they wait for a hand-over, and hold the stream up; if it is full of them, the hand-over
can't even come. Then all of them count as lost."""

Early = list[tuple[Ticket, SyncIn]]


@dataclass(slots=True)
class _Gateway:
    """What is known of one gateway.

    Attributes:
        sequence: Of its last entry; 0 before the first.
        generation: Of the hand-over that counts; 0 before the first.
        has_lost: Something that it said is missing, and it may not know. Only before a hand-over.
        is_prompted: It was told that we are the owner.
        early: Messages that came before the hand-over, the first of them at `early_since`.
        awaited: Documents of connections that were known before, not named by this hand-over yet.
        named: Those of them that it has named.
    """

    sequence: int = 0
    generation: int = 0
    has_lost: bool = False
    is_prompted: bool = False
    early: dict[tuple[int, DocumentId], Early] = field(default_factory=dict)
    early_bytes: int = 0
    early_since: float = 0.0
    awaited: dict[int, set[DocumentId]] = field(default_factory=dict)
    named: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Arrivals:
    """The gateways that a shard has heard of; see the module's text."""

    _gateways: dict[str, _Gateway] = field(default_factory=dict)

    @classmethod
    def after(cls, sequences: Mapping[str, int]) -> "Arrivals":
        """For a shard whose earlier owner has dealt with entries up to these."""
        return cls({name: _Gateway(sequence) for name, sequence in sequences.items()})

    def names(self) -> list[str]:
        """Every gateway that was heard of."""
        return list(self._gateways)

    def sequences(self) -> dict[str, int]:
        """The last entry of each gateway."""
        return {name: state.sequence for name, state in self._gateways.items()}

    def number(self, gateway: str, sequence: int) -> bool | None:
        """Note an entry; True if it is the next one, False behind a gap, None if it came before."""
        known = self._of(gateway)
        if sequence <= known.sequence:
            return None
        is_next = sequence == known.sequence + 1
        known.sequence = sequence
        if not is_next:
            known.has_lost = True
            known.generation = 0
        return is_next

    def has_handed_over(self, gateway: str) -> bool:
        """Its connections are known, and nothing is missing."""
        return self._of(gateway).generation > 0

    def may_count(self, gateway: str) -> bool:
        """Tell whether its entries count as dealt with for whoever owns the shard next."""
        known = self._gateways.get(gateway)
        return known is not None and not known.has_lost

    def begin(
        self, gateway: str, item: HandOver, known: Iterable[tuple[int, Iterable[DocumentId]]]
    ) -> bool:
        """A hand-over begins; False for one whose gateway must hear first that something is lost.

        `known` are the connections that we have of the gateway, with their documents.
        """
        state = self._of(gateway)
        if state.has_lost and not item.may_be_lost:
            return False
        state.has_lost, state.generation = False, item.generation
        state.awaited = {number: set(documents) for number, documents in known}
        state.named = set()
        return True

    def prompt(self, gateway: str) -> bool:
        """It has to be told that we are the owner; once."""
        state = self._of(gateway)
        was_prompted, state.is_prompted = state.is_prompted, True
        return not was_prompted

    def put_aside(self, gateway: str, ticket: Ticket, item: SyncIn, now: float) -> bool:
        """Keep a message for after the hand-over; False if there is no room, for this or more."""
        state = self._of(gateway)
        if state.early_bytes + len(item.data) > EARLY_BYTES:
            state.early_bytes, state.has_lost = EARLY_BYTES + 1, True
            return False
        if not state.early:
            state.early_since = now
        state.early_bytes += len(item.data)
        state.early.setdefault((item.connection, item.document_id), []).append((ticket, item))
        return True

    def give_up(self, now: float) -> list[str]:
        """Drop messages that have waited for too long; returns whose they were."""
        late = [
            name
            for name, state in self._gateways.items()
            if state.early and not state.generation and now - state.early_since > EARLY_SECONDS
        ]
        for name in late:
            self._drop_early(self._gateways[name])
            self._gateways[name].has_lost = True
        return late

    def opened(self, address: Address) -> None:
        """A connection is named, if this is a hand-over; else it is a new one."""
        state = self._of(address[0])
        if address[1] in state.awaited:
            state.named.add(address[1])

    def resumed(self, address: Address, document_id: DocumentId) -> Early:
        """The hand-over has named a document: returns what waited for that."""
        state = self._of(address[0])
        state.awaited.get(address[1], set()).discard(document_id)
        return state.early.pop((address[1], document_id), [])

    def end(self, gateway: str) -> Iterator[tuple[int, set[DocumentId] | None]]:
        """The hand-over is over; yields what it did not name: documents, or None for all."""
        state = self._of(gateway)
        awaited, named = state.awaited, state.named
        state.awaited, state.named = {}, set()
        self._drop_early(state)
        for number, documents in awaited.items():
            yield number, documents if number in named else None

    def forget(self, gateway: str) -> None:
        """The gateway is gone."""
        state = self._gateways.pop(gateway, None)
        if state is not None:
            self._drop_early(state)

    def _drop_early(self, state: _Gateway) -> None:
        for waiting in state.early.values():
            for ticket, _ in waiting:
                ticket.done()
        state.early.clear()
        state.early_bytes = 0

    def _of(self, gateway: str) -> _Gateway:
        known = self._gateways.get(gateway)
        if known is None:
            known = self._gateways[gateway] = _Gateway()
        return known
