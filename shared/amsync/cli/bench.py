"""`amsync bench`.

Exit status: 0 when everything was delivered as it should be, 1 when something was not or a server
could not be had, 2 when it was asked for something impossible.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from amsync.bench import goals, table
from amsync.bench.auth import server_with_tokens
from amsync.bench.errors import BenchError
from amsync.bench.machine import describe
from amsync.bench.plan import AUTH, CLUSTER, COMPARISON, FIRST_LOOK, NAMED, Case, changed
from amsync.bench.results import Results, Row, read
from amsync.bench.runner import run, versions
from amsync.bench.serving import COMPARED, NAMES, RunningServer, Server, cluster, prepare
from amsync.cli.directory import fail, plain

NUMBERS = ("readers", "rate", "seconds", "history", "connections", "documents")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "amsync-bench"


@click.command()
@click.argument("workloads", nargs=-1, metavar="[WORKLOAD]...")
@click.option("--list", "as_list", is_flag=True, help="Say which workloads there are.")
@click.option(
    "--server",
    "names",
    multiple=True,
    type=click.Choice(NAMES),
    help="A server to start; may be given several times.  [default: amsync]",
)
@click.option(
    "--gateways",
    type=click.IntRange(1, 20),
    default=1,
    show_default=True,
    help="Gateways of amsync-cluster.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 20),
    default=1,
    show_default=True,
    help="Workers of amsync-cluster.",
)
@click.option("--url", help="A server that is running already: ws://HOST:PORT.")
@click.option(
    "--pid", type=click.IntRange(1), help="Process of the server at --url: its CPU and memory."
)
@click.option(
    "--compare", is_flag=True, help="Everything, against all servers; about twelve minutes."
)
@click.option("--quick", is_flag=True, help="So little that it only shows that it works.")
@click.option("--readers", type=click.IntRange(1, 10_000), help="Readers of one document.")
@click.option("--rate", type=click.FloatRange(0.01, 100_000), help="Changes per second.")
@click.option("--seconds", type=click.FloatRange(0.01, 3600), help="How long is measured.")
@click.option(
    "--history", type=click.IntRange(1, 1_000_000), help="Changes that a document begins with."
)
@click.option("--connections", type=click.IntRange(1, 50_000), help="Idle connections.")
@click.option("--documents", type=click.IntRange(1, 10_000), help="How many there are.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write everything to this file.",
)
@click.option(
    "--render",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Print the table of a file that --json has written, as Markdown; measure nothing.",
)
@click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where other servers are installed.  [default: amsync-bench in the user's cache]",
)
@click.option(
    "--node-modules",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Installed packages of automerge-repo, instead of installing them.",
)
def bench(workloads: tuple[str, ...], **given: Any) -> None:
    """Measure automerge-repo servers, and check what they deliver.

    Without a WORKLOAD: a first look at `amsync serve` in less than a minute.
    """
    if given["as_list"]:
        width = max(map(len, NAMED))
        for name, (what, _) in NAMED.items():
            click.echo(f"{name:{width}}  {what}")
        return
    try:
        if given["render"] is not None:
            click.echo(table.markdown(read(given["render"])), nl=False)
            return
        cases = _cases(workloads, given)
        names = _names(given)
    except BenchError as error:
        raise click.UsageError(str(error)) from error
    before = signal.signal(signal.SIGTERM, _on_sigterm)
    with tempfile.TemporaryDirectory(prefix="amsync-bench-") as scratch:
        try:
            servers = _servers(workloads, names, Path(scratch), given)
            results = _run(cases, servers, given["json_file"])
        except BenchError as error:
            fail(str(error))
        finally:
            signal.signal(signal.SIGTERM, before)
    sys.exit(1 if results.is_wrong else 0)


def _on_sigterm(_number: int, _frame: object) -> NoReturn:
    """Leave through every context, so that the servers end too."""
    sys.exit(1)


def _cases(workloads: Sequence[str], given: dict[str, Any]) -> Sequence[Case]:
    if unknown := [name for name in workloads if name not in NAMED]:
        raise BenchError(f"no workload {unknown[0]!r}; there are {', '.join(NAMED)}")
    numbers = {name: given[name] for name in NUMBERS if given[name] is not None}
    if given["compare"]:
        if workloads or numbers:
            raise BenchError("--compare has its own workloads and numbers; give none")
        cases = COMPARISON
    elif workloads:
        cases = [case for name in dict.fromkeys(workloads) for case in NAMED[name][1]]
        cases = [changed(case, numbers) for case in cases]
    elif numbers:
        option = "--" + next(iter(numbers))
        raise BenchError(f"{option} needs a workload that it is for, as in: amsync bench fan-out")
    else:
        cases = FIRST_LOOK
    if given["quick"]:
        cases = [Case(case.name, case.workload.quick(), case.only_first) for case in cases]
    return cases


def _names(given: dict[str, Any]) -> Sequence[str]:
    if given["pid"] is not None and given["url"] is None:
        raise BenchError("--pid belongs to --url; a server that is started here has its own")
    names: Sequence[str] = given["names"]
    if given["url"] is not None:
        return names
    return names or (COMPARED if given["compare"] else NAMES[:1])


def _servers(
    workloads: Sequence[str], names: Sequence[str], scratch: Path, given: dict[str, Any]
) -> list[Server]:
    servers: list[Server] = [
        cluster(given["gateways"], given["workers"])
        if name == "amsync-cluster"
        else prepare(
            name,
            cache=given["cache_dir"] or _cache(),
            scratch=scratch,
            modules=given["node_modules"],
            say=lambda text: click.echo(text, err=True),
        )
        for name in dict.fromkeys(names)
    ]
    if AUTH in workloads and given["url"] is None:
        servers.append(server_with_tokens(scratch))
    if CLUSTER in workloads and not given["names"] and given["url"] is None:
        servers += [cluster(*shape) for shape in goals.SHAPES]
    if given["url"] is not None:
        servers.append(RunningServer(given["url"], given["pid"]))
    return servers


def _run(cases: Sequence[Case], servers: Sequence[Server], file: Path | None) -> Results:
    """Run all of it; the file is written row by row, so that nothing is lost with what follows."""
    results = Results(describe(), sys.argv[1:], dict(versions(servers)))
    last: list[str] = []

    def save() -> None:
        try:
            if file is not None:
                results.write(file)
        except OSError as error:
            raise BenchError(f"{file}: {error.strerror}") from error

    def done(row: Row) -> None:
        save()
        if last != [row.case]:
            last[:] = [row.case]
            click.echo(row.title)
        for line in table.detail(row):
            click.echo(plain(line))

    save()
    run(cases, servers, results, done)
    if len(servers) > 1 or len(cases) > 1:
        click.echo()
        click.echo(table.text(results))
    for verdict in goals.verdicts(results):
        click.echo(str(verdict))
    return results
