"""`amsync doc import`: what is given, one by one, and what became of it."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from amsync.cli.directory import (
    DOCUMENT_ID,
    Bar,
    failures,
    json_option,
    plain,
    print_json,
)
from amsync.cli.places import Place, is_url, open_place, place_argument
from amsync.errors import AmsyncError, InvalidDocumentId
from amsync.ids import DocumentId, generate_document_id, parse_document_id
from amsync.offline import read_document
from amsync.storage import open_store
from amsync.storage.importer import SUFFIX
from amsync.storage.volume import CONTROL_DIRECTORY
from amsync.worker.engine import NativeCodec


@dataclass(frozen=True, slots=True)
class Source:
    """Something that may be taken in.

    Attributes:
        text: What it is, for a person.
        document_id: None if it is to be told otherwise.
        saved: Its bytes, or why there are none.
        total: How many there are where it comes from.
    """

    text: str
    document_id: DocumentId | None
    saved: bytes | str
    total: int = 1


@click.command("import")
@place_argument
@click.argument(
    "sources",
    metavar="FILE_OR_FOLDER...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
)
@click.option(
    "--id", "chosen", metavar="ID", type=DOCUMENT_ID, help="The id of the one file that is given."
)
@click.option("--new-id", is_flag=True, help="Give each document a new id: take in a copy.")
@json_option
def take(
    place: str,
    sources: tuple[Path, ...],
    chosen: DocumentId | None,
    new_id: bool,
    admin_token: str | None,
    as_json: bool,
) -> None:
    """Take documents in, merging them with what is there.

    From <id>.automerge files, folders of them, and data directories of amsync or automerge-repo.
    Taking the same in again changes nothing. What is damaged or was deleted is refused, the
    others are taken in, and the status is 1.
    """
    if chosen is not None and (new_id or len(sources) > 1 or sources[0].is_dir()):
        raise click.UsageError("--id goes with one file, and not with --new-id")
    for source in sources:
        if not is_url(place) and source.resolve() == Path(place).resolve():
            raise click.UsageError(f"{source} is the directory that would take it in")
    accounts = _Accounts(as_json)
    with failures(), open_place(place, admin_token, read_only=False) as target:
        for path in sources:
            with Bar(f"importing {plain(str(path))}", hidden=as_json) as bar:
                for done, found in enumerate(_sources(path)):
                    bar(done, found.total)
                    bar.clear()
                    accounts.take(target, found, generate_document_id() if new_id else chosen)
    accounts.finish()


class _Accounts:
    """Takes sources in and says what became of them."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._taken: list[dict[str, Any]] = []
        self._refused: list[dict[str, Any]] = []

    def take(self, target: Place, source: Source, chosen: DocumentId | None) -> None:
        document_id = chosen or source.document_id
        if isinstance(source.saved, str):
            self._refuse(source, source.saved)
            return
        if document_id is None:
            why = "its name is no document id; name one with --id, or take it in with --new-id"
            self._refuse(source, why)
            return
        try:
            taken = target.take_in(document_id, source.saved)
        except (AmsyncError, OSError) as error:
            self._refuse(source, str(error))
            return
        self._taken.append(
            {
                "source": source.text,
                "document_id": document_id,
                "is_new": taken.is_new,
                "new_changes": taken.change_count,
            }
        )
        if not self._as_json:
            news = f"{taken.change_count:,} new changes" if taken.change_count else "nothing new"
            news = f"new, {taken.change_count:,} changes" if taken.is_new else news
            click.echo(f"{document_id}: {news} ({plain(source.text)})")

    def _refuse(self, source: Source, why: str) -> None:
        self._refused.append(
            {"source": source.text, "document_id": source.document_id, "reason": why}
        )
        click.echo(f"Error: {plain(source.text)}: {plain(why)}", err=True)

    def finish(self) -> None:
        """Sum up and end the command."""
        if self._as_json:
            print_json({"taken": self._taken, "refused": self._refused})
        else:
            changes = sum(each["new_changes"] for each in self._taken)
            click.echo(
                f"{len(self._taken):,} documents taken in with {changes:,} new changes,"
                f" {len(self._refused):,} refused"
            )
        sys.exit(1 if self._refused else 0)


def _sources(path: Path) -> Iterator[Source]:
    """Find what a path that was given holds; one document at a time is in memory."""
    if not path.is_dir():
        yield _file(path)
        return
    names = sorted(each for each in path.iterdir())
    if any(each.name == CONTROL_DIRECTORY or _is_prefix(each) for each in names):
        yield from _directory(path)
        return
    files = [each for each in names if each.name.endswith(SUFFIX) and each.name != SUFFIX]
    if not files:
        yield Source(str(path), None, "no documents in this folder")
    for each in files:
        yield _file(each, len(files))


def _is_prefix(path: Path) -> bool:
    return len(path.name) == 2 and path.is_dir()


def _file(path: Path, total: int = 1) -> Source:
    try:
        document_id = parse_document_id(path.name.removesuffix(SUFFIX))
    except InvalidDocumentId:
        document_id = None
    try:
        if not path.is_file():
            return Source(str(path), document_id, "it is no file", total)
        return Source(str(path), document_id, path.read_bytes(), total)
    except OSError as error:
        why = f"can't be read: {error.strerror or error}"
        return Source(str(path), document_id, why, total)


def _directory(path: Path) -> Iterator[Source]:
    """The documents of a data directory, which no server may hold either."""
    try:
        store = open_store(path, codec=NativeCodec(), read_only=True)
    except AmsyncError as error:
        yield Source(str(path), None, str(error))
        return
    try:
        for finding in store.report():
            if finding.kind in ("bad_import", "foreign_name"):
                yield Source(str(finding.path), None, finding.detail)
        document_ids = store.list_ids()
        for document_id in document_ids:
            text = f"{path}, {document_id}"
            try:
                document = read_document(store, document_id)
            except AmsyncError as error:
                yield Source(text, document_id, str(error))
                continue
            for why in document.losses:
                yield Source(text, document_id, f"not all of it is taken in: {why}")
            if document.change_count:
                yield Source(text, document_id, document.saved, len(document_ids))
    finally:
        store.close()
