"""Does every case of a plan to every server, each time with a server that has just started."""

from collections.abc import Callable, Mapping, Sequence

from amsync.bench.errors import BenchError, NotDelivered, WrongDelivery
from amsync.bench.load import raise_file_limit
from amsync.bench.plan import Case
from amsync.bench.results import Results, Row
from amsync.bench.serving import Server


def run(
    cases: Sequence[Case],
    servers: Sequence[Server],
    results: Results,
    done: Callable[[Row], None],
) -> None:
    """Add a row for each case and server to the results.

    The servers take turns at each case, so that a machine that gets slower does it to all.

    Args:
        servers: Not running; each is started for each case and ended after it.
        done: Called with each row.

    Raises:
        BenchError: Something is amiss that is no wrong delivery.
    """
    raise_file_limit()
    for case in cases:
        for server in servers[:1] if case.only_first else servers:
            row = _row(case, server)
            results.rows.append(row)
            done(row)


def _row(case: Case, server: Server) -> Row:
    workload = case.for_scale(server.scale)
    row = Row(case.name, workload.title, server.name, workload.headline, workload.more_is_better)
    if workload.needs_restart and not server.can_restart:
        row.notes.append("left out: it would have to restart the server")
        return row
    try:
        with server:
            outcome = workload.run(server)
    except WrongDelivery as error:
        row.wrong = [str(error), *error.problems[:20]]
        row.is_unfinished = isinstance(error, NotDelivered)
        return row
    except BenchError as error:
        raise BenchError(f"{case.name} against {server.name}: {error}") from error
    row.figures = {name: float(value) for name, value in outcome.figures.items()}
    row.notes = outcome.notes
    if row.value is None:
        row.notes.append("CPU and memory are not known: give --pid, on Linux")
    return row


def versions(servers: Sequence[Server]) -> Mapping[str, str]:
    """Version of each server by name."""
    return {server.name: server.version for server in servers}
