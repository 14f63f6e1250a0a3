"""`amsync access`: withdraw access from live connections of a cluster, by one gateway's admin port.

Imports nothing of the server. Exit status: 0 when it was done, 1 when it was not, or not at every
gateway, 2 when it was asked for something impossible.
"""

import json
from collections.abc import Callable
from typing import Any

import click

from amsync.cli.port import AdminPort, path_of, port_options


@click.group()
@port_options
@click.pass_context
def access(ctx: click.Context, admin_url: str, admin_token: str | None) -> None:
    """Withdraw access from open connections."""
    ctx.obj = AdminPort.of(admin_url, admin_token)


def _who(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--subject", default=None, help="The identity's `sub`.")(command)
    return click.option("--issuer", default=None, help="The identity's `iss`.")(command)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _show(said: Any) -> None:
    click.echo(json.dumps(said, indent=2))


@access.command()
@_who
@click.option("--seconds", type=float, default=None, help="At most a day.  [default: 3600]")
@click.option("--ban", is_flag=True, help="Refuse tokens, too, that are issued later.")
@click.option("--gateway", default=None, help="With --connection, as `list` shows them.")
@click.option("--connection", type=int, default=None, help="Close one connection only.")
@click.pass_obj
def kick(port: AdminPort, /, ban: bool, **given: Any) -> None:
    """Close the connections of an identity and keep it out, or close one connection."""
    _show(port.call("POST", "/access/kick", _given(**given, ban=ban or None)))


@access.command()
@_who
@click.option("--everybody", is_flag=True, help="Instead of issuer and subject.")
@click.option("--document-id", default=None, help="Which document.")
@click.option("--all-documents", is_flag=True, help="Instead of one.")
@click.option("--access", type=click.Choice(["none", "read"]), required=True, help="What is left.")
@click.option("--seconds", type=float, default=None, help="At most 30 days.  [default: 3600]")
@click.pass_obj
def restrict(port: AdminPort, /, everybody: bool, all_documents: bool, **given: Any) -> None:
    """Allow no more than reading, or nothing, of a document or all."""
    body = _given(**given, everybody=everybody or None, all_documents=all_documents or None)
    _show(port.call("POST", "/access/restrict", body))


@access.command()
@click.argument("order")
@click.pass_obj
def lift(port: AdminPort, order: str) -> None:
    """Take a kick or a restriction back, by its id."""
    port.call("DELETE", "/access/restrictions" + path_of(order))


@access.command()
@_who
@click.pass_obj
def refresh(port: AdminPort, /, **given: Any) -> None:
    """Ask those who decide again: about an identity, or everybody."""
    _show(port.call("POST", "/access/refresh", _given(**given)))


@access.command("list")
@click.option("--connections", is_flag=True, help="The connections of this gateway instead.")
@click.pass_obj
def list_orders(port: AdminPort, connections: bool) -> None:
    """Show what is withdrawn."""
    if connections:
        _show(list(port.pages("/connections", "connections")))
    else:
        _show(list(port.pages("/access/restrictions", "restrictions")))
