"""`amsync serve`."""

import secrets
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from amsync.cli.access import access_options, access_values
from amsync.cli.auth import auth_options, auth_values
from amsync.cli.options import (
    config_option,
    keep_options,
    keep_values,
    limit_options,
    listen_options,
    listen_values,
    process_options,
    process_values,
    run,
)
from amsync.gateway.limits import table
from amsync.hosts import is_loopback
from amsync.node import Node
from amsync.options import NodeOptions
from amsync.version import __version__

SNIPPET = """\
import {{ Repo }} from "@automerge/automerge-repo"
import {{ WebSocketClientAdapter }} from "@automerge/automerge-repo-network-websocket"

const adapter = new WebSocketClientAdapter("{url}")
"""

SNIPPET_WITH_TOKENS = """\
import {{ Repo }} from "@automerge/automerge-repo"
import {{ AmsyncClientAdapter }} from "@amsync/client"  // clients/js, see docs/javascript.md

const adapter = new AmsyncClientAdapter("{url}", {{ getToken: async () => "a token" }})
"""

SNIPPET_END = """\
const repo = new Repo({ network: [adapter] })
await repo.networkSubsystem.whenReady()
const handle = repo.create({ hello: "world" })
console.log("created", handle.url)
"""


@click.command()
@config_option
@listen_options
@keep_options
@process_options("3031", "Over how long sockets are closed at the end.")
@auth_options
@access_options
@limit_options
def serve(**given: Any) -> None:
    """Serve the documents of one directory, all in this process."""
    made_up = ""

    def make() -> Node:
        nonlocal made_up
        options = _node_options(given)
        if _may_make_up_token(options):
            made_up = secrets.token_urlsafe()
            options = replace(options, admin_token=made_up)
        return Node(options)

    def greet(node: Node) -> str:
        if made_up:  # to the terminal alone: neither into a log nor a pipe
            click.echo(f"{node.admin_url}/#token={made_up}", err=True)
        return _greeting(node)

    run(make, greet, given)


def _may_make_up_token(options: NodeOptions) -> bool:
    """Nobody has given one, and only who sits at this machine sees it."""
    has_port = options.admin_port is not None and is_loopback(options.admin_host)
    return options.admin_token is None and has_port and sys.stderr.isatty()


def _node_options(given: dict[str, Any]) -> NodeOptions:
    values = {
        **listen_values(given, auth_values(given)),
        **access_values(given),
        **keep_values(given),
        **process_values(given),
    }
    return NodeOptions(**values)


def _greeting(node: Node) -> str:
    options = node.options
    assert node.store is not None
    storage_id = node.store.volume.storage_id
    unknown = "created on request" if options.auto_create_docs else "unavailable"
    lines = [
        f"amsync {__version__} listening on {node.url}",
        f"  documents          {Path(options.data_dir).resolve()}",
        f"  storage id         {storage_id or 'not told to clients'}",
        f"  unknown documents  {unknown}",
    ]
    if node.admin_port:
        lines.append(f"  health, metrics    {node.admin_url}/metrics")
    if options.auth is not None:
        names = ", ".join(each.url for each in options.auth.all_issuers)
        lines.append(f"  tokens of          {names}")
    elif not is_loopback(options.host):
        lines.append(f"ANYBODY who reaches {options.host}:{node.port} may read and write. Limits:")
        lines.append(table(node.limits))
    snippet = SNIPPET if options.auth is None else SNIPPET_WITH_TOKENS
    lines += ["", "From JavaScript:", "", snippet.format(url=node.url) + SNIPPET_END]
    return "\n".join(lines)
