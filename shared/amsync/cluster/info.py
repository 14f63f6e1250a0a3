"""What processes of a cluster say about themselves with every beat: JSON, tolerant of the newer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

T = TypeVar("T", bound="_Info")


class _Info:
    """Base of both kinds; fields that are not known are passed over."""

    def pack(self) -> bytes:
        """The text for the bus."""
        names = self.__dataclass_fields__  # type: ignore[attr-defined]
        return json.dumps({name: getattr(self, name) for name in names}).encode()

    @classmethod
    def unpack(cls: type[T], text: bytes) -> T:
        """Read it back; what can't be read is as good as nothing said."""
        try:
            fields: dict[str, Any] = json.loads(text)
            known = cls.__dataclass_fields__  # type: ignore[attr-defined]
            return cls(**{name: value for name, value in fields.items() if name in known})
        except (ValueError, TypeError, AttributeError):
            return cls()


@dataclass(frozen=True, slots=True)
class WorkerInfo(_Info):
    """A worker.

    Attributes:
        version: Of amsync.
        host: Name of its machine.
        is_leaving: It gives its shards away and ends.
        shards: Of each shard that it owns, the number as text: epoch, documents in memory, and
            entries that it has taken and not finished.
        trouble: Why nothing can be saved; "" if all is well.
        figures: As `WorkerFigures` has them.
    """

    version: str = ""
    host: str = ""
    is_leaving: bool = False
    shards: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    trouble: str = ""
    figures: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GatewayInfo(_Info):
    """A gateway.

    Attributes:
        version: Of amsync.
        host: Name of its machine.
        address: Where it listens.
        is_draining: It takes no more clients.
        connections: Clients that have joined.
        figures: As `GatewayFigures` has them.
    """

    version: str = ""
    host: str = ""
    address: str = ""
    is_draining: bool = False
    connections: int = 0
    figures: Mapping[str, float | None] = field(default_factory=dict)


def known_figures(kind: type[Any], figures: Mapping[str, float | None]) -> dict[str, Any]:
    """Those that `kind` has; what an older or newer process tells may be fewer or more."""
    if not isinstance(figures, Mapping):
        return {}
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in figures.items() if name in names}
