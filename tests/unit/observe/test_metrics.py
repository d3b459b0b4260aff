"""The table of metrics and its handles."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest
from prometheus_client import Counter, Gauge, Histogram

from matyan.observe.metrics import METRICS, Kind, Metrics, add_process_metrics

CLASSES = {Kind.COUNTER: Counter, Kind.GAUGE: Gauge, Kind.HISTOGRAM: Histogram}
SOURCES = Path(__file__).parents[3] / "matyan"
KEPT = {
    "matyan_http_requests_total",
    "matyan_http_request_duration_seconds",
    "matyan_planner_path_total",
    "matyan_ws_connections_active",
    "matyan_ws_messages_total",
    "matyan_ws_connection_duration_seconds",
    "matyan_ingestion_messages_consumed_total",
    "matyan_ingestion_messages_processed_total",
    "matyan_ingestion_processing_errors_total",
    "matyan_ingestion_batch_size",
    "matyan_ingestion_batch_processing_seconds",
    "matyan_ingestion_txn_estimated_bytes",
    "matyan_ingestion_fdb_retries_total",
    "matyan_control_events_consumed_total",
    "matyan_control_events_processed_total",
    "matyan_control_processing_errors_total",
    "matyan_control_processing_duration_seconds",
}


def test_every_row_of_the_table_has_a_typed_handle_of_its_kind() -> None:
    hints = {name: kind for name, kind in get_type_hints(Metrics).items() if name != "registry"}

    assert hints == {attribute: CLASSES[metric.kind] for attribute, metric in METRICS.items()}


def test_the_names_of_the_existing_system_are_kept() -> None:
    names = {metric.name for metric in METRICS.values()}

    assert KEPT - names == set()


def test_names_are_unique_and_say_their_unit() -> None:
    names = [metric.name for metric in METRICS.values()]

    assert len(set(names)) == len(names)
    for metric in METRICS.values():
        assert re.fullmatch(r"matyan_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric.name
        assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM), metric.name


def test_the_exposition_shows_what_was_counted() -> None:
    metrics = Metrics()
    metrics.ws_frames.labels("ok").inc(3)
    text = metrics.exposition().decode()

    assert 'matyan_ws_frames_total{outcome="ok"} 3.0' in text
    assert "_created" not in text


def test_two_registries_share_nothing() -> None:
    first, second = Metrics(), Metrics()
    first.upload_bytes.inc()

    assert "matyan_upload_bytes_total 0.0" in second.exposition().decode()


def test_the_process_is_measured_too() -> None:
    metrics = Metrics()
    add_process_metrics(metrics)

    assert b"python_gc_objects_collected_total" in metrics.exposition()


def test_every_row_is_filled_by_the_code() -> None:
    filled = {name for path in SOURCES.rglob("*.py") for name in metrics_used(path)}

    assert set(METRICS) - filled == set()
    assert filled <= {*METRICS, "registry", "exposition", "add_sampler"}


def metrics_used(path: Path) -> Iterator[str]:
    """Yield what a module takes from a `metrics`, wherever it holds it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and re.search(r"(^|[._])metrics$", ast.unparse(node.value)):
            module = ast.unparse(node.value) == "matyan.observe.metrics"
            yield from () if module else (node.attr,)


def test_gauges_that_nobody_follows_are_set_when_somebody_asks() -> None:
    metrics, sizes = Metrics(), iter([7, 9])
    metrics.add_sampler(lambda: metrics.store_bytes.set(next(sizes)))

    assert [line for _ in range(2) for line in shown(metrics) if line.startswith("matyan_store_bytes")] == [
        "matyan_store_bytes 7.0",
        "matyan_store_bytes 9.0",
    ]


def test_a_gauge_that_cannot_be_read_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()

    def fail() -> None:
        raise OSError("the disk is gone")

    metrics.add_sampler(fail)
    metrics.add_sampler(lambda: metrics.streams_parked.set(3))

    assert "matyan_streams_parked 3.0" in shown(metrics)
    assert [record.message for record in caplog.records] == ["a gauge cannot be read"]


def shown(metrics: Metrics) -> list[str]:
    return metrics.exposition().decode().splitlines()
