"""A value becomes the JSON that it would be, within a bound, and while other threads run."""

import datetime
import json
import math
import sys
import threading
import time

import pytest

from amsync.jsonvalue import PIECE_CHARACTERS, jsonable, to_json

VALUES = [
    {},
    [],
    {"": {"a": [None, True, False, 0, -1, 2**63, 1.5, 1e300, -0.0]}},
    [math.nan, math.inf, -math.inf],
    b"\xff" * (2 * PIECE_CHARACTERS + 1),
    datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC),
    'a"\\\n\x01\x7f\u2028🎈' * PIECE_CHARACTERS,
    {'"\x01' * 20_000: ["x" * n for n in range(300)]},
]


@pytest.mark.parametrize("value", VALUES)
def test_it_is_what_json_makes_of_it(value: object) -> None:
    text = to_json(value, 10**8)

    assert text == json.dumps(jsonable(value), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "value",
    ["\x01" * 100_000, ["\x01"] * 100_000, b"x" * 500_000, [0.1] * 200_000, {"\x01" * 200_000: 1}],
)
def test_text_beyond_the_bound_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="larger than 300,000 bytes"):
        to_json(value, 300_000)


def test_other_threads_run_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0
    ended = threading.Event()

    def take_turns() -> None:
        nonlocal turns
        while not ended.is_set():
            turns += 1
            time.sleep(0)  # the next turn has to be given to it

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    other = threading.Thread(target=take_turns)
    other.start()
    try:
        before = turns
        to_json({"many": [0.1] * 100_000, "long": "\x01" * 3_000_000}, 10**8)
        taken = turns - before
    finally:
        ended.set()
        other.join()
        sys.setswitchinterval(interval)

    assert taken > 100
