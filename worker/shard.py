"""One shard: its documents, the connections that have reached it, and how far its stream is done.

Sans-IO: stream entries, results of loads and jobs, and `now` in; `Effects` out. A shard never
waits; whoever drives it (the worker's shell, or the simulated network) makes the effects' chunks
durable, then publishes, then asks `settled` how far the stream may be trimmed. Long because
every kind of item comes through here; what they mean for a document is in `synchronizer`.

Invariants:
- Items of one connection and document are dealt with in the order of the stream.
- `settled` never passes an item that waits for a load or a job.
- Announcements go out in batches, and the next one waits until the peer has answered the last.
- Where shards change hands, nothing of a gateway is taken before it has handed its connections
  over under this epoch; its sync messages wait for that (`arrivals`).
"""

import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial

from amsync.errors import StorageError
from amsync.ids import DocumentId, base58check_encode, shard_of_storage
from amsync.protocol.access import Access
from amsync.protocol.envelope import (
    AccessIn,
    Call,
    Close,
    Entry,
    EphemeralIn,
    Greet,
    HandedOver,
    HandOver,
    HeadsIn,
    HeadsOut,
    Inbound,
    Offer,
    OfferDone,
    Open,
    Owned,
    Query,
    Resume,
    Resync,
    SubscribeIn,
    SubscribeOut,
    SyncIn,
    UnavailableIn,
    Welcome,
)
from amsync.worker.arrivals import Arrivals
from amsync.worker.claimed import ClaimedIds
from amsync.worker.connection import Connection
from amsync.worker.gossip import KnownHeads, RemoteHeadsTable
from amsync.worker.peers import NO_BOUNDS, DocumentBounds, Peer, Ticket, Waiting, WriteGate
from amsync.worker.ports import Address, Effects, EngineDocument, EngineFactory
from amsync.worker.synchronizer import DocumentSynchronizer

OFFER_BATCH = 50
OFFER_TIMEOUT_SECONDS = 10.0
IDLE_SECONDS = 30.0
SLEEP_SECONDS = 120.0
REST_SECONDS = 5.0
"""Only for want of memory a document is let go so soon after its last message."""

MAX_REPORTED_HEADS = 100
MAX_CLOCK_AHEAD_MS = 24 * 3600 * 1000
"""A report from further in the future would mute its storage id until then."""


