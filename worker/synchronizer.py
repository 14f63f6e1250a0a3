"""One document and its peers: when it is loaded, created, answered, refused or let go.

Sans-IO: items of the bus and `now` in, `Effects` out. What the sync protocol itself says is
the engine's business; here is everything around it. Longer than other modules because the
life of a document is one state machine that must be read as one.

States: COLD (nothing in memory but who listens), LOADING (the shell reads the volume), READY,
BUSY (a job has the engine), BLOCKED (the engine broke too often; everybody gets
doc-unavailable). Items wait in `_inbox` unless READY, so nobody is answered before storage was
read, and the offset of their shard stays behind them.

Invariants:
- A message that names heads leaves only together with the chunks that make them durable, or
  after them. One exception: the initial change of an auto-created document, which can be made
  again from nothing and costs no disk until somebody edits.
- A peer that asked for a document that is absent gets doc-unavailable once, no empty sync, and
  the document itself as soon as it appears (PROTOCOL 3.1).
- While a peer has offered heads that we lack, those who ask wait for it.
- No inbound sync message is dropped without the peer being silenced and told doc-unavailable,
  or reset: one lost message is an endless loop (PROTOCOL 0.1).
- To a peer that may not create it, an absent document says what a forbidden one says at the
  gateway: doc-unavailable for each of its sync messages, and nothing else.
- While nothing can be saved, nothing is taken from peers: the engine treats them as readers
  (`Peer.held`), and what they have written meanwhile is asked for afterwards, by a reset.
"""

import enum
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, cast

from amsync.errors import StorageError
from amsync.ids import DocumentId
from amsync.protocol.access import Access
from amsync.protocol.envelope import (
    AccessIn,
    Call,
    Close,
    EphemeralIn,
    Greet,
    Resume,
    SyncIn,
    UnavailableIn,
)
from amsync.protocol.sync import names_no_heads
from amsync.worker import calls, sending
from amsync.worker.listening import Listening
from amsync.worker.peers import (
    NEVER_FAILED,
    DocumentItem,
    LoadRetry,
    Peer,
    Peers,
    Waiting,
    WriteGate,
)
from amsync.worker.ports import (
    Address,
    Effects,
    EngineBroken,
    EngineDocument,
    EngineFactory,
    EngineOutcome,
    EngineRefused,
    Job,
)

BREAKS_UNTIL_BLOCKED = 3


class State(enum.Enum):
    """Where a document is in its life."""

    COLD = "cold"
    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    BLOCKED = "blocked"


_NOTHING: Final = cast("deque[Waiting]", ())
"""An inbox without anything: a deque takes 760 bytes, and most documents are idle."""


