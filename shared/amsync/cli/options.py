"""Options that several commands of the server share, and how such a command lives and ends.

An option means the same everywhere, has the same environment variable and the same key in a TOML
file. Exit status: 0 after a clean stop (SIGINT and SIGTERM included), 1 when the process failed
or could not finish what it had taken in, 2 when it was asked for something impossible.
"""

import asyncio
import contextlib
import ctypes
import importlib
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any, NoReturn, Protocol

import click

from amsync import config, logs
from amsync.auth import AuthConfig
from amsync.errors import AmsyncError, ConfigError, VolumeError
from amsync.gateway.limits import Limits, default_limits
from amsync.hosts import is_loopback
from amsync.options import EPHEMERAL, Ephemeral, KeepOptions
from amsync.protocol.access import Share
from amsync.server import new_event_loop
from amsync.tls import TLSConfig

SECRETS = (
    "tls_key",
    "redis",
    "auth_shared_secret",
    "auth_issuers",
    "access_webhook_token",
    "admin_token",
)
_M_MMAP_THRESHOLD = -3  # of mallopt, in glibc's malloc.h

MANY = " Several: repeat it, or commas."

Command = Callable[..., Any]


class Port(click.ParamType[int | None]):
    """A port number, or `off` where that is allowed."""

    name = "port"

    def __init__(self, *, may_be_off: bool = False) -> None:
        self._may_be_off = may_be_off

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """Convert what was given."""
        if self._may_be_off and str(value).lower() == "off":
            return None
        try:
            port = int(value)
        except ValueError:
            port = -1
        if not 0 <= port <= 65535:
            allowed = "0 (any free) to 65535" + (", or off" if self._may_be_off else "")
            self.fail(f"{value!r} is not a port; allowed are {allowed}", param, ctx)
        return port


class Texts(click.ParamType[str]):
    """One of several texts; in an environment variable they have commas between them."""

    name = "text"
    envvar_list_splitter = ","

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,  # noqa: ARG002 - of click
        ctx: click.Context | None,  # noqa: ARG002
    ) -> str:
        """Take it as it is."""
        return str(value)


class Tables(click.ParamType[list[dict[str, Any]]]):
    """What a TOML file has as an array of tables, elsewhere written as JSON."""

    name = "json"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[dict[str, Any]]:
        """Convert what was given."""
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                self.fail("this is no JSON; give an array of objects", param, ctx)
        tables = [value] if isinstance(value, dict) else value
        if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
            self.fail("give an array of objects", param, ctx)
        return tables


def _load_config(ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path | None:
    kinds = {p.name: _kind(p) for p in ctx.command.params if p.name not in (None, "config", "help")}
    try:
        ctx.default_map = config.defaults(value, {k: v for k, v in kinds.items() if k}, SECRETS)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    return value


def _default_of(limit: Field[Any]) -> str:
    anonymous = limit.metadata["anonymous"]
    stricter = "" if anonymous == limit.default else f"; with --allow-anonymous {anonymous:,}"
    return f"{limit.default:,}{stricter}"


def _kind(parameter: click.Parameter) -> type:
    """What a value of this option must be in a TOML file."""
    if parameter.multiple:
        return list
    match parameter.type:
        case Tables():
            return dict
        case Port():
            return object
        case click.types.BoolParamType():
            return bool
        case click.types.IntParamType():
            return int
        case click.types.FloatParamType():
            return float
        case _:
            return str


def limit_options(command: Command) -> Command:
    """One option for each field of `Limits`; without a value the bind address decides."""
    for each in reversed(fields(Limits)):
        is_float = isinstance(each.default, float)
        least = each.metadata["least"]
        kind: click.ParamType[Any] = click.FloatRange(least) if is_float else click.IntRange(least)
        command = click.option(
            "--" + each.name.replace("_", "-"),
            type=kind,
            default=None,
            envvar=config.variable(each.name),
            show_envvar=True,
            help=f"{each.metadata['text']}  [default: {_default_of(each)}]",
        )(command)
    return command


def option(*names: str, **settings: Any) -> Callable[..., Any]:
    """A click option with its environment variable, both shown in the help."""
    name = max(names, key=len).split("/")[0].lstrip("-").replace("-", "_")
    settings.setdefault("show_default", True)
    return click.option(*names, envvar=config.variable(name), show_envvar=True, **settings)


def config_option(command: Command) -> Command:
    """--config."""
    decorated: Command = option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        is_eager=True,
        callback=_load_config,
        help="TOML file with options; the command line and the environment win over it.",
    )(command)
    return decorated