class Shard:
    """All that one shard owns; see the module's text.

    Args:
        number: 0 to shard_count - 1.
        epoch: Lease epoch under which everything here is made.
        factory: Makes engine documents.
        auto_create: Create unknown documents for peers that may write.
        wall_ms: Offset that turns `now` into ms since 1970, for remote heads.
        bounds: Of every document.
        arrivals: Where shards change hands; None: this is the only owner ever.
    """

    def __init__(
        self,
        number: int,
        epoch: int,
        factory: EngineFactory,
        *,
        shard_count: int,
        auto_create: bool,
        wall_ms: int = 0,
        idle_seconds: float = IDLE_SECONDS,
        sleep_seconds: float = SLEEP_SECONDS,
        bounds: DocumentBounds = NO_BOUNDS,
        arrivals: Arrivals | None = None,
    ) -> None:
        self.number = number
        self.epoch = epoch
        self.documents: dict[DocumentId, DocumentSynchronizer] = {}
        self.connections: dict[Address, Connection] = {}
        self._gate = WriteGate(bounds=bounds)
        self._factory = factory
        self._shard_count = shard_count
        self._auto_create = auto_create
        self._wall_ms = wall_ms
        self._idle_seconds, self._sleep_seconds = idle_seconds, sleep_seconds
        self._gossip = RemoteHeadsTable()
        self._peer_ids, self._storage_ids = ClaimedIds(), ClaimedIds()
        self._tickets: deque[Ticket] = deque()
        self._settled = (0, 0)
        self._arrivals = arrivals
        self.settled_sequences = {} if arrivals is None else arrivals.sequences()
        """Of each gateway, the last entry up to which everything has been dealt with."""
        self.closed_count = 0
        """Documents that were let go; whoever counts them sets it back."""
        self._dirty: dict[DocumentId, DocumentSynchronizer] = {}
        self._next_number = 1
        self._list_for: set[Address] = set()
        self._listed_for: set[Address] = set()

    def effects(self) -> Effects:
        """An empty effects object for one step."""
        return Effects(self.number, self.epoch)

    # -- in

    def take(
        self,
        position: tuple[int, int],
        entry: Entry,
        effects: Effects,
        now: float,
    ) -> None:
        """Take one entry of the stream; `run` deals with what it asks for."""
        arrivals = self._arrivals
        is_next = True if arrivals is None else arrivals.number(entry.sender, entry.sequence)
        if is_next is None:
            effects.count("repeated_entries", "inbound")
            self._tickets.append(Ticket(position, 0, entry.sender))
            return
        if not is_next:
            effects.count("gaps", "inbound")
            effects.send(entry.sender, Resync())
        count = len(entry.items)
        ticket = Ticket(position, count, entry.sender, entry.sequence, entry.written_at)
        self._tickets.append(ticket)
        for _ in range(entry.unknown):
            effects.count("unknown_items", "inbound")
        for item in entry.items:
            address = (entry.sender, _connection_of(item))
            try:
                if arrivals is None or not self._is_too_early(
                    arrivals, ticket, address, item, effects, now
                ):
                    self._take(ticket, address, item, effects, now)
            except Exception as error:
                # A defect of ours; one item is lost, and its connection heals when it returns.
                ticket.done()
                document_id = getattr(item, "document_id", DocumentId(""))
                effects.failures.append((document_id, error))

    def skip(self, position: tuple[int, int]) -> None:
        """Pass over an entry that nobody can read; its sender's next one shows the gap."""
        self._tickets.append(Ticket(position, 0, ""))

    def run(self, effects: Effects, now: float) -> None:
        """Deal with everything that can be dealt with now; the end of a step."""
        dirty, self._dirty = self._dirty, {}
        for document in dirty.values():
            self._guarded(document, partial(document.run, effects, now), effects, now)

    def loaded(
        self,
        document_id: DocumentId,
        engine: EngineDocument | None,
        is_stored: bool,
        effects: Effects,
        now: float,
        *,
        is_lost: bool = False,
    ) -> None:
        """The shell has read a document; None for one that was deleted.

        `is_lost`: nothing of what was stored could be read, so it must not be created anew.
        """
        document = self._document(document_id)
        document.auto_create = self._auto_create and not is_lost
        self._guarded(
            document, lambda: document.loaded(engine, is_stored, effects, now), effects, now
        )

    def load_failed(self, document_id: DocumentId, effects: Effects, now: float) -> None:
        """The shell could not read a document; it is tried again after a while."""
        self._document(document_id).load_failed(effects, now)

    def load_broken(self, document_id: DocumentId, effects: Effects, now: float) -> None:
        """The document can't be opened whatever we try: everybody gets doc-unavailable."""
        self._document(document_id).load_broken(effects, now)

    def job_finished(
        self, document_id: DocumentId, result: object, effects: Effects, now: float
    ) -> None:
        """A job returned, or raised, `result`."""
        document = self._document(document_id)
        self._guarded(document, lambda: document.job_finished(result, effects, now), effects, now)

    def deletion_finished(
        self,
        document_id: DocumentId,
        error: BaseException | None,
        effects: Effects,
        now: float,
        *,
        is_gone: bool = False,
    ) -> None:
        """The shell has deleted a document on disk, or failed to.

        `is_gone`: it failed, but the document may be deleted and counts as such.
        """
        document = self._document(document_id)
        gone = is_gone or error is None
        self._guarded(
            document, lambda: document.deletion_finished(error, gone, effects, now), effects, now
        )

    def suspend_writing(self, error: StorageError) -> None:
        """Nothing can be saved for now: take no changes from anybody."""
        self._gate.error = error

    def resume_writing(self, effects: Effects, now: float) -> None:
        """Changes can be saved again: ask for those that were not taken."""
        self._gate.error = None
        for document_id, document in self.documents.items():
            if document.wants_run(now):
                self._dirty[document_id] = document
        self.run(effects, now)

    def rewind(self, effects: Effects, error: StorageError) -> None:
        """The chunks of this step could not be made durable: as if they had never come.

        What was to be said of their documents is withdrawn; they are read again, and their
        peers reset, so that these send again what was not saved.
        """
        effects.withdraw(effects.chunks.keys(), error)
        for document_id in effects.chunks:
            if document_id in self.documents:
                self.documents[document_id].rewind(effects)
        effects.chunks.clear()

    def found(self, document_ids: Iterable[DocumentId], effects: Effects, now: float) -> None:
        """More of these documents has come to light on the volume than was read before."""
        for document_id in document_ids:
            document = self.documents.get(document_id)
            if document is not None:
                document.reload(effects)
            for connection in self.connections.values():
                if connection.wants_announcements:
                    connection.offer(document_id)
                    self._offer_more(connection, effects, now)

    def compacted(self, document_id: DocumentId, snapshot: bytes, heads: Sequence[bytes]) -> None:
        """What was saved of a document is one snapshot now."""
        document = self.documents.get(document_id)
        if document is not None:
            document.compacted(snapshot, heads)

    def listing_started(self) -> None:
        """The shell begins to list the stored documents, for all who have asked until now."""
        self._listed_for |= self._list_for
        self._list_for = set()

    def listed(self, document_ids: Iterable[DocumentId], effects: Effects, now: float) -> None:
        """The stored documents of this shard, as asked for with `Effects.listing`."""
        document_ids = list(document_ids)
        waiting, self._listed_for = self._listed_for, set()
        for address in sorted(waiting & self.connections.keys()):
            connection = self.connections[address]
            connection.listed = iter(document_ids)  # one list for all of them
            self._offer_more(connection, effects, now)

    def tick(self, effects: Effects, now: float) -> None:
        """Once a second or so: retries, time-outs, and letting go of what nobody uses."""
        for document_id, document in list(self.documents.items()):
            if document.wants_run(now):
                self._dirty[document_id] = document
            elif now - document.last_used >= self._idle_seconds:
                self._drop(document_id, document, now)
        for connection in self.connections.values():
            if connection.unanswered and now - connection.offered_at > OFFER_TIMEOUT_SECONDS:
                connection.unanswered = frozenset()
                self._offer_more(connection, effects, now)
        for gateway in self._arrivals.give_up(now) if self._arrivals is not None else ():
            effects.count("early_messages_dropped")
            effects.send(gateway, Resync())
        self.run(effects, now)

    def forget_gateway(self, gateway: str, effects: Effects, now: float) -> None:
        """A gateway is gone: so are all its connections."""
        for address in [a for a in self.connections if a[0] == gateway]:
            self._close(Ticket((0, 0), 0, gateway), address, effects)
        if self._arrivals is not None:
            self._arrivals.forget(gateway)
        self.settled_sequences.pop(gateway, None)
        self.run(effects, now)

    def gateways(self) -> set[str]:
        """Every gateway that the shard has heard of."""
        known = {gateway for gateway, _ in self.connections}
        return known.union(self._arrivals.names() if self._arrivals is not None else ())

    # -- out

    def settled(self) -> tuple[int, int]:
        """Position up to which everything has been dealt with; call after the commit."""
        arrivals = self._arrivals
        while self._tickets and self._tickets[0].outstanding <= 0:
            ticket = self._tickets.popleft()
            self._settled = ticket.position
            if ticket.sequence and (arrivals is None or arrivals.may_count(ticket.sender)):
                self.settled_sequences[ticket.sender] = ticket.sequence
        return self._settled

    @property
    def is_settled(self) -> bool:
        """Nothing waits."""
        return all(ticket.outstanding <= 0 for ticket in self._tickets)

    @property
    def waiting_count(self) -> int:
        """Entries that were taken and are not dealt with, or behind such."""
        return len(self._tickets)

    @property
    def oldest_written_at(self) -> float | None:
        """When the oldest of those entries was written, in s since 1970."""
        return next((each.written_at for each in self._tickets if each.written_at), None)

    def free_memory(self, wanted_bytes: int, now: float) -> int:
        """Let go of documents at rest, least recently used first; returns bytes freed."""
        freed = 0
        for document in sorted(self.documents.values(), key=lambda d: d.last_used):
            if freed >= wanted_bytes:
                break
            size = document.size_bytes()
            if document.unload(also_used=now - document.last_used >= REST_SECONDS):
                self.closed_count += 1
                freed += size
        return freed

    # -- hand-overs

    def _is_too_early(
        self,
        arrivals: Arrivals,
        ticket: Ticket,
        address: Address,
        item: Inbound,
        effects: Effects,
        now: float,
    ) -> bool:
        """Deal with an item that belongs to no connection that was handed over; tell if it did."""
        gateway = address[0]
        if isinstance(item, Call | Query):
            return False
        if isinstance(item, HandOver):
            self._begin_hand_over(arrivals, gateway, item, effects)
            return False
        if arrivals.has_handed_over(gateway):
            return False
        if arrivals.prompt(gateway):
            effects.send(gateway, Owned([[self.number, self.epoch]]))
        if not isinstance(item, SyncIn):
            ticket.done()
            return True
        could_count = arrivals.may_count(gateway)
        if not arrivals.put_aside(gateway, ticket, item, now):
            ticket.done()
            effects.count("early_messages_dropped")
            if could_count:
                effects.send(gateway, Resync())
        return True

    def _begin_hand_over(
        self, arrivals: Arrivals, gateway: str, item: HandOver, effects: Effects
    ) -> None:
        if item.epoch != self.epoch:
            effects.count("hand_overs_of_other_epochs")
            return
        mine = [each for each in self.connections.values() if each.address[0] == gateway]
        known = [(each.address[1], each.documents) for each in mine]
        begins = arrivals.begin(gateway, item, known)
        effects.send(gateway, Welcome(item.generation) if begins else Resync())

    def _end_hand_over(self, ticket: Ticket, gateway: str, effects: Effects) -> None:
        """Let go of what the gateway has not named: it ended while its word was lost."""
        assert self._arrivals is not None
        for number, documents in self._arrivals.end(gateway):
            address = (gateway, number)
            if address not in self.connections:
                continue
            if documents is None:
                self._close(ticket, address, effects)
            else:
                self._leave(ticket, address, documents)

    def _resume(self, ticket: Ticket, connection: Connection, item: Resume) -> None:
        """Go on with a document of a connection where its last owner was."""
        assert self._arrivals is not None
        early = self._arrivals.resumed(connection.address, item.document_id)
        self._join(connection, item.document_id)
        self._submit(item.document_id, Waiting(ticket, connection.address, item))
        for waiting, message in early:
            if item.syncs and item.access > Access.NONE:
                self._submit(item.document_id, Waiting(waiting, connection.address, message))
            else:  # it was said before what the hand-over tells
                waiting.done()

    # -- one item

    def _take(
        self, ticket: Ticket, address: Address, item: Inbound, effects: Effects, now: float
    ) -> None:
        connection = self.connections.get(address)
        match item:
            case Call():
                self._submit(item.document_id, Waiting(ticket, address, item))
                return
            case Query():
                effects.queries.append((address[0], item))
            case Open():
                self._open(address, item, effects)
            case HandOver():
                pass  # see _is_too_early
            case HandedOver():
                self._end_hand_over(ticket, address[0], effects)
            case Close() if connection is None and self._arrivals is not None:
                pass  # it had ended before a hand-over, which did not name it
            case _ if connection is None:
                effects.count("items_of_unknown_connections")
            case Close():
                self._close(ticket, address, effects)
            case EphemeralIn():
                document = self._document(item.document_id)
                document.last_used = now
                if not connection.has_peer_id:
                    # Or whoever hears it would take what the id's owner says for heard already.
                    item = replace(item, session_id=f"{connection.identity}-{item.session_id}")
                document.relay(self._join(connection, item.document_id), item, effects)
            case Resume():
                self._resume(ticket, connection, item)
                return
            case SyncIn() | UnavailableIn() | AccessIn() | Greet():
                self._document_item(ticket, connection, item)
                self._answered(connection, item, effects, now)
                return
            case SubscribeIn():
                self._subscribe(connection, item.add, item.remove, effects)
            case HeadsIn():
                self._reported(connection, item, effects, now)
            case OfferDone():
                connection.offer_open = False
                connection.offered_at = now
                self._offer_more(connection, effects, now)
        ticket.done()

    def _document_item(
        self,
        ticket: Ticket,
        connection: Connection,
        item: SyncIn | UnavailableIn | AccessIn | Greet,
    ) -> None:
        if isinstance(item, SyncIn | Greet):
            self._join(connection, item.document_id)
        if isinstance(item, Greet):
            connection.await_answer(item.document_id)
        if isinstance(item, AccessIn) and item.access > Access.NONE:
            self._rejoin(connection, item.document_id)
        if item.document_id in self.documents:
            self._submit(item.document_id, Waiting(ticket, connection.address, item))
        else:
            ticket.done()

    def _submit(self, document_id: DocumentId, waiting: Waiting) -> None:
        document = self._document(document_id)
        document.submit(waiting)
        self._dirty[document_id] = document

    def _document(self, document_id: DocumentId) -> DocumentSynchronizer:
        document = self.documents.get(document_id)
        if document is None:
            document = DocumentSynchronizer(
                document_id,
                self._factory,
                self._auto_create,
                self._gate,
                gives_tokens=self._arrivals is not None,
            )
            self.documents[document_id] = document
        return document

    def _join(self, connection: Connection, document_id: DocumentId) -> Peer:
        document = self._document(document_id)
        connection.joined(document.document_id)  # one text for all who have it open
        known = document.peers.get(connection.address)
        return known or document.join(
            Peer(
                connection.address,
                connection.number,
                connection.peer_id,
                connection.storage_id,
                has_peer_id=connection.has_peer_id,
            )
        )

    def _rejoin(self, connection: Connection, document_id: DocumentId) -> None:
        """Access was gained; a peer that never had any starts as one that has lost it."""
        if document_id not in connection.documents:
            peer = self._join(connection, document_id)
            peer.access, peer.needs_reset = Access.NONE, True

    def _drop(self, document_id: DocumentId, document: DocumentSynchronizer, now: float) -> None:
        if document.unload(also_used=now - document.last_used >= self._sleep_seconds):
            self.closed_count += 1
        if document.may_be_dropped():
            del self.documents[document_id]
            self._gossip.forget_document(document_id)

    # -- connections

    def _open(self, address: Address, item: Open, effects: Effects) -> None:
        connection = self.connections.get(address)
        if connection is None:
            address = (sys.intern(address[0]), address[1])  # one text for all of a gateway
            connection = self._connect(address, item, effects)
            self._next_number += 1
            self.connections[address] = connection
        else:  # handed over again: offers of before may have been lost
            connection.offer_open, connection.unanswered = False, frozenset()
            kept = set(item.subscriptions)
            old = self._gossip.subscriptions.get(address, set())
            self._subscribe(connection, (), sorted(old - kept), effects)
        if self._arrivals is not None:
            self._arrivals.opened(address)
        self._subscribe(connection, item.subscriptions, (), effects)
        if item.wants_announcements:
            self._list_for.add(address)
            effects.listing = True
            self._pass_on(self._gossip.all_wanted(), [], effects, only=connection)

    def _connect(self, address: Address, item: Open, effects: Effects) -> Connection:
        storage_id, identity = item.storage_id, sys.intern(item.identity)
        has_peer_id = self._peer_ids.claim(item.peer_id, identity)
        if storage_id is not None and not self._storage_ids.claim(storage_id, identity):
            storage_id = None
            effects.count("claimed_ids", "storage")
        if not has_peer_id:
            effects.count("claimed_ids", "peer")
        return Connection(
            address,
            self._next_number,
            item.peer_id,
            storage_id,
            item.wants_announcements,
            identity,
            has_peer_id,
        )

    def _close(self, ticket: Ticket, address: Address, effects: Effects) -> None:
        connection = self.connections.pop(address)
        if connection.has_peer_id:
            self._peer_ids.release(connection.peer_id, connection.identity)
        if connection.storage_id is not None:
            self._storage_ids.release(connection.storage_id, connection.identity)
        self._leave(ticket, address, connection.documents)
        gone = self._gossip.forget_connection(address)
        self._pass_on([], gone, effects)

    def _leave(self, ticket: Ticket, address: Address, documents: Collection[DocumentId]) -> None:
        connection = self.connections.get(address)
        for document_id in documents:
            if connection is not None:
                connection.left(document_id)
            if document_id in self.documents:
                ticket.outstanding += 1
                self._submit(document_id, Waiting(ticket, address, Close(address[1])))

    # -- announcements

    def _offer_more(self, connection: Connection, effects: Effects, now: float) -> None:
        if connection.offer_open or connection.unanswered:
            return
        batch: list[DocumentId] = []
        while len(batch) < OFFER_BATCH:
            document_id = next(connection.listed, None)
            if document_id is None:
                if not connection.to_offer:
                    break
                document_id = connection.to_offer.popleft()
            if document_id not in connection.documents:
                batch.append(document_id)
        if batch:
            connection.offer_open, connection.offered_at = True, now
            gateway, number = connection.address
            effects.send(gateway, Offer(number, batch))

    def _answered(
        self,
        connection: Connection,
        item: SyncIn | UnavailableIn | AccessIn | Greet,
        effects: Effects,
        now: float,
    ) -> None:
        if connection.unanswered and not isinstance(item, Greet):
            connection.has_answered(item.document_id)
            self._offer_more(connection, effects, now)

    def _guarded(
        self,
        document: DocumentSynchronizer,
        step: Callable[[], None],
        effects: Effects,
        now: float,
    ) -> None:
        """Let a document take a step; a defect of ours costs that document and no other."""
        try:
            step()
        except BaseException as error:
            # A panic of the binding outside of the crate is no Exception.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            effects.failures.append((document.document_id, error))
            document.isolate(effects)
        self._after(document, effects, now)

    def _after(self, document: DocumentSynchronizer, effects: Effects, now: float) -> None:
        """What a document's step means for others: announcements and remote heads."""
        if not document.is_stored and document.document_id in effects.chunks:
            document.is_stored = True
            effects.created.add(document.document_id)
            for connection in self.connections.values():
                if connection.wants_announcements:
                    connection.offer(document.document_id)
                    self._offer_more(connection, effects, now)
        if document.not_greeted:
            passed_over, document.not_greeted = document.not_greeted, ()
            for address in passed_over:
                if address in self.connections:
                    self.connections[address].has_answered(document.document_id)
                    self._offer_more(self.connections[address], effects, now)
        if document.peer_heads:
            self._observed(document, effects, now)

    def _observed(self, document: DocumentSynchronizer, effects: Effects, now: float) -> None:
        seen, document.peer_heads = document.peer_heads, ()
        for peer, heads in seen:
            if peer.storage_id is None:
                continue
            texts = [base58check_encode(head) for head in heads]
            known = self._gossip.observe(
                document.document_id, peer.storage_id, texts, self._now_ms(now)
            )
            if known is not None:
                self._tell(document.document_id, peer.storage_id, known, peer.address, effects)

    # -- remote heads

    def _now_ms(self, now: float) -> int:
        return self._wall_ms + int(now * 1000)

    def _may_read(self, connection: Connection, document_id: DocumentId) -> bool:
        """The connection has the document open, and did not lose access to it."""
        document = self.documents.get(document_id)
        peer = document.peers.get(connection.address) if document is not None else None
        return peer is not None and peer.access > Access.NONE

    def _subscribe(
        self,
        connection: Connection,
        add: Sequence[str],
        remove: Sequence[str],
        effects: Effects,
    ) -> None:
        fresh = self._gossip.subscribe(connection.address, add)
        gone = self._gossip.unsubscribe(connection.address, remove)
        self._pass_on(fresh, gone, effects)
        for document_id in sorted(connection.documents):
            if not self._may_read(connection, document_id):
                continue
            for storage_id, known in self._gossip.known(document_id, add).items():
                self._send_heads(document_id, storage_id, known, [connection.address], effects)

    def _pass_on(
        self,
        add: Sequence[str],
        remove: Sequence[str],
        effects: Effects,
        only: Connection | None = None,
    ) -> None:
        """Ask the peers that we announce to, for what has come to be wanted.

        Every shard knows those peers; only the one of the storage id speaks.
        """
        add = [s for s in add if shard_of_storage(s, self._shard_count) == self.number]
        remove = [s for s in remove if shard_of_storage(s, self._shard_count) == self.number]
        if not add and not remove:
            return
        for connection in [only] if only else self.connections.values():
            if connection.wants_announcements:
                gateway, number = connection.address
                effects.send(gateway, SubscribeOut([number], add, remove))

    def _reported(
        self, connection: Connection, item: HeadsIn, effects: Effects, now: float
    ) -> None:
        if item.document_id not in self.documents or len(item.heads) > MAX_REPORTED_HEADS:
            return  # nobody has it open, or this is no honest report
        if self._storage_ids.belongs_to_another(item.storage_id, connection.identity):
            effects.count("claimed_ids", "report")
            return
        latest = self._now_ms(now) + MAX_CLOCK_AHEAD_MS
        timestamp = min(item.timestamp, latest)
        known = self._gossip.report(item.document_id, item.storage_id, item.heads, timestamp)
        if known is not None:
            self._tell(item.document_id, item.storage_id, known, connection.address, effects)

    def _tell(
        self,
        document_id: DocumentId,
        storage_id: str,
        known: KnownHeads,
        source: Address,
        effects: Effects,
    ) -> None:
        def has_open(address: Address) -> bool:
            connection = self.connections.get(address)
            if connection is None or connection.storage_id == storage_id:
                return False
            return self._may_read(connection, document_id)

        addresses = self._gossip.subscribers(storage_id, has_open, source)
        self._send_heads(document_id, storage_id, known, addresses, effects)

    def _send_heads(
        self,
        document_id: DocumentId,
        storage_id: str,
        known: KnownHeads,
        addresses: Sequence[Address],
        effects: Effects,
    ) -> None:
        for gateway, number in addresses:
            effects.send(
                gateway,
                HeadsOut([number], document_id, storage_id, list(known.heads), known.timestamp),
            )


def _connection_of(item: Inbound) -> int:
    return 0 if isinstance(item, Call | Query) else item.connection
