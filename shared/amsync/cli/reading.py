"""`amsync doc list` and `amsync doc show`: they change nothing."""

import json
import sys
from dataclasses import asdict

import click

from amsync.cli.directory import (
    DOCUMENT_ID,
    fail,
    failures,
    json_option,
    plain,
    print_json,
)
from amsync.cli.places import open_place, place_argument
from amsync.errors import DocumentDeleted
from amsync.ids import DocumentId, document_url


@click.command("list")
@place_argument
@click.option("--prefix", default="", help="Only ids that begin with this text.")
@json_option
def list_documents(place: str, prefix: str, admin_token: str | None, as_json: bool) -> None:
    """List the ids of all stored documents, one a line, sorted.

    Deleted documents are not among them.
    """
    with failures(), open_place(place, admin_token, read_only=True) as source:
        found = source.ids(prefix.removeprefix("automerge:"))
        if not as_json:
            for each in found:
                click.echo(each)
            return
        print_json(
            {"documents": [{"document_id": each, "url": document_url(each)} for each in found]}
        )


@click.command()
@place_argument
@click.argument("document_id", metavar="ID", type=DOCUMENT_ID)
@json_option
def show(place: str, document_id: DocumentId, admin_token: str | None, as_json: bool) -> None:
    """Show one document: its value as JSON, sizes, heads.

    Bytes are shown as base64, times in ISO 8601. Status 1 if there is no such document, it was
    deleted, or not all of it loads. A server does not tell of files and of changes that wait.
    """
    with failures(), open_place(place, admin_token, read_only=True) as source:
        try:
            found = source.show(document_id)
        except DocumentDeleted as error:
            if as_json:
                named = {"document_id": document_id, "url": document_url(document_id)}
                print_json({**named, "is_deleted": True})
            fail(str(error))
    fields = asdict(found)
    value, problems = fields.pop("value"), fields.pop("problems")
    if as_json:
        named = {"document_id": document_id, "url": document_url(document_id)}
        told = {**fields, "problems": problems, "value": value}
        print_json({**named, "is_deleted": False, **told})
    else:
        for name, content in {"document_id": document_id, **fields}.items():
            if content is not None:
                shown = " ".join(content) if isinstance(content, list) else content
                click.echo(f"{name.replace('_', ' '):16}{plain(str(shown))}")
        click.echo(json.dumps(value, indent=2))
        for each in problems:
            click.echo(f"Error: {plain(each)}", err=True)
    sys.exit(1 if problems else 0)
