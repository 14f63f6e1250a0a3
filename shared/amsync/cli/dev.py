"""`amsync cluster dev`."""

import asyncio
import os
import secrets
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from amsync.cli.options import Port
from amsync.cluster.local import LocalCluster
from amsync.config import variable
from amsync.errors import ConfigError


@click.command()
@click.option("--gateways", type=click.IntRange(1, 20), default=2, show_default=True)
@click.option("--workers", type=click.IntRange(1, 20), default=2, show_default=True)
@click.option(
    "--redis",
    default=None,
    help="URL of a running Redis; by default redis-server or valkey-server is started.",
)
@click.option("--prefix", default="amsync", show_default=True, help="Of every key in Redis.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Where documents are kept; by default in a folder that is removed at the end.",
)
@click.option(
    "--port",
    type=Port(),
    default="3030",
    show_default=True,
    help="Of the first gateway; the others take the next ones. 0: free ones.",
)
def dev(
    gateways: int, workers: int, redis: str | None, prefix: str, data_dir: Path | None, port: int
) -> None:
    """Run a whole cluster on this machine, to try it out.

    Everything ends with Ctrl-C. On a terminal it tells where the operator's page is.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amsync-")))
        cluster = LocalCluster(scratch, _say)
        ports = [port + number if port else 0 for number in range(gateways)]
        try:
            is_well = asyncio.run(
                _run(cluster, redis, prefix, data_dir or scratch / "documents", workers, ports)
            )
        except ConfigError as error:
            raise click.UsageError(str(error)) from error
    sys.exit(0 if is_well else 1)


def _may_make_up_token() -> bool:
    is_given = any(variable(name) in os.environ for name in ("admin_token", "admin_token_file"))
    return sys.stderr.isatty() and not is_given


def _say(name: str, line: str) -> None:
    click.echo(f"{name:10} | {line}")


async def _run(
    cluster: LocalCluster,
    redis: str | None,
    prefix: str,
    data_dir: Path,
    workers: int,
    ports: list[int],
) -> bool:
    told = asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, told.set)

    async def live() -> None:
        url = redis or await cluster.start_redis()
        # Only who sits at this machine sees it.
        token = secrets.token_urlsafe() if _may_make_up_token() else ""
        secret = {"admin_token": token} if token else {}
        bus = ("--prefix", prefix, "--admin-port", "0")
        parts = [
            (f"worker-{number}", "worker", *bus, "--data-dir", str(data_dir))
            for number in range(workers)
        ]
        parts += [
            (f"gateway-{number}", "gateway", *bus, "--port", str(port))
            for number, port in enumerate(ports)
        ]
        for name, *arguments in parts:
            given = secret if arguments[0] == "gateway" else {}
            if not await cluster.start(name, *arguments, redis=url, **given):
                break
        else:
            where = "with that URL" if redis else url  # which may have a password
            _say(
                "dev", f"the cluster is up; look at it with: amsync cluster status --redis {where}"
            )
            if token:
                click.echo(f"{cluster.admin_url('gateway-0')}/#token={token}", err=True)
        _say("dev", f"{await cluster.wait()} has ended; ending everything")

    living = asyncio.create_task(live())
    asked = asyncio.create_task(told.wait())
    try:
        await asyncio.wait([living, asked], return_when=asyncio.FIRST_COMPLETED)
        if living.done():
            await living
        return told.is_set()
    finally:
        for task in (living, asked):
            task.cancel()
        await asyncio.wait([living, asked])
        statuses = await cluster.close()
        _say("dev", "ended: " + ", ".join(f"{name} {status}" for name, status in statuses))
