"""`amsync doc list` and `amsync doc show`: they change nothing."""

import json
import sys
from pathlib import Path

import click

from amsync.cli.directory import (
    DOCUMENT_ID,
    directory_argument,
    fail,
    json_option,
    opened,
    plain,
    print_json,
)
from amsync.errors import DocumentDeleted, InvalidDocument
from amsync.ids import DocumentId
from amsync.jsonvalue import jsonable
from amsync.offline import StoredDocument, read_document
from amsync.worker.engine import value_of


@click.command("list")
@directory_argument
@click.option("--prefix", default="", help="Only ids that begin with this text.")
@json_option
def list_documents(directory: Path, prefix: str, as_json: bool) -> None:
    """List the ids of all stored documents, one a line, sorted.

    Deleted documents are not among them.
    """
    prefix = prefix.removeprefix("automerge:")
    with opened(directory, read_only=True) as store:
        found = [each for each in store.list_ids() if each.startswith(prefix)]
    if as_json:
        print_json({"documents": [{"document_id": each, "url": url(each)} for each in found]})
        return
    for each in found:
        click.echo(each)


@click.command()
@directory_argument
@click.argument("document_id", metavar="ID", type=DOCUMENT_ID)
@json_option
def show(directory: Path, document_id: DocumentId, as_json: bool) -> None:
    """Show one document: its value as JSON, sizes, heads.

    Bytes are shown as base64, times in ISO 8601. Status 1 if there is no such document, it was
    deleted, or not all of it loads.
    """
    with opened(directory, read_only=True) as store:
        try:
            document = read_document(store, document_id)
        except DocumentDeleted as error:
            if as_json:
                print_json(
                    {"document_id": document_id, "url": url(document_id), "is_deleted": True}
                )
            fail(str(error))
    value: object = None
    trouble = list(document.losses)
    try:
        value = jsonable(value_of(document.saved))
    except (ValueError, InvalidDocument) as error:
        trouble.append(f"the value can't be shown: {error}")
    if as_json:
        print_json({**fields(document), "problems": trouble, "value": value})
    else:
        for name, text in fields(document).items():
            if name in ("url", "is_deleted"):
                continue
            shown = " ".join(text) if isinstance(text, list) else text
            click.echo(f"{name.replace('_', ' '):16}{plain(str(shown))}")
        click.echo(json.dumps(value, indent=2))
        for each in trouble:
            click.echo(f"Error: {plain(each)}", err=True)
    sys.exit(1 if trouble else 0)


def url(document_id: DocumentId) -> str:
    """The URL under which clients know a document."""
    return f"automerge:{document_id}"


def fields(document: StoredDocument) -> dict[str, object]:
    """What is told of a document beside its value."""
    return {
        "document_id": document.document_id,
        "url": url(document.document_id),
        "is_deleted": False,
        "changes": document.change_count,
        "waiting_changes": document.waiting_count,
        "saved_bytes": len(document.saved),
        "stored_bytes": document.stored_bytes,
        "files": document.file_count,
        "heads": [head.hex() for head in document.heads],
    }
