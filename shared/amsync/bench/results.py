"""What a run has found, and its JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from amsync.bench.errors import BenchError

FORMAT = 1


@dataclass(slots=True)
class Row:
    """One case against one server.

    Attributes:
        case: Key of the case, the same for all servers.
        title: The case in words, with its numbers.
        server: Name of the server.
        headline: Key in `figures` of the one to compare.
        figures: Figures by name; the last word of a name is its unit.
        notes: What a reader must know to judge the figures.
        wrong: What was delivered wrong or not at all; then no figure counts.
        is_unfinished: It is only that the server was not done in the time that all get.
    """

    case: str
    title: str
    server: str
    headline: str
    more_is_better: bool = False
    figures: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    is_unfinished: bool = False

    @property
    def value(self) -> float | None:
        """The figure to compare; None if there is none."""
        return None if self.wrong else self.figures.get(self.headline)


@dataclass(slots=True)
class Results:
    """Everything of one run.

    Attributes:
        servers: Version of each server by name, in the order of the comparison.
    """

    machine: dict[str, Any]
    command: list[str]
    servers: dict[str, str]
    rows: list[Row] = field(default_factory=list)

    @property
    def is_wrong(self) -> bool:
        """Whether any delivery was wrong."""
        return any(row.wrong for row in self.rows)

    def write(self, file: Path) -> None:
        """Write all of it as JSON."""
        content = {"format": FORMAT, **asdict(self)}
        file.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def read(file: Path) -> Results:
    """Read what `Results.write` has written.

    Raises:
        BenchError: It is no such file.
    """
    try:
        content = json.loads(file.read_text())
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        rows = [Row(**row) for row in content.pop("rows")]
        return Results(**content, rows=rows)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{file} holds no results of amsync bench: {error}") from error
