"""What the sans-IO parts of a worker need from the engine, and what they hand to their shell.

`amsync.worker.engine` implements `EngineFactory` over the native binding; tests may plant bugs
by wrapping it.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from amsync.errors import AmsyncError, StorageError
from amsync.ids import DocumentId
from amsync.protocol.envelope import Offer, Outbound, Query, Reply, Stamped, SyncOut

Address = tuple[str, int]
"""Gateway incarnation and connection: where a peer can be reached."""


class Tenure(Protocol):
    """What a worker that shares the shards with others knows of its leases.

    Attributes:
        cluster_epoch: Of the bus that the positions belong to.
    """

    @property
    def cluster_epoch(self) -> str: ...

    def lost(self, shards: Iterable[int]) -> Collection[int] | None:
        """Which of these are not ours any more; None if only `find_lost` can tell."""

    async def find_lost(self, shards: Sequence[int]) -> Collection[int]:
        """The same, as soon as it is known, which may take until the bus is back."""

    async def trim(self, positions: Mapping[int, tuple[int, int]]) -> None:
        """Let the streams of these shards forget what is up to these positions, if it works."""


class EngineFault(Protocol):
    """A message that was refused, or a loop that was noticed; see the binding for the reasons."""

    @property
    def peer(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def detail(self) -> str: ...


class EngineOutcome(Protocol):
    """What a batch did; `chunks` must be durable before a message of `messages` is sent."""

    @property
    def messages(self) -> list[tuple[bytes, list[int]]]: ...
    @property
    def chunks(self) -> list[bytes]: ...
    @property
    def heads(self) -> tuple[bytes, ...]: ...
    @property
    def taken(self) -> int: ...
    @property
    def is_frozen(self) -> bool: ...
    @property
    def holds(self) -> int: ...
    @property
    def sidecar(self) -> bytes | None: ...
    @property
    def peer_heads(self) -> list[tuple[int, list[bytes]]]: ...
    @property
    def faults(self) -> Sequence[EngineFault]: ...
    @property
    def ignored(self) -> Sequence[int]: ...


class EngineDocument(Protocol):
    """One open document and its peers' sync states; one call at a time."""

    def heads(self) -> list[bytes]: ...
    def change_count(self) -> int: ...
    def stored_bytes(self) -> int: ...
    def size_bytes(self) -> int: ...
    def add_peer(
        self,
        peer: int,
        *,
        read_only: bool = False,
        track_heads: bool = False,
        token: bytes | None = None,
    ) -> None: ...
    def token(self, peer: int) -> bytes: ...
    def remove_peer(self, peer: int) -> None: ...
    def set_read_only(self, peer: int, read_only: bool) -> None: ...
    def reset_peer(self, peer: int) -> None: ...
    def sync(
        self,
        batch: Sequence[tuple[int, bytes]],
        hello: Sequence[int] = (),
        only_light: bool = False,
    ) -> EngineOutcome: ...
    def rebase(self, snapshot: bytes, heads: Sequence[bytes]) -> bool: ...
    def missing_sidecar(self) -> bytes | None: ...
    def apply(self, blob: bytes) -> EngineOutcome: ...
    def save(self) -> bytes: ...
    def value(self, most_bytes: int) -> object: ...
    def queued(self) -> list[bytes]: ...


class EngineRefused(AmsyncError):
    """Bytes or a value from the application can't be taken, or a document can't be opened."""


class EngineBroken(AmsyncError):
    """The engine failed inside; the document object must be dropped and loaded again."""


class EngineFactory(Protocol):
    """Makes documents."""

    def new(self) -> EngineDocument:
        """An empty document without peers."""

    def initial_change(self) -> bytes:
        """The one change, without operations, that an auto-created document starts with."""

    def build(self, value: object) -> bytes:
        """Save a new document with this value. Raises EngineRefused."""


@dataclass(frozen=True, slots=True)
class Job:
    """Work on one document that is too long for the event loop.

    The shell calls `run` in a thread (in the simulation: later) and hands what it returned, or
    the exception, to `Shard.job_finished`.
    """

    document_id: DocumentId
    run: Callable[[], object]


@dataclass(slots=True)
class Effects:
    """What one step of a shard wants from its shell, in this order.

    First `chunks` become durable, together. Then `outbound` may be published, and loads may
    start: what they read must hold the chunks. Jobs may start at once. Deletions come last; the
    shell does them and answers with `Shard.deletion_finished`.
    """

    shard: int
    epoch: int
    chunks: dict[DocumentId, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    outbound: dict[str, list[Stamped]] = field(default_factory=lambda: defaultdict(list))
    loads: list[DocumentId] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    deletions: list[DocumentId] = field(default_factory=list)
    listing: bool = False
    queries: list[tuple[str, Query]] = field(default_factory=list)
    """What gateways ask of the worker rather than of a document; the shell answers."""
    counts: list[tuple[str, str]] = field(default_factory=list)
    replied: dict[DocumentId, set[tuple[str, int]]] = field(
        default_factory=lambda: defaultdict(set)
    )
    """Calls, as (gateway, call), whose answers hold only if the chunks become durable."""
    answered: dict[DocumentId, list[Address]] = field(default_factory=lambda: defaultdict(list))
    """Who had asked for a document and is sent it in this step."""
    created: set[DocumentId] = field(default_factory=set)
    """Documents that are stored from this step on, if their chunks become durable."""
    failures: list[tuple[DocumentId, BaseException]] = field(default_factory=list)
    full: list[DocumentId] = field(default_factory=list)
    """Documents that have become as large as they may: from now on they are only read."""
    edited_at: float = 0.0
    """When the oldest of the chunks' changes came from its client, in s since 1970; 0: unknown."""
    sidecars: list[tuple[DocumentId, bytes]] = field(default_factory=list)
    """What to keep beside the chunks, when there is time; nothing depends on it."""

    def send(self, gateway: str, item: Outbound) -> None:
        """Publish an item after the commit."""
        self.outbound[gateway].append(Stamped(self.shard, self.epoch, item))

    def withdraw(self, document_ids: Collection[DocumentId], error: StorageError) -> None:
        """Take back what was to be said of documents whose chunks could not be made durable.

        What else was said of them stays: it names nothing as saved. The application's calls are
        answered with the error.
        """
        failed = {call for name in document_ids for call in self.replied.get(name, ())}
        for gateway, items in self.outbound.items():
            kept: list[Stamped] = []
            for stamped in items:
                match stamped.item:
                    case SyncOut(document_id=name) if name in document_ids:
                        continue
                    case Reply(call=call, error=None) if (gateway, call) in failed:
                        answer = Reply(call, type(error).__name__, str(error), b"")
                        stamped = replace(stamped, item=answer)  # noqa: PLW2901
                    case Offer() as offer:
                        unborn = self.created.intersection(document_ids)
                        names = [name for name in offer.documents if name not in unborn]
                        stamped = replace(stamped, item=replace(offer, documents=names))  # noqa: PLW2901
                    case _:
                        pass
                kept.append(stamped)
            items[:] = kept

    def edited(self, at: float) -> None:
        """Some of the chunks came from a client at this time; 0 if that isn't known."""
        if at and (not self.edited_at or at < self.edited_at):
            self.edited_at = at

    def count(self, event: str, label: str = "") -> None:
        """Count something that an operator should see."""
        self.counts.append((event, label))