def listen_options(command: Command) -> Command:
    """Where clients come in, and what they may."""
    return together(
        option("--port", type=Port(), default="3030", help="Port for clients; 0 takes a free one."),
        option("--host", default="127.0.0.1", help="Address to listen on."),
        option(
            "--tls-cert", default=None, help="Certificate chain: path or PEM text. Needs --tls-key."
        ),
        option("--tls-key", default=None, help="Private key: path or PEM text."),
        option(
            "--tls-minimum-version",
            type=click.Choice(["TLSv1.2", "TLSv1.3"]),
            default="TLSv1.2",
            help="Oldest TLS version that clients may use.",
        ),
        option(
            "--share",
            default="allow",
            help="allow, announce, deny, or module:function, a callable (client_id, document_id).",
        ),
        option(
            "--allow-anonymous",
            is_flag=True,
            help="Let everybody in who reaches an address beyond loopback; stricter limits apply.",
        ),
        option(
            "--allowed-origins",
            type=Texts(),
            multiple=True,
            default=(),
            help="Web pages that may connect, as https://app.example.org; on loopback without"
            " authentication the default is this machine's, else all." + MANY,
        ),
        option(
            "--trusted-proxies",
            type=Texts(),
            multiple=True,
            default=(),
            help="Networks of proxies that end TLS, as 10.0.0.0/8: their X-Forwarded headers are"
            " believed." + MANY,
        ),
    )(command)


def keep_options(command: Command) -> Command:
    """Where documents are kept, and when they are made."""
    return together(
        option(
            "--data-dir",
            type=click.Path(file_okay=False, path_type=Path),
            default=Path(".automerge"),
            help="Where documents are kept; created if missing.",
        ),
        option(
            "--auto-create-docs/--no-auto-create-docs",
            default=True,
            help="Create a document when somebody asks for an unknown one.",
        ),
        option(
            "--storage-id",
            default=None,
            help="Storage id told to clients; `ephemeral` tells none. Made and kept if not given.",
        ),
        option(
            "--max-document-bytes",
            type=click.IntRange(0),
            default=KeepOptions.max_document_bytes,
            help="A document of that size on disk is only read from then on; 0: no bound.",
        ),
        option(
            "--max-document-changes",
            type=click.IntRange(0),
            default=KeepOptions.max_document_changes,
            help="A document of so many changes is only read from then on; 0: no bound.",
        ),
    )(command)


def cluster_options(command: Command) -> Command:
    """Which cluster a process belongs to."""
    return together(
        option(
            "--redis",
            required=True,
            default=redis_of_file,
            show_default=False,
            help="Redis or Valkey: redis://, rediss://, unix:// or redis+sentinel:// URL.",
        ),
        option("--prefix", default="amsync", help="Of every key in Redis; a cluster has one."),
    )(command)


def redis_of_file() -> str:
    """The URL of AMSYNC_REDIS_FILE, for commands that have no --config, which reads it too."""
    try:
        found = config.read_secret_files(["redis"], os.environ).get("redis")
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    if found is None:
        raise click.UsageError("give --redis, or set AMSYNC_REDIS or AMSYNC_REDIS_FILE")
    return found


def process_options(admin_port: str, drain: str) -> Callable[[Command], Command]:
    """The port for operators, the end, logs."""
    return together(
        option(
            "--admin-port",
            type=Port(may_be_off=True),
            default=admin_port,
            help="Port for /healthz, /readyz, /metrics; 0 takes a free one, `off` none.",
        ),
        option("--admin-host", default="127.0.0.1", help="Address of the admin port."),
        option("--drain-seconds", type=click.FloatRange(0, 3600), default=0.0, help=drain),
        option(
            "--log-format",
            type=click.Choice(["console", "json"]),
            default="console",
            help="Of logs.",
        ),
        option(
            "--log-level",
            type=click.Choice(["debug", "info", "warning", "error"]),
            default="info",
            help="What is logged.",
        ),
    )


def together(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in this order."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def split(texts: Sequence[str]) -> list[str]:
    """What an option of `Texts` was given, one by one."""
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]


def listen_values(given: dict[str, Any], auth: AuthConfig | None) -> dict[str, Any]:
    """What `ListenOptions` takes, of what was given. Raises ConfigError."""
    cert, key = given["tls_cert"], given["tls_key"]
    if (cert is None) != (key is None):
        missing = "tls_key" if key is None else "tls_cert"
        raise ConfigError(f"{missing} is missing; --tls-cert and --tls-key go together")
    limits = {f.name: given[f.name] for f in fields(Limits) if given[f.name] is not None}
    defaults = default_limits(strangers=auth is None and not is_loopback(given["host"]))
    return {
        "port": given["port"],
        "host": given["host"],
        "tls": None if cert is None else TLSConfig(cert, key, given["tls_minimum_version"]),
        "share": _share(given["share"]),
        "allow_anonymous": given["allow_anonymous"],
        "limits": replace(defaults, **limits) if limits else None,
        "auth": auth,
        "allowed_origins": split(given["allowed_origins"]) or None,
        "trusted_proxies": tuple(split(given["trusted_proxies"])),
    }


