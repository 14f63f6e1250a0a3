"""`amsync backup`: all documents of a directory or a live cluster, in one folder or archive."""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import click

from amsync.backup import BackupWriter, Manifest, new_backup
from amsync.cli.directory import Bar, failures, json_option, plain, print_json
from amsync.cli.places import Place, Read, open_place, token_option
from amsync.errors import (
    AmsyncError,
    DocumentDeleted,
    DocumentExists,
    InvalidDocument,
)
from amsync.ids import DocumentId
from amsync.version import __version__
from amsync.worker.engine import NativeCodec


@click.command()
@click.argument("place", metavar="PLACE")
@click.option(
    "--to",
    "target",
    metavar="OUT",
    required=True,
    type=click.Path(path_type=Path),
    help="To be made: an archive if it ends in .tar, .tar.gz or .tgz, else a folder.",
)
@token_option
@json_option
def backup(place: str, target: Path, admin_token: str | None, as_json: bool) -> None:
    """Save all documents, and verify what was saved.

    PLACE has them: the URL of an admin port, of `amsync serve` or any gateway of a cluster, which
    goes on serving; or a directory that no server uses. Each document is saved with all changes
    that were acknowledged before the backup began. OUT gets its name when everything was read
    back and compared. Status 1 if a document could not be saved whole; the others are saved then.
    """
    with failures(), open_place(place, admin_token, read_only=True) as source:
        try:
            manifest = _save(source, target, hidden=as_json)
        except DocumentExists as error:
            raise click.UsageError(str(error)) from error
        left = source.quarantined()
    if as_json:
        print_json(
            {
                "backup": str(target),
                "began": manifest.began,
                "ended": manifest.ended,
                "documents": len(manifest.documents),
                "bytes": manifest.size_bytes,
                "problems": [
                    {"document_id": each.document_id, "problem": each.problem}
                    for each in manifest.unsaved
                ],
                "quarantined_files": left,
            }
        )
    else:
        count, size = len(manifest.documents), manifest.size_bytes
        click.echo(
            f"{plain(str(target))}: {count:,} documents, {size:,} bytes, verified;"
            f" {len(manifest.unsaved):,} problems"
        )
        if left:
            click.echo(f"{left:,} files in quarantine are not in it", err=True)
    sys.exit(1 if manifest.unsaved else 0)


def _save(source: Place, target: Path, *, hidden: bool) -> Manifest:
    origin = {**source.origin(), "place": source.name, "saved_by": f"amsync {__version__}"}
    with (
        Bar("verifying", hidden=hidden) as verifying,
        new_backup(target, NativeCodec(), origin, verifying) as writer,
        Bar("saving", hidden=hidden) as saving,
    ):
        wanted = list(source.ids())
        for done, (document_id, found) in enumerate(_read_all(source, wanted)):
            saving(done, len(wanted))
            for problem in _add(writer, document_id, found):
                writer.lacks(document_id, problem)
                saving.clear()
                click.echo(f"Error: {document_id}: {plain(problem)}", err=True)
    return writer.manifest


def _add(writer: BackupWriter, document_id: DocumentId, found: Read | AmsyncError) -> Iterator[str]:
    """Write what was read; yields what is wrong with it."""
    if isinstance(found, DocumentDeleted):
        return  # since it was listed; one that is merely not found has lost all that was stored
    if isinstance(found, AmsyncError):
        yield str(found)
        return
    yield from (f"not all of it is saved: {each}" for each in found.losses)
    try:
        if found.saved:
            writer.add(document_id, found.saved)
        else:
            yield "nothing of it can be saved"
    except InvalidDocument as error:
        yield str(error)


def _read_all(
    source: Place, wanted: Sequence[DocumentId]
) -> Iterator[tuple[DocumentId, Read | AmsyncError]]:
    """Read documents, some at the same time, with few of them in memory."""

    def read(document_id: DocumentId) -> Read | AmsyncError:
        try:
            return source.read(document_id)
        except AmsyncError as error:
            return error

    waiting: deque[tuple[DocumentId, Future[Read | AmsyncError]]] = deque()
    pool = ThreadPoolExecutor(source.at_once)
    try:
        for document_id in wanted:
            waiting.append((document_id, pool.submit(read, document_id)))
            if len(waiting) > source.at_once:
                first, future = waiting.popleft()
                yield first, future.result()
        for last, future in waiting:
            yield last, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
