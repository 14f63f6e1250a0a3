"""`amsync doc`: which module holds each of its subcommands."""

import click

from amsync.cli.lazy import LazyGroup

COMMANDS = {
    "list": ("amsync.cli.reading:list_documents", "List the ids of all stored documents."),
    "show": ("amsync.cli.reading:show", "Show one document: its value as JSON, sizes, heads."),
    "export": ("amsync.cli.export:export", "Save documents as <id>.automerge files."),
    "import": ("amsync.cli.taking:take", "Take documents in, merging them with what is there."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def doc() -> None:
    """List, show, export and import the documents of a directory.

    No server may use the directory meanwhile. A document is named by its id, its automerge:
    URL, or as a UUID.
    """
