"""Frozen dataclasses that are cheap to make.

A frozen dataclass sets each field through `object.__setattr__`, which makes it three times as
dear as one that isn't. For values that come into being with every message, `cheap` keeps what
`frozen` means to mypy and to hash, and drops the check at run time.
"""

from dataclasses import MISSING, field, fields, make_dataclass
from typing import Any, TypeVar

T = TypeVar("T")


def cheap(cls: type[T]) -> type[T]:
    """Decorate a `dataclass(frozen=True, slots=True)` without `__post_init__`."""
    copies: list[Any] = []
    for each in fields(cls):  # type: ignore[arg-type]
        default: Any = field()
        if each.default is not MISSING:
            default = field(default=each.default)
        elif each.default_factory is not MISSING:
            default = field(default_factory=each.default_factory)
        copies.append((each.name, each.type, default))
    unfrozen: Any = make_dataclass(cls.__name__, copies)
    changing: Any = cls
    changing.__init__ = unfrozen.__init__
    del changing.__setattr__, changing.__delattr__
    return cls
