"""G1 and G2 at every instant: a whole network, whose server dies at each of its file operations.

The oracle notes every head in every outgoing frame; after the crash the raw volume must hold
them all, and in the end everybody has everything.
"""

import os
from random import Random

import pytest

from .network import run_seed
from .plan import make_plan

EVERY = 1 if os.environ.get("AMSYNC_TEST_ALL") else 5


def seeds(count: int) -> list[int]:
    """Small networks that edit, checkpoint and come to no other harm."""
    plans = ((seed, make_plan(Random(seed))) for seed in range(10_000))
    calm = (
        seed
        for seed, plan in plans
        if not (plan.has_crashes or plan.has_disk_faults or plan.has_engine_faults)
        and plan.happenings <= 25
        and plan.documents > 1
    )
    return [next(calm) for _ in range(count)]


@pytest.mark.parametrize("seed", seeds(4))
def test_nothing_named_is_lost_whatever_the_instant_of_the_crash(seed: int) -> None:
    boundaries = run_seed(seed).files.operations
    assert boundaries > 50

    for crash_at in range(1 + seed % EVERY, boundaries, EVERY):
        run_seed(seed, crash_at=crash_at)
