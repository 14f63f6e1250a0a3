"""`amsync restore`: the documents of a backup, merged into a directory or a live cluster."""

import sys
from pathlib import Path

import click

from amsync.backup import Backup, open_backup, verify
from amsync.cli.directory import (
    DOCUMENT_ID,
    Bar,
    failures,
    json_option,
    plain,
    print_json,
)
from amsync.cli.places import Place, is_url, open_place, token_option
from amsync.errors import AmsyncError, InvalidDocument
from amsync.ids import DocumentId
from amsync.worker.engine import NativeCodec


@click.command()
@click.argument("source", metavar="BACKUP", type=click.Path(exists=True, path_type=Path))
@click.option("--to", "place", metavar="PLACE", help="Where the documents are to be.")
@click.option("--check", is_flag=True, help="Verify the backup, and no more.")
@click.option(
    "--only", metavar="ID", multiple=True, type=DOCUMENT_ID, help="This document; repeatable."
)
@token_option
@json_option
def restore(
    source: Path,
    place: str | None,
    check: bool,
    only: tuple[DocumentId, ...],
    admin_token: str | None,
    as_json: bool,
) -> None:
    """Take the documents of a backup in.

    PLACE is the URL of an admin port, or a directory that no server uses; it is made if missing.
    The whole backup is verified first. Documents are merged: what has been written since the
    backup stays. Deleted documents stay deleted: these are refused, and the status is 1. Doing it
    again changes nothing.
    """
    if check == bool(place):
        raise click.UsageError("give either --to PLACE, or --check")
    with failures():
        backup = open_backup(source)
        if missing := set(only) - backup.manifest.documents.keys():
            raise click.UsageError(f"{min(missing)} is not in {source}")
        with Bar("verifying", hidden=as_json) as bar:
            verify(backup, NativeCodec(), bar)
        restored = _Restored(as_json)
        if place:
            if not is_url(place) and Path(place).resolve() == source.resolve():
                raise click.UsageError(f"{place} is the backup")
            with open_place(place, admin_token, read_only=False, makes=True) as target:
                restored.take_all(backup, target, set(only))
        restored.finish(backup, is_taken=bool(place))


class _Restored:
    """Takes documents in and says what became of them."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._taken = self._new = self._changes = 0
        self._refused: list[dict[str, str]] = []

    def take_all(self, backup: Backup, target: Place, only: set[DocumentId]) -> None:
        """Take in the documents of a verified backup, or some of them."""
        total = len(only or backup.manifest.documents)
        with Bar("restoring", hidden=self._as_json) as bar:
            for document_id, saved in backup.documents():
                if only and document_id not in only:
                    continue
                bar(self._taken + len(self._refused), total)
                stored = backup.manifest.documents[document_id]
                if not stored.is_of(saved):
                    raise InvalidDocument(f"{document_id} has changed since it was verified")
                self._take(target, document_id, saved, bar)

    def _take(self, target: Place, document_id: DocumentId, saved: bytes, bar: Bar) -> None:
        try:
            taken = target.take_in(document_id, saved)
        except AmsyncError as error:
            self._refused.append({"document_id": document_id, "reason": str(error)})
            bar.clear()
            click.echo(f"Error: {document_id}: {plain(str(error))}", err=True)
            return
        self._taken += 1
        self._new += taken.is_new
        self._changes += taken.change_count

    def finish(self, backup: Backup, *, is_taken: bool) -> None:
        """Sum up and end the command."""
        manifest = backup.manifest
        for each in manifest.unsaved:
            problem = f"{each.document_id}: not saved whole by the backup: {each.problem}"
            click.echo(f"Note: {plain(problem)}", err=True)
        if self._as_json:
            print_json(
                {
                    "began": manifest.began,
                    "documents": len(manifest.documents),
                    "bytes": manifest.size_bytes,
                    "taken": self._taken,
                    "new": self._new,
                    "new_changes": self._changes,
                    "refused": self._refused,
                    "unsaved": [
                        {"document_id": each.document_id, "problem": each.problem}
                        for each in manifest.unsaved
                    ],
                }
            )
        elif is_taken:
            click.echo(
                f"{self._taken:,} documents taken in, {self._new:,} of them new, with"
                f" {self._changes:,} new changes; {len(self._refused):,} refused"
            )
        else:
            click.echo(
                f"{len(manifest.documents):,} documents, {manifest.size_bytes:,} bytes, as of"
                f" {plain(manifest.began)}: verified"
            )
        sys.exit(1 if self._refused else 0)
