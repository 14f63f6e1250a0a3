"""Where documents are: a directory that no server holds, or a server that runs, by its admin port.

A server may be restarted meanwhile, and its shards may change hands: what can't be done now is
tried again for a minute. If it is not done then, although the server answers for every shard, that
is the fault of one document.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
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
    DocumentExists,
    DocumentNotFound,
    InvalidDocument,
    StorageError,
    StorageFull,
)
from amsync.ids import DocumentId
from amsync.jsonvalue import jsonable
from amsync.offline import DocumentIntake, TakenIn, read_document
from amsync.storage import Store
from amsync.worker.engine import NativeCodec, NativeFactory, build_document, value_of

PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.5
AT_ONCE = 4
"""Calls that a server gets at the same time."""

_PASSING = {None, 429, 502, 503, 504}
_OF_SERVER = {500, 503, 504}
_ERRORS: dict[int | None, type[AmsyncError]] = {
    400: InvalidDocument,
    404: DocumentNotFound,
    409: DocumentExists,
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


@dataclass(frozen=True, slots=True)
class Shown:
    """A document as it is shown; None is what this place does not tell.

    Attributes:
        saved_bytes: As one saved document.
        stored_bytes: As it is stored.
        value: As JSON knows it.
        problems: What of it is not in `value`, in words.
    """

    changes: int
    waiting_changes: int | None
    saved_bytes: int | None
    stored_bytes: int
    files: int | None
    heads: list[str]
    value: object
    problems: list[str]


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

    def ids(self, prefix: str = "") -> Iterator[DocumentId]:
        """Ids of all documents, sorted; none that was there all the time is left out."""

    def show(self, document_id: DocumentId) -> Shown:
        """Look at one. Raises as `read`."""

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

    def create(self, document_id: DocumentId, value: Mapping[str, object] | None) -> list[str]:
        """Make one with a value, or empty; returns its heads in hex.

        Raises:
            DocumentExists, DocumentDeleted, InvalidDocument, StorageError
        """

    def delete(self, document_id: DocumentId) -> None:
        """Delete one for good.

        Raises:
            DocumentNotFound, DocumentDeleted, StorageError
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

    def ids(self, prefix: str = "") -> Iterator[DocumentId]:
        """See `Place`."""
        return (each for each in self._store.list_ids() if each.startswith(prefix))

    def read(self, document_id: DocumentId) -> Read:
        """See `Place`."""
        document = read_document(self._store, document_id)
        saved = document.saved if document.change_count else b""
        return Read(saved, tuple(document.losses))

    def show(self, document_id: DocumentId) -> Shown:
        """See `Place`."""
        document = read_document(self._store, document_id)
        value: object = None
        problems = list(document.losses)
        try:
            value = jsonable(value_of(document.saved))
        except (ValueError, InvalidDocument) as error:
            problems.append(f"the value can't be shown: {error}")
        return Shown(
            changes=document.change_count,
            waiting_changes=document.waiting_count,
            saved_bytes=len(document.saved),
            stored_bytes=document.stored_bytes,
            files=document.file_count,
            heads=[head.hex() for head in document.heads],
            value=value,
            problems=problems,
        )

    def take_in(self, document_id: DocumentId, saved: bytes) -> TakenIn:
        """See `Place`."""
        return self._intake.take_in(document_id, saved)

    def create(self, document_id: DocumentId, value: Mapping[str, object] | None) -> list[str]:
        """See `Place`."""
        try:
            saved = NativeFactory().initial_change() if value is None else build_document(value)
        except (TypeError, ValueError) as error:
            raise InvalidDocument(str(error)) from error
        if self._store.exists(document_id):
            raise DocumentExists(f"document {document_id} exists already")
        self._intake.take_in(document_id, saved)
        return [head.hex() for head in NativeCodec().inspect(saved).heads]

    def delete(self, document_id: DocumentId) -> None:
        """See `Place`."""
        if self._store.is_deleted(document_id):
            raise DocumentDeleted(f"document {document_id} was deleted and stays deleted")
        if not self._store.exists(document_id):
            raise DocumentNotFound(f"document {document_id} is not stored here")
        self._store.delete(document_id)

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

    def ids(self, prefix: str = "") -> Iterator[DocumentId]:
        """See `Place`."""
        pages = _patiently(lambda: list(self._port.pages("/documents", "documents", prefix=prefix)))
        return (DocumentId(each["document_id"]) for each in pages)

    def show(self, document_id: DocumentId) -> Shown:
        """See `Place`."""
        path = path_of("documents", document_id)
        said = _patiently(lambda: self._port.call("GET", path))
        value: object = None
        problems: list[str] = []
        try:
            value = _patiently(lambda: self._port.call("GET", f"{path}/value"))["value"]
        except InvalidDocument as error:
            problems.append(f"the value can't be shown: {error}")
        return Shown(
            changes=said["changes"],
            waiting_changes=None,
            saved_bytes=None,
            stored_bytes=said["stored_bytes"],
            files=None,
            heads=said["heads"],
            value=value,
            problems=problems,
        )

    def read(self, document_id: DocumentId) -> Read:
        """See `Place`."""

        def download() -> bytes:
            parts: list[bytes] = []
            self._port.download(f"{path_of('documents', document_id)}/automerge", parts.append)
            return b"".join(parts)

        return Read(self._of_document(download))

    def take_in(self, document_id: DocumentId, saved: bytes) -> TakenIn:
        """See `Place`."""
        path = f"{path_of('documents', document_id)}/automerge"
        taken = self._of_document(lambda: self._port.upload("PUT", path, saved))
        return TakenIn(is_new=bool(taken["is_new"]), change_count=int(taken["new_changes"]))

    def create(self, document_id: DocumentId, value: Mapping[str, object] | None) -> list[str]:
        """See `Place`."""
        body: dict[str, object] = {"document_id": document_id}
        if value is not None:
            body["value"] = value
        heads: list[str] = _once(lambda: self._port.call("POST", "/documents", body))["heads"]
        return heads

    def delete(self, document_id: DocumentId) -> None:
        """See `Place`."""
        _once(lambda: self._port.call("DELETE", path_of("documents", document_id)))

    def quarantined(self) -> int:
        """See `Place`."""
        return int(_patiently(lambda: self._port.call("GET", "/quarantine"))["count"])

    def _of_document(self, do: Callable[[], T]) -> T:
        """As `_patiently`; what goes on to fail costs the document, unless all would fail."""
        try:
            return _patiently(do)
        except PortError as error:
            if error.status in _OF_SERVER and self._answers_for_all():
                raise StorageError(error.detail) from error
            raise

    def _answers_for_all(self) -> bool:
        """There is a page of documents only if every shard has an owner that answers."""
        try:
            self._port.call("GET", "/documents?limit=1")
        except PortError:
            return False
        return True


