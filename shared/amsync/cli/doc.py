"""`amsync doc`: which module holds each of its subcommands."""

import click

from amsync.cli.lazy import LazyGroup

COMMANDS = {
    "list": ("amsync.cli.reading:list_documents", "List the ids of all stored documents."),
    "show": ("amsync.cli.reading:show", "Show one document: its value as JSON, sizes, heads."),
    "export": ("amsync.cli.export:export", "Save documents as <id>.automerge files."),
    "import": ("amsync.cli.taking:take", "Take documents in, merging them with what is there."),
    "create": ("amsync.cli.making:create", "Make a document: empty, or with a value."),
    "delete": ("amsync.cli.making:delete", "Delete documents for good."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def doc() -> None:
    """Look at documents, save them, take them in, make and delete them.

    PLACE has them: a directory that no server uses meanwhile, or the URL of an admin port, of
    `amsync serve` or any gateway of a cluster, which goes on serving. A document is named by its
    id, its automerge: URL, or as a UUID.
    """
