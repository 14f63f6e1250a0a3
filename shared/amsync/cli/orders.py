"""`amsync access`: withdraw access from live connections of a cluster, by one gateway's admin port.

Imports nothing of the server. Exit status: 0 when it was done, 1 when it was not, or not at every
gateway, 2 when it was asked for something impossible.
"""

import http.client
import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit

import click

from amsync.config import read_secret_files, variable
from amsync.errors import ConfigError

SECONDS = 30.0
PAGE = 1000


def _option(name: str, **settings: Any) -> Callable[..., Any]:
    envvar = variable(name.lstrip("-").replace("-", "_"))
    return click.option(name, envvar=envvar, show_envvar=True, **settings)


@click.group()
@_option("--admin-url", default="http://127.0.0.1:3031", show_default=True, help="Of any gateway.")
@_option("--admin-token", default=None, help="That the gateway was given; also from ..._FILE.")
@click.pass_context
def access(ctx: click.Context, admin_url: str, admin_token: str | None) -> None:
    """Withdraw access from open connections."""
    try:
        token = admin_token or read_secret_files(["admin_token"], os.environ).get("admin_token")
        parts = urlsplit(admin_url)
        _ = parts.port
    except (ConfigError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.UsageError(f"admin_url={admin_url!r} is no http:// or https:// URL")
    if not token:
        raise click.UsageError("give --admin-token, or set AMSYNC_ADMIN_TOKEN(_FILE)")
    ctx.obj = _Port(parts.scheme, parts.netloc, parts.path.rstrip("/"), token)


class _Port:
    """The admin port of a gateway."""

    def __init__(self, scheme: str, place: str, path: str, token: str) -> None:
        self._kind = (
            http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        )
        self._place, self._path, self._token = place, path, token

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """What is answered; ends the command if that is no success."""
        connection = self._kind(self._place, timeout=SECONDS)
        headers = {"Authorization": f"Bearer {self._token}"}
        data = None if body is None else json.dumps(body)
        try:
            connection.request(method, self._path + path, data, headers)
            answer = connection.getresponse()
            status, text = answer.status, answer.read()
        except (OSError, ValueError, http.client.HTTPException) as error:
            _fail(f"no answer from {self._place}: {error}")
        finally:
            connection.close()
        if status not in (200, 204):
            _fail(f"{self._place} answers {status}: {_detail(text)}")
        return json.loads(text) if text else None

    def all(self, path: str, name: str) -> list[Any]:
        """Every page of a list."""
        found: list[Any] = []
        after: Any = None
        while True:
            behind = "" if after is None else f"&after={quote(str(after))}"
            page = self.call("GET", f"{path}?limit={PAGE}{behind}")
            found += page[name]
            after = page["next"]
            if after is None:
                return found


def _detail(text: bytes) -> str:
    try:
        return str(json.loads(text)["detail"])
    except (ValueError, KeyError, TypeError):
        return text.decode(errors="replace").strip()[:200]


def _fail(message: str) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(1)


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
def kick(port: _Port, /, ban: bool, **given: Any) -> None:
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
def restrict(port: _Port, /, everybody: bool, all_documents: bool, **given: Any) -> None:
    """Allow no more than reading, or nothing, of a document or all."""
    body = _given(**given, everybody=everybody or None, all_documents=all_documents or None)
    _show(port.call("POST", "/access/restrict", body))


@access.command()
@click.argument("order")
@click.pass_obj
def lift(port: _Port, order: str) -> None:
    """Take a kick or a restriction back, by its id."""
    port.call("DELETE", f"/access/restrictions/{quote(order, safe='')}")


@access.command()
@_who
@click.pass_obj
def refresh(port: _Port, /, **given: Any) -> None:
    """Ask those who decide again: about an identity, or everybody."""
    _show(port.call("POST", "/access/refresh", _given(**given)))


@access.command("list")
@click.option("--connections", is_flag=True, help="The connections of this gateway instead.")
@click.pass_obj
def list_orders(port: _Port, connections: bool) -> None:
    """Show what is withdrawn."""
    if connections:
        _show(port.all("/connections", "connections"))
    else:
        _show(port.all("/access/restrictions", "restrictions"))
