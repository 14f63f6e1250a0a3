"""The admin port of a server, as commands ask it: options that say where it is, and calls.

Imports nothing of the server. A call has a connection of its own; redirects are not followed, so
the token goes nowhere else.
"""

import contextlib
import http.client
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import click

from amsync.config import read_secret_files, variable
from amsync.errors import ConfigError
from amsync.version import API_PATH

SECONDS = 60.0
"""Of silence, after which no answer is waited for; a server answers calls within 30."""

PAGE = 1000
PIECE_BYTES = 256 * 1024
MAX_PROBLEM_BYTES = 64 * 1024
BYTES = "application/octet-stream"

Command = TypeVar("Command", bound=Callable[..., Any])


class PortError(click.ClickException):
    """A call had no success; ends the command with status 1 if nobody catches it.

    Attributes:
        status: HTTP status; None if there was no answer, or only a part of one.
        detail: What the server says of it.
    """

    def __init__(self, message: str, status: int | None = None, detail: str = "") -> None:
        super().__init__(message)
        self.status, self.detail = status, detail or message


def port_options(command: Command) -> Command:
    """Add --admin-url and --admin-token; `AdminPort.of` takes what they give."""
    for name, default, text in (
        ("admin_token", None, "That the server was given; also from ..._FILE."),
        ("admin_url", "http://127.0.0.1:3031", "Of any gateway, or of `serve`."),
    ):
        command = click.option(
            f"--{name.replace('_', '-')}",
            default=default,
            show_default=default is not None,
            envvar=variable(name),
            show_envvar=True,
            help=text,
        )(command)
    return command


class AdminPort:
    """The calls of one admin port.

    Attributes:
        place: Host and port, for messages.

    Raises:
        ConfigError: The URL is none of HTTP, or the token can't be one.
    """

    def __init__(self, url: str, token: str) -> None:
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError as error:
            raise ConfigError(f"admin_url={url!r}: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"admin_url={url!r} is no http:// or https:// URL")
        # http.client would refuse a line end, too, and show the token.
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ConfigError("admin_token has a space, a line end or what is not ASCII in it")
        is_tls = parts.scheme == "https"
        self._kind = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
        self.place = parts.netloc.rpartition("@")[2]
        self._path = parts.path.rstrip("/") + API_PATH
        self._headers = {"Authorization": f"Bearer {token}"}

    @classmethod
    def of(cls, admin_url: str, admin_token: str | None) -> "AdminPort":
        """Make one of what the options say; the token may be in a file.

        Raises:
            click.UsageError: There is no token, or the URL is none.
        """
        try:
            token = admin_token or read_secret_files(["admin_token"], os.environ).get("admin_token")
            if not token:
                raise ConfigError("give --admin-token, or set AMSYNC_ADMIN_TOKEN(_FILE)")
            return cls(admin_url, token)
        except ConfigError as error:
            raise click.UsageError(str(error)) from error

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Make a call with JSON; returns the JSON of the answer, None if there is none.

        `path` is below the API's, and may have a query.

        Raises:
            PortError
        """
        headers = {} if body is None else {"Content-Type": "application/json"}
        return self._answer(method, path, None if body is None else json.dumps(body), headers)

    def upload(
        self, method: str, path: str, body: bytes | BinaryIO, size_bytes: int | None = None
    ) -> Any:
        """Make a call with bytes, or those of an open file of this size; as `call`."""
        size = len(body) if isinstance(body, bytes) else size_bytes
        headers = {"Content-Type": BYTES, "Content-Length": str(size)}
        return self._answer(method, path, body, headers)

    def download(self, path: str, take: Callable[[bytes], object]) -> int:
        """Get bytes, piece by piece; returns how many there were.

        Raises:
            PortError: Also when the answer has ended early; then some of it was taken.
        """
        with self._exchange("GET", path, None, {}) as answer:
            wanted, got = answer.length, 0
            while piece := answer.read(PIECE_BYTES):
                take(piece)
                got += len(piece)
            if wanted is not None and got != wanted:
                raise http.client.IncompleteRead(b"", wanted - got)
            return got

    def pages(self, path: str, name: str, **query: str) -> Iterator[Any]:
        """Yield what all pages of a list have under this name. Raises PortError."""
        after: dict[str, str] = {}
        while True:
            given = urlencode({"limit": str(PAGE), **query, **after})
            page = self.call("GET", f"{path}?{given}")
            yield from page[name]
            if page["next"] is None:
                return
            after = {"after": str(page["next"])}

    def _answer(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> Any:
        with self._exchange(method, path, body, headers) as answer:
            text = answer.read()
            return json.loads(text) if text else None

    @contextlib.contextmanager
    def _exchange(
        self, method: str, path: str, body: Any, headers: Mapping[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        """Make a call; the answer can be read meanwhile. What goes wrong becomes PortError."""
        connection = self._kind(self.place, timeout=SECONDS)
        try:
            try:
                connection.request(method, self._path + path, body, {**self._headers, **headers})
            except (BrokenPipeError, ConnectionResetError):
                if connection.sock is None:
                    raise
                # It has refused the body before it had all of it, and may have said why.
            answer = connection.getresponse()
            if not 200 <= answer.status < 300:
                detail = _detail(answer.read(MAX_PROBLEM_BYTES))
                message = f"{self.place} answers {answer.status}: {detail}"
                raise PortError(message, answer.status, detail)
            yield answer
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise PortError(f"no answer from {self.place}: {error}") from error
        finally:
            connection.close()


def path_of(*parts: str) -> str:
    """A path of parts that may have any characters, as /documents/ID."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _detail(text: bytes) -> str:
    try:
        return str(json.loads(text)["detail"])
    except (ValueError, KeyError, TypeError):
        return text.decode(errors="replace").strip()[:200]
