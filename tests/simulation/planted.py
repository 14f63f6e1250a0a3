"""Deliberate defects, one at a time, in the shipped code; the simulated network must see each.

Every function patches what it names and is undone by the caller. Chances inside come from
`Sometimes`, so that a seed stays repeatable.
"""

import contextlib
import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from amsync.bus import MemoryBus, StreamEntry
from amsync.bus.memory import MemoryReader
from amsync.errors import StorageError
from amsync.gateway.router import Router
from amsync.gateway.session import PeerSession
from amsync.ids import DocumentId
from amsync.protocol.access import Access, Grant
from amsync.protocol.envelope import AccessIn, Close, EphemeralIn, EphemeralOut, SyncOut
from amsync.storage import Store, WalBatch
from amsync.storage.checkpoint import Checkpointer
from amsync.storage.compaction import Compactor
from amsync.storage.documents import DocumentFiles
from amsync.storage.durable import DurableFiles
from amsync.storage.tail import WalTail
from amsync.storage.wal import WalWriter
from amsync.worker import sending
from amsync.worker.arrivals import Arrivals
from amsync.worker.listening import Listening
from amsync.worker.peers import Peer, Waiting
from amsync.worker.ports import Effects
from amsync.worker.publisher import Publisher
from amsync.worker.shard import Shard
from amsync.worker.synchronizer import DocumentSynchronizer, State
from amsync.worker.worker import Worker

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]

PLANTS: dict[str, tuple[Plant, str | None]] = {}
"""By name: what to patch, and the field of `Plan` without which a seed can't show it."""


def plant(function: Plant, needs: str | None = None) -> Plant:
    PLANTS[function.__name__] = function, needs
    return function


def plant_where(needs: str) -> Callable[[Plant], Plant]:
    return lambda function: plant(function, needs)


class Sometimes:
    """True at every n-th call."""

    def __init__(self, every: int) -> None:
        self._every, self._calls = every, 0

    def __call__(self) -> bool:
        self._calls += 1
        return self._calls % self._every == 0


# -- the worker's shell


@plant
def publishes_before_the_commit(patch: Patch) -> None:
    commit, publish = Worker._commit, Publisher.publish

    async def commit_later(self: Any, batch: WalBatch) -> None:
        self._publisher.planted = self, batch

    async def publish_first(self: Any, effects: Any) -> None:
        await publish(self, effects)
        planted, self.planted = getattr(self, "planted", None), None
        if planted is not None:
            worker, batch = planted
            await commit(worker, batch)

    patch.setattr(Worker, "_commit", commit_later)
    patch.setattr(Publisher, "publish", publish_first)


@plant_where("has_disk_faults")
def takes_a_failed_commit_for_a_good_one(patch: Patch) -> None:
    async def commit(self: Any, batch: WalBatch) -> None:
        with contextlib.suppress(StorageError):
            await self._store.commit(batch)

    patch.setattr(Worker, "_commit", commit)


@plant_where("has_disk_faults")
def says_what_was_to_be_said_after_a_failed_commit(patch: Patch) -> None:
    patch.setattr(Effects, "withdraw", lambda *_: None)


@plant_where("has_disk_faults")
def keeps_a_document_in_memory_after_a_failed_commit(patch: Patch) -> None:
    patch.setattr(DocumentSynchronizer, "rewind", lambda *_: None)


@plant_where("has_disk_faults")
def keeps_a_document_that_a_job_has_after_a_failed_commit(patch: Patch) -> None:
    reload = DocumentSynchronizer.reload

    def reload_unless_busy(self: Any, effects: Any) -> None:
        if self.state is not State.BUSY:
            reload(self, effects)

    patch.setattr(DocumentSynchronizer, "reload", reload_unless_busy)


@plant_where("has_disk_faults")
def never_asks_for_what_was_not_taken(patch: Patch) -> None:
    def release(self: Any, engine: Any, peers: Any) -> None:
        self.has_held = False

    patch.setattr(Listening, "release", release)


@plant_where("has_disk_faults")
def never_tries_whether_writing_works_again(patch: Patch) -> None:
    async def probe(self: Any, effects: Any, now: float) -> None:
        pass

    patch.setattr(Worker, "_probe", probe)


