"""What a cluster may cost, and what it did: ratios within one run.

Shapes are gateways x workers. A goal whose rows or figures are not there is left out. Several
processes are held against one only where they had more to do: with the same load each has less in
every turn of its loop and in every commit, which says nothing of how they scale.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from amsync.bench.results import Results, Row
from amsync.bench.table import show

EMBEDDED = "amsync"
WITH_TOKENS = "amsync-auth"
SMALLEST = "amsync-cluster-1x1"
SHAPES = ((1, 1), (2, 1), (4, 1), (1, 2), (1, 4))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure against its goal, both in the unit that `figure` ends with."""

    what: str
    value: float
    most: float
    figure: str

    def __str__(self) -> str:
        outcome = "reached" if self.value <= self.most else "NOT REACHED"
        shown, most = show(self.value, self.figure), show(self.most, self.figure)
        return f"{self.what}: {shown}, at most {most}: {outcome}"


def verdicts(results: Results) -> Iterable[Verdict]:
    """Every goal of which there is something in the results, case by case."""
    for case in dict.fromkeys(row.case for row in results.rows):
        rows = {row.server: row for row in results.rows if row.case == case and not row.wrong}
        yield from _of_case(case, rows)


def _of_case(case: str, rows: dict[str, Row]) -> Iterable[Verdict]:
    yield from _of_tokens(case, rows)
    smallest = rows.get(SMALLEST)
    if smallest is None:
        return
    if (embedded := rows.get(EMBEDDED)) is not None:
        yield from _ratio(case, smallest, embedded, "cpu_per_delivery_seconds", 2.0)
        name = "p50_seconds"
        if name in smallest.figures and name in embedded.figures:
            added = smallest.figures[name] - embedded.figures[name]
            yield Verdict(f"{case}: median latency that a cluster adds", added, 0.003, name)
    for gateways, workers in SHAPES[1:]:
        role = "gateway" if gateways > 1 else "worker"
        row = rows.get(f"amsync-cluster-{gateways}x{workers}")
        if row is not None and _delivered(row) > 1.5 * _delivered(smallest):
            yield from _ratio(case, row, smallest, f"{role}_cpu_per_delivery_seconds", 1.1)
    for role, most in (("gateway", 24 * 1024), ("worker", 4 * 1024)):
        name = f"{role}_memory_per_connection_bytes"
        if name in smallest.figures:
            yield Verdict(f"{case}: memory of a {role}", smallest.figures[name], most, name)


def _of_tokens(case: str, rows: dict[str, Row]) -> Iterable[Verdict]:
    name = "cpu_per_cycle_seconds"
    costs = [rows[each].figures.get(name) for each in (EMBEDDED, WITH_TOKENS) if each in rows]
    if len(costs) == 2 and costs[0] and costs[1]:
        yield Verdict(f"{case}: CPU of a token, per connection", costs[1] - costs[0], 0.0003, name)


def _delivered(row: Row) -> float:
    return row.figures.get("delivered_changes", 0.0)


def _ratio(case: str, row: Row, base: Row, figure: str, most: float) -> Iterable[Verdict]:
    ours, theirs = row.figures.get(figure), base.figures.get(figure)
    if ours and theirs:
        words = figure.removesuffix("_seconds").replace("_", " ").replace("cpu", "CPU")
        what = f"{case}: {words}, {row.server} : {base.server}"
        yield Verdict(what, ours / theirs, most, "ratio")
