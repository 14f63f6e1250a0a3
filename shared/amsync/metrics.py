"""The Prometheus metrics of one process, in a registry of its own.

Labels are bounded: never a document, peer or user. Sans-IO code doesn't import this module; it
reports events as (name, label), which `count` adds up.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

_LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

MAX_LABELS = 100
"""Different values of one label; what comes after is counted as `other`."""


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


class Metrics:
    """Everything that a gateway, a worker or the embedded server exposes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry

        def counter(name: str, text: str, *labels: str) -> _Labelled:
            return _Labelled(Counter(f"amsync_{name}", text, labels, registry=registry))

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"amsync_{name}", text, registry=registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"amsync_{name}", text, buckets=_LATENCY_BUCKETS, registry=registry)

        self.build = Info("amsync_build", "Versions of what runs.", registry=registry)
        self.connections = gauge("connections", "Open sockets that have joined.")
        self.handshakes = counter("handshakes", "WebSocket handshakes by result.", "result")
        self.messages = counter(
            "messages", "Protocol messages by type and direction.", "type", "direction"
        )
        self.message_bytes = counter(
            "message_bytes", "Bytes of frames by type and direction.", "type", "direction"
        )
        self.refusals = counter("refusals", "Input refused, by reason.", "reason")
        self.closes = counter("closes", "Sockets closed, by reason.", "reason")
        self.events = counter("events", "Rare events inside, by name and label.", "event", "label")
        self.documents_open = gauge("documents_open", "Documents in memory.")
        self.document_bytes = gauge("document_bytes", "Estimated bytes of documents in memory.")
        self.commit_seconds = histogram(
            "commit_seconds", "Time from a batch's submission until it is on disk."
        )
        self.fsync_seconds = histogram("fsync_seconds", "Time of one WAL write with its fsync.")
        self.committed_bytes = Counter(
            "amsync_committed_bytes", "Bytes of chunks written to the WAL.", registry=registry
        )
        self.edit_to_peer_seconds = histogram(
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
        self.loop_lag_seconds = gauge("loop_lag_seconds", "How late the last one-second tick was.")

    def count(self, event: str, label: str) -> None:
        """Count a rare event that sans-IO code reported."""
        self.events.inc(event, label)

    def exposition(self) -> tuple[bytes, str]:
        """The text of /metrics and its content type."""
        body: bytes = generate_latest(self.registry)  # type: ignore[no-untyped-call]
        return body, CONTENT_TYPE_LATEST
