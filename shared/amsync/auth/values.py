"""Checks of what an operator gave, which several parts of the configuration share."""

from collections.abc import Iterable

from amsync.errors import ConfigError


def texts(name: str, given: object) -> tuple[str, ...]:
    """One text or many, as many. Raises ConfigError."""
    if isinstance(given, str):
        given = (given,)
    if not isinstance(given, list | tuple | set | frozenset):
        raise ConfigError(f"{name}={given!r} is not allowed; give a text or a list of texts")
    values = tuple(given)
    check_texts(name, values)
    return values


def check_texts(name: str, values: Iterable[object]) -> None:
    """Refuse what is no text, empty, or has spaces in it. Raises ConfigError."""
    for each in values:
        if not isinstance(each, str) or not each or not each.isprintable() or " " in each:
            raise ConfigError(f"{name}={each!r} is not allowed; give a text without spaces")


def check_number(name: str, value: object, most: float) -> None:
    """Refuse what is no number from 0 to `most`. Raises ConfigError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ConfigError(f"{name}={value!r} is not allowed; give 0 to {most:,}")
