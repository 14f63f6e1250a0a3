"""Documents of a data directory that no server holds: reading, saving and taking in.

Not here: how results are shown (`amsync.cli`). Whoever calls has opened the store. Invariants: a
document is taken in whole or not at all, and is on disk when `take_in` returns; a saved file is
complete under its final name, or not there.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from amsync.errors import (
    DocumentDeleted,
    DocumentExists,
    DocumentNotFound,
    InvalidDocument,
)
from amsync.ids import DocumentId, shard_of
from amsync.storage import DocumentChunks, RealFileSystem, Store, WalBatch
from amsync.storage.durable import DurableFiles
from amsync.worker.engine import NativeCodec, load_document
from amsync.worker.ports import EngineBroken, EngineDocument, EngineRefused


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as it is stored.

    Attributes:
        document_id: Canonical id.
        saved: All of it that loads, as one document chunk.
        heads: 32 bytes each, sorted.
        change_count: Changes in `saved`.
        waiting_count: Changes that are not in it, because they wait for others.
        file_count: Files in its folder.
        stored_bytes: Of all files and changes in the log.
        faults: What does not load, each with its place.
    """

    document_id: DocumentId
    saved: bytes
    heads: tuple[bytes, ...]
    change_count: int
    waiting_count: int
    file_count: int
    stored_bytes: int
    faults: tuple[str, ...]

    @property
    def losses(self) -> list[str]:
        """What `saved` lacks of what is stored; empty if nothing."""
        lost = list(self.faults)
        if self.waiting_count:
            lost.append(f"{self.waiting_count} changes wait for others that are not stored")
        return lost


@dataclass(frozen=True, slots=True)
class TakenIn:
    """What taking a document in has changed.

    Attributes:
        is_new: It was not stored before.
        change_count: Changes that were not there before.
    """

    is_new: bool
    change_count: int


def read_document(store: Store, document_id: DocumentId) -> StoredDocument:
    """Read and load everything stored of a document.

    Raises:
        DocumentNotFound, DocumentDeleted: There is no such document.
        InvalidDocument: The engine fails on what is stored, or saves something else.
        StorageError
    """
    stored = store.load(document_id)
    if not stored.blobs:
        raise DocumentNotFound(f"there is no document {document_id}")
    document, faults = _load(stored.blobs)
    saved = document.save()
    if document.change_count():
        found = NativeCodec().inspect(saved)
        if (found.heads, found.change_count) != (tuple(document.heads()), document.change_count()):
            raise InvalidDocument("the engine saves something else than it loaded")
    root = store.volume.root
    places = [path.relative_to(root) if path else "the log" for path in stored.paths]
    return StoredDocument(
        document_id=document_id,
        saved=saved,
        heads=tuple(document.heads()),
        change_count=document.change_count(),
        waiting_count=len(document.queued()),
        file_count=sum(path is not None for path in stored.paths),
        stored_bytes=sum(len(blob) for blob in stored.blobs),
        faults=tuple(f"{places[index]}: {why}" for index, why in faults),
    )


def _load(blobs: Sequence[bytes]) -> tuple[EngineDocument, list[tuple[int, str]]]:
    try:
        return load_document(blobs)
    except EngineBroken as error:
        raise InvalidDocument(f"the engine fails on it: {error}") from error


@contextmanager
def saving_to(folder: Path) -> Iterator[DurableFiles]:
    """Write files into a folder, made if missing; nothing half is left in it.

    Raises:
        OSError: It can't be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    owner = f".amsync-{os.getpid()}"
    try:
        yield DurableFiles(RealFileSystem(), folder, folder, owner)
    finally:
        # An interrupt leaves the file that was being written.
        for draft in folder.glob(f"{owner}-*"):
            draft.unlink()


def save_document(
    files: DurableFiles, path: Path, saved: bytes, *, overwrite: bool = False
) -> bool:
    """Save a document as a file and read it back; False if it was there already.

    Raises:
        DocumentExists: There is a file with other content.
        StorageError, OSError: It could not be written.
    """
    if path.exists() or path.is_symlink():
        if path.is_file() and path.read_bytes() == saved:
            return False
        if not overwrite:
            raise DocumentExists(f"{path} is there with other content; --force replaces it")
    files.write(path, saved)
    return True


class DocumentIntake:
    """Takes documents into a store that nobody else uses."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._epochs: dict[int, int] = {}

    def take_in(self, document_id: DocumentId, saved: bytes) -> TakenIn:
        """Merge changes or a saved document into a stored one, or store it; idempotent.

        Raises:
            DocumentDeleted: The document was deleted, and stays deleted.
            InvalidDocument: The bytes are damaged, hold no change, or contradict what is stored.
            StorageError, StorageFull: It may be stored; taking it in again is harmless.
        """
        if self._store.is_deleted(document_id):
            raise DocumentDeleted(f"document {document_id} was deleted and stays deleted")
        stored = self._store.load(document_id)
        document, _ = _load(stored.blobs)
        before = document.change_count()
        try:
            outcome = document.apply(saved)
        except EngineRefused as error:
            raise InvalidDocument(str(error)) from error
        except EngineBroken as error:
            raise InvalidDocument(f"the engine fails on it: {error}") from error
        if not saved or not document.change_count():
            raise InvalidDocument("it holds no change")
        if outcome.chunks:
            self._commit(document_id, outcome.chunks)
        return TakenIn(is_new=not stored.blobs, change_count=document.change_count() - before)

    def _commit(self, document_id: DocumentId, chunks: Sequence[bytes]) -> None:
        shard = shard_of(document_id, self._store.volume.shard_count)
        if shard not in self._epochs:
            self._epochs[shard] = self._store.claim_shard(shard)
        item = DocumentChunks(shard, self._epochs[shard], document_id, tuple(chunks))
        self._store.commit_blocking(WalBatch(changes=(item,)))
        if self._store.checkpoint_due():
            self._store.checkpoint()
