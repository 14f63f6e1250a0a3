"""Where documents are: a directory that no server holds, or a server that runs, by its admin port.

A server may be restarted meanwhile, and its shards may change hands: what can't be done now is
tried again for a minute.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from amsync.cli.directory import opened
from amsync.cli.port import AdminPort, PortError, path_of
from amsync.config import variable
from amsync.errors import (
    AmsyncError,
    DocumentDeleted,
    DocumentNotFound,
    InvalidDocument,
    StorageFull,
)
from amsync.ids import DocumentId
from amsync.offline import DocumentIntake, TakenIn, read_document
from amsync.storage import Store

PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.5
AT_ONCE = 4
"""Calls that a server gets at the same time."""

_PASSING = {None, 429, 502, 503, 504}
_ERRORS: dict[int | None, type[AmsyncError]] = {
    400: InvalidDocument,
    404: DocumentNotFound,
    410: DocumentDeleted,
    413: InvalidDocument,
    422: InvalidDocument,
    507: StorageFull,
}

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Read:
    """A document as it was read.

    Attributes:
        saved: One saved document; empty if nothing of it loads.
        losses: What of it is stored and not in `saved`, in words.
    """

    saved: bytes
    losses: tuple[str, ...] = ()


class Place(Protocol):
    """Documents that can be read and taken in.

    Attributes:
        name: For messages.
        at_once: So many threads may call at the same time.
    """

    name: str
    at_once: int

    def origin(self) -> dict[str, object]:
        """What is known of where its documents come from."""

    def ids(self) -> Iterator[DocumentId]:
        """Ids of all documents, sorted; none that was there all the time is left out."""

    def read(self, document_id: DocumentId) -> Read:
        """Read one.

        Raises:
            DocumentNotFound, DocumentDeleted, InvalidDocument, StorageError
        """

    def take_in(self, document_id: DocumentId, saved: bytes) -> TakenIn:
        """Merge a saved document into what is there; it is on disk then. Idempotent.

        Raises:
            DocumentDeleted, InvalidDocument, StorageError
        """

    def quarantined(self) -> int:
        """Files in quarantine, which are in no document."""


class Directory:
    """A place; `store` is open."""

    at_once = 1

    def __init__(self, path: Path, store: Store) -> None:
        self.name, self._store = str(path), store
        self._intake = DocumentIntake(store)

    def origin(self) -> dict[str, object]:
        """See `Place`."""
        return {"storage_id": self._store.volume.storage_id}

    def ids(self) -> Iterator[DocumentId]:
        """See `Place`."""
        return iter(sorted(self._store.list_ids()))

    def read(self, document_id: DocumentId) -> Read:
        """See `Place`."""
        document = read_document(self._store, document_id)
        saved = document.saved if document.change_count else b""
        return Read(saved, tuple(document.losses))

    def take_in(self, document_id: DocumentId, saved: bytes) -> TakenIn:
        """See `Place`."""
        return self._intake.take_in(document_id, saved)

    def quarantined(self) -> int:
        """See `Place`."""
        return self._store.quarantined_count


class Running:
    """A place."""

    at_once = AT_ONCE

    def __init__(self, port: AdminPort) -> None:
        self.name, self._port = port.place, port

    def origin(self) -> dict[str, object]:
        """See `Place`."""
        found = _patiently(lambda: self._port.call("GET", "/cluster"))
        return {name: found.get(name) for name in ("cluster_id", "storage_id", "version")}

    def ids(self) -> Iterator[DocumentId]:
        """See `Place`."""
        pages = _patiently(lambda: list(self._port.pages("/documents", "documents")))
        return (DocumentId(each["document_id"]) for each in pages)

    def read(self, document_id: DocumentId) -> Read:
        """See `Place`."""

        def download() -> bytes:
            parts: list[bytes] = []
            self._port.download(f"{path_of('documents', document_id)}/automerge", parts.append)
            return b"".join(parts)

        return Read(_patiently(download))

    def take_in(self, document_id: DocumentId, saved: bytes) -> TakenIn:
        """See `Place`."""
        path = f"{path_of('documents', document_id)}/automerge"
        taken = _patiently(lambda: self._port.upload("PUT", path, saved))
        return TakenIn(is_new=bool(taken["is_new"]), change_count=int(taken["new_changes"]))

    def quarantined(self) -> int:
        """See `Place`."""
        return len(_patiently(lambda: self._port.call("GET", "/quarantine"))["files"])


def _patiently(do: Callable[[], T]) -> T:
    """Do something again as long as it may help; its refusals are errors of ours."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return do()
        except PortError as error:
            if error.status in _ERRORS:
                raise _ERRORS[error.status](error.message) from error
            if error.status not in _PASSING or time.monotonic() > until:
                raise
        time.sleep(PAUSE_SECONDS)


def is_url(place: str) -> bool:
    """Tell whether a text means a server, and not a directory."""
    return place.startswith(("http://", "https://"))


@contextlib.contextmanager
def open_place(place: str, admin_token: str | None, *, read_only: bool) -> Iterator[Place]:
    """Open what `PLACE` means; what goes wrong ends the command.

    A directory must exist, unless something is to be written into it.
    """
    if is_url(place):
        yield Running(AdminPort.of(place, admin_token))
        return
    path = Path(place)
    if (read_only and not path.exists()) or (path.exists() and not path.is_dir()):
        raise click.UsageError(f"{place} is neither a directory nor an http:// or https:// URL")
    with opened(path, read_only=read_only) as store:
        yield Directory(path, store)


def token_option(command: Command) -> Command:
    """Add --admin-token, for a place that is a server."""
    return click.option(
        "--admin-token",
        envvar=variable("admin_token"),
        show_envvar=True,
        help="If PLACE is a server: the token that it was given; also from ..._FILE.",
    )(command)
