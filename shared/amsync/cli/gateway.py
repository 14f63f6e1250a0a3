"""`amsync gateway`."""

from typing import Any

import click

from amsync.cli.access import access_options, access_values
from amsync.cli.auth import auth_options, auth_values
from amsync.cli.options import (
    cluster_options,
    config_option,
    limit_options,
    listen_options,
    listen_values,
    process_options,
    process_values,
    run,
)
from amsync.cluster.gateway_node import GatewayNode
from amsync.gateway.limits import table
from amsync.hosts import is_loopback
from amsync.options import GatewayNodeOptions
from amsync.version import __version__


@click.command()
@config_option
@cluster_options
@listen_options
@process_options("3031", "Over how long sockets are closed at the end.")
@auth_options
@access_options
@limit_options
def gateway(**given: Any) -> None:
    """Take clients in for a cluster.

    Any number of gateways may run.
    """
    run(lambda: GatewayNode(_options(given)), _greeting, given)


def _options(given: dict[str, Any]) -> GatewayNodeOptions:
    values = {
        **listen_values(given, auth_values(given)),
        **access_values(given),
        **process_values(given),
    }
    return GatewayNodeOptions(**values)


def _greeting(node: GatewayNode) -> str:
    options = node.options
    assert node.identity is not None
    lines = [
        f"amsync {__version__} gateway listening on {node.url}",
        f"  cluster            {node.identity.cluster_id}",
        f"  storage id         {node.identity.storage_id or 'not told to clients'}",
    ]
    if node.admin_port:
        lines.append(f"  health, metrics    {node.admin_url}/metrics")
    if options.auth is not None:
        names = ", ".join(each.url for each in options.auth.all_issuers)
        lines.append(f"  tokens of          {names}")
    elif not is_loopback(options.host):
        lines.append(f"ANYBODY who reaches {options.host}:{node.port} may read and write. Limits:")
        lines.append(table(node.limits))
    return "\n".join(lines)
