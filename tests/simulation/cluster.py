"""One life of a server, or of a cluster (`owners`), around the shipped gateway and worker.

Driven by hand, without asyncio: `Worker._step` with all that it calls, `_tick`, `_checkpoint`,
`_load`; `Gateway`'s handling of connections and effects, `Router._append` and `_take`. Replaced:
the loops around them (`Worker._work`, `_ticks`; `Router._append_all`, `_read`;
`Gateway._ticks`, `drain`), threads, sockets and the access policy. Store and bus are the real
ones; a commit takes time before it begins, and once more before it is known.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import cbor2

import amsync.gateway.router as router_module
import amsync.storage.compaction as compaction
import amsync.worker.opening as opening_module
import amsync.worker.publisher as publisher_module
import amsync.worker.upkeep as upkeep_module
import amsync.worker.worker as worker_module
from amsync.bus import MemoryBus, gateway_stream
from amsync.gateway.account import Account
from amsync.gateway.admission import AdmissionOptions
from amsync.gateway.buckets import Rate
from amsync.gateway.caller import Caller
from amsync.gateway.connection import ClientConnection
from amsync.gateway.effects import CloseReason
from amsync.gateway.gateway import Gateway, GatewayOptions
from amsync.gateway.limits import Limits
from amsync.gateway.session import PeerSession
from amsync.ids import DocumentId
from amsync.metrics import Metrics
from amsync.protocol.access import Access, Grant
from amsync.protocol.envelope import Call, Reply, SyncIn, UnavailableOut, unpack_outbound
from amsync.storage import LoadedDocument, Store, WalBatch, open_store
from amsync.turns import Routine
from amsync.worker.engine import NativeCodec, NativeFactory
from amsync.worker.ports import Effects, EngineBroken, EngineDocument, EngineOutcome
from amsync.worker.shard import Shard
from amsync.worker.synchronizer import State
from amsync.worker.worker import Worker, WorkerOptions
from support.memfs import MemoryFileSystem

from .clock import Clock, Pause
from .faulty_bus import FaultyBus
from .link import Link
from .oracle import ROOT, Oracle, Violation
from .owners import PREFIX, Owners, SimulatedTenure

LIMITS = Limits()
EPOCH_SECONDS = 1_700_000_000.0
Roles = Callable[[str, DocumentId], Access]


async def _sleep(seconds: float) -> None:
    await Pause(seconds)


class _Future:
    """Stands for an `asyncio.Future` of the worker."""

    def __init__(self) -> None:
        self._is_done = False

    def done(self) -> bool:
        return self._is_done

    def set_result(self, _: None) -> None:
        self._is_done = True

    def __await__(self) -> Generator[float, None, None]:
        while not self._is_done:
            yield 0.01


@dataclass(frozen=True)
class Engines:
    """What the seed says about a call of an engine: it fails, or is not light."""

    fails: Callable[[], bool]
    is_light: Callable[[], bool]


async def _gather(*parts: Coroutine[Any, Any, object]) -> list[object]:
    """One order in which they may be done."""
    try:
        return [await part for part in parts]
    finally:
        for part in parts:  # of a process that was killed meanwhile they are never done
            part.close()


@contextmanager
def in_simulation(clock: Clock, engines: Engines) -> Iterator[None]:
    """Let the worker's own sleeps take simulated time, and watch the documents it loads.

    The worker's clock is the simulated one too: with the real one a step that a busy machine
    holds up would end early, and its seed would tell another story.
    """
    worker = cast(Any, worker_module)
    opening = cast(Any, opening_module)
    real = worker.asyncio, worker.time, opening.load_document
    load = opening.load_document

    def load_watched(
        blobs: Sequence[bytes], sidecar: bytes | None = None
    ) -> tuple[EngineDocument, list[tuple[int, str]]]:
        document, faults = load(blobs, sidecar)
        return cast(EngineDocument, WatchedDocument(document, engines)), faults

    loop = SimpleNamespace(create_future=_Future)
    worker.asyncio = SimpleNamespace(
        Event=asyncio.Event, sleep=_sleep, gather=_gather, get_running_loop=lambda: loop
    )
    publisher, router = cast(Any, publisher_module), cast(Any, router_module)
    upkeep = cast(Any, upkeep_module)
    real_time, publisher.asyncio = router.time, worker.asyncio
    router.time = publisher.time = upkeep.time = worker.time = SimpleNamespace(
        time=lambda: EPOCH_SECONDS + clock.now, monotonic=lambda: clock.now
    )
    opening.load_document = load_watched
    trim_seconds, worker.TRIM_SECONDS = worker.TRIM_SECONDS, 0.5  # at every tick
    limits = compaction.LEAST_INCREMENTAL_BYTES, compaction.MAX_CHEAP_FILES
    compaction.LEAST_INCREMENTAL_BYTES = compaction.MAX_CHEAP_FILES = (
        1  # else never in so short a time
    )
    try:
        yield
    finally:
        worker.asyncio, worker.time, opening.load_document = real
        worker.TRIM_SECONDS = trim_seconds
        router.time = publisher.time = upkeep.time = real_time
        publisher.asyncio = asyncio
        compaction.LEAST_INCREMENTAL_BYTES, compaction.MAX_CHEAP_FILES = limits


class CountingMetrics:
    """Stands for `Metrics`: what is counted goes to the oracle, the rest nowhere."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self.refusals = SimpleNamespace(inc=lambda reason: oracle.count_event("refusals", reason))
        nothing = SimpleNamespace(
            cell=lambda *_: [0.0],
            inc=lambda *_, **__: None,
            dec=lambda: None,
            set=lambda _: None,
            observe=lambda _: None,
        )
        self._nothing = nothing

    def count(self, event: str, label: str = "") -> None:
        self._oracle.count_event(event, label)

    def __getattr__(self, name: str) -> Any:
        return self._nothing


