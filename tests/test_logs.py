"""Lines of the log: one vocabulary, constant texts, and nothing that can be forged."""

import json
import logging
import re
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from amsync.logs import ConsoleFormatter, JsonFormatter, configure
from support.logcalls import LEVELS, ROOT, LogCall, _of, log_calls

DOCS = ROOT / "docs/logs.md"
RESERVED = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
LINE = frozenset({"time", "level", "logger", "event", "exception", "role"})
"""What each line has, or may have, by itself."""

EVIL = [
    "two\n2026-01-01T00:00:00.000Z ERROR   forged",
    "carriage\rreturn",
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31m and \x85 next line",
    "\u2028 separators \u2029",
    "\u202egnp.exe",
    "\x00\x7f",
    'quoted" level=critical',
    "\ud800 alone",
]


def table(heading: str) -> list[list[str]]:
    """Rows of the table below a heading of docs/logs.md."""
    section = re.split(r"^## ", DOCS.read_text(), flags=re.MULTILINE)
    (body,) = [each for each in section if each.startswith(f"{heading}\n")]
    rows = [row.strip("| ").split(" | ") for row in body.splitlines() if row.startswith("| ")]
    return rows[1:]


def documented_fields() -> set[str]:
    return {row[0].strip("`") for row in table("Fields")}


def documented_events() -> set[tuple[str, str, frozenset[str]]]:
    found = set()
    for text, level, *fields in table("Events"):
        names = frozenset(re.findall(r"`(\w+)`", " ".join(fields)))
        found.add((text.strip("`"), level.strip(), names))
    return found


@pytest.mark.parametrize("call", log_calls(), ids=lambda call: call.place)
def test_a_call_has_a_constant_text_and_known_fields(call: LogCall) -> None:
    assert call.level in LEVELS
    assert call.text is not None, "the text must be one constant; what varies is a field"
    assert call.text == call.text.strip()
    assert call.text.isprintable()
    assert "%" not in call.text
    assert call.fields is not None, "fields must be a dict of constant names"
    assert call.fields <= documented_fields()


def test_no_field_is_a_name_that_a_line_or_a_record_has_already() -> None:
    assert documented_fields() & RESERVED == set()
    assert {"time", "level", "logger", "event", "exception"} & documented_fields() == set()


def test_the_tables_are_what_the_sources_log() -> None:
    assert len(log_calls()) > 50
    assert documented_events() == {
        (call.text, call.level, call.fields) for call in log_calls() if call.text is not None
    }
    used = {field for call in log_calls() for field in call.fields or ()}
    assert documented_fields() == used | {"role", "gateway_id", "worker_id"}


@pytest.mark.parametrize(
    "source",
    [
        'log.info(f"{a} came")',
        'log.info("%s came", a)',
        "log.info(text)",
        'log.info("came", extra={name: 1})',
        'log.info("came", extra=fields())',
        'log.info("came", extra={**more})',
    ],
)
def test_what_is_not_constant_would_be_seen(source: str) -> None:
    (call,) = _of(source, "here")

    assert None in (call.text, call.fields)


def record(event: str = "something happened", **fields: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": event, "levelno": 30, "levelname": "WARNING"})
    made.__dict__.update(fields)
    return made


def failed(text: str) -> logging.LogRecord:
    made = record()
    try:
        raise ValueError(text)
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


@pytest.mark.parametrize("evil", EVIL)
def test_a_field_can_not_look_like_a_line_or_field_on_a_console(evil: str) -> None:
    line = ConsoleFormatter().format(record(error=evil, reason="plain"))

    assert line.isprintable()
    assert line.endswith(" reason=plain")
    shown = re.fullmatch(r".* error=(\".*\") reason=plain", line)
    assert shown is not None
    assert json.loads(shown[1]) == evil


@pytest.mark.parametrize("evil", EVIL)
def test_an_exception_can_not_look_like_a_line_on_a_console(evil: str) -> None:
    first, *rest = ConsoleFormatter().format(failed(evil)).split("\n")

    assert first.endswith("something happened")
    assert all(each.isprintable() and each.startswith("    ") for each in rest)


@pytest.mark.parametrize("evil", EVIL)
def test_a_line_of_json_is_one_object_whatever_it_holds(evil: str) -> None:
    for made in (record(error=evil), failed(evil)):
        line = JsonFormatter().format(made)
        assert line.isascii()
        assert line.isprintable()
        entry = json.loads(line)
        assert entry["event"] == "something happened"
        assert entry["level"] == "warning"
        assert evil in entry.get("error", "") + entry.get("exception", "")


def test_values_of_all_kinds_are_shown() -> None:
    fields = {
        "count": 3,
        "seconds": 0.5,
        "shards": [1, 2],
        "path": ROOT,
        "error": "",
        "reason": "a",
    }

    line = ConsoleFormatter().format(record(**fields))
    entry = json.loads(JsonFormatter().format(record(**fields)))

    assert f' count=3 seconds=0.5 shards="[1, 2]" path={ROOT} error="" reason=a' in line
    assert (entry["count"], entry["seconds"], entry["shards"]) == (3, 0.5, [1, 2])
    assert entry["path"] == str(ROOT)


@pytest.mark.parametrize("formatter", [JsonFormatter, ConsoleFormatter])
def test_a_process_names_itself_in_each_line(formatter: Callable[..., Any]) -> None:
    process = SimpleNamespace(name={"role": "gateway", "gateway_id": "first"})
    lines = formatter(lambda: process.name)

    assert "first" in lines.format(record())
    process.name = {"role": "gateway", "gateway_id": "second"}
    assert "second" in lines.format(record())


def test_what_libraries_warn_of_is_a_line_like_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("", "amsync"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "handlers", list(logger.handlers))
        monkeypatch.setattr(logger, "propagate", logger.propagate)
        monkeypatch.setattr(logger, "level", logger.level)

    configure("json", "info", lambda: {"role": "worker"}, libraries=True)
    logging.getLogger("asyncio").warning("a task of %s\nwas lost", "somebody")
    logging.getLogger("amsync.cluster").info("shards taken over", extra={"count": 3})

    one, two = map(json.loads, capsys.readouterr().err.splitlines())
    assert (one["logger"], one["role"]) == ("asyncio", "worker")
    assert one["event"] == "a task of somebody\nwas lost"
    assert (two["event"], two["count"]) == ("shards taken over", 3)