@plant
def reads_every_third_entry_of_a_stream_twice(patch: Patch) -> None:
    take, twice = MemoryReader.take, Sometimes(3)

    def take_again(self: MemoryReader, max_bytes: int) -> list[StreamEntry]:
        taken = take(self, max_bytes)
        return taken + taken[-1:] if taken and twice() else taken

    patch.setattr(MemoryReader, "take", take_again)


@plant
def trims_the_stream_before_it_is_read(patch: Patch) -> None:
    async def trim(self: MemoryBus, stream: str, through: Any) -> None:
        self.streams.trim(stream, (through[0], through[1] - 1))

    patch.setattr(MemoryBus, "trim", trim)


# -- shard and synchronizer


@plant
def keeps_the_peer_state_across_a_reconnect(patch: Patch) -> None:
    opened, admit = Shard._open, DocumentSynchronizer._admit
    admitted: dict[int, set[tuple[int, int]]] = {}

    def open_with_old_number(self: Any, address: Any, item: Any, effects: Any) -> None:
        opened(self, address, item, effects)
        numbers = self.__dict__.setdefault("planted", {})
        connection = self.connections[address]
        connection.number = numbers.setdefault(item.peer_id, connection.number)

    def remove(self: Any, peer: Peer) -> None:
        self.peers.leave(peer)

    def admit_once(self: Any, peer: Peer, *, reset: bool, **more: Any) -> None:
        known = admitted.setdefault(id(self), set())
        key = (id(self._engine), peer.number)
        if key in known and not reset:
            peer.in_engine = True
            return
        known.add(key)
        admit(self, peer, reset=reset, **more)

    patch.setattr(Shard, "_open", open_with_old_number)
    patch.setattr(DocumentSynchronizer, "_remove", remove)
    patch.setattr(DocumentSynchronizer, "_admit", admit_once)


@plant
def drops_an_inbound_sync_silently(patch: Patch) -> None:
    accept, drops = DocumentSynchronizer._accept, Sometimes(12)

    def accept_some(self: Any, address: Any, item: Any, effects: Any, now: float) -> Any:
        return None if drops() else accept(self, address, item, effects, now)

    patch.setattr(DocumentSynchronizer, "_accept", accept_some)


@plant
def answers_before_the_load(patch: Patch) -> None:
    run = DocumentSynchronizer.run

    def run_at_once(self: Any, effects: Any, now: float) -> None:
        if self.state is State.COLD and self._inbox:
            self._engine, self._heads, self.state = self.factory.new(), (), State.READY
        run(self, effects, now)

    patch.setattr(DocumentSynchronizer, "run", run_at_once)


@plant_where("has_engine_faults")
def admits_without_a_reset_after_a_failed_engine(patch: Patch) -> None:
    admit = DocumentSynchronizer._admit

    def admit_plainly(self: Any, peer: Peer, *, reset: bool, **more: Any) -> None:
        admit(self, peer, reset=False, **more)

    patch.setattr(DocumentSynchronizer, "_admit", admit_plainly)


@plant
def settles_past_a_held_item(patch: Patch) -> None:
    submit = Shard._submit

    def submit_and_settle(self: Any, document_id: DocumentId, waiting: Waiting) -> None:
        submit(self, document_id, waiting)
        waiting.ticket.done()

    patch.setattr(Shard, "_submit", submit_and_settle)


@plant
def never_settles_an_entry_with_a_close(patch: Patch) -> None:
    submit = Shard._submit

    def submit_and_hold(self: Any, document_id: DocumentId, waiting: Waiting) -> None:
        if isinstance(waiting.item, Close):
            waiting.ticket.outstanding += 1
        submit(self, document_id, waiting)

    patch.setattr(Shard, "_submit", submit_and_hold)


@plant
def sends_to_the_wrong_connection(patch: Patch) -> None:
    grouped, wrong = sending.by_gateway, Sometimes(5)

    def mixed_up(addresses: Iterable[Any]) -> dict[str, list[int]]:
        groups = grouped(addresses)
        if wrong():
            return {name: [number - 1 for number in numbers] for name, numbers in groups.items()}
        return groups

    patch.setattr(sending, "by_gateway", mixed_up)


