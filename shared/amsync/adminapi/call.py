"""How a call is described, and what its handler gets and gives."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from amsync.adminapi.schema import Schema


@dataclass(frozen=True, slots=True)
class Parameter:
    """A part of the path, or else of the query.

    Attributes:
        read: Makes a value of the text. Raises Problem.
        default: The text that counts where there is none; None in the path only.
    """

    name: str
    text: str
    schema: Schema
    read: Callable[[str], Any]
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked.

    Attributes:
        values: Of all parameters, by name.
        body: A JSON object; bytes where the call takes them and the request says so.
    """

    values: Mapping[str, Any]
    body: dict[str, Any] | bytes

    @property
    def members(self) -> dict[str, Any]:
        """The body of a call that takes no bytes."""
        assert isinstance(self.body, dict)
        return self.body


@dataclass(frozen=True, slots=True)
class JsonText:
    """JSON that is text already."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Octets:
    """Bytes to be saved under a name."""

    data: bytes
    name: str


Handler = Callable[[Asked], Awaitable[object]]
"""Returns what JSON knows, `JsonText`, `Octets`, or None for an answer without content."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call.

    Attributes:
        name: Unique; in metrics, logs and the document.
        path: What stands behind `API_PATH`.
        summary: One line.
        parameters: Those in the path are named there in braces.
        answer: Of what is said as JSON; None: bytes, or nothing where the status is 204.
        takes: Of a JSON body; None: there is none. An empty body is an empty object.
        takes_bytes: A body that is application/octet-stream; then one in JSON may be large, too.
        is_large: It takes or gives a document; only some are done at a time.
        problems: Statuses of problems beside those that every call has.
    """

    name: str
    method: str
    path: str
    handler: Handler
    summary: str
    answer: Schema | None = None
    status: int = 200
    parameters: tuple[Parameter, ...] = ()
    takes: Schema | None = None
    takes_bytes: bool = False
    is_large: bool = False
    problems: tuple[int, ...] = ()