def _patiently(do: Callable[[], T]) -> T:
    """As `_once`, again as long as it may help."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return _once(do)
        except PortError as error:
            if error.status not in _PASSING or time.monotonic() > until:
                raise
        time.sleep(PAUSE_SECONDS)


def _once(do: Callable[[], T]) -> T:
    """Do something; its refusals are errors of ours."""
    try:
        return do()
    except PortError as error:
        if error.status in _ERRORS:
            raise _ERRORS[error.status](error.detail) from error
        raise


def is_url(place: str) -> bool:
    """Tell whether a text means a server, and not a directory."""
    return place.lower().startswith(("http://", "https://"))


@contextlib.contextmanager
def open_place(
    place: str, admin_token: str | None, *, read_only: bool, makes: bool = False
) -> Iterator[Place]:
    """Open what `PLACE` means; what goes wrong ends the command.

    A directory must exist, unless `makes`; it is not made of what looks like a misspelt URL.
    """
    if is_url(place):
        yield Running(AdminPort.of(place, admin_token))
        return
    path = Path(place)
    is_made = makes and ":" not in place and not path.exists()
    if not (is_made or path.is_dir()):
        raise click.UsageError(f"{place} is neither a directory nor an http:// or https:// URL")
    with opened(path, read_only=read_only) as store:
        yield Directory(path, store)


def place_argument(command: Command) -> Command:
    """Add PLACE, and --admin-token."""
    return click.argument("place", metavar="PLACE")(token_option(command))


def token_option(command: Command) -> Command:
    """Add --admin-token, for a place that is a server."""
    return click.option(
        "--admin-token",
        envvar=variable("admin_token"),
        show_envvar=True,
        help="If PLACE is a server: the token that it was given; also from ..._FILE.",
    )(command)
