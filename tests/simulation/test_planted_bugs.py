"""Every deliberate defect of `planted` is seen by the simulated network, soon."""

import pytest

from .network import run_seed
from .planted import PLANTS

MOST_SEEDS = 120


@pytest.mark.parametrize("name", sorted(PLANTS))
def test_planted_bug_is_caught(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(MOST_SEEDS):
        with pytest.MonkeyPatch.context() as patch:
            PLANTS[name](patch)
            try:
                run_seed(seed)
            except Exception as error:
                with capsys.disabled():
                    print(f"\n{name}: seed {seed}: {type(error).__name__}: {str(error)[:90]}", end="")
                return
    pytest.fail(f"{name} is not seen in {MOST_SEEDS} seeds")