class Hook:
    """Stands for a `Routine` whose work is replaced by a call."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.set = call


class Timer:
    """Stands for what `loop.call_later` returns."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def run(self) -> None:
        if self._call is not None:
            self._call()

    def cancel(self) -> None:
        self._call = None


class WatchedDocument:
    """An engine document that notices two calls at a time, and fails when the seed says so."""

    def __init__(self, document: EngineDocument, engines: Engines) -> None:
        self._document = document
        self._engines = engines
        self._is_broken = False
        self.has_job = False

    def __getattr__(self, name: str) -> Any:
        if self.has_job:
            raise Violation(f"{name} is called while a job has the engine")
        return getattr(self._document, name)

    def sync(
        self,
        batch: Sequence[tuple[int, bytes]],
        hello: Sequence[int] = (),
        only_light: bool = False,
    ) -> EngineOutcome:
        self._check()
        if only_light and batch and not self._engines.is_light():
            batch = batch[: len(batch) // 2]
        return self._document.sync(batch, hello, only_light)

    def apply(self, blob: bytes) -> EngineOutcome:
        self._check()
        return self._document.apply(blob)

    def _check(self) -> None:
        if self.has_job:
            raise Violation("the engine is called while a job has it")
        self._is_broken = self._is_broken or self._engines.fails()
        if self._is_broken:
            raise EngineBroken("the seed says so")


class WatchedFactory(NativeFactory):
    def __init__(self, engines: Engines) -> None:
        self._engines = engines

    def new(self) -> EngineDocument:
        return cast(EngineDocument, WatchedDocument(super().new(), self._engines))


class SlowStore:
    """The store; a commit takes simulated time before it is durable and before that is known."""

    def __init__(self, server: "Server", worker: "SimulatedWorker") -> None:
        self._store, self._random, self._oracle = server.store, server.random, server.oracle
        self._slowness = server.plan.commit_seconds
        self._owners, self._worker = server.owners, worker

    def load(self, document_id: DocumentId) -> LoadedDocument:
        loaded = self._store.load(document_id)
        self._oracle.was_loaded(document_id, loaded.blobs)
        return loaded

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, batch: WalBatch) -> None:
        await Pause(self._random.random() * self._slowness)
        await self._store.commit(batch)
        if self._owners is not None:
            self._owners.committed(self._worker, [item.document_id for item in batch.changes])
        if self._random.random() < 0.3:
            await Pause(self._random.random() * self._slowness)