@dataclass(slots=True)
class DocumentSynchronizer:
    """The life of one document in one shard; see the module's text."""

    document_id: DocumentId
    factory: EngineFactory
    auto_create: bool
    gate: WriteGate = field(default_factory=WriteGate)
    gives_tokens: bool = False
    state: State = State.COLD
    deleted: bool = False
    peers: Peers = field(default_factory=Peers)
    last_used: float = 0.0
    is_stored: bool = False
    _engine: EngineDocument | None = None
    _heads: tuple[bytes, ...] = ()
    _inbox: deque[Waiting] = _NOTHING
    _in_job: tuple[Waiting, ...] = ()
    _in_hand: Sequence[Waiting] = ()
    _waking: tuple[int, ...] = ()
    """Peers that slept and are to be greeted with the next sync."""
    _edited_at: float = 0.0
    _unsaved: tuple[bytes, ...] = ()
    _breaks: int = 0
    _is_visited: bool = False
    """It was opened for a call, and nobody else has needed it since."""
    _is_stale: bool = False
    """What is in memory must be read again as soon as the job that has it, or the load, ends."""
    _loading: LoadRetry = NEVER_FAILED
    _listening: Listening = field(init=False)
    peer_heads: tuple[tuple[Peer, list[bytes]], ...] = ()
    """Heads that peers with a storage id were seen to have; the shard takes and clears them."""
    not_greeted: tuple[Address, ...] = ()
    """Who was to be told of the document, and won't be; the shard takes and clears them."""

    def __post_init__(self) -> None:
        self._listening = Listening(self.gate)

    # -- what the shard calls

    def join(self, peer: Peer) -> Peer:
        """Make a connection a peer of the document, or return the one it is already."""
        return self.peers.join(peer)

    def submit(self, waiting: Waiting) -> None:
        """Take an item; it is dealt with by a `run` of this or a later step."""
        if not self._inbox:
            self._inbox = deque()
        self._inbox.append(waiting)

    def relay(self, sender: Peer, item: EphemeralIn, effects: Effects) -> None:
        """Pass a broadcast on, without loading the document (PROTOCOL 4.1)."""
        targets = self.peers.audience(sender, item.target_id)
        sending.relay(self.document_id, sender, item, targets, effects)

    def run(self, effects: Effects, now: float) -> None:
        """Deal with as much of the inbox as can be dealt with now."""
        self.last_used = now
        if self._may_release():
            assert self._engine is not None
            self._listening.release(self._engine, self.peers)
            self._sync([], [], (), effects, now)
        forgiven = self._forgiven(now)
        for peer in forgiven:
            self._admit(peer, reset=True)
        if forgiven:
            self._sync([], [peer.number for peer in forgiven], (), effects, now)
        if self._wait_is_over(now):
            self._settle(effects, now)
        if self._loading.failures > 0 and self.wants_run(now):
            self.state = State.LOADING
            effects.loads.append(self.document_id)
        while self._inbox:
            if self._loading.lasts and self.state is State.COLD:
                self._refuse_all(effects)
                return
            if self.state is State.COLD and not self._needs_content(self._inbox[0]):
                self._single(self._inbox.popleft(), effects, now)
                continue
            if self.state is State.COLD and now >= self._loading.retry_at:
                self._is_visited = True
                self.state = State.LOADING
                effects.loads.append(self.document_id)
            if self.state is State.BLOCKED:
                self._refuse_all(effects)
            if self.state is not State.READY:
                return
            self._is_visited &= isinstance(self._inbox[0].item, Call)
            self._next(effects, now)
        self._inbox = _NOTHING

    def loaded(
        self, engine: EngineDocument | None, is_stored: bool, effects: Effects, now: float
    ) -> None:
        """The volume was read; `engine` is None for a deleted document."""
        if self.state is not State.LOADING:
            return
        if self._is_stale:
            self.state = State.READY
            self.reload(effects)
            return
        self.deleted = engine is None
        self.is_stored = is_stored
        self._engine = engine or self.factory.new()
        self._heads = tuple(self._engine.heads())
        self._listening.measure(self._engine)
        self.state = State.READY
        self._loading = NEVER_FAILED
        returning = [peer for peer in self.peers if peer.in_engine]
        sleeping = [peer for peer in self.peers if peer.token]
        for peer in returning:
            peer.in_engine = False
        if self.deleted:
            for peer in sleeping:
                peer.token = b""
            self._unavailable([peer.address for peer in (*returning, *sleeping)], effects)
            returning = sleeping = []
        for peer in returning:
            self._admit(peer, reset=True)
        for peer in sleeping:
            self._admit(peer, reset=False, token=peer.token)
            peer.token = b""
        # They are greeted together with what has woken the document, if anything has.
        self._waking = tuple(peer.number for peer in sleeping)
        if returning or (sleeping and not self._inbox):
            self._sync([], [], (), effects, now)
        self.run(effects, now)

    def reload(self, effects: Effects) -> None:
        """Forget what is in memory, and read the document again: it is not what is stored.

        Its peers stay, and are reset when it is there.
        """
        self._is_stale = self.state in (State.BUSY, State.LOADING)
        is_asleep = self.state is State.COLD and any(peer.token for peer in self.peers)
        if self.state is State.READY or is_asleep:
            self._engine, self._heads, self._unsaved = None, (), ()
            self.state = State.LOADING
            effects.loads.append(self.document_id)

    def rewind(self, effects: Effects) -> None:
        """The chunks of this step could not be made durable; what was to be said is withdrawn."""
        effects.count("documents_rewound")
        for address in effects.answered.get(self.document_id, ()):
            peer = self.peers.get(address)
            if peer is not None:
                peer.asks = True
        if self.state is not State.LOADING:  # the load that is asked for begins later
            self.reload(effects)

    def compacted(self, snapshot: bytes, heads: Sequence[bytes]) -> None:
        """What was saved of the document is one snapshot now; hold that in place of its parts."""
        if self.state is State.READY and self._engine is not None:
            self._engine.rebase(snapshot, heads)

    def load_failed(self, effects: Effects, now: float) -> None:
        """The volume could not be read; try again a little later.

        At first the inbox waits. A failure that lasts must not hold up the shard's stream, and
        with it everybody who shares the shard: then those who wait are told doc-unavailable,
        and greeted with a reset when the document can be read again.
        """
        self.state, self._is_stale = State.COLD, False
        self._loading = self._loading.failed(now)
        if self._loading.lasts:
            effects.count("documents_unreadable")
            self._refuse_all(effects)
            for peer in self.peers:
                peer.in_engine, peer.needs_reset, peer.token = False, True, b""

    def load_broken(self, effects: Effects, now: float) -> None:
        """What is stored can't be opened; trying again would not help."""
        effects.count("documents_blocked")
        self.state, self._is_stale = State.BLOCKED, False
        self._unavailable([peer.address for peer in self.peers], effects)
        self.run(effects, now)

    def isolate(self, effects: Effects) -> None:
        """An unexpected exception has left the document in no known state: stop touching it.

        What was taken and not committed is not acknowledged; the peers are told that the
        document is unavailable, and keep what they have.
        """
        effects.count("documents_blocked")
        for waiting in (*self._in_hand, *self._in_job):
            if isinstance(waiting.item, Call):
                calls.reply(waiting, waiting.item, self._unopened_error(), b"", effects)
            waiting.ticket.done()
        self._in_hand, self._in_job = (), ()
        self._engine, self._heads, self._unsaved = None, (), ()
        self.state, self._is_stale = State.BLOCKED, False
        self._unavailable([peer.address for peer in self.peers], effects)
        self._refuse_all(effects)

    def job_finished(self, result: object, effects: Effects, now: float) -> None:
        """A job has ended with a result or an exception."""
        if self.state is not State.BUSY:  # the document was isolated meanwhile
            return
        batch, self._in_job = self._in_job, ()
        self._in_hand = batch
        self.state = State.READY
        self._edited_at = _written_at(batch)
        call = batch[0].item if batch and isinstance(batch[0].item, Call) else None
        if self._is_stale:
            if call is not None and (call.operation in calls.READ or self.gate.is_open):
                self._inbox = deque((batch[0], *self._inbox))  # on what is saved
                batch = ()
            elif call is not None:
                calls.reply(batch[0], call, self._unsaved_error(), b"", effects)
            self.reload(effects)
        elif call is not None:
            self._call_ended(batch[0], call, result, effects, now)
        elif isinstance(result, BaseException):
            self._broken(batch, result, effects, now)
        else:
            self._absorb(result, effects, now)  # type: ignore[arg-type]
        self._finish(batch)
        self.run(effects, now)

    def deletion_finished(
        self, error: BaseException | None, is_gone: bool, effects: Effects, now: float
    ) -> None:
        """The shell has put the tombstone on disk, or failed to; then it may be there or not."""
        if self.state is not State.BUSY:
            return
        (waiting,), self._in_job = self._in_job, ()
        self.state = State.READY
        assert isinstance(waiting.item, Call)
        if is_gone:
            self._forget_content()
            targets = [peer.address for peer in self.peers]
            self._unavailable(targets, effects)
        calls.reply(waiting, waiting.item, error, b"", effects)
        self._finish((waiting,))
        if self._is_stale:
            self.reload(effects)
        self.run(effects, now)

    def may_be_dropped(self) -> bool:
        """Nothing would be lost if this object were forgotten."""
        return not self.peers and self._is_at_rest()

    def unload(self, *, also_used: bool = False) -> bool:
        """Let go of the document but not of its peers; False if it is in use.

        `also_used`: also if it has peers, who sleep then. They are gone on with as a new owner
        goes on with peers that are handed over to it: by their tokens, with a small greeting.
        """
        if not self._is_at_rest() or self.state is not State.READY or self._engine is None:
            return False
        using = [peer for peer in self.peers if peer.in_engine]
        if using and not (also_used and self._may_sleep(using)):
            return False
        for peer in using:
            peer.token = self._engine.token(peer.number)
            peer.in_engine = peer.offered = False
        self._engine, self._heads, self._unsaved = None, (), ()
        self.state = State.COLD
        return True

    def _may_sleep(self, using: Iterable[Peer]) -> bool:
        """All of it is stored, and nobody waits for anything."""
        is_stored = bool(self._heads) and not (self._unsaved or self._waking)
        is_held = self._listening.has_held and not self._listening.is_full
        waits = is_held or any(peer.reset_due or peer.asks for peer in using)
        return is_stored and not waits

    def size_bytes(self) -> int:
        """Memory of the open document, as the engine estimates it; 0 while a job has it."""
        if self._engine is None or self.state is State.BUSY:
            return 0
        return self._engine.size_bytes()

    @property
    def is_open(self) -> bool:
        """Its content is in memory."""
        return self._engine is not None

    @property
    def syncing_count(self) -> int:
        """Peers that it is kept in sync with."""
        return sum(peer.syncs for peer in self.peers)

    def wants_run(self, now: float) -> bool:
        """A load failed and may now be tried again, or a peer's silence is over."""
        if self.state is State.COLD:
            unread = bool(self._inbox) or (self._loading.failures > 0 and bool(self.peers))
            return unread and now >= self._loading.retry_at
        return bool(self._forgiven(now)) or self._wait_is_over(now) or self._may_release()

    def _may_release(self) -> bool:
        """Peers whose changes were not taken may write again."""
        is_over = self._listening.has_held and self._listening.is_open
        return is_over and self.state is State.READY

    def _unopened_error(self) -> StorageError:
        return StorageError(f"document {self.document_id} can't be opened; see the log")

    def _unsaved_error(self) -> StorageError:
        return self.gate.error or StorageError(f"document {self.document_id} could not be saved")

    def _wait_is_over(self, now: float) -> bool:
        """Some wait for an absent document whose supplier has not delivered in time."""
        if self.state is not State.READY or self._heads or self.peers.is_awaited(now):
            return False
        return bool(self.peers.asking())

    def _forgiven(self, now: float) -> list[Peer]:
        """Peers whose silence is over, if there is something to tell them.

        They may have nothing to say by themselves and would wait until they connect again.
        """
        if self.state is not State.READY or not self._heads:
            return []
        return self.peers.forgiven(now)

    def _is_at_rest(self) -> bool:
        return not self._inbox and self.state in (State.COLD, State.READY, State.BLOCKED)

    def _needs_content(self, waiting: Waiting) -> bool:
        item = waiting.item
        if isinstance(item, AccessIn) and item.access > Access.NONE:
            peer = self.peers.get(waiting.address)
            if peer is None:
                return False
            return peer.access == Access.NONE or (item.may_create and peer.needs_reset)
        if isinstance(item, Resume):
            return item.syncs and item.access > Access.NONE
        return isinstance(item, SyncIn | Greet | Call)

    # -- one item or batch

    def _next(self, effects: Effects, now: float) -> None:
        batch: list[tuple[int, bytes]] = []
        hello: list[int] = []
        taken: list[Waiting] = []
        if self._waking and not isinstance(self._inbox[0].item, SyncIn | Greet | Resume):
            self._sync([], [], (), effects, now)  # nothing else may come before they are greeted
            return
        self._in_hand = taken
        while self._inbox:
            waiting = self._inbox[0]
            item = waiting.item
            if isinstance(item, SyncIn):
                message = self._accept(waiting.address, item, effects, now)
                if message is not None:
                    batch.append(message)
                else:  # it may have been retired, with what it said before in this batch
                    batch = [each for each in batch if self._syncs_with(each[0])]
                    hello = [number for number in hello if self._syncs_with(number)]
            elif isinstance(item, Greet):
                number = self._greet(waiting.address, item)
                if number is not None:
                    hello.append(number)
            elif isinstance(item, Resume) and not batch:
                number = self._resume(waiting.address, item, effects, now)
                if number is not None:
                    hello.append(number)
            elif taken:
                break
            else:
                self._inbox.popleft()
                self._single(waiting, effects, now)
                return
            taken.append(self._inbox.popleft())
        if batch or hello or self._waking:
            self._sync(batch, hello, tuple(taken), effects, now)
        else:
            self._finish(taken)

    def _finish(self, taken: Iterable[Waiting]) -> None:
        self._in_hand = ()
        for waiting in taken:
            waiting.ticket.done()

    def _single(self, waiting: Waiting, effects: Effects, now: float) -> None:
        item, peer = waiting.item, self.peers.get(waiting.address)
        self._in_hand = (waiting,)
        if isinstance(item, Call):
            self._call(waiting, item, effects)
            return
        if peer is not None:
            match item:
                case Close():
                    self._remove(peer)
                    self._settle(effects, now)
                case UnavailableIn():
                    # It neither has nor wants it: nothing is sent until it speaks again.
                    self._retire(peer)
                    self._settle(effects, now)
                case AccessIn(access=Access.NONE):
                    # Its messages are refused at the gateway from here on, so a reset is due
                    # when it gets access again.
                    self._retire(peer)
                    peer.access, peer.needs_reset = Access.NONE, True
                    self._settle(effects, now)
                case AccessIn(access=access):
                    peer.may_create = item.may_create
                    self._change_role(peer, access, effects, now)
                case Resume():
                    self._resume(waiting.address, item, effects, now)
                case _:
                    pass
        self._finish((waiting,))

    def _accept(
        self, address: Address, item: SyncIn, effects: Effects, now: float
    ) -> tuple[int, bytes] | None:
        peer = self.peers.get(address)
        if peer is None:  # closed since
            return None
        if self.deleted:
            self._unavailable([address], effects)
            return None
        if now < peer.silenced_until:
            effects.count("silenced_messages")
            if not self._heads and not item.may_create:
                self._unavailable([address], effects)
            return None
        if self._brings_unasked(item):
            effects.count("creations_refused")
            peer.access, peer.asks, peer.told_unavailable = item.access, False, False
            self._turn_away(peer, effects)
            return None
        if not peer.in_engine:
            peer.access = item.access
            self._admit(peer, reset=peer.needs_reset)
        else:
            assert self._engine is not None
            self._listening.hold(self._engine, peer)
        peer.told_unavailable = False
        peer.asks = names_no_heads(item.data)
        offers = not peer.asks and self._listening.may_write(peer)
        if offers and not peer.offered:
            peer.offered_at = now
        peer.offered = offers
        peer.may_create = item.may_create and peer.access >= Access.WRITE
        if not (self._heads or peer.may_create or self.peers.is_awaited(now)):
            peer.told_unavailable = True
            self._unavailable([address], effects)
        return peer.number, item.data

    def _brings_unasked(self, item: SyncIn) -> bool:
        """The peer brings a document that is absent, and may not create it, or no more now."""
        uploads = item.access >= Access.WRITE and not names_no_heads(item.data)
        return not self._heads and uploads and not item.may_create

    def _greet(self, address: Address, item: Greet) -> int | None:
        peer = self.peers.get(address)
        if peer is None:
            return None
        if peer.in_engine or self.deleted or not self._heads:
            self.not_greeted = (*self.not_greeted, address)
            return None
        peer.access = item.access
        self._admit(peer, reset=False)
        return peer.number

    def _resume(self, address: Address, item: Resume, effects: Effects, now: float) -> int | None:
        """Go on with a peer where an earlier owner was; returns its number if it is greeted."""
        peer = self.peers.get(address)
        if peer is None:
            return None
        # The gateway knows of no loss that was ours, unless the reset has reached it.
        may_be_lost = item.may_be_lost or peer.was_reset or peer.needs_reset
        self._retire(peer)
        peer.access = item.access
        if not item.syncs or item.access == Access.NONE:
            peer.needs_reset = item.access == Access.NONE
            return None
        if self.deleted:
            self._unavailable([address], effects)
            return None
        peer.silenced_until = 0.0
        peer.asks = item.asks
        peer.may_create = item.may_create and peer.access >= Access.WRITE
        peer.told_unavailable = item.told_unavailable and not self._heads
        # It has offered what isn't here, or what was refused, and has to offer it again.
        is_stale = not item.asks and (item.told_unavailable or not self._heads)
        self._admit(peer, reset=may_be_lost or is_stale, token=item.token)
        if is_stale and peer.may_create and self._listening.may_write(peer) and not self._heads:
            peer.offered, peer.offered_at = True, now
        return peer.number

    def _admit(self, peer: Peer, *, reset: bool, token: bytes = b"") -> None:
        assert self._engine is not None
        self._listening.admit(self._engine, peer, reset=reset, token=token)

    def _change_role(self, peer: Peer, access: int, effects: Effects, now: float) -> None:
        # Who was turned away from an absent document, and may bring it now, is asked for it.
        is_due = peer.may_create and peer.needs_reset and not peer.in_engine
        if peer.access == Access.NONE or is_due:
            peer.access = access
            # One that is not listened to is greeted when it is (`_forgiven`): what it answered
            # now would be lost.
            if not self.deleted and now >= peer.silenced_until:
                self._admit(peer, reset=True)
                self._sync([], [peer.number], (), effects, now)
        elif self._listening.change_role(self._engine, peer, access):
            self._sync([], [], (), effects, now)

    def _sync(
        self,
        batch: list[tuple[int, bytes]],
        hello: list[int],
        taken: tuple[Waiting, ...],
        effects: Effects,
        now: float,
    ) -> None:
        engine = self._engine
        assert engine is not None
        self._edited_at = _written_at(taken)
        if self._waking:
            hello = [*hello, *(n for n in self._waking if self._syncs_with(n) and n not in hello)]
            self._waking = ()
        try:
            outcome = engine.sync(batch, hello, only_light=True)
        except EngineBroken as error:
            self._broken(taken, error, effects, now)
            self._finish(taken)
            return
        self._absorb(outcome, effects, now)
        # Not what came from a peer that was silenced for its earlier messages.
        rest = [item for item in batch[outcome.taken :] if self._syncs_with(item[0])]
        if (rest or outcome.is_frozen) and self._engine is engine:
            self._start(partial(engine.sync, rest), taken, effects)
        else:
            self._finish(taken)

    def _syncs_with(self, number: int) -> bool:
        peer = self.peers.numbered(number)
        return peer is not None and peer.in_engine

    def _start(
        self, work: Callable[[], object], taken: tuple[Waiting, ...], effects: Effects
    ) -> None:
        self._in_job, self._in_hand = taken, ()
        self.state = State.BUSY
        effects.jobs.append(Job(self.document_id, work))

    # -- what came of it

    def _absorb(
        self,
        outcome: EngineOutcome,
        effects: Effects,
        now: float,
        creator: Peer | None = None,
        keep_unsaved: bool = False,
    ) -> None:
        if outcome.chunks and not self._heads:
            creator = creator or next((p for p in self.peers if p.offered), None)
        self._heads = outcome.heads
        if keep_unsaved:
            self._unsaved = tuple(outcome.chunks)
        elif outcome.chunks:
            effects.chunks[self.document_id] += [*self._unsaved, *outcome.chunks]
            effects.edited(self._edited_at)
            self._unsaved = ()
        has_grown = bool(outcome.chunks) and self._engine is not None
        if has_grown and self._listening.measure(cast(EngineDocument, self._engine)):
            effects.full.append(self.document_id)
        if outcome.sidecar is not None:
            effects.sidecars.append((self.document_id, outcome.sidecar))
        for fault in outcome.faults:
            self._fault(fault.peer, fault.reason, effects, now)
        for number in outcome.ignored:
            reader = self.peers.numbered(number)
            held = reader is not None and reader.held
            effects.count("changes_refused", "held" if held else "read_only")
        for _ in range(outcome.holds):
            effects.count("unanswered_holds")
        if outcome.peer_heads:
            seen = ((self.peers.numbered(number), heads) for number, heads in outcome.peer_heads)
            named = ((peer, heads) for peer, heads in seen if peer is not None)
            self.peer_heads = (*self.peer_heads, *named)
        edited_at = self._edited_at if outcome.chunks else 0.0
        authors = {w.address for w in (*self._in_hand, *self._in_job)}
        for data, numbers in outcome.messages:
            peers = [peer for n in numbers if (peer := self.peers.numbered(n)) is not None]
            to_others = any(peer.address not in authors for peer in peers)
            self._send(data, peers, creator, edited_at if to_others else 0.0, effects)
        self._settle(effects, now)

    def _send(
        self,
        data: bytes,
        peers: Sequence[Peer],
        creator: Peer | None,
        edited_at: float,
        effects: Effects,
    ) -> None:
        """Send a sync message; those who asked for what is absent are not told an empty one."""
        for peer in peers:
            if not self._heads and peer.reset_due and peer.in_engine and not peer.may_create:
                self._turn_away(peer, effects)
        receivers = [p for p in peers if p.in_engine and (self._heads or p.offered or p.reset_due)]
        resets = {peer.number for peer in receivers if peer.reset_due}
        for peer in receivers:
            peer.reset_due = False
            if peer.asks and self._heads:
                peer.asks = False
                effects.answered[self.document_id].append(peer.address)
        resuming = None
        if self.gives_tokens and self._engine is not None:
            resuming = sending.Resuming(self._engine.token, resets)
        sending.send_sync(self.document_id, data, receivers, creator, edited_at, resuming, effects)

    def _settle(self, effects: Effects, now: float) -> None:
        """Answer those who wait for an absent document, unless somebody is about to bring it."""
        if self._heads or self._engine is None or self.state is not State.READY:
            return
        if self.peers.is_awaited(now):
            return
        asking = self.peers.asking()
        creator = next((peer for peer in asking if peer.may_create), None)
        if creator is not None and self.auto_create and not self.deleted:
            effects.count("documents_created")
            try:
                outcome = self._engine.apply(self.factory.initial_change())
            except EngineBroken as error:
                self._broken((), error, effects, now)
                return
            self._absorb(outcome, effects, now, creator=creator, keep_unsaved=True)
            return
        for peer in asking:
            peer.told_unavailable = True
        self._unavailable([peer.address for peer in asking], effects)
        readers = [p for p in self.peers if not p.asks and p.in_engine]
        # A reader that names heads which it may not give us: as absent as for anyone else.
        untold = [p for p in readers if not p.told_unavailable and not self._listening.may_write(p)]
        for peer in untold:
            peer.told_unavailable = True
        self._unavailable([peer.address for peer in untold], effects)

    def _fault(self, number: int, reason: str, effects: Effects, now: float) -> None:
        peer = self.peers.numbered(number)
        match reason:
            case "loop_reset":
                effects.count("loop_breaker_trips", "reset")
                return
            case "loop":
                effects.count("loop_breaker_trips", "silenced")
            case _:
                effects.count("engine_faults", reason)
        if peer is not None:
            self._silence(peer, effects, now)

    def _silence(self, peer: Peer, effects: Effects, now: float) -> None:
        peer.silence(now)
        self._retire(peer)
        if not peer.told_unavailable:
            self._unavailable([peer.address], effects)

    def _turn_away(self, peer: Peer, effects: Effects) -> None:
        """The document is absent, and the peer may not bring it; greet it when somebody else has.

        If it asks it is answered with the others who do.
        """
        asks = peer.asks
        self._retire(peer)
        peer.asks, peer.needs_reset, peer.reset_due = asks, True, False
        if not asks and not peer.told_unavailable:
            peer.told_unavailable = True
            self._unavailable([peer.address], effects)

    def _broken(
        self, batch: Iterable[Waiting], error: BaseException, effects: Effects, now: float
    ) -> None:
        """The engine failed inside: silence who caused it, read the document again for the rest."""
        effects.count("engine_broken", type(error).__name__)
        self._breaks += 1
        self._engine, self._heads, self._unsaved = None, (), ()
        for address in dict.fromkeys(w.address for w in batch if isinstance(w.item, SyncIn)):
            if (peer := self.peers.get(address)) is not None:
                self._silence(peer, effects, now)
        if self._breaks >= BREAKS_UNTIL_BLOCKED:
            self.state = State.BLOCKED
            self._unavailable([peer.address for peer in self.peers], effects)
            return
        self.state = State.LOADING
        effects.loads.append(self.document_id)

    def _refuse_all(self, effects: Effects) -> None:
        while self._inbox:
            waiting = self._inbox.popleft()
            if isinstance(waiting.item, SyncIn | Greet | Resume):
                peer = self.peers.get(waiting.address)
                if peer is not None:
                    peer.access, peer.needs_reset = waiting.item.access, True
                self._unavailable([waiting.address], effects)
            elif isinstance(waiting.item, Call):
                calls.reply(waiting, waiting.item, self._unopened_error(), b"", effects)
            elif (peer := self.peers.get(waiting.address)) is not None:
                self._note_while_unread(peer, waiting.item)
            waiting.ticket.done()

    def _note_while_unread(self, peer: Peer, item: DocumentItem) -> None:
        """What a peer's item means while the document can't be read: above all, lost access."""
        if isinstance(item, Close):
            self._remove(peer)
        elif isinstance(item, AccessIn):
            self._retire(peer)
            peer.access, peer.needs_reset = item.access, True
        elif isinstance(item, UnavailableIn):
            self._retire(peer)

    # -- the application's calls

    def _call(self, waiting: Waiting, call: Call, effects: Effects) -> None:
        assert self._engine is not None
        refused = calls.refusal(call, self.document_id, self._heads, deleted=self.deleted)
        if refused is None and call.operation in calls.WRITE:
            refused = self.gate.error
        if refused is not None or (call.operation == "get" and not self._heads):
            calls.reply(waiting, call, refused, b"", effects)
            self._finish((waiting,))
        elif call.operation == "info":
            was_open = not self._is_visited
            said = calls.described(self._engine, self.peers, self._heads, was_open=was_open)
            calls.reply(waiting, call, None, said, effects)
            self._finish((waiting,))
        elif call.operation == "delete":
            self._in_job, self._in_hand, self.state = (waiting,), (), State.BUSY
            effects.deletions.append(self.document_id)
        else:
            self._start(calls.work(call, self._engine, self.factory), (waiting,), effects)

    def _call_ended(
        self, waiting: Waiting, call: Call, result: object, effects: Effects, now: float
    ) -> None:
        payload, was_there = b"", bool(self._heads)
        if isinstance(result, calls.Done):
            if result.outcome is not None:
                self._absorb(result.outcome, effects, now)
            if self._unsaved and call.operation in calls.WRITE:
                effects.chunks[self.document_id] += self._unsaved  # and nothing was new to it
                self._unsaved = ()
            payload = calls.answer(call, result, self._heads, was_there=was_there)
        calls.reply(waiting, call, calls.failure(call, result), payload, effects)
        if isinstance(result, BaseException) and not isinstance(result, EngineRefused):
            self._broken((), result, effects, now)

    # -- peers

    def _forget_content(self) -> None:
        self.deleted, self.is_stored = True, False
        self._engine, self._heads, self._unsaved = self.factory.new(), (), ()
        for peer in self.peers:
            peer.in_engine = False

    def _retire(self, peer: Peer) -> None:
        """Stop syncing with a peer that stays to listen to broadcasts."""
        if peer.in_engine and self._engine is not None:
            self._engine.remove_peer(peer.number)
        peer.in_engine, peer.held, peer.offered, peer.asks = False, False, False, False
        peer.token = b""

    def _remove(self, peer: Peer) -> None:
        self._retire(peer)
        self.peers.leave(peer)

    def _unavailable(self, addresses: Iterable[Address], effects: Effects) -> None:
        sending.send_unavailable(self.document_id, addresses, effects)


def _written_at(batch: Iterable[Waiting]) -> float:
    return min((w.ticket.written_at for w in batch), default=0.0)
