"""One shard, its volume and its clients in one thread: everything happens when the test says so."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from amsync._automerge import Replica
from amsync.errors import StorageFull
from amsync.ids import DocumentId, generate_document_id
from amsync.protocol.envelope import (
    Call,
    Close,
    Entry,
    EphemeralOut,
    Inbound,
    Open,
    Outbound,
    Reply,
    SyncIn,
    SyncOut,
    UnavailableOut,
)
from amsync.worker.arrivals import Arrivals
from amsync.worker.engine import NativeFactory, load_document
from amsync.worker.peers import NO_BOUNDS, DocumentBounds
from amsync.worker.ports import Effects, EngineFactory
from amsync.worker.shard import Shard

GATEWAY = "gateway"
MOST_MESSAGES = 200


class Net:
    """A shard with a volume that is a dict.

    Attributes:
        stored: Chunks of each document; what was committed.
        disk_is_full: Commits fail, as they do for the worker.
        hold_loads, hold_jobs: Keep loads and jobs back until `release`.
        published: All items that were sent to gateways, with the gateway.
        sequences: Of each gateway's last entry, where shards change hands.
    """

    def __init__(
        self,
        *,
        auto_create: bool = True,
        factory: EngineFactory | None = None,
        number: int = 0,
        shard_count: int = 1,
        epoch: int = 1,
        arrivals: Arrivals | None = None,
        bounds: DocumentBounds = NO_BOUNDS,
    ) -> None:
        self.epoch, self.has_arrivals = epoch, arrivals is not None
        self.sequences = arrivals.sequences() if arrivals is not None else {}
        self.shard = Shard(
            number,
            epoch,
            factory or NativeFactory(),
            shard_count=shard_count,
            auto_create=auto_create,
            wall_ms=1_000_000,
            arrivals=arrivals,
            bounds=bounds,
        )
        self.now = 100.0
        self.position = 0
        self.stored: dict[DocumentId, list[bytes]] = {}
        self.deleted: set[DocumentId] = set()
        self.lost: set[DocumentId] = set()
        self.hold_loads = self.hold_jobs = False
        self.load_fails = False
        self.disk_is_full = False
        self.failures: list[tuple[DocumentId, Exception]] = []
        self.failures_are_expected = False
        self.waiting: deque[Callable[[Effects], None]] = deque()
        self.published: list[tuple[str, Outbound]] = []
        self.counts: list[tuple[str, str]] = []
        self.full: list[DocumentId] = []
        self.loads = 0
        self.clients: dict[tuple[str, int], Client] = {}

    def store(self, document_id: DocumentId, replica: Replica) -> None:
        self.stored[document_id] = replica.changes()

    def introduce(self, *clients: "Client") -> None:
        """Each says what it has or asks for it, then all is settled."""
        for client in clients:
            client.say()
        self.settle()

    def give(
        self, *items: Inbound, gateway: str = GATEWAY, sequence: int | None = None
    ) -> list[Outbound]:
        """Put one entry into the shard's stream; returns what was published of it."""
        self.position += 1
        if self.has_arrivals:
            sequence = sequence or self.sequences.get(gateway, 0) + 1
            self.sequences[gateway] = max(sequence, self.sequences.get(gateway, 0))
        entry = Entry(gateway, sequence or self.position, 0.0, list(items), 0)
        return self.step(
            lambda effects: self.shard.take((0, self.position), entry, effects, self.now)
        )

    def step_with(self, *items: Inbound) -> list[Outbound]:
        """Take each item alone, all in one step; each document deals with each at once."""

        def take(effects: Effects) -> None:
            for item in items:
                self.position += 1
                entry = Entry(GATEWAY, self.position, 0.0, [item], 0)
                self.shard.take((0, self.position), entry, effects, self.now)
                self.shard.run(effects, self.now)

        return self.step(take)

    def step(self, action: Callable[[Effects], None]) -> list[Outbound]:
        """One step of the shell: act, run, carry out."""
        before = len(self.published)
        effects = self.shard.effects()
        action(effects)
        self.shard.run(effects, self.now)
        self._carry_out(effects)
        return [item for _, item in self.published[before:]]

    def tick(self, seconds: float = 1.0) -> list[Outbound]:
        self.now += seconds
        return self.step(lambda effects: self.shard.tick(effects, self.now))

    def release(self) -> list[Outbound]:
        """Let loads and jobs that were held back end."""
        self.hold_loads = self.hold_jobs = False
        before = len(self.published)
        while self.waiting:
            self.step(self.waiting.popleft())
        return [item for _, item in self.published[before:]]

    def make_room(self) -> list[Outbound]:
        """The disk is no longer full, and the worker has noticed."""
        self.disk_is_full = False
        return self.step(lambda effects: self.shard.resume_writing(effects, self.now))

    def settled(self) -> int:
        return self.shard.settled()[1]

    def call(self, operation: str, document_id: DocumentId, payload: bytes = b"") -> Reply:
        items = self.give(Call(9, operation, document_id, payload))
        (reply,) = [item for item in items if isinstance(item, Reply)]
        return reply

    def _carry_out(self, effects: Effects) -> None:
        assert self.failures_are_expected or effects.failures == []
        self.failures += effects.failures
        if effects.chunks and self.disk_is_full:
            error = StorageFull("no room")
            self.shard.suspend_writing(error)
            self.shard.rewind(effects, error)
        for document_id, chunks in effects.chunks.items():
            self.stored.setdefault(document_id, []).extend(chunks)
        self.counts += effects.counts
        self.full += effects.full
        for gateway, items in effects.outbound.items():
            for stamped in items:
                assert (stamped.shard, stamped.epoch) == (self.shard.number, self.epoch)
                self.published.append((gateway, stamped.item))
                self._deliver(gateway, stamped.item)
        for document_id in effects.loads:
            self.loads += 1
            self._later(self.hold_loads, partial(self._load, document_id))
        for job in effects.jobs:
            self._later(self.hold_jobs, partial(self._job, job.document_id, job.run))
        for document_id in effects.deletions:
            self._later(self.hold_jobs, partial(self._delete, document_id))
        if effects.listing:
            self.shard.listing_started()
            ids = sorted(self.stored)
            self._later(self.hold_loads, lambda effects: self.shard.listed(ids, effects, self.now))

    def _later(self, hold: bool, action: Callable[[Effects], None]) -> None:
        if hold:
            self.waiting.append(action)
        else:
            self.step(action)

    def _load(self, document_id: DocumentId, effects: Effects) -> None:
        if self.load_fails:
            self.shard.load_failed(document_id, effects, self.now)
            return
        blobs = self.stored.get(document_id, [])
        engine = None if document_id in self.deleted else self._engine(blobs)
        is_lost = document_id in self.lost
        self.shard.loaded(document_id, engine, bool(blobs), effects, self.now, is_lost=is_lost)

    def _engine(self, blobs: Sequence[bytes]) -> Any:
        factory: Any = self.shard._factory
        if hasattr(factory, "load"):
            return factory.load(blobs)
        engine, faults = load_document(blobs)
        assert faults == []
        return engine

    def _job(self, document_id: DocumentId, run: Callable[[], object], effects: Effects) -> None:
        try:
            result = run()
        except Exception as error:
            result = error
        self.shard.job_finished(document_id, result, effects, self.now)

    def _delete(self, document_id: DocumentId, effects: Effects) -> None:
        self.deleted.add(document_id)
        self.stored.pop(document_id, None)
        self.shard.deletion_finished(document_id, None, effects, self.now)

    def _deliver(self, gateway: str, item: Outbound) -> None:
        for connection in getattr(item, "connections", ()):
            client = self.clients.get((gateway, connection))
            if client is not None:
                client.heard.append(item)

    def settle(self) -> int:
        """Let all clients answer until everybody is quiet; returns the number of messages."""
        messages = 0
        while any(client.unread() for client in self.clients.values()):
            for client in list(self.clients.values()):
                for item in client.unread(take=True):
                    client.hear(item)
                    messages += client.say()
            assert messages < MOST_MESSAGES, "endless exchange"
        return messages


