"""Metrics as docs/metrics.md lists them, as a process exposes them, and promtool."""

import re
import shutil
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs/metrics.md"
PROMTOOL = ROOT / ".build/promtool/bin/promtool"
SECONDS = 30.0

_EVENT = re.compile(r"^\| `(\w+)` \|[^|]*\| [^|]+ \|$", re.MULTILINE)
_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
_COUNTED = re.compile(r"count\(\s*\"(\w+)\"")
_SUFFIXES = {"counter": "_total", "info": "_info"}


@dataclass(frozen=True)
class Row:
    """A metric; `labels` is None where no sample of it shows them."""

    type: str
    labels: frozenset[str] | None
    kinds: frozenset[str] = frozenset()


def documented() -> dict[str, Row]:
    """The table of docs/metrics.md."""
    found: dict[str, Row] = {}
    for name, type_, labels, _, kinds in _ROW.findall(TABLE.read_text()):
        assert name not in found, f"{name} is there twice"
        every = ("gateway", "worker", "embedded")
        found[name] = Row(
            type_,
            frozenset(re.findall(r"`(\w+)`", labels)),
            frozenset(every if kinds == "all" else kinds.split(", ")),
        )
    return found


def documented_events() -> set[str]:
    """The table of rare events in docs/metrics.md."""
    names = _EVENT.findall(TABLE.read_text())
    assert len(set(names)) == len(names)
    return set(names)


def counted_events() -> set[str]:
    """What the sources count by name, but for sessions: what these count is refusals."""
    return {
        name
        for folder in ("shared/amsync", "gateway", "worker")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.name != "session.py"
        for name in _COUNTED.findall(path.read_text())
    }


def exposed(text: str) -> dict[str, Row]:
    """What an exposition in OpenMetrics holds."""
    return {
        family.name + _SUFFIXES.get(family.type, ""): Row(
            family.type,
            frozenset(family.samples[0].labels) - {"le"} if family.samples else None,
        )
        for family in text_string_to_metric_families(text)
    }


def differences(text: str, kind: str) -> set[str]:
    """Where an exposition is not what the table says of processes of its kind."""
    wanted = {name: row for name, row in documented().items() if kind in row.kinds}
    found = exposed(text)
    return (wanted.keys() ^ found.keys()) | {
        name
        for name in wanted.keys() & found.keys()
        if wanted[name].type != found[name].type
        or found[name].labels not in (None, wanted[name].labels)
    }


def scrape(admin_url: str, accept: str) -> str:
    """The exposition, in one of two formats."""
    request = urllib.request.Request(f"{admin_url}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        assert answer.headers["Content-Type"].startswith(accept)
        return str(answer.read().decode())


def promtool(*arguments: str, text: str = "") -> str:
    """Run it; what it says, on either stream.

    Raises:
        AssertionError: It found something, or isn't there.
    """
    program = shutil.which("promtool") or str(PROMTOOL)
    assert Path(program).exists(), "promtool is missing: run tools/get-promtool.sh"
    done = subprocess.run(
        [program, *arguments], input=text, capture_output=True, text=True, timeout=SECONDS,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def check_exposition(admin_url: str, kind: str) -> None:
    """A process exposes what the table says of its kind, and promtool has no word against it."""
    assert differences(scrape(admin_url, "application/openmetrics-text"), kind) == set()
    assert promtool("check", "metrics", text=scrape(admin_url, "text/plain")) == ""
