"""What the offline commands share: the DIR argument, their output, their errors.

Not here: what they do.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from amsync import logs
from amsync.errors import AmsyncError, InvalidDocumentId
from amsync.ids import DocumentId, parse_document_id
from amsync.storage import Store, open_store
from amsync.worker.engine import NativeCodec

Command = TypeVar("Command", bound=Callable[..., Any])


def directory_argument(command: Command) -> Command:
    """Add the argument DIR: an existing directory, else the command ends with status 2."""
    kind = click.Path(exists=True, file_okay=False, path_type=Path)
    return click.argument("directory", metavar="DIR", type=kind)(command)


def json_option(command: Command) -> Command:
    """Add the option --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def print_json(value: object) -> None:
    """Print a value as JSON; what JSON does not know must have been replaced."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


def plain(text: str) -> str:
    """Make text from a directory safe to print: no control characters, no line breaks."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def fail(message: str) -> NoReturn:
    """End the command with status 1 and one line on standard error."""
    click.echo(f"Error: {plain(message)}", err=True)
    sys.exit(1)


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Turn an error of this package or of the system into `fail`."""
    try:
        yield
    except AmsyncError as error:
        fail(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror or error}")


class Bar:
    """A progress bar on standard error; none when that is no terminal, or when asked.

    Lines that are printed meanwhile stand above it.
    """

    def __init__(self, label: str, *, hidden: bool = False) -> None:
        self._is_shown = not hidden and sys.stderr.isatty()
        self._label = label
        self._bar: Any = None
        self._done = 0

    def __call__(self, done: int, total: int) -> None:
        """Show that so many of so many steps are done."""
        if not self._is_shown:
            return
        if self._bar is None:
            self._bar = click.progressbar(length=total, label=self._label, file=sys.stderr)
            self._bar.__enter__()
        self._bar.update(done - self._done)
        self._done = done

    def clear(self) -> None:
        """Take it off the screen until the next step."""
        if self._bar is not None:
            click.echo("\r\x1b[K", nl=False, err=True)

    def close(self) -> None:
        """Take it off the screen for good, and show the cursor again, which it hides."""
        if self._bar is not None:
            click.echo("\r\x1b[K\x1b[?25h", nl=False, err=True)
        self._is_shown = False
        self._bar = None

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def opened(directory: Path, *, read_only: bool) -> Iterator[Store]:
    """Open a data directory that no server holds; what goes wrong ends the command.

    What the store has to say of it goes to standard error.
    """
    logs.configure("console", "info")
    with failures():
        store = open_store(directory, codec=NativeCodec(), read_only=read_only)
        try:
            yield store
        finally:
            store.close()


class DocumentIdType(click.ParamType[DocumentId]):
    """A document id in any spelling."""

    name = "id"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> DocumentId:
        """Convert what was given to the canonical spelling."""
        try:
            return parse_document_id(str(value))
        except InvalidDocumentId as error:
            self.fail(f"{value!r} is no document id: {error}", param, ctx)


DOCUMENT_ID = DocumentIdType()
