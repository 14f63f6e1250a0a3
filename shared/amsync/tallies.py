"""What metrics are made of: counters and histograms for one event loop, and labels with a bound.

What is counted for every message is added up in plain numbers and read when somebody asks: the
library's own counters take a lock and cost a microsecond each. They belong to the event loop;
whatever other threads count uses the library's.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import Counter
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

MAX_LABELS = 400
"""Different values of a counter's labels; what comes after is counted as `other`."""


class Labelled:
    """A counter with labels, whose children are looked up in a dict of ours. Thread-safe."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._children: dict[tuple[str, ...], Counter] = {}

    def inc(self, *labels: str, by: float = 1) -> None:
        """Count; the labels are in the order in which they were declared."""
        child = self._children.get(labels)
        if child is None:
            if len(self._children) >= MAX_LABELS:
                labels = ("other",) * len(labels)
            child = self._counter.labels(*labels) if labels else self._counter
            self._children[labels] = child
        child.inc(by)


class Tally(Collector):
    """A counter for what happens with every message; to be used on the loop only.

    `cell` is the fast way for callers who keep what it gave them.
    """

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._cells: dict[tuple[str, ...], list[float]] = {}

    def inc(self, *labels: str, by: float = 1) -> None:
        """Count; the labels are in the order in which they were declared."""
        self.cell(*labels)[0] += by

    def cell(self, *labels: str) -> list[float]:
        """The one number, in a list, that is counted for these labels; add to it."""
        cell = self._cells.get(labels)
        if cell is None:
            if len(self._cells) >= MAX_LABELS:
                labels = ("other",) * len(labels)
            cell = self._cells.setdefault(labels, [0.0])
        return cell

    def total(self, *last: str) -> float:
        """The sum over all labels that end with these."""
        count = len(last)
        return sum(
            cell[0] for labels, cell in self._cells.items() if not count or labels[-count:] == last
        )

    def collect(self) -> Iterable[Metric]:
        """prometheus_client: what there is now."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        if not self._labels:
            self.cell()
        for labels, (value,) in list(self._cells.items()):
            family.add_metric(labels, value)
        yield family


class Distribution(Collector):
    """A histogram for what happens with every step; to be used on the loop only."""

    def __init__(self, name: str, text: str, buckets: Sequence[float]) -> None:
        self._name, self._text, self.bounds = name, text, tuple(buckets)
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0

    def counts(self) -> list[int]:
        """Values in each bucket; the last is above all bounds."""
        return list(self._counts)

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterable[Metric]:
        """prometheus_client: what there is now."""
        buckets, total = [], 0
        for bound, count in zip(
            [*map(str, map(float, self.bounds)), "+Inf"], self._counts, strict=True
        ):
            total += count
            buckets.append((bound, float(total)))
        family = HistogramMetricFamily(self._name, self._text)
        family.add_metric([], buckets, self._sum)
        yield family
