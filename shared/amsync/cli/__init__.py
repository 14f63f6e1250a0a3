"""The `amsync` command: the group, and which module holds each subcommand.

Exit status of every subcommand: 0 when it did all that was asked, 1 when something failed or was
found wrong, 2 when it was asked for something impossible; then it has changed nothing.
"""

import click

from amsync.cli.lazy import LazyGroup
from amsync.version import __version__

COMMANDS = {
    "serve": ("amsync.cli.serve:serve", "Serve the documents of one directory."),
    "gateway": (
        "amsync.cli.gateway:gateway",
        "Take clients in for a cluster.",
    ),
    "worker": (
        "amsync.cli.worker:worker",
        "Keep documents for a cluster.",
    ),
    "cluster": ("amsync.cli.cluster:cluster", "Look at a cluster, or try one out."),
    "access": ("amsync.cli.orders:access", "Withdraw access from open connections."),
    "health": (
        "amsync.cli.health:health",
        "Ask a running process whether it is well, by its admin port.",
    ),
    "fsck": ("amsync.cli.fsck:fsck", "Look for damage in a data directory, without changing it."),
    "doc": (
        "amsync.cli.doc:doc",
        "Look at documents, save them, take them in, make and delete them.",
    ),
    "backup": ("amsync.cli.backup:backup", "Save all documents, and verify what was saved."),
    "restore": ("amsync.cli.restore:restore", "Take the documents of a backup in."),
    "checkpoint": ("amsync.cli.checkpoint:checkpoint", "Bring everything out of the log."),
    "bench": (
        "amsync.cli.bench:bench",
        "Measure automerge-repo servers, and check what they deliver.",
    ),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="amsync")
def cli() -> None:
    """A sync server for automerge-repo clients."""


def main() -> None:
    """Entry point of the command."""
    cli()
