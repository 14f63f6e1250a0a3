"""What all calls of a gateway share: where it is, parameters of lists, ids, errors of shards."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

from amsync.adminapi import Parameter, Problem, bad
from amsync.adminapi.schema import COUNT, TEXT
from amsync.errors import (
    AmsyncError,
    BusError,
    DocumentDeleted,
    DocumentExists,
    DocumentNotFound,
    InvalidDocument,
    InvalidDocumentId,
    NoAnswer,
    NoOwner,
    StorageError,
    StorageFull,
    TooLarge,
    UnreadableDocument,
)
from amsync.ids import DocumentId, parse_document_id

if TYPE_CHECKING:
    from amsync.gateway.gateway import Gateway

FindGateway = Callable[[], "Gateway | None"]
"""Returns None as long as there is none."""

PAGE = 100
MAX_PAGE = 1_000
MAX_NUMBER = 10**18

_STATUS = {
    DocumentNotFound: HTTPStatus.NOT_FOUND,
    DocumentDeleted: HTTPStatus.GONE,
    DocumentExists: HTTPStatus.CONFLICT,
    InvalidDocument: HTTPStatus.BAD_REQUEST,
    UnreadableDocument: HTTPStatus.UNPROCESSABLE_ENTITY,
    StorageFull: HTTPStatus.INSUFFICIENT_STORAGE,
    StorageError: HTTPStatus.SERVICE_UNAVAILABLE,
    NoOwner: HTTPStatus.SERVICE_UNAVAILABLE,
    NoAnswer: HTTPStatus.GATEWAY_TIMEOUT,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    BusError: HTTPStatus.SERVICE_UNAVAILABLE,
}


class Place:
    """Base of the groups of calls."""

    def __init__(self, find: FindGateway) -> None:
        self._find = find

    def _gateway(self) -> "Gateway":
        gateway = self._find()
        if gateway is None:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the gateway has not started yet")
        return gateway


def one_shard_each(gateway: "Gateway", shards: Iterable[int]) -> tuple[dict[str, int], list[int]]:
    """Of each owner of these shards one, and the shards that nobody owns.

    In a single process there is one owner, called "": it may not have said its name yet.
    """
    chosen: dict[str, int] = {}
    orphans: list[int] = []
    for shard in shards:
        owner = gateway.owner(shard) if gateway.is_clustered else ""
        if gateway.is_clustered and not owner:
            orphans.append(shard)
        else:
            chosen.setdefault(owner, shard)
    return chosen, orphans


def problem_of(error: AmsyncError) -> Problem:
    """What a shard's error is to who has called."""
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return Problem(_STATUS[kind], str(error))
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")


@contextmanager
def problems() -> Iterator[None]:
    """Turn errors of shards into problems."""
    try:
        yield
    except AmsyncError as error:
        raise problem_of(error) from error


def _number(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
    if not 0 <= number <= MAX_NUMBER:
        raise bad(f"after={text[:20]!r} must be a whole number")
    return number


def _page_size(text: str) -> int:
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= size <= MAX_PAGE:
        raise bad(f"limit={text[:20]!r} must be 1 to {MAX_PAGE}")
    return size


def _document_id(text: str) -> DocumentId:
    try:
        return parse_document_id(text)
    except InvalidDocumentId as error:
        raise bad(f"{text[:100]!r} is no document id: {error}") from None


LIMIT = Parameter(
    "limit",
    "How many at the most.",
    {"type": "integer", "minimum": 1, "maximum": MAX_PAGE},
    _page_size,
    str(PAGE),
)
AFTER_NUMBER = Parameter(
    "after", "`next` of the page before.", {**COUNT, "maximum": MAX_NUMBER}, _number, "0"
)
AFTER_TEXT = Parameter("after", "`next` of the page before.", TEXT, str, "")
DOCUMENT = Parameter("document_id", "An id, an automerge: URL or a UUID.", TEXT, _document_id)
