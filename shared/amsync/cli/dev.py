"""`amsync cluster dev`."""

import asyncio
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from amsync.cli.options import Port
from amsync.cluster.local import LocalCluster
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

    Everything ends with Ctrl-C.
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
    try:
        url = redis or await cluster.start_redis()
        bus = ("--redis", url, "--prefix", prefix, "--admin-port", "0")
        for number in range(workers):
            await cluster.start(f"worker-{number}", "worker", *bus, "--data-dir", str(data_dir))
        for number, port in enumerate(ports):
            await cluster.start(f"gateway-{number}", "gateway", *bus, "--port", str(port))
        _say("dev", f"the cluster is up; look at it with: amsync cluster status --redis {url}")
        ended = asyncio.create_task(cluster.wait())
        asked = asyncio.create_task(told.wait())
        await asyncio.wait([ended, asked], return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            _say("dev", f"{ended.result()} has ended; ending everything")
        asked.cancel()
        ended.cancel()
        return told.is_set()
    finally:
        statuses = await cluster.close()
        _say("dev", "ended: " + ", ".join(f"{name} {status}" for name, status in statuses))
