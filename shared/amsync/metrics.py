"""The Prometheus metrics of one process, in a registry of its own; docs/metrics.md lists them.

Labels are bounded: never a document, peer or user. Sans-IO code doesn't import this module; it
reports events as (name, label), which `count` adds up: those that an operator would plot or have
an alert for have a metric of their own, the others are `events`.

A metric is exposed by the kinds of processes that have something to say in it; in the others it
can be used all the same.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

from amsync.tallies import Distribution, Labelled, Tally

Kind = Literal["gateway", "worker", "embedded"]
"""Of processes: of a cluster, or both parts in one."""

ALL: tuple[Kind, ...] = get_args(Kind)
GATEWAYS: tuple[Kind, ...] = ("gateway", "embedded")
WORKERS: tuple[Kind, ...] = ("worker", "embedded")
CLUSTER: tuple[Kind, ...] = ("gateway", "worker")
LEASED: tuple[Kind, ...] = ("worker",)

_LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_WORK_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
"""Of what is done in the background."""

STORAGE_OPERATIONS = ("commit", "load", "list", "checkpoint", "compact", "rescan", "take_over")

OPENMETRICS = "application/openmetrics-text"


@dataclass(frozen=True, slots=True)
class Declared:
    """A metric as it was declared.

    Attributes:
        name: As Prometheus shows it; that of a histogram without `_bucket`, `_sum` or `_count`.
        kinds: Of the processes that expose it.
    """

    name: str
    type: Literal["counter", "gauge", "histogram", "info"]
    labels: tuple[str, ...]
    kinds: tuple[Kind, ...]


class Metrics:
    """Everything that a process exposes.

    Args:
        kind: Of the process; None: everything that there is.

    Attributes:
        declared: What there is in processes of any kind, but for the library's `process_*`.
    """

    def __init__(self, kind: Kind | None = None) -> None:
        self.registry = CollectorRegistry()
        self.declared: list[Declared] = []
        self._kind = kind
        self._own_events: dict[str, tuple[Labelled, bool]] = {}
        ProcessCollector(registry=self.registry)
        version = ("version", "automerge")
        self.build = Info(
            "amsync_build", "Versions of what runs.", registry=self._place("build", "info", version)
        )
        self.loop_lag_seconds = self._distribution(
            "loop_lag_seconds", "How late the event loop's one-second ticks were."
        )
        self.events = self._counter(
            "events", "Rare events inside, by name and label.", "event", "label"
        )
        self.internal_errors = self._event(
            "internal_errors", "Defects of ours that were caught, by place.", "where"
        )
        self.gaps = self._event(
            "gaps", "Entries of the bus found missing, by direction.", "direction"
        )
        self.bad_entries = self._event(
            "bad_entries", "Entries of the bus that could not be read, by stream.", "stream"
        )
        self.appends_repeated = self._event(
            "appends_repeated", "Appends to the bus made again, by direction.", "direction"
        )
        self.stream_bytes = self._gauge(
            "stream_bytes", "Bytes that the bus holds in streams which this process reads."
        )
        self.inbox_bytes = self._gauge("inbox_bytes", "Bytes read from the bus and not taken.")
        self._declare_gateway()
        self._declare_access()
        self._declare_calls()
        self._declare_worker()
        self._declare_volume()
        self._declare_cluster()
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Of what has an alert: a counter that first shows as 1 has not grown, to Prometheus."""
        for where in ("document", "deliver", "decide", "admission"):
            self.internal_errors.inc(where, by=0)
        for operation in STORAGE_OPERATIONS:
            self.storage_errors.inc(operation, by=0)
        for result in ("kept", "lost", "failed"):
            self.lease_renewals.inc(result, by=0)
        for direction in ("inbound", "outbound"):
            self.gaps.inc(direction, by=0)
        self.engine_broken.inc("EngineBroken", by=0)
        self.key_fetches.inc("ok", by=0)

    def _declare_gateway(self) -> None:
        of = GATEWAYS
        self.connections = self._gauge("connections", "Open sockets that have joined.", of)
        self.connections_paused = self._gauge(
            "connections_paused", "Sockets that are not read, as their input must wait.", of
        )
        self.handshakes = self._counter(
            "handshakes", "WebSocket handshakes by result.", "result", of=of
        )
        self.reconnects = self._counter(
            "reconnects", "Clients that were at this gateway within the last ten minutes.", of=of
        )
        both = ("type", "direction")
        self.messages = self._tally(
            "messages", "Protocol messages by type and direction.", both, of
        )
        self.message_bytes = self._tally(
            "message_bytes", "Bytes of frames by type and direction.", both, of
        )
        self._event("messages_unsent", "Messages not put on slow or closing sockets.", "type", of)
        self.refusals = self._counter("refusals", "Input refused, by reason.", "reason", of=of)
        self.closes = self._counter("closes", "Sockets closed, by reason.", "reason", of=of)
        self.edit_to_peer_seconds = self._distribution(
            "edit_to_peer_seconds",
            "Time from a change's arrival to its way out to other peers.",
            of,
        )
        self.inbound_queue_bytes = self._gauge(
            "inbound_queue_bytes",
            "Input of clients that waits for decisions on access or for workers.",
            of,
        )
        self.outbound_queue_bytes = self._gauge(
            "outbound_queue_bytes", "Output for clients that the network has not taken.", of
        )
        self._event(
            "hand_overs", "Shards whose clients were handed over (synced afresh).", "reason", of
        )
        self.tls_reloads = self._counter(
            "tls_reloads", "Changed certificate files, by result.", "result", of=of
        )
        self.tls_expires = self._gauge(
            "tls_certificate_expires_timestamp_seconds",
            "When the certificate in use ends; 0 without one.",
            of,
        )

    def _declare_access(self) -> None:
        of = GATEWAYS
        self._event("auth_accepted", "Tokens accepted, by algorithm.", "algorithm", of)
        self._event("auth_refused", "Tokens refused, by reason.", "reason", of)
        self.key_fetches = self._event(
            "auth_key_fetches", "Fetches of issuers' keys, by result.", "result", of
        )
        self.access_decisions = self._tally(
            "access_decisions",
            "Decisions on a client and a document, by who was asked and the result.",
            ("source", "result"),
            of,
        )
        self.access_failures = self._counter(
            "access_failures",
            "Decisions that could not be had, by who was asked and the reason.",
            "source",
            "reason",
            of=of,
        )
        self._event("access_orders", "Orders of operators that were applied.", "order", of)

    def _declare_calls(self) -> None:
        of = GATEWAYS
        self.admin_calls = self._counter(
            "admin_calls",
            "Calls of the admin port, by operation and status.",
            "operation",
            "status",
            of=of,
        )
        self.admin_call_seconds = self._histogram(
            "admin_call_seconds",
            "Time from a call of the admin port until its answer is there.",
            of,
        )

    def _declare_worker(self) -> None:
        of = WORKERS
        self.shards = self._gauge("shards", "Shards of the volume.", of)
        self.shards_owned = self._gauge("shards_owned", "Shards that this process owns.", of)
        self.documents_open = self._gauge("documents_open", "Documents in memory.", of)
        self.document_bytes = self._gauge(
            "document_bytes", "Estimated bytes of documents in memory.", of
        )
        self._event("documents_created", "Documents made for peers who asked.", "", of)
        self._event("documents_lost", "Documents of which nothing could be read.", "", of)
        self.lag_entries = self._gauge(
            "lag_entries", "Entries taken from the bus and not finished.", of
        )
        self.lag_seconds = self._gauge(
            "lag_seconds", "Age of the oldest entry that was read and not finished.", of
        )
        self.jobs_waiting = self._gauge(
            "jobs_waiting", "Loads, jobs and deletions that wait for a thread.", of
        )
        self.oldest_unsaved_change_seconds = self._gauge(
            "oldest_unsaved_change_seconds",
            "For so long something that clients wrote has waited to be saved.",
            of,
        )
        self.edit_to_disk_seconds = self._distribution(
            "edit_to_disk_seconds", "Time from a change's arrival until it is on disk.", of
        )
        self._event("changes_refused", "Messages whose changes were not taken.", "reason", of)
        self._event("engine_faults", "Sync messages that the engine refused.", "reason", of)
        self.engine_broken = self._event(
            "engine_broken", "Failures inside the engine, by error.", "error", of
        )
        self._event("loop_breaker_trips", "Sync loops that were broken.", "outcome", of)
        self._event(
            "unanswered_holds", "Times that a peer got nothing more until it answers.", "", of
        )
        self._event(
            "outbound_dropped", "Entries for gateways whose streams stayed full.", "", LEASED
        )
        self.load_seconds = self._histogram(
            "load_seconds", "Time to read a document from the volume.", of
        )

    def _declare_volume(self) -> None:
        of = WORKERS
        self.commit_seconds = self._distribution(
            "commit_seconds", "Time from a batch's submission until it is on disk.", of
        )
        self.fsync_seconds = self._histogram(
            "fsync_seconds", "Time of one WAL write with its fsync.", of
        )
        self.committed_bytes = self._tally(
            "committed_bytes", "Bytes of chunks written to the WAL.", (), of
        )
        self.commit_queue_bytes = self._gauge(
            "commit_queue_bytes", "Bytes of chunks that wait for the disk.", of
        )
        self.wal_bytes = self._gauge("wal_bytes", "Bytes that are in the WAL only, roughly.", of)
        self.checkpoint_seconds = self._histogram(
            "checkpoint_seconds", "Time of one checkpoint.", of, _WORK_BUCKETS
        )
        self.compaction_seconds = self._histogram(
            "compaction_seconds", "Time to compact one document.", of, _WORK_BUCKETS
        )
        self.compaction_read_bytes = self._counter(
            "compaction_read_bytes", "Bytes of the files that were compacted.", of=of
        )
        self.compaction_written_bytes = self._counter(
            "compaction_written_bytes", "Bytes of the snapshots that replace them.", of=of
        )
        self.storage_errors = self._counter(
            "storage_errors", "Failed storage operations.", "operation", of=of
        )
        self.volume_writable = self._gauge(
            "volume_writable",
            "1 while what clients write can be saved, 0 after a failed commit.",
            of,
        )
        self.volume_writable.set(1)
        self.quarantined = self._gauge("quarantined_files", "Files in quarantine.", of)
        self.findings = self._gauge(
            "volume_findings",
            "What was found wrong on the volume since the start; see the log.",
            of,
        )
        self.volume_size_bytes = self._gauge("volume_size_bytes", "Size of the file system.", of)
        self.volume_free_bytes = self._gauge(
            "volume_free_bytes", "Bytes of the file system that we may still use.", of
        )
        self.volume_inodes = self._gauge(
            "volume_inodes", "Inodes of the file system; 0 where it has no such bound.", of
        )
        self.volume_free_inodes = self._gauge(
            "volume_free_inodes", "Inodes that we may still use.", of
        )

    def _declare_cluster(self) -> None:
        self.take_over_seconds = self._histogram(
            "take_over_seconds",
            "Time from a lease until its shards are read from the bus.",
            LEASED,
        )
        self.lease_renewals = self._counter(
            "lease_renewals", "Renewals of shards' leases, by result.", "result", of=LEASED
        )
        self._event(
            "leases_overdue", "Steps that waited to know whether a lease is ours.", "", LEASED
        )
        self._event("gateways_forgotten", "Gateways that are gone.", "", LEASED)
        self._event("bus_emptied", "Times that Redis had lost everything.", "", LEASED)
        self.bus_connected = self._gauge(
            "bus_connected", "1 while the bus can be reached.", CLUSTER
        )
        self.bus_reconnects = self._counter(
            "bus_reconnects", "Connections to Redis that were lost and are back.", of=CLUSTER
        )
        self.redis_memory_used_bytes = self._gauge(
            "redis_memory_used_bytes", "Memory that Redis uses; NaN where it doesn't say.", CLUSTER
        )
        self.redis_memory_max_bytes = self._gauge(
            "redis_memory_max_bytes", "Redis's maxmemory; 0 without one.", CLUSTER
        )
        self.redis_keeps_entries = self._gauge(
            "redis_keeps_entries", "1 if Redis's eviction policy is noeviction, else 0.", CLUSTER
        )

    # -- declaring

    def _place(
        self, name: str, type_: str, labels: Collection[str] = (), of: tuple[Kind, ...] = ALL
    ) -> CollectorRegistry | None:
        """Note a metric; returns where it is registered."""
        suffix = {"counter": "_total", "info": "_info"}.get(type_, "")
        self.declared.append(Declared(f"amsync_{name}{suffix}", type_, tuple(labels), of))  # type: ignore[arg-type]
        return self.registry if self._kind is None or self._kind in of else None

    def _counter(self, name: str, text: str, *labels: str, of: tuple[Kind, ...] = ALL) -> Labelled:
        registry = self._place(name, "counter", labels, of)
        return Labelled(Counter(f"amsync_{name}", text, labels, registry=registry))

    def _event(self, name: str, text: str, label: str = "", of: tuple[Kind, ...] = ALL) -> Labelled:
        """A counter for what `count` is told by this name."""
        made = self._counter(name, text, *([label] if label else []), of=of)
        self._own_events[name] = (made, bool(label))
        return made

    def _tally(
        self, name: str, text: str, labels: Collection[str], of: tuple[Kind, ...] = ALL
    ) -> Tally:
        made = Tally(f"amsync_{name}", text, tuple(labels))
        if (registry := self._place(name, "counter", labels, of)) is not None:
            registry.register(made)
        return made

    def _gauge(self, name: str, text: str, of: tuple[Kind, ...] = ALL) -> Gauge:
        return Gauge(f"amsync_{name}", text, registry=self._place(name, "gauge", (), of))

    def _distribution(self, name: str, text: str, of: tuple[Kind, ...] = ALL) -> Distribution:
        made = Distribution(f"amsync_{name}", text, _LATENCY_BUCKETS)
        if (registry := self._place(name, "histogram", (), of)) is not None:
            registry.register(made)
        return made

    def _histogram(
        self,
        name: str,
        text: str,
        of: tuple[Kind, ...] = ALL,
        buckets: tuple[float, ...] = _LATENCY_BUCKETS,
    ) -> Histogram:
        registry = self._place(name, "histogram", (), of)
        return Histogram(f"amsync_{name}", text, buckets=buckets, registry=registry)

    # -- using

    def count(self, event: str, label: str = "") -> None:
        """Count an event, as sans-IO code reports it."""
        own = self._own_events.get(event)
        if own is None:
            self.events.inc(event, label)
            return
        counter, has_label = own
        counter.inc(*([label] if has_label else []))

    @property
    def own_events(self) -> frozenset[str]:
        """Names that `count` may be told and that have a metric of their own."""
        return frozenset(self._own_events)

    def exposition(self, accept: str = OPENMETRICS) -> tuple[bytes, str]:
        """The text of /metrics and its content type, in the best format that `accept` allows."""
        encode, content_type = choose_encoder(accept)
        body: bytes = encode(self.registry)
        return body, content_type
