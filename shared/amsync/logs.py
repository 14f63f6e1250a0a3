"""Log output of the command line: one line per event, for people or as JSON.

The package itself only logs to the loggers below `amsync`, with constant texts and fields in
`extra`; docs/logs.md lists them. Nothing here is called when amsync is embedded.

Holds: what somebody else has written (an address, a path, the text of an error) can't look like
another line or field, or steer a terminal.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}

About = Callable[[], Mapping[str, object]]
"""Fields that name the process, asked for with each line."""


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {k: v for k, v in record.__dict__.items() if k not in _STANDARD}


def _timestamp(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _escaped(text: str) -> str:
    """Text without what is not printable: control characters, line ends, changes of direction."""
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _shown(value: object) -> str:
    """A field's value, in quotes where its end would not be seen."""
    text = str(value)
    is_plain = text.isprintable() and text and not any(c in text for c in ' "=')
    return text if is_plain else json.dumps(text, ensure_ascii=not text.isprintable())


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def __init__(self, about: About = dict) -> None:
        super().__init__()
        self._about = about

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        entry: dict[str, object] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **self._about(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class ConsoleFormatter(logging.Formatter):
    """Time, level, event, then the fields as key=value; the lines of an exception are indented."""

    def __init__(self, about: About = dict) -> None:
        super().__init__()
        self._about = about

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        every = {**self._about(), **_fields(record)}
        fields = " ".join(f"{key}={_shown(value)}" for key, value in every.items())
        event = _escaped(record.getMessage())
        line = f"{_timestamp(record)} {record.levelname:7} {event} {fields}".rstrip()
        if record.exc_info:
            lines = self.formatException(record.exc_info).split("\n")
            line += "".join(f"\n    {_escaped(each)}" for each in lines)
        return line


def configure(style: str, level: str, about: About = dict, *, libraries: bool = False) -> None:
    """Send what amsync logs to standard error.

    Args:
        style: console or json.
        level: debug, info, warning or error.
        about: Fields of each line, before its own.
        libraries: Also what the libraries that we use warn of.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(about) if style == "json" else ConsoleFormatter(about))
    logger = logging.getLogger("amsync")
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
    if libraries:
        logging.getLogger().handlers = [handler]