class SimulatedWorker(Worker):
    """The shipped worker, its loops and threads replaced by calls that are due later.

    It can die, and be stopped for a while like a process that gets no CPU.
    """

    def __init__(self, server: "Server", name: str) -> None:
        self.name = name
        owners = server.owners
        super().__init__(
            server.bus,
            cast(Store, SlowStore(server, self)),
            cast(Metrics, server.metrics),
            WorkerOptions(
                auto_create=server.plan.auto_create,
                idle_seconds=server.plan.idle_seconds,
                sleep_seconds=server.plan.idle_seconds,
            ),
            incarnation=name,
            prefix=PREFIX,
            gateway_stream=lambda name: gateway_stream(PREFIX, name),
            tenure=None if owners is None else SimulatedTenure(owners, self),
        )
        self._server = server
        self.is_dead = False
        self.stopped_at = float("inf")
        self._held: list[Callable[[], None]] = []
        self._is_due = self.is_stepping = False
        self.in_threads = 0
        self._factory = WatchedFactory(server.engines)
        self._wake = cast(Routine, Hook(self.awaken))
        self._reader.on_ready = self.awaken
        if owners is None:
            for number in range(server.store.volume.shard_count):
                self.open_shard(number, 1)

    @property
    def shards(self) -> list[Shard]:
        return list(self._shards.values())

    @property
    def is_running(self) -> bool:
        return not self.is_dead and self.stopped_at == float("inf")

    def die(self) -> None:
        self.is_dead = True
        for stream in self._shards:
            self._reader.unfollow(stream)

    def stop(self) -> None:
        self.stopped_at = self._server.clock.now

    def go_on(self) -> None:
        self.stopped_at = float("inf")
        held, self._held = self._held, []
        for call in held:
            self._server.later(0.0, call)

    def _when_running(self, call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            if self.is_running:
                call()
            elif not self.is_dead:
                self._held.append(run)

        return run

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        """As `Clock.later`, while the process lives and is not stopped."""
        self._server.later(seconds, self._when_running(call))

    def drive(self, coroutine: Coroutine[Any, Any, Any], done: Callable[[], object]) -> None:
        """As `Clock.drive`, while the process lives and is not stopped."""

        def go() -> None:
            try:
                seconds = coroutine.send(None)
            except StopIteration:
                done()
                return
            self.later(seconds, go)

        go()

    def awaken(self) -> None:
        if not self._is_due and not self.is_stepping:
            self._is_due = True
            self.later(self._server.random.random() * 0.01, self._turn)

    def _turn(self) -> None:
        self._is_due, self.is_stepping = False, True
        self._inbox.extend(self._read_some(self._server.random.choice((1, 300, 1 << 20))))
        self.drive(self._step(self._server.clock.now), self._after_step)

    def _read_some(self, max_bytes: int) -> list[Any]:
        return self._reader.take(max_bytes)  # type: ignore[attr-defined,no-any-return]

    def _after_step(self) -> None:
        self.is_stepping = False
        self._check_settled()
        if self.has_input():
            self.awaken()

    def has_input(self) -> bool:
        return bool(self._reader._queue or self._results or self._inbox)  # type: ignore[attr-defined]

    def is_idle(self) -> bool:
        return not (self.is_stepping or self.in_threads or self.has_input())

    def _check_settled(self) -> None:
        for shard in self.shards:
            settled = shard.settled()
            for document in shard.documents.values():
                for waiting in (*document._inbox, *document._in_job):
                    if (0, 0) < waiting.ticket.position <= settled:
                        raise Violation("the stream counts as dealt with past an item that waits")

    async def _carry_out(self, effects: dict[int, Effects]) -> None:
        oracle, store = self._server.oracle, self._server.store
        owners = self._server.owners
        for each in effects.values():
            for _, failure in each.failures:
                raise failure
            if owners is not None and not owners.holds(self, each.shard):
                continue
            for items in each.outbound.values():
                for stamped in items:
                    item = stamped.item
                    if not isinstance(item, UnavailableOut):
                        continue
                    name = item.document_id
                    excused = name in oracle.engine_failed or name in oracle.deleting
                    excused = excused or (owners is not None and name in owners.late)
                    if not excused and store.exists(name):
                        raise Violation(f"{name} is stored and called unavailable")
        await super()._carry_out(effects)

    def _in_thread(
        self, call: Callable[[Any], Any], document_id: DocumentId, pool: object = None
    ) -> None:
        server = self._server
        engine = self._engine_in_job(document_id)
        shard = self._shard(document_id) if document_id else None
        if engine is not None:
            engine.has_job = True
        before, after = (server.random.random() * server.plan.thread_seconds for _ in range(2))
        self.in_threads += 1

        def run() -> None:
            if server.is_in_checkpoint and call == self._delete:
                # It would wait for a document's lock, and there is one thread only.
                self.later(0.01, run)
                return
            if engine is not None:
                engine.has_job = False
            result = call(document_id)
            if engine is not None:
                engine.has_job = True
            self.later(after, lambda: finished(result))

        def finished(result: Any) -> None:
            if engine is not None:
                engine.has_job = False
            self.in_threads -= 1
            self._results.append(partial(self._give, shard, 0, result))
            self.awaken()

        self.later(before, run)

    def _engine_in_job(self, document_id: DocumentId) -> WatchedDocument | None:
        if not document_id:
            return None
        document = self._shard(document_id).documents.get(document_id)
        if document is None or document.state is not State.BUSY:
            return None
        return cast(WatchedDocument | None, document._engine)

    def tick(self) -> None:
        if self.is_running:
            self._results.append(self._tick)
            self.awaken()


class SimulatedConnection:
    """Stands for `ClientConnection` over a link."""

    def __init__(self, gateway: "SimulatedGateway", number: int, link: Link) -> None:
        self.number, self.address = number, "client"
        self.account = Account("client", LIMITS, 0.0)
        self.at_address: Account | None = None
        self.rate: Rate | None = None
        self.slowed_until = 0.0
        self.proof = None
        self.session: PeerSession | None = None
        self.uncredited_bytes = 0
        self.is_paused = False
        self.link = link
        self._gateway = gateway
        self._closing = False
        self._has_ended = False
        self._came: dict[str, deque[bytes]] = {}
        self.heard_at = self.pinged_at = self.connected_at = gateway.now()

    def receive(self, frame: bytes) -> None:
        self.heard_at = self._gateway.now()
        if not self._closing:
            fields = cbor2.loads(frame)
            if fields["type"] in ("sync", "request"):
                self._came.setdefault(fields["documentId"], deque()).append(fields["data"])
        self._gateway.received(cast(ClientConnection, self), frame)

    def forwarded(self, item: SyncIn) -> None:
        """A sync message goes on to its shard: behind those that came before it."""
        came = self._came.get(item.document_id, ())
        while came:
            if came.popleft() == item.data:
                return
        raise Violation(f"a sync message of connection {self.number} is forwarded out of turn")

    def send(self, shared: bytes, suffix: bytes, *, droppable: bool) -> bool:
        if self._closing:
            return True
        self._gateway.leaves(self, shared + suffix)
        self.link.down.put(shared + suffix)
        return True

    def close(self, reason: CloseReason) -> None:
        if not self._closing:
            self._closing = True
            self.link.server_closes()

    def abort(self, reason: str) -> None:
        self.close(CloseReason.SILENT)

    def note_progress(self, now: float) -> None:
        pass

    def ping(self, now: float) -> None:
        self.pinged_at = now
        if self.link.is_open:
            self.heard_at = now

    def ended(self) -> None:
        if not self._has_ended:
            self._has_ended = self._closing = True
            self._gateway.ended(cast(ClientConnection, self), "lost")

    def allow_large_messages(self) -> None:
        pass

    def throttle(self, *, pause: bool) -> None:
        self.is_paused = pause

    def flush(self) -> None:
        pass


class Policy:
    """Stands for `AccessPolicy`: grants by a table, at once or when asked."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self.is_constant = False
        self.shown: dict[tuple[str, DocumentId], Access] = {}

    def may_announce(self, _caller: Caller) -> bool:
        return self._server.plan.announce

    def decide(self, caller: Caller, document_id: DocumentId) -> Grant | None:
        if self._server.plan.asks_for_access:
            return None
        return self._grant(caller.peer_id, document_id)

    async def ask(self, caller: Caller, document_ids: Sequence[DocumentId]) -> list[Grant]:
        await Pause(self._server.random.random() * self._server.plan.ask_seconds)
        return [self._grant(caller.peer_id, document_id) for document_id in document_ids]

    def refresh(self, _identity_key: str | None = None) -> None:
        pass

    def _grant(self, peer_id: str, document_id: DocumentId) -> Grant:
        access = self._server.roles(peer_id, document_id)
        lifetime = self._server.plan.grant_seconds
        announce = self._server.plan.announce and access != Access.NONE
        create = self._server.may_create(peer_id, document_id)
        return Grant(access, announce, self._server.clock.now + lifetime, create)


class SimulatedGateway(Gateway):
    """The shipped gateway over links."""

    def __init__(self, server: "Server", incarnation: str) -> None:
        self._life = server
        self.name = incarnation
        volume = server.store.volume
        super().__init__(
            server.bus,
            cast(Metrics, server.metrics),
            cast(Any, Policy(server)),
            GatewayOptions(
                host="127.0.0.1",
                port=0,
                server_peer_id=volume.peer_id,
                storage_id=volume.storage_id,
                shard_count=volume.shard_count,
                limits=LIMITS,
                admission=AdmissionOptions(),
                prefix=PREFIX,
                incarnation=incarnation,
                hands_over=server.owners is not None,
            ),
        )
        self._asks = cast(asyncio.TaskGroup, SimpleNamespace(create_task=self._in_background))
        self._router._wake = cast(Routine, Hook(self._append_soon))
        self._router._reader.on_ready = self._read_soon
        self._router._later = self._later  # type: ignore[method-assign]
        forward = self._router.forward

        def watched(shard: int, item: Any, connection: int, size: int, *waits: bool) -> None:
            if isinstance(item, SyncIn):
                cast(SimulatedConnection, self._connections[connection]).forwarded(item)
            forward(shard, item, connection, size, *waits)

        self._router.forward = watched  # type: ignore[method-assign]
        self._appends = self._reads = False

    def now(self) -> float:
        return self._life.clock.now

    def _now(self) -> float:
        return self._life.clock.now

    def _in_background(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._life.drive(coroutine, lambda: None)

    def connect(self, link: Link) -> None:
        connection = SimulatedConnection(self, self._next_number, link)
        self._next_number += 1
        real = cast(ClientConnection, connection)
        self.connected(real)
        connection.session = self.upgraded(real)
        link.up.deliver = self._life.guarded(connection.receive)
        link.server_lost = self._life.guarded(connection.ended)

    def leaves(self, connection: SimulatedConnection, frame: bytes) -> None:
        self._life.frame_leaves(connection, frame)

    def _later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        timer = Timer(call)
        self._life.later(seconds, timer.run)
        return cast(asyncio.TimerHandle, timer)

    def _append_soon(self) -> None:
        if not self._appends:
            self._appends = True
            self._life.later(self._life.random.random() * 0.003, self._append_all)

    def _append_all(self) -> None:
        async def append_each() -> None:
            self._router._end_gathering()
            for shard in list(self._router._dirty):
                await self._router._append(shard)

        def done() -> None:
            self._appends = False
            if self._router._dirty:
                self._append_soon()

        self._life.drive(append_each(), done)

    def _read_soon(self) -> None:
        if not self._reads:
            self._reads = True
            self._life.later(self._life.random.random() * 0.02, self._read_all)

    def _read_all(self) -> None:
        self._reads = False
        reader = self._router._reader
        for entry in reader.take(1 << 20):  # type: ignore[attr-defined]
            self._router.take(unpack_outbound(entry.data))
            self._bus.streams.trim(entry.stream, entry.position)  # type: ignore[attr-defined]

    def is_idle(self) -> bool:
        return not (self._router._dirty or self._reads or self._router._reader._queue)  # type: ignore[attr-defined]

    def tick(self) -> None:
        if self._options.hands_over:
            self._router.nudge(self._now())
        for connection in list(self._connections.values()):
            self._look_after(connection, self._now())

    def ask_shard(
        self, shard: int, operation: str, document_id: DocumentId, payload: bytes, done: Any
    ) -> None:
        """As `Gateway.call`, without a future."""
        calls: Any = self._calls
        number = calls._next
        calls._next += 1

        def answered(reply: Reply) -> None:
            del calls._pending[number]
            done(reply)

        item = Call(number, operation, document_id, payload)
        answer = SimpleNamespace(done=lambda: False, set_result=answered)
        calls._pending[number] = SimpleNamespace(shard=shard, item=item, answer=answer)
        self._router.forward(shard, item, 0, 0)

    def stop_accepting(self) -> None:
        """The closing part of `Gateway.drain`."""
        self._draining = True
        for connection in list(self._connections.values()):
            self._close(connection, CloseReason.SHUTDOWN)


class Server:
    """One life: from opening the volume to a crash or a clean stop."""

    def __init__(
        self,
        clock: Clock,
        random: Random,
        files: MemoryFileSystem,
        oracle: Oracle,
        plan: Any,
        roles: Roles,
        may_create: Callable[[str, DocumentId], bool],
        engines: Engines,
        frame_leaves: Callable[["Server", SimulatedConnection, bytes], None],
        say: Callable[..., None],
    ) -> None:
        self.say = say
        self.clock, self.random, self.oracle, self.plan = clock, random, oracle, plan
        self.roles, self.may_create, self.engines = roles, may_create, engines
        self._frame_leaves = frame_leaves
        self.is_alive = True
        self.is_stopping = False
        self.is_in_checkpoint = False
        self.metrics = CountingMetrics(oracle)
        self.store = open_store(
            ROOT,
            codec=NativeCodec(),
            files=files,
            threaded=False,
            shard_count=plan.shard_count,
            segment_bytes=plan.segment_bytes,
            new_uuid=lambda: uuid.UUID(int=random.getrandbits(128), version=4),
        )
        self.bus: Any = MemoryBus(plan.stream_bytes, packs=True)
        self.workers: list[SimulatedWorker] = []
        self.owners = owners = Owners(self) if plan.owners else None
        if owners is None:
            names = [f"gateway{number}" for number in range(plan.gateways)]
        else:
            self.bus = FaultyBus(self.bus, random)
            names = [owners.next_name("gateway") for _ in range(plan.gateways)]
            owners.gateways.update(names)
        self.gateways = [SimulatedGateway(self, name) for name in names]
        for _ in range(max(1, plan.owners)):
            self.start_worker()
        if owners is not None:
            owners.tick()

    def start_worker(self) -> None:
        name = "worker" if self.owners is None else self.owners.next_name("worker")
        self.workers.append(SimulatedWorker(self, name))

    @property
    def worker(self) -> SimulatedWorker | None:
        """One that runs, for what any of them can do."""
        return next((worker for worker in self.workers if worker.is_running), None)

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        """As `Clock.later`, for as long as the process lives."""
        self.clock.later(seconds, self.guarded(call))

    def guarded(self, call: Callable[..., object]) -> Callable[..., None]:
        def run(*arguments: object) -> None:
            if self.is_alive:
                call(*arguments)

        return run

    def drive(self, coroutine: Coroutine[Any, Any, Any], done: Callable[[], object]) -> None:
        self.clock.drive(coroutine, done, lambda: self.is_alive)

    def frame_leaves(self, connection: SimulatedConnection, frame: bytes) -> None:
        self._frame_leaves(self, connection, frame)

    def tick(self) -> None:
        if self.is_alive:
            for worker in self.workers:
                worker.tick()
            if self.owners is not None:
                self.owners.tick()
            for gateway in self.gateways:
                gateway.tick()

    def connections(self) -> list[SimulatedConnection]:
        return [
            cast(SimulatedConnection, connection)
            for gateway in self.gateways
            for connection in gateway._connections.values()
        ]

    def is_idle(self) -> bool:
        alive = [worker for worker in self.workers if not worker.is_dead]
        return all(each.is_idle() for each in (*alive, *self.gateways))

    def die(self) -> None:
        """The process is gone, with everything in its memory."""
        self.is_alive = False
        for connection in self.connections():
            connection.link.server_closes()
