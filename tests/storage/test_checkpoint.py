"""Writing many documents at once: by a few threads that take what is next."""

import threading

import pytest

from amsync.storage.checkpoint import SAMPLE, WRITERS

from .conftest import OpenStore

ITEMS = list(range(2_000))


def wait_a_little() -> None:
    """As for a slow disk."""
    threading.Event().wait(0.002)


def test_each_item_is_taken_once_by_one_of_a_few_threads(open_real: OpenStore) -> None:
    taken: list[tuple[int, str]] = []

    def take(item: int) -> None:
        wait_a_little()
        taken.append((item, threading.current_thread().name))

    open_real()._checkpointer.each(take, ITEMS)

    assert sorted(item for item, _ in taken) == ITEMS
    assert [item for item, _ in taken[:SAMPLE]] == ITEMS[:SAMPLE]
    assert 2 <= len({name for _, name in taken[SAMPLE:]}) <= WRITERS


def test_an_error_is_raised_when_all_that_had_begun_have_ended(open_real: OpenStore) -> None:
    began: list[int] = []
    ended: list[int] = []

    def take(item: int) -> None:
        began.append(item)
        wait_a_little()
        if item == ITEMS[50]:
            raise OSError("no more")
        ended.append(item)

    with pytest.raises(OSError, match="no more"):
        open_real()._checkpointer.each(take, ITEMS)

    assert sorted(ended) == sorted(set(began) - {ITEMS[50]})
    assert len(began) < len(ITEMS)
