"""The search for the highest rate, over servers that hold what the test says."""

from dataclasses import dataclass, replace

import pytest

from amsync.bench.serving import RunningServer, Server
from amsync.bench.workloads import HighestRate
from amsync.bench.workloads.workload import Outcome


class Restarted(RunningServer):
    """Counts how often it was thrown away."""

    restarts = 0

    def restart(self, *, keep: bool) -> float:
        assert not keep
        self.restarts += 1
        return 0.0


@dataclass(frozen=True)
class Pretended(HighestRate):
    limit: float = 0.0

    def _holds(self, server: Server, rate: float, trial: Outcome) -> bool:
        trial.figures["tried_per_second"] = rate
        trial.notes.append(f"tried {rate:.0f}")
        return rate <= self.limit


@pytest.mark.parametrize("limit", [1.0, 18.0, 32.0, 134.0, 1340.0, 19_000.0])
def test_the_rate_that_is_found_is_the_highest_but_for_the_nearness(limit: float) -> None:
    server = Restarted("ws://none", None)

    found = Pretended(limit=limit).run(server)

    held = found.figures["held_per_second"]
    assert held <= limit < held * HighestRate().nearness
    assert found.figures["tried_per_second"] == held
    assert server.restarts > 0
    assert found.notes[0] == f"tried {held:.0f}"
    assert found.notes[1].startswith("at ")


def test_a_server_that_holds_everything_is_not_asked_for_more_than_the_limit() -> None:
    search = replace(Pretended(limit=1e9), most_rate=1_000.0)

    found = search.run(Restarted("ws://none", None))

    assert found.figures["held_per_second"] == 1_000
    assert found.notes[-1] == "no higher rate than 1000/s was tried"


def test_a_server_that_holds_nothing_ends_the_search() -> None:
    found = Pretended(limit=0.0).run(Restarted("ws://none", None))

    assert found.figures["held_per_second"] == 0
    assert found.notes == ["not even the lowest rate was held"]
