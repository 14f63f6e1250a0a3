"""`amsync checkpoint`: what a server does when it is stopped, for one that was killed."""

import sys
import time
from pathlib import Path
from typing import NoReturn

import click

from amsync.cli.directory import (
    Bar,
    failures,
    json_option,
    opened,
    plain,
    print_json,
)
from amsync.cli.places import is_url, place_argument
from amsync.cli.port import AdminPort
from amsync.errors import StorageError
from amsync.storage import RESCAN_SECONDS, Store
from amsync.storage.check.log import documents_in_log
from amsync.storage.volume import CONTROL_DIRECTORY


@click.command()
@place_argument
@json_option
def checkpoint(place: str, admin_token: str | None, as_json: bool) -> None:
    """Bring everything out of the log.

    PLACE is a directory that no server uses, or the URL of an admin port, whose workers then do
    it. Moves the log's changes into the document folders, so that automerge-repo can open the
    directory; in a directory also takes in new <id>.automerge files, and merges the files of
    documents that have many. Status 1 if part of the log could not be brought out.
    """
    if is_url(place):
        _ask_workers(AdminPort.of(place, admin_token), as_json)
    directory = Path(place)
    if not directory.is_dir():
        raise click.UsageError(f"{place} is neither a directory nor an http:// or https:// URL")
    if not (directory / CONTROL_DIRECTORY).is_dir():
        raise click.UsageError(f"no server of amsync has used {directory}; it has no log")
    with failures():
        log = documents_in_log(directory)
    with opened(directory, read_only=False) as store:
        if store.rescan_is_due:
            click.echo(
                f"waiting {RESCAN_SECONDS:.0f} s for what other machines may have written", err=True
            )
            time.sleep(RESCAN_SECONDS)
            store.rescan()
        store.checkpoint()
        compacted = _compact(store, as_json)
        found = store.report()
    with failures():
        left = documents_in_log(directory).file_bytes
    if as_json:
        print_json(
            {
                "documents": len(log.chunks),
                "deleted": len(log.deleted),
                "wal_bytes": log.file_bytes,
                "wal_bytes_left": left,
                "compacted": compacted,
                "findings": [
                    {"kind": each.kind, "path": str(each.path), "detail": each.detail}
                    for each in found
                ],
            }
        )
    else:
        click.echo(
            f"{plain(str(directory))}: changes of {len(log.chunks):,} documents brought out of"
            f" {log.file_bytes:,} bytes of log, {len(log.deleted):,} documents deleted,"
            f" {compacted:,} compacted, {len(found):,} findings"
        )
    if left:
        click.echo(f"Error: {left:,} bytes are in the log still", err=True)
    sys.exit(1 if left else 0)


def _ask_workers(port: AdminPort, as_json: bool) -> NoReturn:
    said = port.call("POST", "/checkpoint")
    failed = [each for each in said["workers"] if each["problem"] is not None]
    if as_json:
        print_json(said)
    else:
        for each in said["workers"]:
            if each["problem"] is None:
                click.echo(f"worker {plain(each['worker_id'][:8])}: {each['seconds']:.3f} s")
    for each in failed:
        click.echo(
            f"Error: worker {plain(each['worker_id'][:8])}: {plain(each['problem'])}", err=True
        )
    sys.exit(1 if failed else 0)


def _compact(store: Store, as_json: bool) -> int:
    count = 0
    document_ids = store.list_ids()
    with Bar("compacting", hidden=as_json) as bar:
        for done, document_id in enumerate(document_ids):
            bar(done, len(document_ids))
            try:
                count += store.compact_if_due(document_id) is not None
            except StorageError as error:
                bar.clear()
                click.echo(f"{document_id} is not compacted: {plain(str(error))}", err=True)
    return count
