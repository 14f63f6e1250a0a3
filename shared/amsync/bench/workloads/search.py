"""The highest rate that a server holds."""

from dataclasses import dataclass, replace
from math import sqrt
from typing import Self

from amsync.bench.errors import WrongDelivery
from amsync.bench.load import Load
from amsync.bench.serving import Server
from amsync.bench.workloads.fan_out import FanOut
from amsync.bench.workloads.workload import Outcome, add_deliveries, measured

FIRST_STEP = 4.0
LEAST_RATE = 0.5
GRACE_SECONDS = 2.0
"""A server that is this far behind at the end of a trial does not hold the rate."""


@dataclass(frozen=True, slots=True)
class HighestRate:
    """Changes per second to many readers with p99 below a limit: steps of 4, then bisected."""

    readers: int = 100
    history: int = 300
    first_rate: float = 32.0
    seconds: float = 3.0
    limit_seconds: float = 0.25
    nearness: float = 1.12
    most_rate: float = 20_000.0

    headline = "held_per_second"
    more_is_better = True
    needs_restart = True

    @property
    def title(self) -> str:
        limit = round(self.limit_seconds * 1000)
        return f"highest rate to {self.readers} readers with p99 below {limit} ms: changes/s"

    def quick(self) -> Self:
        """The same with few readers, short trials and a low end."""
        return replace(self, readers=4, seconds=0.3, most_rate=100.0, nearness=2.0)

    def run(self, server: Server) -> Outcome:
        """Try rates, each with a document of its own; begin anew after one that was too high."""
        held = Outcome()
        doubts: list[str] = []
        low, high, rate = 0.0, 0.0, self.first_rate
        while not high or high / max(low, 1.0) > self.nearness:
            trial = Outcome()
            if self._holds(server, rate, trial):
                low, held = rate, trial
                held.figures["held_per_second"] = rate
            else:
                high = rate
                # A lower rate that fails makes the doubts about this one pointless.
                doubts = [f"at {rate:.0f}/s {note}" for note in trial.notes]
                server.restart(keep=False)
            if not high:
                if rate >= self.most_rate:
                    doubts = [f"no higher rate than {rate:.0f}/s was tried"]
                    break
                rate = min(rate * FIRST_STEP, self.most_rate)
            elif low:
                rate = sqrt(low * high)
            else:
                rate = high / FIRST_STEP
                if rate < LEAST_RATE:
                    doubts = ["not even the lowest rate was held"]
                    break
        held.figures.setdefault("held_per_second", 0.0)
        held.notes += doubts
        return held

    def _holds(self, server: Server, rate: float, trial: Outcome) -> bool:
        count = max(1, round(rate * self.seconds))
        with Load(*server.urls) as load:
            fan_out = FanOut(self.readers, rate, self.seconds, self.history)
            document, writer = fan_out.ready(load, count)
            try:
                with measured(server, load, trial):
                    load.write(writer, document, count, 1 / rate)
                    in_time = load.settles(self.seconds + GRACE_SECONDS)
                add_deliveries(load, trial)
                if not in_time or load.figures().p99_seconds > self.limit_seconds:
                    return False
                load.verify(document)
            except WrongDelivery:
                # Closing sockets is how a server may get rid of what is too much.
                if not load.has_lost_connections():
                    raise
                return False
        return True