def keep_values(given: dict[str, Any]) -> dict[str, Any]:
    """What `KeepOptions` takes, of what was given."""
    storage_id: str | Ephemeral | None = given["storage_id"]
    return {
        "data_dir": given["data_dir"],
        "auto_create_docs": given["auto_create_docs"],
        "storage_id": EPHEMERAL if storage_id == "ephemeral" else storage_id,
        "max_document_bytes": given["max_document_bytes"],
        "max_document_changes": given["max_document_changes"],
    }


def process_values(given: dict[str, Any]) -> dict[str, Any]:
    """What `ProcessOptions`, or `BusOptions`, takes, of what was given."""
    names = ("admin_port", "admin_host", "drain_seconds", "redis", "prefix")
    return {name: given[name] for name in names if name in given}


def _share(text: str) -> Share | Callable[..., Any]:
    """Turn allow, announce, deny or module:function into what `Server` takes."""
    if text in [share.value for share in Share]:
        return Share(text)
    return import_callable("share", text, "allowed are allow, announce, deny, or module:function")


def import_callable(option_name: str, text: str, allowed: str) -> Callable[..., Any]:
    """Import what an option names as module:function; from the working directory, too.

    Raises:
        ConfigError: There is no such callable.
    """
    module_name, separator, name = text.partition(":")
    if not separator:
        raise ConfigError(f"{option_name}={text!r} is not known; {allowed}")
    if os.getcwd() not in sys.path:  # noqa: PTH109 - as python -m does
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    try:
        function = getattr(importlib.import_module(module_name), name)
    except Exception as error:
        raise ConfigError(
            f"{option_name}={text!r} can't be imported: {error}; {allowed}"
        ) from error
    if not callable(function):
        raise ConfigError(f"{option_name}={text!r} is a {type(function).__name__}; {allowed}")
    result: Callable[..., Any] = function
    return result


class Process(Protocol):
    """What a command runs: a node of any kind."""

    left_behind: bool

    @property
    def log_fields(self) -> Mapping[str, object]:
        """What names it in each line of the log."""

    async def start(self) -> None:
        """Begin; raises ConfigError, VolumeError, OSError."""

    async def wait(self) -> None:
        """Return, or raise, when it has ended by itself."""

    async def close(self) -> None:
        """End in good order."""

    def hurry(self) -> None:
        """End without pauses."""


def run(make: Callable[[], Process], greet: Callable[[Any], str], given: dict[str, Any]) -> None:
    """Run a process until it is told to end; `greet` says what is printed when it is there."""
    process: Process | None = None
    logs.configure(
        given["log_format"],
        given["log_level"],
        lambda: {} if process is None else process.log_fields,
        libraries=True,
    )
    try:
        process = make()
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    _raise_file_limit()
    _keep_heap_small()
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_live(process, greet))
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except VolumeError as error:
        _fail(f"data_dir={given['data_dir']}: {error}")
    except OSError as error:
        _fail(f"can't listen: {error.strerror or error}")
    except (AmsyncError, BaseExceptionGroup) as error:
        _fail(f"the server failed: {'; '.join(_reasons(error))}")
    if process.left_behind:
        # Threads may still be at work, and the interpreter would wait for them. What was
        # acknowledged is in the WAL, and the next start goes on from there.
        sys.stdout.flush()
        logging.shutdown()
        os._exit(1)


def _reasons(error: BaseException) -> list[str]:
    """What went wrong; of a group that is what its parts say, not how many they are."""
    if isinstance(error, BaseExceptionGroup):
        return [reason for part in error.exceptions for reason in _reasons(part)]
    return [str(error) if isinstance(error, AmsyncError) else f"{type(error).__name__}: {error}"]


async def _live(process: Process, greet: Callable[[Any], str]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():  # asked a second time: still clean, but without pauses
            process.hurry()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    starting = asyncio.create_task(process.start())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await starting
    if stop.is_set():
        stopping.cancel()
        await process.close()
        return
    click.echo(greet(process))
    sys.stdout.flush()
    failing = asyncio.create_task(process.wait())
    await asyncio.wait([stopping, failing], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    await process.close()
    await failing


def _raise_file_limit() -> None:
    """Each client is an open file; the usual soft limit of 1,024 is meant for `select`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _keep_heap_small() -> None:
    """Let glibc give large blocks back when they are freed.

    By default it keeps them in the heap once some have been freed; the engine's buffers of some
    hundred KiB then scatter over it: 2,000 small documents took 700 MB instead of 120.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 128 * 1024)


def _fail(message: str) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(1)
