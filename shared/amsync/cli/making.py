"""`amsync doc create` and `amsync doc delete`."""

import json
import sys
from typing import IO

import click

from amsync.cli.directory import DOCUMENT_ID, failures, json_option, plain, print_json
from amsync.cli.places import open_place, place_argument
from amsync.errors import AmsyncError
from amsync.ids import DocumentId, document_url, generate_document_id


@click.command()
@place_argument
@click.option("--id", "chosen", metavar="ID", type=DOCUMENT_ID, help="Instead of a new one.")
@click.option(
    "--value",
    "source",
    type=click.File("r", encoding="utf-8"),
    help="File with a JSON object; - for standard input. Empty without it.",
)
@json_option
def create(
    place: str,
    chosen: DocumentId | None,
    source: IO[str] | None,
    admin_token: str | None,
    as_json: bool,
) -> None:
    """Make a document: empty, or with a value. Prints its id."""
    value = None
    if source is not None:
        try:
            value = json.load(source)
            json.dumps(value, allow_nan=False)  # 1e999, say, is a number beyond all others
        except (ValueError, RecursionError) as error:
            raise click.UsageError(f"{source.name} is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise click.UsageError(f"{source.name} has no JSON object")
    document_id = chosen or generate_document_id()
    with failures(), open_place(place, admin_token, read_only=False) as target:
        heads = target.create(document_id, value)
    if as_json:
        print_json({"document_id": document_id, "url": document_url(document_id), "heads": heads})
    else:
        click.echo(document_id)


@click.command()
@place_argument
@click.argument("document_ids", metavar="ID...", nargs=-1, required=True, type=DOCUMENT_ID)
@click.confirmation_option(prompt="Delete for good? An id is never used again.")
@json_option
def delete(
    place: str, document_ids: tuple[DocumentId, ...], admin_token: str | None, as_json: bool
) -> None:
    """Delete documents for good; their clients are told that they are unavailable.

    Status 1 if one of them is not there, or was deleted already; the others are deleted.
    """
    deleted: list[str] = []
    problems: list[dict[str, str]] = []
    with failures(), open_place(place, admin_token, read_only=False) as target:
        for each in dict.fromkeys(document_ids):
            try:
                target.delete(each)
            except AmsyncError as error:
                problems.append({"document_id": each, "problem": str(error)})
                click.echo(f"Error: {plain(str(error))}", err=True)
            else:
                deleted.append(each)
                if not as_json:
                    click.echo(f"{each}: deleted")
    if as_json:
        print_json({"deleted": deleted, "problems": problems})
    sys.exit(1 if problems else 0)
