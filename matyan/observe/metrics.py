"""Table of all metrics, registry, text exposition.

Names recorded in the contract keep their names. Labels come from closed sets: never a run id, a path or an address.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import generate_latest

# Otherwise every counter brings a second series with the time of its creation, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the package is typed, this function is not

logger = logging.getLogger(__name__)

CONTENT_TYPE: Final = "text/plain; version=0.0.4"

DELAY_SECONDS_MAX: Final = 3600.0
"""A delay by the clock of a client is cut off here: what lies above says that its clock is wrong or its data old."""

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_HTTP_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG_SECONDS: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
_DELAY_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, DELAY_SECONDS_MAX)
_COUNTS: Final = (1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0, 5000.0, 10000.0, 50000.0)
_BYTES: Final = (1e3, 1e4, 1e5, 2.5e5, 5e5, 1e6, 2.5e6, 5e6, 1e7)


class Kind(StrEnum):
    """What a metric can do: only rise, go both ways, or count observations by size."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(msgspec.Struct, frozen=True):
    """One row of the table."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_HTTP: Final = ("method", "path_template", "status_class")

METRICS: Final[Mapping[str, Metric]] = {
    # ---- HTTP and WebSocket
    "http_requests": Metric("matyan_http_requests_total", _C, "requests", "HTTP requests answered", _HTTP),
    "http_request_seconds": Metric(
        "matyan_http_request_duration_seconds", _H, "seconds", "time to the end of the answer", _HTTP, _HTTP_SECONDS
    ),
    "ws_connections": Metric("matyan_ws_connections_active", _G, "connections", "open WebSocket connections"),
    "ws_messages": Metric("matyan_ws_messages_total", _C, "messages", "messages taken in by type", ("message_type",)),
    "ws_connection_seconds": Metric(
        "matyan_ws_connection_duration_seconds", _H, "seconds", "life of a WebSocket connection", (), _LONG_SECONDS
    ),
    "ws_frames": Metric(
        "matyan_ws_frames_total", _C, "frames", "frames answered: ok, error, repeated or held back", ("outcome",)
    ),
    "ws_cut_connections": Metric(
        "matyan_ws_cut_connections_total",
        _C,
        "connections",
        "connections that ended without a close frame: the client died, or sent a frame over 16 MiB",
    ),
    "ws_refused_handshakes": Metric(
        "matyan_ws_refused_handshakes_total", _C, "handshakes", "connections answered 503, by reason", ("reason",)
    ),
    "uploads": Metric("matyan_uploads_total", _C, "uploads", "files received by the upload route", ("outcome",)),
    "upload_bytes": Metric("matyan_upload_bytes_total", _C, "bytes", "bytes received by the upload route"),
    # ---- ingestion: what the gateway takes in and the worker applies
    "ingest_refused_items": Metric(
        "matyan_ingest_refused_items_total",
        _C,
        "items",
        "items refused for good: unreadable, out_of_bounds, too_many in one frame",
        ("reason",),
    ),
    "ingest_backlog_bytes": Metric(
        "matyan_ingest_backlog_bytes", _G, "bytes", "frames that this gateway acknowledged and no worker has applied"
    ),
    "ingest_backlog_seconds": Metric(
        "matyan_ingest_backlog_age_seconds", _G, "seconds", "how long the oldest of them has waited"
    ),
    "log_queue_bytes": Metric(
        "matyan_log_queue_bytes", _G, "bytes", "records taken by this process that the log has not confirmed yet"
    ),
    "spill_active": Metric(
        "matyan_spill_active", _G, "boolean", "1 while records go to this gateway's disk because the log is away"
    ),
    "spill_records": Metric("matyan_spill_records", _G, "records", "records on that disk that wait for the log"),
    "spill_bytes": Metric("matyan_spill_bytes", _G, "bytes", "bytes of these records"),
    "spill_forwarded": Metric(
        "matyan_spill_forwarded_total", _C, "records", "records forwarded from the disk to the log"
    ),
    "spill_set_aside": Metric(
        "matyan_spill_set_aside_total", _C, "records", "records that the log refuses for good, kept aside on that disk"
    ),
    "ingest_records": Metric(
        "matyan_ingest_records_total", _C, "records", "log records by what became of them", ("outcome",)
    ),
    "ingest_items": Metric(
        "matyan_ingest_items_total", _C, "items", "items by outcome: applied, dropped_deleted, dead", ("outcome",)
    ),
    "ingest_visibility_seconds": Metric(
        "matyan_ingest_visibility_seconds", _H, "seconds", "from durable in the log to visible", (), _SECONDS
    ),
    "ingest_delay_seconds": Metric(
        "matyan_ingest_delay_seconds",
        _H,
        "seconds",
        "from the client's time stamp to visible, the worst of each run in a transaction; between 0 and an hour",
        (),
        _DELAY_SECONDS,
    ),
    "ingestion_messages_consumed": Metric(
        "matyan_ingestion_messages_consumed_total", _C, "messages", "messages read from the log"
    ),
    "ingestion_messages_processed": Metric(
        "matyan_ingestion_messages_processed_total", _C, "messages", "messages applied by type", ("message_type",)
    ),
    "ingestion_processing_errors": Metric(
        "matyan_ingestion_processing_errors_total",
        _C,
        "errors",
        "failures: fdb (an engine cannot work now), validation, unknown, txn_too_large_split",
        ("error_type",),
    ),
    "ingestion_batch_size": Metric(
        "matyan_ingestion_batch_size", _H, "messages", "messages in one transaction", (), _COUNTS
    ),
    "ingestion_batch_seconds": Metric(
        "matyan_ingestion_batch_processing_seconds", _H, "seconds", "time of one transaction", (), _SECONDS
    ),
    "ingestion_transaction_bytes": Metric(
        "matyan_ingestion_txn_estimated_bytes",
        _H,
        "bytes",
        "keys and values that one transaction of the worker wrote",
        (),
        _BYTES,
    ),
    "ingestion_retries": Metric(
        "matyan_ingestion_fdb_retries_total", _C, "retries", "transactions of the worker run again by the store"
    ),
    # ---- control
    "control_events_consumed": Metric(
        "matyan_control_events_consumed_total", _C, "events", "events read from control-events"
    ),
    "control_events_processed": Metric(
        "matyan_control_events_processed_total", _C, "events", "events whose side effect is done", ("event_type",)
    ),
    "control_processing_errors": Metric(
        "matyan_control_processing_errors_total",
        _C,
        "errors",
        "failures: validation, fdb (the store), blob_storage, unknown",
        ("error_type",),
    ),
    "control_processing_seconds": Metric(
        "matyan_control_processing_duration_seconds", _H, "seconds", "time of one event", (), _SECONDS
    ),
    "outbox_entries": Metric(
        "matyan_outbox_entries",
        _G,
        "entries",
        "what the store holds for a topic and the relay has not appended yet; 100 stands for that many or more",
        ("topic",),
    ),
    "outbox_age_seconds": Metric(
        "matyan_outbox_age_seconds", _G, "seconds", "how long the oldest of them has waited", ("topic",)
    ),
    # ---- workers and services
    "dead_letters": Metric(
        "matyan_dead_letters", _G, "letters", "items that could not be stored and wait for somebody to look"
    ),
    "consumer_lag_records": Metric(
        "matyan_consumer_lag_records",
        _G,
        "records",
        "durable records that this consumer has not read yet, of each partition it has",
        ("topic", "partition"),
    ),
    "worker_retries": Metric(
        "matyan_worker_retries_total", _C, "slices", "slices that come again, by reason", ("worker", "reason")
    ),
    "job_runs": Metric(
        "matyan_job_runs_total", _C, "runs", "periodic jobs by outcome: done, failed, elsewhere", ("job", "outcome")
    ),
    "job_seconds": Metric("matyan_job_duration_seconds", _H, "seconds", "time of one run", ("job",), _LONG_SECONDS),
    "service_running": Metric("matyan_service_running", _G, "boolean", "1 while the service runs", ("service",)),
    # ---- engines and queries
    "kv_transaction_seconds": Metric(
        "matyan_kv_transaction_seconds", _H, "seconds", "time of one transaction", ("kind", "outcome"), _SECONDS
    ),
    "kv_transaction_bytes": Metric(
        "matyan_kv_transaction_bytes", _H, "bytes", "keys and values that a committed transaction wrote", (), _BYTES
    ),
    "kv_retries": Metric(
        "matyan_kv_retries_total", _C, "retries", "transactions run again: conflicts, old snapshots", ("kind",)
    ),
    "store_bytes": Metric("matyan_store_bytes", _G, "bytes", "space that the embedded store takes on disk"),
    "store_free_bytes": Metric(
        "matyan_store_free_bytes", _G, "bytes", "of that, what the next writes use before the file grows"
    ),
    "pool_calls": Metric(
        "matyan_pool_calls", _G, "calls", "calls that run in a thread pool or wait for a thread", ("pool",)
    ),
    "pool_threads": Metric("matyan_pool_threads", _G, "threads", "calls that the pool runs at once", ("pool",)),
    "streams_parked": Metric(
        "matyan_streams_parked", _G, "streams", "answers that wait, without a thread, for a client to take more"
    ),
    "planner_path": Metric(
        "matyan_planner_path_total",
        _C,
        "queries",
        "how the runs of searches were found: newest, index, scan",
        ("path", "endpoint", "reason"),
    ),
    "query_seconds": Metric("matyan_query_seconds", _H, "seconds", "time of one search", ("endpoint",), _SECONDS),
    "query_scanned_rows": Metric("matyan_query_scanned_rows_total", _C, "rows", "runs and sequences looked at"),
    "query_stopped": Metric(
        "matyan_query_stopped_total", _C, "queries", "searches ended early: disconnect, deadline, error", ("reason",)
    ),
    "cached_bytes": Metric("matyan_cached_bytes", _G, "bytes", "memory of the runs kept for searches"),
}
"""Attribute of `Metrics` -> what it measures. `docs/reference/metrics.md` is made from it."""


class Metrics:
    """Typed handles of every metric, in a registry of their own; given to the parts that count."""

    http_requests: Counter
    http_request_seconds: Histogram
    ws_connections: Gauge
    ws_messages: Counter
    ws_connection_seconds: Histogram
    ws_frames: Counter
    ws_cut_connections: Counter
    ws_refused_handshakes: Counter
    uploads: Counter
    upload_bytes: Counter
    ingest_refused_items: Counter
    ingest_records: Counter
    ingest_items: Counter
    ingest_backlog_bytes: Gauge
    ingest_backlog_seconds: Gauge
    log_queue_bytes: Gauge
    spill_active: Gauge
    spill_records: Gauge
    spill_bytes: Gauge
    spill_forwarded: Counter
    spill_set_aside: Counter
    ingest_visibility_seconds: Histogram
    ingest_delay_seconds: Histogram
    ingestion_messages_consumed: Counter
    ingestion_messages_processed: Counter
    ingestion_processing_errors: Counter
    ingestion_batch_size: Histogram
    ingestion_batch_seconds: Histogram
    ingestion_transaction_bytes: Histogram
    ingestion_retries: Counter
    control_events_consumed: Counter
    control_events_processed: Counter
    control_processing_errors: Counter
    control_processing_seconds: Histogram
    dead_letters: Gauge
    outbox_entries: Gauge
    outbox_age_seconds: Gauge
    consumer_lag_records: Gauge
    worker_retries: Counter
    job_runs: Counter
    job_seconds: Histogram
    service_running: Gauge
    kv_transaction_seconds: Histogram
    kv_transaction_bytes: Histogram
    kv_retries: Counter
    store_bytes: Gauge
    store_free_bytes: Gauge
    pool_calls: Gauge
    pool_threads: Gauge
    streams_parked: Gauge
    planner_path: Counter
    query_seconds: Histogram
    query_scanned_rows: Counter
    query_stopped: Counter
    cached_bytes: Gauge

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        for attribute, metric in METRICS.items():
            setattr(self, attribute, _make(metric, self.registry))
        self._samplers: list[Callable[[], None]] = []

    def add_sampler(self, sample: Callable[[], None]) -> None:
        """Call `sample` before every exposition: it sets gauges of what would cost too much to follow all the time."""
        self._samplers.append(sample)

    def exposition(self) -> bytes:
        """Return every metric as Prometheus text 0.0.4. May block for a moment."""
        for sample in self._samplers:
            try:
                sample()
            except Exception:
                # The gauge keeps its value; an outage of one engine must not hide the figures that tell of it.
                logger.warning("a gauge cannot be read", exc_info=True)
        return generate_latest(self.registry)


def _make(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    match metric.kind:
        case Kind.COUNTER:
            return Counter(metric.name, metric.meaning, metric.labels, registry=registry)
        case Kind.GAUGE:
            return Gauge(metric.name, metric.meaning, metric.labels, registry=registry)
        case Kind.HISTOGRAM:
            return Histogram(metric.name, metric.meaning, metric.labels, registry=registry, buckets=metric.buckets)


def add_process_metrics(metrics: Metrics) -> None:
    """Add memory, processor time, open files and garbage collection of this process."""
    from prometheus_client import GCCollector, ProcessCollector  # noqa: PLC0415 - reads /proc; only servers want it

    ProcessCollector(registry=metrics.registry)
    GCCollector(registry=metrics.registry)