@plant
def sends_broadcasts_back_to_their_sender(patch: Patch) -> None:
    def relay(self: Any, sender: Peer, item: EphemeralIn, effects: Any) -> None:
        for gateway, numbers in sending.by_gateway(p.address for p in self.peers).items():
            effects.send(
                gateway,
                EphemeralOut(
                    numbers,
                    self.document_id,
                    sender.peer_id,
                    item.session_id,
                    item.count,
                    item.data,
                ),
            )

    patch.setattr(DocumentSynchronizer, "relay", relay)


@plant_where("auto_create")
def forgets_the_initial_change_at_the_first_edit(patch: Patch) -> None:
    absorb = DocumentSynchronizer._absorb

    def absorb_without(self: Any, outcome: Any, effects: Any, now: float, **more: Any) -> None:
        self._unsaved = ()
        absorb(self, outcome, effects, now, **more)

    patch.setattr(DocumentSynchronizer, "_absorb", absorb_without)


@plant_where("has_roles")
def takes_changes_of_readers(patch: Patch) -> None:
    admit = DocumentSynchronizer._admit

    def admit_writer(self: Any, peer: Peer, *, reset: bool, **more: Any) -> None:
        access, peer.access = peer.access, Access.WRITE
        admit(self, peer, reset=reset, **more)
        peer.access = access

    patch.setattr(DocumentSynchronizer, "_admit", admit_writer)


@plant
def forgets_who_asked_for_an_absent_document(patch: Patch) -> None:
    unavailable = DocumentSynchronizer._unavailable

    def tell_and_retire(self: Any, addresses: Iterable[Any], effects: Any) -> None:
        addresses = list(addresses)
        unavailable(self, addresses, effects)
        for address in addresses:
            if self.state is State.READY:
                self._retire(self.peers.get(address))

    patch.setattr(DocumentSynchronizer, "_unavailable", tell_and_retire)


@plant
def never_says_that_a_document_is_absent(patch: Patch) -> None:
    patch.setattr(DocumentSynchronizer, "_unavailable", lambda *_: None)


@plant_where("has_calls")
def lets_go_of_a_document_that_has_work_to_do(patch: Patch) -> None:
    def at_rest(self: Any) -> bool:
        return True

    patch.setattr(DocumentSynchronizer, "_is_at_rest", at_rest)


@plant_where("has_roles")
def does_not_tell_the_shard_of_lost_access(patch: Patch) -> None:
    item_of_document = Shard._document_item

    def ignore(self: Any, ticket: Any, connection: Any, item: Any) -> None:
        if isinstance(item, AccessIn):
            ticket.done()
        else:
            item_of_document(self, ticket, connection, item)

    patch.setattr(Shard, "_document_item", ignore)


@plant_where("announce")
def does_not_announce_new_documents(patch: Patch) -> None:
    after = Shard._after

    def quietly(self: Any, document: Any, effects: Any, now: float) -> None:
        document.is_stored = True
        after(self, document, effects, now)

    patch.setattr(Shard, "_after", quietly)


# -- the session


@plant
def drops_an_outbound_sync_and_keeps_the_state(patch: Patch) -> None:
    deliver, drops = PeerSession.deliver, Sometimes(12)

    def deliver_some(self: Any, item: Any, shared: Any = None) -> None:
        if not (isinstance(item, SyncOut) and drops()):
            deliver(self, item, shared)

    patch.setattr(PeerSession, "deliver", deliver_some)


@plant_where("has_roles")
def delivers_after_access_was_lost(patch: Patch) -> None:
    deliver = PeerSession.deliver

    def deliver_anyway(self: Any, item: Any, shared: Any = None) -> None:
        document = self._documents.get(getattr(item, "document_id", None))
        if document is None or document.grant is None:
            deliver(self, item, shared)
            return
        grant, document.grant = document.grant, Grant(Access.WRITE)
        deliver(self, item, shared)
        document.grant = grant

    patch.setattr(PeerSession, "deliver", deliver_anyway)


