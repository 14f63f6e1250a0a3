"""`amsync worker`."""

from pathlib import Path
from typing import Any

import click

from amsync.cli.options import (
    cluster_options,
    config_option,
    keep_options,
    keep_values,
    option,
    process_options,
    process_values,
    run,
)
from amsync.cluster.worker_node import WorkerNode
from amsync.options import WorkerNodeOptions
from amsync.storage.volume import MAX_SHARD_COUNT
from amsync.version import __version__


@click.command()
@config_option
@cluster_options
@keep_options
@option(
    "--shards",
    type=click.IntRange(1, MAX_SHARD_COUNT),
    default=None,
    help="Shards of a new volume, 64 if not given; another number than an existing one's is"
    " refused.",
)
@process_options("3032", "In how long shards are given away at the end; 0: 20.")
def worker(**given: Any) -> None:
    """Keep documents for a cluster.

    Any number of workers may share one volume.
    """
    run(lambda: WorkerNode(_options(given)), _greeting, given)


def _options(given: dict[str, Any]) -> WorkerNodeOptions:
    values = {**keep_values(given), **process_values(given)}
    return WorkerNodeOptions(shard_count=given["shards"], **values)


def _greeting(node: WorkerNode) -> str:
    assert node.store is not None
    volume = node.store.volume
    lines = [
        f"amsync {__version__} worker {node.incarnation[:8]}",
        f"  documents          {Path(node.options.data_dir).resolve()}",
        f"  cluster            {volume.cluster_id}, {volume.shard_count} shards",
        f"  storage id         {volume.storage_id or 'not told to clients'}",
    ]
    if node.admin_port:
        lines.append(f"  health, metrics    {node.admin_url}/metrics")
    return "\n".join(lines)
