"""Values go in and come out; what doesn't fit is refused with its path."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from amsync._automerge import Document, Replica, build_document, inspect


def value_of(data: bytes) -> object:
    document, problems = Document.load([data])
    assert problems == []
    return document.value()


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"text": "", "long": "żółw 🐢" * 100},
        {"n": 0, "least": -(2**63), "most": 2**63 - 1, "unsigned": 2**64 - 1},
        {"f": 1.5, "yes": True, "no": False, "none": None},
        {"bytes": b"", "more": bytes(range(256))},
        {"list": [], "mixed": [1, "two", [3.0], {"four": b"4"}, None]},
        {"time": datetime(2024, 2, 29, 12, 30, 15, 250_000, tzinfo=UTC)},
        {"before": datetime(1900, 1, 1, tzinfo=UTC), "last": datetime(9999, 12, 31, tzinfo=UTC)},
        {"map": {"map": {"map": {}}}, "": {"": 1}},
    ],
)
def test_value_comes_back(value: dict[str, object]) -> None:
    assert value_of(build_document(value)) == value


def test_times_of_other_zones_come_back_in_utc() -> None:
    there = datetime(2024, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    document = value_of(build_document({"t": there}))
    assert document == {"t": there}
    assert isinstance(document, dict)
    assert document["t"].tzinfo is UTC


def test_tuple_becomes_a_list() -> None:
    assert value_of(build_document({"t": (1, 2)})) == {"t": [1, 2]}


def test_strings_become_text_that_replicas_can_edit() -> None:
    replica = Replica.load(build_document({"title": "hello"}))
    replica.splice("title", 5, 0, " there")
    assert replica.value() == {"title": "hello there"}


def test_empty_document_has_heads() -> None:
    assert len(inspect(build_document({}))[0]) == 1


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"d": value}
    return value


@pytest.mark.parametrize(
    ("value", "error", "path"),
    [
        ({"a": [1, object()]}, TypeError, r"\$\.a\[1\]"),
        ({"a": {1: 2}}, TypeError, r"\$\.a"),
        ({"a": 2**64}, ValueError, r"\$\.a"),
        ({"a": -(2**63) - 1}, ValueError, r"\$\.a"),
        ({"a": "\ud800"}, ValueError, r"\$\.a"),
        ({"a": datetime(2024, 1, 1)}, ValueError, r"\$\.a"),
        ([1], TypeError, r"\$"),
        (nested(300), ValueError, r"\$\.d"),
    ],
)
def test_value_that_does_not_fit_is_refused(
    value: object, error: type[Exception], path: str
) -> None:
    with pytest.raises(error, match=path):
        build_document(value)


def test_list_that_contains_itself_is_refused() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(ValueError, match="nested"):
        build_document({"a": value})


def test_replica_takes_scalars() -> None:
    replica = Replica()
    values = {"s": "x", "i": 1, "f": 0.5, "b": True, "n": None, "y": b"z"}
    for key, value in values.items():
        replica.put(key, value)
    assert replica.value() == values
    with pytest.raises(TypeError):
        replica.put("l", [])


def test_value_beyond_a_bound_is_refused_before_it_is_made() -> None:
    document, _ = Document.load([build_document({"a": ["x" * 1_000] * 3, "b": b"\0" * 500})])
    assert document.value() == document.value(10_000)
    for bound in (0, 64, 1_000, 3_500):
        with pytest.raises(ValueError, match="larger than is allowed"):
            document.value(bound)
    assert document.value() is not None
