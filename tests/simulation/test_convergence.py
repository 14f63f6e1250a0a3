"""The simulated network holds what the server promises, for many seeds.

A seed that fails is run alone, and told in full, by `python -m simulation SEED` in tests/.
"""

import os

import pytest

from .network import run_seed
from .oracle import Violation

SEEDS = 6_000 if os.environ.get("AMSYNC_TEST_ALL") else 500
CASES = 20


@pytest.mark.parametrize("case", range(CASES))
def test_network_converges_and_loses_nothing(case: int) -> None:
    for seed in range(case, SEEDS, CASES):
        try:
            run_seed(seed)
        except (Exception, Violation) as error:
            error.add_note(f"seed {seed}; alone: cd tests && python -m simulation {seed}")
            raise
