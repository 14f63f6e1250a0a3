"""The one door to the native binding: engine documents for shards, chunk work for the store.

Turns the binding's errors into the worker's. Everything here may be called from any thread,
one call at a time per document; the binding releases the GIL.
"""

import contextlib
import ctypes
from collections.abc import Callable, Sequence
from typing import TypeVar

import amsync._automerge as _automerge
from amsync.errors import InvalidDocument
from amsync.storage import BlobFault, ChunkInfo, Examination, Snapshot
from amsync.worker.ports import EngineBroken, EngineDocument, EngineOutcome, EngineRefused

T = TypeVar("T")

AUTOMERGE_VERSION = _automerge.__version__

CHUNK_MAGIC = b"\x85\x6f\x4a\x83"
"""Every automerge chunk begins with it."""

DOCUMENT_KIND = b"\0"
"""The byte after magic and checksum in a chunk that is a saved document."""


def _translated(call: Callable[[], T]) -> T:
    try:
        return call()
    except _automerge.EnginePanic as error:
        raise EngineBroken(str(error)) from error
    except _automerge.InvalidChunk as error:
        raise EngineRefused(": ".join(str(part) for part in error.args)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # PyO3's, for panics outside of the crate
            raise
        raise EngineBroken(str(error)) from error


class NativeDocument:
    """`EngineDocument` over the binding."""

    __slots__ = ("_document",)

    def __init__(self, document: _automerge.Document) -> None:
        self._document = document

    def heads(self) -> list[bytes]:
        """See the binding."""
        return self._document.heads()

    def change_count(self) -> int:
        """See the binding."""
        return self._document.change_count()

    def stored_bytes(self) -> int:
        """Bytes of the snapshot and the changes behind it."""
        return self._document.stored_bytes()

    def size_bytes(self) -> int:
        """See the binding."""
        return self._document.size_bytes()

    def add_peer(
        self,
        peer: int,
        *,
        read_only: bool = False,
        track_heads: bool = False,
        token: bytes | None = None,
    ) -> None:
        """See the binding. Raises EngineRefused for a token that is none."""
        _translated(
            lambda: self._document.add_peer(
                peer, read_only=read_only, track_heads=track_heads, token=token
            )
        )

    def token(self, peer: int) -> bytes:
        """See the binding."""
        return self._document.token(peer)

    def remove_peer(self, peer: int) -> None:
        """See the binding."""
        self._document.remove_peer(peer)

    def set_read_only(self, peer: int, read_only: bool) -> None:
        """See the binding."""
        self._document.set_read_only(peer, read_only)

    def reset_peer(self, peer: int) -> None:
        """See the binding."""
        self._document.reset_peer(peer)

    def rebase(self, snapshot: bytes, heads: Sequence[bytes]) -> bool:
        """See the binding. Raises EngineBroken."""
        return _translated(lambda: self._document.rebase(snapshot, heads))

    def missing_sidecar(self) -> bytes | None:
        """See the binding."""
        return self._document.missing_sidecar()

    def sync(
        self,
        batch: Sequence[tuple[int, bytes]],
        hello: Sequence[int] = (),
        only_light: bool = False,
    ) -> EngineOutcome:
        """See the binding. Raises EngineBroken."""
        return _translated(lambda: self._document.sync(batch, hello, only_light))

    def apply(self, blob: bytes) -> EngineOutcome:
        """See the binding. Raises EngineRefused, EngineBroken."""
        return _translated(lambda: self._document.apply(blob))

    def queued(self) -> list[bytes]:
        """Chunks that wait for a dependency. Raises EngineBroken."""
        return _translated(self._document.queued)

    def save(self) -> bytes:
        """See the binding. Raises EngineRefused, EngineBroken."""
        return _translated(self._document.save)

    def value(self, most_bytes: int) -> object:
        """See the binding. Raises EngineRefused, EngineBroken."""
        try:
            return _translated(lambda: self._document.value(most_bytes))
        except ValueError as error:
            raise EngineRefused(str(error)) from error


class NativeFactory:
    """`EngineFactory` over the binding."""

    def new(self) -> EngineDocument:
        """An empty document."""
        return NativeDocument(_automerge.Document())

    def initial_change(self) -> bytes:
        """Always the same bytes."""
        return _automerge.initial_change()

    def build(self, value: object) -> bytes:
        """Save a new document. Raises EngineRefused for what doesn't fit."""
        try:
            return build_document(value)
        except (TypeError, ValueError) as error:
            raise EngineRefused(str(error)) from error


def load_document(
    blobs: Sequence[bytes], sidecar: bytes | None = None
) -> tuple[EngineDocument, list[tuple[int, str]]]:
    """Load from stored blobs; the one that the sidecar belongs to is not opened.

    Returns the document and, for each blob with a bad part, its index and what is wrong.

    Raises:
        EngineBroken: The crate panicked on these blobs.
    """
    document, faults = _translated(lambda: _automerge.Document.load(blobs, sidecar=sidecar))
    return NativeDocument(document), faults


def give_memory_back() -> None:
    """Let the system have what closed documents have left free; glibc keeps it otherwise."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def value_of(saved: bytes) -> object:
    """The current value of a saved document, as Python values.

    Raises:
        InvalidDocument: These bytes are not a saved document.
    """
    document, faults = _translated(lambda: _automerge.Document.load([saved]))
    if faults:
        raise InvalidDocument(faults[0][1])
    try:
        return _translated(document.value)
    except EngineRefused as error:
        raise InvalidDocument(str(error)) from error


def build_document(data: object) -> bytes:
    """Save a new document made of a dict with str keys.

    Raises:
        TypeError, ValueError: With the path of the value that doesn't fit.
    """
    return _automerge.build_document(data)


class NativeCodec:
    """`ChunkCodec` of the store over the binding."""

    def is_snapshot(self, blob: bytes) -> bool:
        """Tell whether a blob is one saved document and nothing else, by its header."""
        if not blob.startswith(CHUNK_MAGIC) or blob[8:9] != DOCUMENT_KIND:
            return False
        length, shift, at = 0, 0, 9
        for byte in blob[9:19]:
            length |= (byte & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if byte < 0x80:
                return len(blob) == at + length
        return False

    def inspect(self, blob: bytes) -> ChunkInfo:
        """Heads and counts of one blob. Raises InvalidDocument if any part of it doesn't load."""
        heads, changes, orphans = self._checked(lambda: _automerge.inspect(blob))
        return ChunkInfo(heads=tuple(heads), change_count=changes, orphan_count=orphans)

    def compact(self, blobs: Sequence[bytes]) -> Snapshot:
        """Merge into one proved snapshot. Raises InvalidDocument when that can't be done."""
        data, heads, sidecar = self._checked(lambda: _automerge.compact(blobs))
        return Snapshot(data=data, heads=tuple(heads), sidecar=sidecar)

    def examine(self, blobs: Sequence[bytes]) -> Examination:
        """What loads of a document's blobs. Raises InvalidDocument if the engine gives up."""
        document, found = self._checked(lambda: _automerge.Document.load(blobs))
        self._checked(document.save)  # opens it: loading alone doesn't look at operations
        faults = {index: self._fault(index, why, blobs[index]) for index, why in reversed(found)}
        return Examination(
            heads=tuple(document.heads()),
            change_count=document.change_count(),
            orphan_count=document.queued_count(),
            faults=tuple(faults[index] for index in sorted(faults)),
        )

    def _fault(self, index: int, why: str, blob: bytes) -> BlobFault:
        good_count, is_conflict = 0, False
        with contextlib.suppress(InvalidDocument):
            alone, faults = self._checked(lambda: _automerge.Document.load([blob]))
            good_count = alone.change_count() + alone.queued_count()
            is_conflict = not faults
        # A chunk that is cut within its magic can't be told from foreign bytes.
        is_chunk = good_count > 0 or blob.startswith(CHUNK_MAGIC)
        return BlobFault(index, why, good_count, is_chunk, is_conflict)

    @staticmethod
    def _checked(call: Callable[[], T]) -> T:
        try:
            return _translated(call)
        except (EngineRefused, EngineBroken) as error:
            raise InvalidDocument(str(error)) from error
        except _automerge.EngineError as error:
            raise InvalidDocument(": ".join(str(part) for part in error.args)) from error