@plant_where("asks_for_access")
def reorders_messages_that_wait_for_access(patch: Patch) -> None:
    granted = PeerSession._granted

    def reversed_queue(self: Any, document_id: Any, document: Any, grant: Any, now: float) -> None:
        document.queue = deque(reversed(document.queue))
        granted(self, document_id, document, grant, now)

    patch.setattr(PeerSession, "_granted", reversed_queue)


@plant_where("asks_for_access")
def drops_messages_that_wait_for_access(patch: Patch) -> None:
    granted = PeerSession._granted

    def keep_last(self: Any, document_id: Any, document: Any, grant: Any, now: float) -> None:
        while len(document.queue) > 1:
            self.queued_bytes -= document.queue.popleft()[1]
        granted(self, document_id, document, grant, now)

    patch.setattr(PeerSession, "_granted", keep_last)


@plant
def believes_the_sender_id_of_a_message(patch: Patch) -> None:
    take = PeerSession._message

    def take_as_own(self: Any, message: Any, size: int, now: float) -> None:
        take(self, dataclasses.replace(message, sender_id=self.peer_id), size, now)

    patch.setattr(PeerSession, "_message", take_as_own)


@plant
def does_not_tell_the_shards_of_a_lost_connection(patch: Patch) -> None:
    def disconnected(self: Any) -> None:
        self._shards.clear()

    patch.setattr(PeerSession, "disconnected", disconnected)


# -- storage


class _Files:
    """A file system without one of its calls."""

    def __init__(self, files: Any, **replaced: Any) -> None:
        self._files, self._replaced = files, replaced

    def __getattr__(self, name: str) -> Any:
        return self._replaced.get(name) or getattr(self._files, name)


class _NoFsync:
    def __init__(self, file: Any) -> None:
        self.write, self.close = file.write, file.close

    def fsync(self) -> None:
        pass


@plant
def forgets_to_fsync_the_directory_of_a_segment(patch: Patch) -> None:
    append = WalWriter.append

    def append_only(self: Any, batches: Sequence[WalBatch]) -> Path:
        files = self._files
        self._files = _Files(files, fsync_directory=lambda path: None)
        try:
            return append(self, batches)
        finally:
            self._files = files

    patch.setattr(WalWriter, "append", append_only)


@plant
def forgets_to_fsync_the_log(patch: Patch) -> None:
    append = WalWriter.append

    def append_only(self: Any, batches: Sequence[WalBatch]) -> Path:
        files = self._files
        self._files = _Files(files, create=lambda path: _NoFsync(files.create(path)))
        try:
            return append(self, batches)
        finally:
            self._files = files

    patch.setattr(WalWriter, "append", append_only)


@plant_where("has_crashes")
def checkpoint_drops_the_log_first(patch: Patch) -> None:
    write_out = Checkpointer.write_out

    def remove_first(self: Any, segments: Any, positions: Any) -> None:
        self._volume.durable.remove([segment.path for segment in segments])
        write_out(self, segments, positions)

    patch.setattr(Checkpointer, "write_out", remove_first)


@plant
def checkpoint_writes_without_fsync(patch: Patch) -> None:
    write = DurableFiles.write

    def write_only(self: Any, path: Path, data: bytes) -> None:
        files = self._files
        self._files = _Files(files, create=lambda path: _NoFsync(files.create(path)))
        try:
            write(self, path, data)
        finally:
            self._files = files

    patch.setattr(DurableFiles, "write", write_only)


@plant
def checkpoint_drops_segments_begun_after_the_listing(patch: Patch) -> None:
    checkpoint = Store._checkpoint

    def drop_all(self: Any) -> None:
        checkpoint(self)
        newer = self._tail.segments()
        self.volume.durable.remove([segment.path for segment in newer])
        self._tail.drop(newer)

    patch.setattr(Store, "_checkpoint", drop_all)


@plant
def checkpoint_forgets_the_tail_in_memory(patch: Patch) -> None:
    write_out = Checkpointer.write_out

    def forget_first(self: Any, segments: Any, positions: Any) -> None:
        self._tail.drop(segments)
        write_out(self, segments, positions)

    patch.setattr(Checkpointer, "write_out", forget_first)