class Client:
    """A client of one document, with the engine's own sync behind it."""

    def __init__(
        self,
        net: Net,
        document_id: DocumentId,
        number: int,
        *,
        access: int = 2,
        may_create: bool = True,
        storage_id: str | None = None,
        announce: bool = False,
        gateway: str = GATEWAY,
        peer_id: str | None = None,
    ) -> None:
        self.net, self.document_id, self.number = net, document_id, number
        self.access, self.may_create, self.gateway = access, may_create, gateway
        # Always the same hashes: a Bloom filter over random ones is wrong once in a while.
        self.replica = Replica(number.to_bytes(16, "big"))
        self.replica.connect(0)
        self.heard: list[Outbound] = []
        self._read = 0
        net.clients[gateway, number] = self
        opened = Open(number, peer_id or f"peer-{number}", storage_id, announce, ())
        net.give(opened, gateway=gateway)

    def unread(self, *, take: bool = False) -> list[Outbound]:
        items = self.heard[self._read :]
        if take:
            self._read = len(self.heard)
        return items

    def hear(self, item: Outbound) -> None:
        if isinstance(item, SyncOut) and item.document_id == self.document_id:
            self.replica.receive(0, item.data)

    def say(self) -> int:
        """Send what the replica has to say; returns how many messages that was."""
        data = self.replica.generate(0)
        if data is None:
            return 0
        self.send(data)
        return 1

    def send(self, data: bytes, *, is_request: bool | None = None) -> list[Outbound]:
        """Send sync bytes, honest or not."""
        return self.give(self.item(data, is_request=is_request))

    def item(self, data: bytes, *, is_request: bool | None = None) -> SyncIn:
        """A sync message as the gateway passes it on."""
        if is_request is None:
            is_request = not self.replica.heads()
        return SyncIn(self.number, self.document_id, self.access, self.may_create, is_request, data)

    def give(self, *items: Inbound) -> list[Outbound]:
        return self.net.give(*items, gateway=self.gateway)

    def put(self, key: str, value: object) -> None:
        self.replica.put(key, value)

    def value(self) -> dict[str, Any]:
        value = self.replica.value()
        assert isinstance(value, dict)
        return value

    def kinds(self) -> list[str]:
        """What was heard: sync, unavailable, ephemeral, ..."""
        names = {SyncOut: "sync", UnavailableOut: "unavailable", EphemeralOut: "ephemeral"}
        return [names.get(type(item), type(item).__name__) for item in self.heard]

    def close(self) -> None:
        del self.net.clients[self.gateway, self.number]
        self.give(Close(self.number))


def new_document() -> DocumentId:
    return generate_document_id()


def stored(net: Net, document_id: DocumentId, **values: object) -> Replica:
    """Put a document on the volume."""
    replica = Replica(b"stored")
    for key, value in values.items():
        replica.put(key, value)
    net.store(document_id, replica)
    return replica
