"""What a worker counts while it applies slices to a real store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from matyan.clock import ManualClock
from matyan.engines.blob.filesystem import open_filesystem_blobs
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KvEngine
from matyan.errors import OffsetMovedError, TooLargeError, UnavailableError
from matyan.ingestion.apply import Applier
from matyan.ingestion.measures import IngestMeasures
from matyan.observe.metrics import DELAY_SECONDS_MAX, Metrics
from matyan.wire.messages import AddTag, CreateRun
from tests.support.applier import PARTITION, Bench, metric
from tests.support.kv import RunTwiceKv

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class MeasuredBench(Bench):
    """A bench whose applier counts."""

    def restart(self) -> Applier:
        self.metrics = Metrics()
        measures = IngestMeasures(self.metrics, ManualClock(NOW.timestamp()))
        self.applier = Applier(kv=self.kv, log_id="log", blobs=self.blobs, measures=measures)
        self.applier.start_offset(PARTITION)
        return self.applier

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


Make = Callable[[Callable[[KvEngine], KvEngine]], MeasuredBench]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    engine = open_embedded_kv(tmp_path / "kv", map_bytes=2**32)
    blobs = open_filesystem_blobs(tmp_path / "blobs", keys=[b"s" * 32])
    yield lambda wrap: MeasuredBench(wrap(engine), blobs)
    engine.close()
    blobs.close()


def bare(engine: KvEngine) -> KvEngine:
    return engine


def test_what_is_read_and_applied_is_counted_by_type(make: Make) -> None:
    bench = make(bare)

    bench.apply(CreateRun(), metric(0, 1.0), metric(1, 2.0, name="other"), AddTag("a"), AddTag("b"))

    processed = "matyan_ingestion_messages_processed_total"
    assert bench.value("matyan_ingestion_messages_consumed_total") == 5
    assert [bench.value(processed, message_type=name) for name in ("log_metric", "add_tag", "create_run")] == [2, 2, 1]
    assert bench.value("matyan_ingestion_batch_size_sum") == 5
    assert bench.value("matyan_ingestion_batch_processing_seconds_count") == 1
    assert bench.value("matyan_ingestion_fdb_retries_total") == 0


def test_a_transaction_run_again_is_a_retry_and_applied_once(make: Make) -> None:
    bench = make(RunTwiceKv)

    bench.apply(metric(0, 1.0))

    assert bench.value("matyan_ingestion_fdb_retries_total") == 1
    assert bench.value("matyan_ingestion_messages_processed_total", message_type="log_metric") == 1
    written = bench.value("matyan_ingestion_txn_estimated_bytes_sum")
    assert written is not None
    assert 100 < written < 10_000


@pytest.mark.parametrize(
    ("ago", "seen"),
    [
        (timedelta(seconds=3), 3.0),
        (timedelta(seconds=-3), 0.0),  # its clock is ahead of ours
        (timedelta(days=30), DELAY_SECONDS_MAX),  # written long ago, sent today
    ],
)
def test_the_delay_is_that_of_the_oldest_sequence_within_bounds(make: Make, ago: timedelta, seen: float) -> None:
    bench = make(bare)
    fresh = max(NOW - ago, NOW)

    bench.apply(
        metric(0, 1.0, client_datetime=fresh),
        metric(0, 1.0, name="b", client_datetime=NOW - ago),
        metric(1, 1.0, name="b", client_datetime=fresh),
    )

    assert bench.value("matyan_ingest_delay_seconds_count") == 1
    assert bench.value("matyan_ingest_delay_seconds_sum") == seen


def test_a_slice_without_points_says_nothing_of_delays(make: Make) -> None:
    bench = make(bare)

    bench.apply(CreateRun())

    assert bench.value("matyan_ingest_delay_seconds_count") == 0


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (UnavailableError("the store is away"), "fdb"),
        (TooLargeError("transaction writes too much"), "txn_too_large_split"),
        (ValueError("odd"), "validation"),
        (OverflowError("odd"), "validation"),
        (KeyError("a fault of ours"), "unknown"),
        (MemoryError(), "unknown"),
    ],
)
def test_failures_have_the_names_of_the_existing_system(error: BaseException, name: str) -> None:
    metrics = Metrics()

    IngestMeasures(metrics).failed(error)

    assert metrics.registry.get_sample_value("matyan_ingestion_processing_errors_total", {"error_type": name}) == 1


def test_a_slice_that_another_worker_applied_is_no_failure() -> None:
    metrics = Metrics()

    IngestMeasures(metrics).failed(OffsetMovedError(7))

    assert b"processing_errors_total{" not in metrics.exposition()


def test_an_outage_of_the_store_is_counted_and_nothing_else(make: Make) -> None:
    class Away:
        def __init__(self, engine: KvEngine) -> None:
            self._engine = engine
            self.read = engine.read

        def write(self, *_: Any, **__: Any) -> Any:
            raise UnavailableError("the cluster does not answer")

        def __getattr__(self, name: str) -> Any:
            return getattr(self._engine, name)

    bench = make(Away)

    with pytest.raises(UnavailableError):
        bench.apply(metric(0, 1.0))

    assert bench.value("matyan_ingestion_processing_errors_total", error_type="fdb") == 1
    assert bench.value("matyan_ingestion_batch_size_count") == 0
