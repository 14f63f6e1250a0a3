"""`amsync cluster status`.

Exit status: 0 if every shard has an owner and every process was heard of, 1 if not.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, TypeVar

import click

from amsync.bus.redis import RedisClient
from amsync.bus.redis.address import parse
from amsync.cli.options import option, redis_of_file
from amsync.cli.port import AdminPort
from amsync.cluster.status import look
from amsync.errors import BusError, ConfigError
from amsync.status import (
    ID_LENGTH,
    ClusterStatus,
    GatewayStatus,
    ShardStatus,
    WorkerStatus,
)

CONNECT_SECONDS = 10.0
WATCH_SECONDS = 1.0
CLEAR = "\033[H\033[2J"

T = TypeVar("T")


@click.command()
@option("--redis", default=None, help="Redis or Valkey, as the cluster's processes have it.")
@option("--prefix", default="amsync", help="Of every key in Redis.")
@option("--admin-url", default=None, help="Of any gateway, or of `serve`: ask there instead.")
@option("--admin-token", default=None, help="That it was given; also from ..._FILE.")
@click.option("--watch", is_flag=True, help="Show it again every second, until interrupted.")
@click.option("--json", "as_json", is_flag=True, help="As one line of JSON.")
def status(
    redis: str | None,
    prefix: str,
    admin_url: str | None,
    admin_token: str | None,
    watch: bool,
    as_json: bool,
) -> None:
    """Show gateways, workers and shards of a cluster.

    With their owners, epochs, lag and documents. Reads Redis alone, or asks an admin port.
    """
    try:
        if admin_url is not None:
            port = AdminPort.of(admin_url, admin_token)
            is_well = _ask(port, prefix, watch=watch, as_json=as_json)
        else:
            redis = redis or redis_of_file()
            is_well = asyncio.run(_show(redis, prefix, watch=watch, as_json=as_json))
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except BusError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        return
    sys.exit(0 if is_well else 1)


def _ask(port: AdminPort, prefix: str, *, watch: bool, as_json: bool) -> bool:
    while True:
        found = _status(port.call("GET", "/cluster"))
        _print(found, prefix, watch=watch, as_json=as_json)
        if not watch:
            return not found.problems
        time.sleep(WATCH_SECONDS)


def _status(said: dict[str, Any]) -> ClusterStatus:
    """Of an answer; a newer server may tell more."""

    def made(kind: type[T], each: dict[str, Any]) -> T:
        names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
        return kind(**{name: value for name, value in each.items() if name in names})

    return made(
        ClusterStatus,
        {
            **said,
            "gateways": [made(GatewayStatus, each) for each in said["gateways"]],
            "workers": [made(WorkerStatus, each) for each in said["workers"]],
            "shards": [made(ShardStatus, each) for each in said["shards"]],
        },
    )


async def _show(redis: str, prefix: str, *, watch: bool, as_json: bool) -> bool:
    client = RedisClient(redis, name="amsync-status")
    client.start()
    try:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await client.wait_connected()
        except TimeoutError:
            raise BusError(f"Redis at {parse(redis)} is out of reach") from None
        while True:
            found = await look(client, prefix)
            _print(found, prefix, watch=watch, as_json=as_json)
            if not watch:
                return found is not None and not found.problems
            await asyncio.sleep(WATCH_SECONDS)
    finally:
        await client.close()


def _print(found: ClusterStatus | None, prefix: str, *, watch: bool, as_json: bool) -> None:
    text = _as_json(found) if as_json else _as_text(found, prefix)
    click.echo((CLEAR if watch and not as_json else "") + text)


def _as_json(found: ClusterStatus | None) -> str:
    return json.dumps(None if found is None else asdict(found))


def _as_text(found: ClusterStatus | None, prefix: str) -> str:
    if found is None:
        return f"no cluster has the prefix {prefix!r} in this Redis; a worker makes one"
    parts = [f"cluster {found.cluster_id}  storage id {found.storage_id or 'not told'}"]
    parts += _table(
        ("gateway", "host", "address", "version", "state", "connections"),
        [
            (
                each.gateway_id[:ID_LENGTH],
                each.host,
                each.address,
                each.version,
                each.state,
                str(each.connections),
            )
            for each in found.gateways
        ],
    )
    parts += _table(
        ("worker", "host", "version", "state", "shards", "documents"),
        [
            (
                each.worker_id[:ID_LENGTH],
                each.host,
                each.version,
                each.state,
                str(each.shards),
                str(each.documents),
            )
            for each in found.workers
        ],
    )
    parts += _table(
        ("shard", "owner", "epoch", "documents", "lag", "lag bytes"),
        [
            (
                str(each.shard),
                each.owner[:ID_LENGTH] or "nobody",
                str(each.epoch),
                str(each.documents),
                str(each.lag_entries),
                str(each.lag_bytes),
            )
            for each in found.shards
        ],
    )
    parts += ["", *(found.problems or ["all is well"])]
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "",
        *(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (head, *rows)
        ),
    ]
