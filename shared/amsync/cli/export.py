"""`amsync doc export`: it changes nothing but the folder that is exported to."""

import sys
from pathlib import Path

import click

from amsync.cli.directory import (
    DOCUMENT_ID,
    Bar,
    failures,
    json_option,
    plain,
    print_json,
)
from amsync.cli.places import is_url, open_place, place_argument
from amsync.errors import AmsyncError
from amsync.ids import DocumentId
from amsync.offline import save_document, saving_to
from amsync.storage.importer import SUFFIX
from amsync.worker.engine import NativeCodec


@click.command()
@place_argument
@click.argument("document_ids", metavar="[ID]...", nargs=-1, type=DOCUMENT_ID)
@click.option(
    "--to",
    "folder",
    metavar="OUT",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to save to; made if missing.",
)
@click.option("--force", is_flag=True, help="Replace files that have other content.")
@json_option
def export(
    place: str,
    document_ids: tuple[DocumentId, ...],
    folder: Path,
    force: bool,
    admin_token: str | None,
    as_json: bool,
) -> None:
    """Save documents as <id>.automerge files.

    All documents, or those named. Each file is one saved document, written whole and read back;
    a file that is there with the same content is left alone. Status 1 if a document could not be
    saved, or not all that is stored of it loads.
    """
    if not is_url(place) and folder.resolve().is_relative_to(Path(place).resolve()):
        raise click.UsageError(f"--to {folder} is in {place}, where nothing may be changed")
    exported: list[dict[str, object]] = []
    problems: list[dict[str, object]] = []
    codec = NativeCodec()

    def trouble(document_id: DocumentId, why: str) -> None:
        problems.append({"document_id": document_id, "problem": why})
        bar.clear()
        click.echo(f"Error: {document_id}: {plain(why)}", err=True)

    with (
        failures(),
        open_place(place, admin_token, read_only=True) as source,
        saving_to(folder) as files,
        Bar("exporting", hidden=as_json) as bar,
    ):
        wanted = list(dict.fromkeys(document_ids)) or list(source.ids())
        for done, document_id in enumerate(wanted):
            bar(done, len(wanted))
            path = folder / f"{document_id}{SUFFIX}"
            try:
                read = source.read(document_id)
                for each in read.losses:
                    trouble(document_id, f"not all of it is saved: {each}")
                if not read.saved:
                    trouble(document_id, "nothing of it can be saved")
                    continue
                changes = codec.inspect(read.saved).change_count
                is_written = save_document(files, path, read.saved, overwrite=force)
            except (AmsyncError, OSError) as error:
                trouble(document_id, str(error))
                continue
            exported.append(
                {
                    "document_id": document_id,
                    "path": str(path),
                    "changes": changes,
                    "bytes": len(read.saved),
                    "is_written": is_written,
                }
            )
    if as_json:
        print_json({"exported": exported, "problems": problems})
    else:
        written = sum(bool(each["is_written"]) for each in exported)
        click.echo(
            f"{plain(str(folder))}: {written:,} documents saved,"
            f" {len(exported) - written:,} were there already, {len(problems):,} problems"
        )
    sys.exit(1 if problems else 0)