@plant
def checkpoint_writes_one_chunk_less(patch: Patch) -> None:
    write_out = Checkpointer.write_out

    def without_last(self: Any, segments: Any, positions: Any) -> None:
        for segment in segments:
            for chunks in segment.chunks.values():
                if len(chunks) > 1:
                    chunks.pop()
        write_out(self, segments, positions)

    patch.setattr(Checkpointer, "write_out", without_last)


@plant
def compaction_leaves_out_a_file_and_deletes_it(patch: Patch) -> None:
    compact = Compactor.compact_if_due

    def compact_some(self: Any, document_id: DocumentId, *more: Any) -> Any:
        codec = self._codec

        class Forgetful:
            def compact(self, blobs: Sequence[bytes]) -> Any:
                return codec.compact(list(blobs)[: max(1, len(blobs) - 1)])

        self._codec = Forgetful()
        try:
            return compact(self, document_id, *more)
        finally:
            self._codec = codec

    patch.setattr(Compactor, "compact_if_due", compact_some)


@plant
def compaction_deletes_before_it_writes(patch: Patch) -> None:
    def replace(
        self: Any, document_id: DocumentId, snapshot: bytes, heads: Any, superseded: Any, _: Any
    ) -> Path:
        self._durable.remove(list(superseded))
        path: Path = self.write_snapshot(document_id, snapshot, heads)
        return path

    patch.setattr(DocumentFiles, "replace", replace)


@plant
def tail_forgets_a_batch(patch: Patch) -> None:
    add, forgets = WalTail.add, Sometimes(10)

    def add_some(self: Any, path: Path, batches: Any, fault: str | None = None) -> None:
        add(self, path, () if forgets() else batches, fault)

    patch.setattr(WalTail, "add", add_some)


# -- shards that change hands


@plant_where("owners")
def never_gives_up_a_shard_that_is_lost(patch: Patch) -> None:
    async def keep_all(self: Any, effects: Any) -> None:
        for number in list(effects):
            if number not in self._by_number:
                del effects[number]

    patch.setattr(Worker, "_keep_ours", keep_all)


@plant_where("owners")
def never_misses_an_entry_of_a_worker(patch: Patch) -> None:
    patch.setattr(Router, "_lost_of", lambda *_: None)


@plant_where("owners")
def never_misses_an_entry_of_a_gateway(patch: Patch) -> None:
    number = Arrivals.number

    def number_any(self: Any, gateway: str, sequence: int) -> bool | None:
        known = self._of(gateway)
        if sequence > known.sequence:
            known.sequence = sequence - 1
        return number(self, gateway, sequence)

    patch.setattr(Arrivals, "number", number_any)


@plant_where("owners")
def never_asks_whether_the_last_entry_came(patch: Patch) -> None:
    patch.setattr(Router, "nudge", lambda *_: None)


@plant_where("owners")
def drops_what_comes_before_a_hand_over(patch: Patch) -> None:
    def drop(self: Any, gateway: str, ticket: Any, item: Any, now: float) -> bool:
        ticket.done()
        return True

    patch.setattr(Arrivals, "put_aside", drop)


@plant_where("owners")
def lets_early_messages_wait_for_ever(patch: Patch) -> None:
    patch.setattr(Arrivals, "give_up", lambda *_: [])


@plant_where("owners")
def says_that_nothing_is_lost(patch: Patch) -> None:
    hand_over = PeerSession.hand_over

    def optimistic(self: Any, shard: int, *, may_be_lost: bool) -> Any:
        return hand_over(self, shard, may_be_lost=False)

    patch.setattr(PeerSession, "hand_over", optimistic)


@plant_where("owners")
def resumes_without_a_word(patch: Patch) -> None:
    resume = DocumentSynchronizer._resume

    def silently(self: Any, address: Any, item: Any, effects: Any, now: float) -> None:
        resume(self, address, item, effects, now)

    patch.setattr(DocumentSynchronizer, "_resume", silently)


@plant_where("owners")
def never_forgets_a_gateway(patch: Patch) -> None:
    patch.setattr(Shard, "forget_gateway", lambda *_: None)
