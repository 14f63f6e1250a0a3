"""`amsync health`: ask a process of this machine how it is, as a container's health check does.

It reads no configuration file: where a process was told its admin port on the command line or in
a file, this command has to be told, too. Imports nothing of the server.

Exit status: 0 when the answer is good, 1 when it is not or there is none, 2 when it was asked for
something impossible.
"""

import http.client
import json
import sys

import click

from amsync.config import variable

SECONDS = 5.0
USUAL_PORTS = (3031, 3032)
"""Of `serve` and a gateway, and of a worker."""
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - replaced


@click.command()
@click.option(
    "--admin-host",
    default="127.0.0.1",
    show_default=True,
    envvar=variable("admin_host"),
    show_envvar=True,
    help="Where the admin port is; of every address, the one of loopback is asked.",
)
@click.option(
    "--admin-port",
    type=click.IntRange(1, 65535),
    default=None,
    envvar=variable("admin_port"),
    show_envvar=True,
    help="The admin port.  [default: 3031, or 3032 if nobody listens there]",
)
@click.option(
    "--ready", is_flag=True, help="Ask whether it should get traffic, not only whether it runs."
)
def health(admin_host: str, admin_port: int | None, ready: bool) -> None:
    """Ask a running process whether it is well, by its admin port."""
    host = _ANY_ADDRESS.get(admin_host, admin_host)
    path = "/readyz" if ready else "/healthz"
    ports = USUAL_PORTS if admin_port is None else (admin_port,)
    for port in ports:
        try:
            status, text = _get(host, port, path)
        except ConnectionRefusedError:
            continue
        except (OSError, http.client.HTTPException) as error:
            _fail(f"no answer from {host}:{port}{path}: {error}")
        if status != 200:
            _fail(f"{host}:{port}{path} answers {status}: {text}")
        click.echo(text)
        return
    _fail(f"nobody listens at {host}, port {' or '.join(map(str, ports))}")


def _get(host: str, port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, _summary(answer.read(65536))
    finally:
        connection.close()


def _summary(body: bytes) -> str:
    """The status, and what speaks against a better one; else the beginning of the text."""
    text = body.decode(errors="replace").strip()
    try:
        said = json.loads(text)
        return "; ".join([said["status"], *said.get("reasons", ())])
    except (ValueError, KeyError, TypeError, AttributeError):
        return text[:200]


def _fail(message: str) -> None:
    click.echo(f"Error: {message}", err=True)
    sys.exit(1)
