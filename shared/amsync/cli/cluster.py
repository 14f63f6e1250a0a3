"""`amsync cluster`: which module holds each of its subcommands."""

import click

from amsync.cli.lazy import LazyGroup

COMMANDS = {
    "status": ("amsync.cli.status:status", "Show gateways, workers and shards of a cluster."),
    "dev": ("amsync.cli.dev:dev", "Run a whole cluster on this machine, to try it out."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def cluster() -> None:
    """Look at a cluster, or try one out."""
