"""The Prometheus metrics of one process, in a registry of its own.

Labels are bounded: never a document, peer or user. Sans-IO code doesn't import this module; it
reports events as (name, label), which `count` adds up.

What is counted for every message is added up in plain numbers and read when somebody asks: the
library's own counters take a lock and cost a microsecond each. They belong to the event loop;
whatever other threads count uses the library's.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

_LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

MAX_LABELS = 400
"""Different values of a counter's labels; what comes after is counted as `other`. Events alone have
some 150, as reasons of refused tokens are among them."""


class _Labelled:
    """A counter with one label, whose children are looked up in a dict of ours."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._children: dict[tuple[str, ...], Counter] = {}

    def inc(self, *labels: str, by: float = 1) -> None:
        """Count; the labels are in the order in which they were declared."""
        child = self._children.get(labels)
        if child is None:
            if len(self._children) >= MAX_LABELS:
                labels = ("other",) * len(labels)
            child = self._counter.labels(*labels)
            self._children[labels] = child
        child.inc(by)


class _Tally(Collector):
    """A counter for what happens with every message; to be used on the loop only.

    `add` is the fast way for callers who keep the cell that `cell` gave them.
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

    def collect(self) -> Iterable[Metric]:
        """prometheus_client: what there is now."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        if not self._labels:
            self.cell()
        for labels, (value,) in list(self._cells.items()):
            family.add_metric(labels, value)
        yield family


class _Distribution(Collector):
    """A histogram for what happens with every step; to be used on the loop only."""

    def __init__(self, name: str, text: str, buckets: Sequence[float]) -> None:
        self._name, self._text, self._bounds = name, text, tuple(buckets)
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterable[Metric]:
        """prometheus_client: what there is now."""
        buckets, total = [], 0
        for bound, count in zip(
            [*map(str, map(float, self._bounds)), "+Inf"], self._counts, strict=True
        ):
            total += count
            buckets.append((bound, float(total)))
        family = HistogramMetricFamily(self._name, self._text)
        family.add_metric([], buckets, self._sum)
        yield family


class Metrics:
    """Everything that a gateway, a worker or the embedded server exposes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry

        def counter(name: str, text: str, *labels: str) -> _Labelled:
            return _Labelled(Counter(f"amsync_{name}", text, labels, registry=registry))

        def tally(name: str, text: str, *labels: str) -> _Tally:
            made = _Tally(f"amsync_{name}", text, labels)
            registry.register(made)
            return made

        def distribution(name: str, text: str) -> _Distribution:
            made = _Distribution(f"amsync_{name}", text, _LATENCY_BUCKETS)
            registry.register(made)
            return made

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"amsync_{name}", text, registry=registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"amsync_{name}", text, buckets=_LATENCY_BUCKETS, registry=registry)

        self.build = Info("amsync_build", "Versions of what runs.", registry=registry)
        self.connections = gauge("connections", "Open sockets that have joined.")
        self.handshakes = counter("handshakes", "WebSocket handshakes by result.", "result")
        self.messages = tally(
            "messages", "Protocol messages by type and direction.", "type", "direction"
        )
        self.message_bytes = tally(
            "message_bytes", "Bytes of frames by type and direction.", "type", "direction"
        )
        self.refusals = counter("refusals", "Input refused, by reason.", "reason")
        self.closes = counter("closes", "Sockets closed, by reason.", "reason")
        self.events = counter("events", "Rare events inside, by name and label.", "event", "label")
        self.documents_open = gauge("documents_open", "Documents in memory.")
        self.document_bytes = gauge("document_bytes", "Estimated bytes of documents in memory.")
        self.commit_seconds = distribution(
            "commit_seconds", "Time from a batch's submission until it is on disk."
        )
        self.fsync_seconds = histogram("fsync_seconds", "Time of one WAL write with its fsync.")
        self.committed_bytes = tally("committed_bytes", "Bytes of chunks written to the WAL.")
        self.edit_to_peer_seconds = distribution(
            "edit_to_peer_seconds", "Time from a change's arrival to its way out to other peers."
        )
        self.load_seconds = histogram("load_seconds", "Time to read a document from the volume.")
        self.checkpoint_seconds = histogram("checkpoint_seconds", "Time of one checkpoint.")
        self.storage_errors = counter("storage_errors", "Failed storage operations.", "operation")
        self.volume_writable = gauge(
            "volume_writable", "1 while what clients write can be saved, 0 after a failed commit."
        )
        self.volume_writable.set(1)
        self.quarantined = gauge("quarantined_files", "Files in quarantine.")
        self.findings = gauge(
            "volume_findings", "What was found wrong on the volume since the start; see the log."
        )
        self.bus_bytes = gauge("bus_bytes", "Bytes held in the streams of the memory bus.")
        self.shards_owned = gauge("shards_owned", "Shards that this worker owns.")
        self.take_over_seconds = histogram(
            "take_over_seconds", "Time from a lease until its shards are read from the bus."
        )
        self.tls_reloads = counter("tls_reloads", "Changed certificate files, by result.", "result")
        self.tls_expires = gauge(
            "tls_certificate_expires_timestamp_seconds", "When the certificate in use ends."
        )
        self.bus_connected = gauge("bus_connected", "1 while the bus can be reached.")
        self.loop_lag_seconds = gauge("loop_lag_seconds", "How late the last one-second tick was.")

    def count(self, event: str, label: str) -> None:
        """Count a rare event that sans-IO code reported."""
        self.events.inc(event, label)

    def exposition(self) -> tuple[bytes, str]:
        """The text of /metrics and its content type."""
        body: bytes = generate_latest(self.registry)  # type: ignore[no-untyped-call]
        return body, CONTENT_TYPE_LATEST
