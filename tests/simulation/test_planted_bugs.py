"""Every deliberate defect of `planted` is seen by the simulated network, soon."""

from itertools import count, islice
from random import Random

import pytest

from .network import run_seed
from .oracle import Violation
from .plan import make_plan
from .planted import PLANTS

MOST_SEEDS = 200


@pytest.mark.parametrize("name", sorted(PLANTS))
def test_planted_bug_is_caught(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    plant, needs = PLANTS[name]
    fitting = (seed for seed in count() if not needs or getattr(make_plan(Random(seed)), needs))
    for number, seed in enumerate(islice(fitting, MOST_SEEDS), 1):
        with pytest.MonkeyPatch.context() as patch:
            plant(patch)
            try:
                run_seed(seed)
            except (Exception, Violation) as error:
                with capsys.disabled():
                    print(f"\n{name}: {number} seeds ({seed}): {str(error)[:90]}", end="")
                break
    else:
        pytest.fail(f"{name} is not seen in {MOST_SEEDS} seeds")

    # What was seen is the defect, and not something that is wrong without it.
    run_seed(seed)
