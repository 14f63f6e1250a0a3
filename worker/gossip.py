"""Who wants to hear of whose heads: the remote-heads part of the protocol, for one shard.

Sans-IO. Subscriptions belong to connections, heads to documents. A connection hears of a
storage id's heads of a document that it has open and that changed, whether we saw them in a
sync message of that peer or somebody else reported them. Reported heads must be strictly newer
than what is known; our own observations use max(previous + 1, now), so that clocks of several
workers can't hide them. Source: automerge-repo RemoteHeadsSubscriptions.ts; PROTOCOL 4.2.

Subscriptions to storage ids nobody has asked for before are passed on to the peers that
documents are announced to ("generous" ones), by the shard that the storage id falls into.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from amsync.ids import DocumentId
from amsync.worker.ports import Address

MAX_SUBSCRIPTIONS = 1_000
"""Storage ids per connection; more are ignored and counted."""

MAX_KNOWN_PER_DOCUMENT = 100
"""Storage ids whose heads are remembered per document; the oldest goes first."""


@dataclass(frozen=True, slots=True)
class KnownHeads:
    """Heads of one storage id as base58check texts, with the time in ms at which they were seen."""

    heads: tuple[str, ...]
    timestamp: int


@dataclass
class RemoteHeadsTable:
    """Known heads and subscriptions of one shard."""

    subscriptions: dict[Address, set[str]] = field(default_factory=dict)
    _subscribers: dict[str, set[Address]] = field(default_factory=dict)
    _known: dict[DocumentId, dict[str, KnownHeads]] = field(default_factory=dict)

    def subscribe(self, address: Address, storage_ids: Iterable[str]) -> list[str]:
        """Add subscriptions; returns the storage ids that nobody had subscribed to before."""
        storage_ids = tuple(storage_ids)
        if not storage_ids:
            return []
        mine = self.subscriptions.setdefault(address, set())
        fresh = []
        for storage_id in storage_ids:
            if storage_id in mine or len(mine) >= MAX_SUBSCRIPTIONS:
                continue
            mine.add(storage_id)
            subscribers = self._subscribers.setdefault(storage_id, set())
            if not subscribers:
                fresh.append(storage_id)
            subscribers.add(address)
        return fresh

    def unsubscribe(self, address: Address, storage_ids: Iterable[str]) -> list[str]:
        """Remove subscriptions; returns the storage ids that nobody subscribes to any more."""
        mine = self.subscriptions.get(address, set())
        gone = []
        for storage_id in list(storage_ids):
            if storage_id not in mine:
                continue
            mine.discard(storage_id)
            subscribers = self._subscribers[storage_id]
            subscribers.discard(address)
            if not subscribers:
                del self._subscribers[storage_id]
                gone.append(storage_id)
        return gone

    def forget_connection(self, address: Address) -> list[str]:
        """The connection ended; returns the storage ids that nobody subscribes to any more."""
        gone = self.unsubscribe(address, self.subscriptions.get(address, ()))
        self.subscriptions.pop(address, None)
        return gone

    def forget_document(self, document_id: DocumentId) -> None:
        """Nobody has the document open any more."""
        self._known.pop(document_id, None)

    def is_wanted(self, storage_id: str) -> bool:
        """Somebody subscribes to this storage id."""
        return storage_id in self._subscribers

    def all_wanted(self) -> list[str]:
        """Every storage id that somebody subscribes to."""
        return list(self._subscribers)

    def observe(
        self, document_id: DocumentId, storage_id: str, heads: Sequence[str], now_ms: int
    ) -> KnownHeads | None:
        """Record heads seen in a sync message; None if they are known already."""
        known = self._known.get(document_id, {}).get(storage_id)
        if known is not None and known.heads == tuple(heads):
            return None
        timestamp = now_ms if known is None else max(known.timestamp + 1, now_ms)
        return self._record(document_id, storage_id, KnownHeads(tuple(heads), timestamp))

    def report(
        self, document_id: DocumentId, storage_id: str, heads: Sequence[str], timestamp: int
    ) -> KnownHeads | None:
        """Record heads that a peer reports; None if nobody wants them or they are not newer."""
        known = self._known.get(document_id, {}).get(storage_id)
        if not self.is_wanted(storage_id) or (known and known.timestamp >= timestamp):
            return None
        return self._record(document_id, storage_id, KnownHeads(tuple(heads), timestamp))

    def subscribers(
        self, storage_id: str, has_open: Callable[[Address], bool], but: Address
    ) -> list[Address]:
        """Who is to be told, in a stable order; never the one it comes from."""
        found = self._subscribers.get(storage_id, ())
        return sorted(a for a in found if a != but and has_open(a))

    def known(self, document_id: DocumentId, storage_ids: Iterable[str]) -> dict[str, KnownHeads]:
        """What is known of these storage ids, for a connection that has just subscribed."""
        table = self._known.get(document_id, {})
        return {s: table[s] for s in storage_ids if s in table}

    def _record(self, document_id: DocumentId, storage_id: str, known: KnownHeads) -> KnownHeads:
        table = self._known.setdefault(document_id, {})
        table.pop(storage_id, None)
        while len(table) >= MAX_KNOWN_PER_DOCUMENT:
            del table[next(iter(table))]
        table[storage_id] = known
        return known
