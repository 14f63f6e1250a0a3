"""When keys are fetched and how long they are used, without a clock and a network."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amsync.auth.freshness import (
    ASK_SECONDS,
    MAX_LIFETIME_SECONDS,
    MAX_RETRY_SECONDS,
    MIN_LIFETIME_SECONDS,
    Freshness,
    max_age_of,
)

HOUR = 3600.0
STALE = 24 * HOUR


def constant(value: float) -> Callable[[], float]:
    return lambda: value


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", None),
        ("max-age=600", 600),
        ("public, max-age=22041, must-revalidate", 22041),
        ("PUBLIC,MAX-AGE=7", 7),
        ('max-age="60"', 60),
        ("max-age=0", 0),
        ("no-store", 0),
        ("max-age=600, no-cache", 0),
        ("s-maxage=600", None),
        ("max-age=", None),
        ("max-age=-1", None),
        ("max-age=1e9", None),
        ("max-age=\u0663", None),
        ("max-age=" + "9" * 1000, None),
        ("private", None),
    ],
)
def test_lifetime_is_read_from_cache_control(text: str, wanted: float | None) -> None:
    assert max_age_of(text) == wanted


@given(st.text())
def test_any_cache_control_is_read(text: str) -> None:
    found = max_age_of(text)
    assert found is None or found >= 0


@pytest.mark.parametrize(
    ("max_age", "lifetime"),
    [
        (None, HOUR),
        (0.0, MIN_LIFETIME_SECONDS),
        (10.0, MIN_LIFETIME_SECONDS),
        (2 * HOUR, 2 * HOUR),
        (365 * 24 * HOUR, MAX_LIFETIME_SECONDS),
    ],
)
@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_keys_are_fetched_again_before_their_lifetime_ends(
    max_age: float | None, lifetime: float, chance: float
) -> None:
    freshness = Freshness(STALE, constant(chance))
    freshness.succeeded(100.0, max_age)

    assert 100 + 0.7 * lifetime < freshness.due_at < 100 + 0.9 * lifetime
    assert freshness.is_usable(100 + lifetime + STALE - 1)
    assert not freshness.is_usable(100 + lifetime + STALE)


def test_nothing_is_usable_before_the_first_keys() -> None:
    freshness = Freshness(STALE, constant(0.5))
    assert freshness.due_at == 0
    assert not freshness.is_usable(0)
    freshness.failed(10)
    assert not freshness.is_usable(10)


def test_failures_in_a_row_wait_ever_longer_up_to_a_minute() -> None:
    freshness = Freshness(STALE, constant(0.0))
    pauses = []
    for _ in range(2000):
        freshness.failed(50.0)
        pauses.append(freshness.due_at - 50.0)
    assert pauses[:7] == [1, 2, 4, 8, 16, 32, MAX_RETRY_SECONDS]
    assert set(pauses[7:]) == {MAX_RETRY_SECONDS}
    freshness.succeeded(60.0, None)
    freshness.failed(70.0)
    assert freshness.due_at == 71.0


def test_failures_do_not_shorten_the_life_of_known_keys() -> None:
    freshness = Freshness(STALE, constant(0.0))
    freshness.succeeded(0.0, HOUR)
    for now in range(0, 80_000, 100):
        freshness.failed(float(now))
    assert freshness.is_usable(STALE)


def test_unknown_keys_bring_about_a_fetch_only_so_often() -> None:
    freshness = Freshness(STALE, constant(0.0))
    assert freshness.may_ask(100.0)
    freshness.begins(100.0)
    assert not freshness.may_ask(100.0)
    assert not freshness.may_ask(100.0 + ASK_SECONDS - 0.1)
    assert freshness.may_ask(100.0 + ASK_SECONDS)
