"""Reading a document from the volume into an engine, in a thread; a bad file is put aside."""

import enum
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from amsync.errors import DocumentDeleted, StorageError, StorageFull
from amsync.ids import DocumentId
from amsync.metrics import Metrics
from amsync.storage import LoadedDocument, Store
from amsync.worker.engine import load_document
from amsync.worker.ports import EngineDocument, EngineRefused

log = logging.getLogger("amsync.worker")


@dataclass(frozen=True, slots=True)
class Opened:
    """What the volume holds of a document.

    Attributes:
        engine: None of a deleted one.
        is_stored: There is something.
        is_lost: And nothing of it loads. It may come back from a peer or a backup; an empty
            document would look as if somebody had emptied it.
    """

    engine: EngineDocument | None = None
    is_stored: bool = False
    is_lost: bool = False


class Trouble(enum.Enum):
    """Why a document can't be opened: it can't be read now, or breaks what reads it."""

    UNREADABLE = enum.auto()
    BROKEN = enum.auto()


def open_document(store: Store, metrics: Metrics, document_id: DocumentId) -> Opened | Trouble:
    """Read and load all that is good of a document. Blocking; logs and counts what is not."""
    started = time.monotonic()
    try:
        opened = _open(store, metrics, document_id)
    except StorageError as error:
        metrics.storage_errors.inc("load")
        log.error(
            "document can't be read; it is tried again",
            extra={"document_id": document_id, "error": str(error)},
        )
        return Trouble.UNREADABLE
    except Exception:
        metrics.storage_errors.inc("load")
        log.exception(
            "document can't be opened; it is isolated", extra={"document_id": document_id}
        )
        return Trouble.BROKEN
    metrics.load_seconds.observe(time.monotonic() - started)
    if opened.is_lost:
        metrics.count("documents_lost")
    return opened


def _open(store: Store, metrics: Metrics, document_id: DocumentId) -> Opened:
    try:
        stored = store.load(document_id)
        engine, faults = load_document(stored.blobs, stored.sidecar)
        sidecar = engine.missing_sidecar()
        if sidecar is not None:
            store.keep_sidecar(document_id, sidecar)
        is_lost = not engine.change_count() and (stored.is_damaged or bool(faults))
        for fault in faults:
            metrics.count("bad_blobs")
            _put_aside(store, document_id, stored, engine, fault)
    except DocumentDeleted:
        return Opened()
    return Opened(engine, bool(stored.blobs), is_lost)


def _put_aside(
    store: Store,
    document_id: DocumentId,
    stored: LoadedDocument,
    engine: EngineDocument,
    fault: tuple[int, str],
) -> None:
    """Put a bad file aside, once what is good of it is saved with the rest."""
    index, why = fault
    # Alone, the good changes of a bad file would wait for those of other files.
    good: Sequence[bytes] = engine.queued()
    try:
        if engine.change_count():  # of nothing there is nothing to save
            good = [engine.save(), *good]
        store.bad_blob(document_id, stored.paths[index], good, why)
    except (EngineRefused, StorageFull) as error:  # what is good can be served, the rest waits
        log.warning(
            "a bad file stays where it is",
            extra={"document_id": document_id, "error": str(error)},
        )
