"""The native engine: the official `automerge` crate behind a batch-shaped interface.

Every call releases the GIL, catches panics and raises only the errors named here. Bytes that
come out are new `bytes`; nothing that goes in is kept by reference.
"""

from collections.abc import Sequence
from typing import final

__all__ = [
    "Document",
    "EngineError",
    "EnginePanic",
    "Fault",
    "InvalidChunk",
    "LoadDocument",
    "LoadFigures",
    "LoadGenerator",
    "Outcome",
    "Replica",
    "__version__",
    "build_document",
    "compact",
    "initial_change",
    "inspect",
]

__version__: str
"""Version of the automerge crate inside, as `0.12.0`."""

class EngineError(Exception):
    """Root of the errors of this module."""

class InvalidChunk(EngineError):
    """Bytes are not automerge chunks that this document can take; nothing was applied.

    `args` is (reason, detail); reason is one of the labels of `Fault.reason`.
    """

class EnginePanic(EngineError):
    """The crate panicked. The object that was called is unusable; drop it and load again."""

@final
class Fault:
    """One message that was refused whole, or a loop that was noticed.

    `reason` is a bounded label:
    malformed, too_large, bloom, checksum, chunk_type, sequence, duplicate_sequence, op_id,
    unknown_actor, unknown_object (an operation in an object that does not exist),
    rows (a run-length column that claims too many rows, or a document with more than 2^26),
    too_complex (too much of the graph would have to be searched for an author's past),
    loop_reset (the exchange repeats itself; the peer's state was renewed with a reset),
    loop (it repeats itself again after a reset; the peer was silenced).
    """

    @property
    def peer(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def detail(self) -> str: ...

@final
class Outcome:
    """What one batch did to a document.

    The caller makes `chunks` durable before any of `messages` leaves the process: messages
    name heads that are durable only then.
    """

    @property
    def messages(self) -> list[tuple[bytes, list[int]]]:
        """Sync messages, each with the peers it goes to; equal bytes appear once."""

    @property
    def chunks(self) -> list[bytes]:
        """New self-contained chunks to persist, in an order in which they can be loaded."""

    @property
    def heads(self) -> tuple[bytes, ...]:
        """Heads after the batch, 32 bytes each, sorted; the same object until they change."""

    @property
    def taken(self) -> int:
        """Messages of the batch that were dealt with: all, but for `only_light`."""

    @property
    def sidecar(self) -> bytes | None:
        """Of the saved document with which the document began in this call, if it deserves one."""

    @property
    def is_frozen(self) -> bool:
        """After `only_light`: a peer that takes only single changes waits for some that must be
        taken out of the saved document first; a `sync` without `only_light` does that."""

    @property
    def holds(self) -> int:
        """Peers that from now on get nothing until they answer: see `window`."""

    @property
    def peer_heads(self) -> list[tuple[int, list[bytes]]]:
        """Peers added with `track_heads` whose heads changed in this batch, with the new ones."""

    @property
    def faults(self) -> list[Fault]: ...
    @property
    def ignored(self) -> list[int]:
        """Peers added as `read_only` who have sent changes, once for each message."""

@final
class Document:
    """One open document and the sync state of each of its peers.

    A peer is an int of 64 bits that the caller chooses. Not thread-safe: one call at a time; a
    second one raises RuntimeError.

    Args of the constructor, each 1 or more, else it raises ValueError:
        window: At most so many unanswered messages with changes per peer; what comes later is
            sent as one message when an answer arrives.
        loop_limit: So many consecutive exchanges without progress renew the state with a reset.
        queue_bytes: Bound on changes of peers that wait for a dependency, with at most 10,000
            of them; the oldest are dropped, and asked for again when heads lead to them.
        like_crate: Follow the crate's sync rules to the letter, with their defects: for tests.
    """

    def __new__(
        cls,
        *,
        window: int = 8,
        loop_limit: int = 3,
        queue_bytes: int = 8_388_608,
        like_crate: bool = False,
    ) -> Document: ...
    @staticmethod
    def load(
        blobs: Sequence[bytes],
        *,
        sidecar: bytes | None = None,
        window: int = 8,
        loop_limit: int = 3,
        queue_bytes: int = 8_388_608,
        like_crate: bool = False,
    ) -> tuple[Document, list[tuple[int, str]]]:
        """Load from stored blobs, each with one or more chunks, in any order; duplicates are fine.

        Stored bytes are trusted more than those of peers: they may have 2^28 rows together and
        inflate to 4 GiB, and what waits for a dependency is kept whole until the next message.
        Whatever a document took can be loaded again.

        A blob that `sidecar` belongs to is not opened; one that belongs to none of them, or is
        damaged, is ignored.

        Returns the document and (index of the blob, what is wrong) for each blob that has a
        bad part; the good chunks of it, and all others, are loaded all the same.
        Raises EnginePanic, or ValueError like the constructor.
        """

    def missing_sidecar(self) -> bytes | None:
        """A sidecar for the next `load` of the same blobs, if one would help and none was given."""

    def heads(self) -> list[bytes]: ...
    def change_count(self) -> int:
        """Changes applied, without queued ones that wait for a dependency."""

    def queued_count(self) -> int: ...
    def queued(self) -> list[bytes]:
        """Chunks of the changes that wait for a dependency, oldest first, uncompressed."""

    def stored_bytes(self) -> int:
        """The snapshot and the changes behind it, as they are on disk; cheap to call."""

    def size_bytes(self) -> int:
        """Memory held, roughly; cheap to call."""

    def add_peer(
        self,
        peer: int,
        *,
        read_only: bool = False,
        track_heads: bool = False,
        token: bytes | None = None,
    ) -> None:
        """Start a state for a peer, fresh or from a `token`; replaces one that exists.

        read_only: we take no changes from it (it is told so by the protocol's flag).
        Raises InvalidChunk for a token that is none.
        """

    def token(self, peer: int) -> bytes:
        """What another process needs to continue with this peer, opaque and small.

        It must not take the place of an older one while a message made before it may not have
        reached the peer. Raises KeyError.
        """

    def remove_peer(self, peer: int) -> None:
        """Forget a peer; unknown peers are ignored."""

    def set_read_only(self, peer: int, read_only: bool) -> None:
        """Change the role; turning it off arms a reset, so that the peer sends again."""

    def reset_peer(self, peer: int) -> None:
        """Renew the state as one that may have lost an inbound message, and emit the reset.

        SYNC_RESET if the peer's capabilities show it, else empty heads followed at once by the
        real ones. The messages come with the next `sync`.
        """

    def sync(
        self,
        batch: Sequence[tuple[int, bytes]],
        hello: Sequence[int] = (),
        only_light: bool = False,
    ) -> Outcome:
        """Take messages from peers, in order, then generate for every peer that is owed one.

        With `only_light` those before the first one that would take more than some milliseconds:
        saved documents and compressed changes, changes whose operations must be tried out on the
        opened document, filters to be held against a long history, all beyond 32 KiB.

        `hello` names peers (already added) to whom a first message is sent unasked. Peers that
        were added but never spoke nor were greeted get nothing.
        A peer whose message was refused gets nothing in this call, and its state is as before:
        it stays without an answer to that message. A fault may also name a peer of an earlier
        batch, whose change had waited for a dependency; that peer gets its messages.

        Raises KeyError for a peer that was not added (nothing was taken then), EnginePanic.
        """

    def rebase(self, snapshot: bytes, heads: Sequence[bytes]) -> bool:
        """Keep a snapshot made of this document's chunks, with its heads, in their place.

        Single changes that are in it are let go of, but for the newest. False, and nothing done,
        if its heads are not known here.
        """

    def apply(self, blob: bytes) -> Outcome:
        """Take in changes or a saved document from the application, all or nothing.

        Same checks as for peers. Changes whose dependencies are missing are refused with reason
        `missing_dependency`. Messages for the peers come with the outcome.
        Raises InvalidChunk, EnginePanic.
        """

    def save(self) -> bytes:
        """The whole document as one chunk, without queued changes. Opens it.

        Raises InvalidChunk if it can't be opened, as bytes of others on disk may be: operations
        are not looked into when they are loaded. EnginePanic.
        """

    def value(self, most_bytes: int | None = None) -> object:
        """The current value as dict, list, str, int, float, bool, None, bytes, datetime (UTC).

        Opens the document. Raises ValueError if it is nested deeper than 256 levels or takes more
        than so many bytes, counting 64 for each part beside its text, and like `save`.
        """

    def state(self, peer: int) -> dict[str, object]:
        """The sync state with a peer, spelled out for tests. Raises KeyError."""

def initial_change() -> bytes:
    """One change without operations, with a fixed actor and time: always the same bytes."""

def build_document(data: object) -> bytes:
    """Save a new document made of a dict with str keys; strings become text objects.

    Takes dict, list, tuple, str, int (64 bit), float, bool, None, bytes, datetime.
    Raises TypeError or ValueError with the path of the value that doesn't fit.
    """

def inspect(blob: bytes) -> tuple[list[bytes], int, int]:
    """Heads, number of changes and number of changes with missing dependencies of one blob.

    Raises InvalidChunk if any part of it doesn't load, EnginePanic.
    """

def compact(blobs: Sequence[bytes]) -> tuple[bytes, list[bytes], bytes]:
    """Merge blobs into one snapshot and prove it: reload it and find every change in it.

    Returns (snapshot, heads, sidecar). Raises InvalidChunk with reason `orphans` if a change waits
    for a dependency, `unverified` if the snapshot lacks a change, other reasons if a blob has a
    bad part; EnginePanic. Nothing may be deleted then.
    """

@final
class Replica:
    """A client's copy of one document, for load generators and tests.

    Uses the crate's own sync, as clients do. `v1` never tells that it can take v2 messages.
    """

    def __new__(cls, actor: bytes | None = None, *, v1: bool = False) -> Replica: ...
    @staticmethod
    def load(data: bytes, actor: bytes | None = None, *, v1: bool = False) -> Replica: ...
    def put(self, key: str, value: object) -> None:
        """Set a scalar (str, int, float, bool, None, bytes) at the root, as one change."""

    def splice(self, key: str, position: int, delete: int, text: str) -> None:
        """Edit the text object at the root key, made when missing, as one change."""

    def empty_change(self) -> None: ...
    def edit_at(self, heads: Sequence[bytes], key: str, value: object) -> None:
        """Set a scalar as if at older heads (isolate, as JavaScript's changeAt does)."""

    def merge(self, other: Replica) -> None: ...
    def value(self) -> object: ...
    def heads(self) -> list[bytes]: ...
    def has(self, change_hash: bytes) -> bool: ...
    def save(self) -> bytes: ...
    def changes(self) -> list[bytes]:
        """All changes as raw uncompressed chunks, dependencies first."""

    def connect(self, peer: int, state: bytes | None = None) -> None:
        """Start a sync state with a peer, fresh or from an encoded one; replaces the old one."""

    def disconnect(self, peer: int) -> bytes | None:
        """End it; returns the encoded state, or None if there was none."""

    def generate(self, peer: int) -> bytes | None: ...
    def receive(self, peer: int, message: bytes) -> None:
        """Raises InvalidChunk, EnginePanic."""

    def state(self, peer: int) -> dict[str, object]:
        """The crate's sync state, as `Document.state` gives ours."""

    def set_read_only(self, peer: int, read_only: bool) -> None:
        """The crate's own change of role: take no changes from the peer, or take them again."""

    def reset_peer(self, peer: int) -> None:
        """Renew the state as one that may have lost an inbound message."""

@final
class LoadDocument:
    """A document of `amsync bench`, made with every change that a run may send.

    The changes are a chain, each of which types one character at the end of a text.

    Args of the constructor:
        history: Changes that it begins with, 1 or more.
        further: Changes that its writer may make.
        actor: Who makes them, 1 byte or more.

    Raises ValueError.
    """

    def __new__(
        cls, document_id: str, history: int, further: int, actor: bytes
    ) -> LoadDocument: ...
    @property
    def document_id(self) -> str: ...
    @property
    def history(self) -> int: ...
    @property
    def saved_bytes(self) -> int:
        """Size of the history as one document chunk."""

    @property
    def further_bytes(self) -> int:
        """Size of the chunks of all further changes."""

@final
class LoadFigures:
    """What a `LoadGenerator` has measured since `begin`.

    Latencies run from the call that sends a change to its receipt by another client of the same
    generator, and are within 3 % of the truth; 0 when nothing was delivered.
    """

    @property
    def made(self) -> int:
        """Changes that writers have made."""

    @property
    def delivered(self) -> int:
        """Changes times clients that have got them."""

    @property
    def duplicates(self) -> int:
        """Changes that a client had already when it got them."""

    @property
    def frames_in(self) -> int: ...
    @property
    def bytes_in(self) -> int: ...
    @property
    def frames_out(self) -> int: ...
    @property
    def late_seconds(self) -> float:
        """How long after its time a change was sent at the worst: the generator's own fault."""

    @property
    def p50_seconds(self) -> float: ...
    @property
    def p90_seconds(self) -> float: ...
    @property
    def p99_seconds(self) -> float: ...
    @property
    def max_seconds(self) -> float: ...

@final
class LoadGenerator:
    """Many clients of one automerge-repo server, for `amsync bench`.

    Nothing is read or sent but in `run` and `wait_settled`, which release the GIL
    and let signals through. Clients and documents are numbers, from 0 on. Not thread-safe.

    Args of the constructor:
        doors: Host, port and path of each place where the server takes clients; at least one.
            Clients take them in turn.
        prefix: What the peer ids of the clients begin with.

    Raises OSError when a host is not known, ValueError without any.
    """

    def __new__(cls, doors: list[tuple[str, int, str]], prefix: str) -> LoadGenerator: ...
    def add(self, document: LoadDocument) -> int:
        """Make a document known to this generator; returns its number."""

    def connect(self) -> int:
        """Connect one more client; it joins while the generator runs. Raises ConnectionError."""

    def open(self, client: int, document: int, *, has_it: bool = False, real: bool = False) -> None:
        """Let a client ask for a document, or offer it.

        has_it: It has all changes that were made so far, and uploads what the server lacks.
        real: It keeps a document and uses the crate's own sync, as an independent check.
        Raises ValueError.
        """

    def write(
        self,
        client: int,
        document: int,
        count: int,
        interval_seconds: float,
        *,
        wait_seconds: float = 0.0,
        batch: int = 1,
    ) -> None:
        """Let a client that has opened a document make `count` changes, `batch` in a message.

        One client at a time may write to a document. Raises ValueError.
        """

    def close(self, client: int) -> None:
        """Close a client's socket; what it has opened counts no more. Raises ValueError."""

    def run(self, seconds: float) -> None: ...
    def wait_settled(self, seconds: float) -> bool:
        """Run until all changes are made, and every client and the server have all of them.

        Ends early when something went wrong. False if it took longer.
        """

    def begin(self) -> None:
        """Begin to measure anew."""

    def figures(self) -> LoadFigures: ...
    def faults(self) -> list[str]:
        """What has gone wrong so far, at most 50 things: "connection lost: ...", or wrong bytes."""

    def check(self) -> list[str]:
        """What each open client lacks, has too much or has wrong; empty if all is right."""
