"""What the sans-IO parts of a worker need from the engine, and what they hand to their shell.

`amsync.worker.engine` implements `EngineFactory` over the native binding; tests may plant bugs
by wrapping it.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from amsync.errors import AmsyncError
from amsync.ids import DocumentId
from amsync.protocol.envelope import Outbound, Stamped

Address = tuple[str, int]
"""Gateway incarnation and connection: where a peer can be reached."""


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
    def heads(self) -> list[bytes]: ...
    @property
    def peer_heads(self) -> list[tuple[int, list[bytes]]]: ...
    @property
    def faults(self) -> Sequence[EngineFault]: ...


class EngineDocument(Protocol):
    """One open document and its peers' sync states; one call at a time."""

    def heads(self) -> list[bytes]: ...
    def change_count(self) -> int: ...
    def size_bytes(self) -> int: ...
    def add_peer(
        self, peer: int, *, read_only: bool = False, track_heads: bool = False
    ) -> None: ...
    def remove_peer(self, peer: int) -> None: ...
    def set_read_only(self, peer: int, read_only: bool) -> None: ...
    def reset_peer(self, peer: int) -> None: ...
    def sync(
        self, batch: Sequence[tuple[int, bytes]], hello: Sequence[int] = ()
    ) -> EngineOutcome: ...
    def apply(self, blob: bytes) -> EngineOutcome: ...
    def save(self) -> bytes: ...
    def queued(self) -> list[bytes]: ...


class EngineRefused(AmsyncError):
    """Bytes from the application are no changes that this document can take."""


class EngineBroken(AmsyncError):
    """The engine failed inside; the document object must be dropped and loaded again."""


class EngineFactory(Protocol):
    """Makes documents."""

    def new(self) -> EngineDocument:
        """An empty document without peers."""

    def initial_change(self) -> bytes:
        """The one change, without operations, that an auto-created document starts with."""


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
    counts: list[tuple[str, str]] = field(default_factory=list)
    failures: list[tuple[DocumentId, BaseException]] = field(default_factory=list)

    def send(self, gateway: str, item: Outbound) -> None:
        """Publish an item after the commit."""
        self.outbound[gateway].append(Stamped(self.shard, self.epoch, item))

    def count(self, event: str, label: str = "") -> None:
        """Count something that an operator should see."""
        self.counts.append((event, label))
