from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from amsync.errors import ConfigError
from amsync.gateway.limits import Limits, default_limits, table


def test_defaults_are_those_of_the_documentation() -> None:
    limits = Limits()

    assert limits.max_frame_bytes == 100 * 1024 * 1024
    assert limits.handshake_seconds == 10.0
    assert limits.max_connections == 50_000
    assert limits.creations_per_minute == 0


def test_strangers_get_stricter_ones() -> None:
    limits = default_limits(strangers=True)

    assert default_limits(strangers=False) == Limits()
    assert limits.max_connections == 1_000
    assert limits.max_connections_per_address == 50
    assert limits.max_documents_per_connection == 1_000
    assert limits.creations_per_minute == 60
    assert limits.max_frame_bytes == Limits().max_frame_bytes


@pytest.mark.parametrize("limits", [Limits(), default_limits(strangers=True)])
def test_table_has_every_limit_with_its_value_and_meaning(limits: Limits) -> None:
    lines = table(limits).splitlines()

    assert len(lines) == len(fields(Limits))
    for line, each in zip(lines, fields(Limits), strict=True):
        assert line.split()[0] == each.name
        assert line.endswith(each.metadata["text"])
        assert float(line.split()[1].replace(",", "")) == getattr(limits, each.name)
        assert len(line) < 200


def test_documentation_has_every_limit_with_both_defaults() -> None:
    text = (Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    known, strangers = Limits(), default_limits(strangers=True)

    def shown(value: float) -> str:
        return f"{value:,}" if isinstance(value, int) else f"{value:g}"

    assert [row for row in rows if row[0].strip("`") in Limits.__slots__] == [
        [
            f"`{each.name}`",
            shown(getattr(known, each.name)),
            shown(getattr(strangers, each.name)),
            each.metadata["text"],
        ]
        for each in fields(Limits)
    ]


@pytest.mark.parametrize("field", [each.name for each in fields(Limits)])
@pytest.mark.parametrize("value", [-1, "5", None, True, float("nan")])
def test_impossible_limit_is_refused_with_its_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        Limits(**{field: value})
