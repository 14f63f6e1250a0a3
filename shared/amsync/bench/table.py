"""Results for people: a table on the terminal, and the same in Markdown."""

from collections.abc import Iterable, Sequence

from amsync.bench.processes import ROLES
from amsync.bench.results import Results, Row

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
_SIZES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def show(value: float, name: str) -> str:
    """A figure with its unit, by the last word of its name."""
    unit = name.rpartition("_")[2]
    if name.endswith("per_second"):
        return f"{value:,.0f}/s"
    if unit == "seconds":
        size, word = next((each for each in _UNITS if abs(value) >= each[0]), _UNITS[-1])
        return f"{_digits(value / size)} {word}"
    if unit == "bytes":
        size, word = next((each for each in _SIZES if abs(value) >= each[0]), (1, "B"))
        return f"{_digits(value / size)} {word}"
    if unit == "share":
        return f"{value:.0%}"
    return f"{value:,.2f}" if unit == "ratio" else f"{value:,.0f}"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def detail(row: Row) -> Iterable[str]:
    """All of one row, as lines."""
    if row.wrong:
        yield f"  {row.server}: {_verdict(row)}"
        yield from (f"    {problem}" for problem in row.wrong[:4])
        return
    main = "-" if row.value is None else show(row.value, row.headline)
    rest = [f"{_SHOWN[name]} {show(value, name)}" for name, value in _shown(row)]
    yield f"  {row.server}: {main}" + (f"  ({', '.join(rest)})" if rest else "")
    yield from (f"    {note}" for note in row.notes)


def _verdict(row: Row) -> str:
    return "NOT DONE" if row.is_unfinished else "WRONG"


_SHOWN = {
    "p50_seconds": "p50",
    "p90_seconds": "p90",
    "p99_seconds": "p99",
    "max_seconds": "max",
    "delivered_changes": "delivered",
    "wall_seconds": "wall",
    "start_seconds": "start",
    "fsync_seconds": "fsync",
    "memory_bytes": "memory",
    "sent_bytes": "sent",
    "redis_memory_bytes": "Redis",
    **{
        f"{role}_{figure}": role
        for role in ROLES
        for figure in ("cpu_per_delivery_seconds", "memory_per_connection_bytes")
    },
    "cpu_per_second_seconds": "CPU per s",
}


def _shown(row: Row) -> Iterable[tuple[str, float]]:
    for name, value in row.figures.items():
        if name in _SHOWN and name != row.headline:
            yield name, value


def comparison(results: Results) -> list[list[str]]:
    """Header and lines: the case, each server's figure, and how often ours is better."""
    servers = list(results.servers)
    first, others = servers[0], servers[1:]
    lines = [["what is measured", *servers, *(f"{other} : {first}" for other in others)]]
    for case, rows in _by_case(results.rows):
        line = [next(iter(rows.values())).title if rows else case]
        line += [_cell(rows.get(server)) for server in servers]
        line += [_ratio(rows.get(first), rows.get(other)) for other in others]
        lines.append(line)
    return lines


def _by_case(rows: Sequence[Row]) -> Iterable[tuple[str, dict[str, Row]]]:
    for case in dict.fromkeys(row.case for row in rows):
        yield case, {row.server: row for row in rows if row.case == case}


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if row.wrong:
        return f"{_verdict(row)} *"
    mark = " *" if row.notes else ""
    return ("-" if row.value is None else show(row.value, row.headline)) + mark


def _ratio(ours: Row | None, theirs: Row | None) -> str:
    if ours is None or theirs is None or not ours.value or not theirs.value:
        return ""
    ratio = theirs.value / ours.value
    return f"{_digits(1 / ratio if ours.more_is_better else ratio)} x"


def text(results: Results) -> str:
    """The comparison for a terminal, and what the marks in it mean."""
    lines = comparison(results)
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    shown = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*shown, *_footnotes(results)])


def markdown(results: Results) -> str:
    """The comparison as a Markdown table, with the machine it was measured on."""
    header, *lines = comparison(results)
    rule = ["---", *("---:" for _ in header[1:])]
    rows = ["| " + " | ".join(cells) + " |" for cells in (header, rule, *lines)]
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in results.servers.items())
    where = (
        f"{versions}; {machine['processor']}, {machine['cores']} cores,"
        f" {machine['system']} {machine['kernel']}, Python {machine['python']};"
        f" {machine['at'][:10]}"
    )
    notes = [f"- {note.strip()}" for note in _footnotes(results)]
    return "\n".join([where, "", *rows, *([""] if notes else []), *notes]) + "\n"


def _footnotes(results: Results) -> list[str]:
    return [
        f"* {row.case}, {row.server}: {note}"
        for row in results.rows
        for note in (*row.notes, *row.wrong[:1])
    ]
