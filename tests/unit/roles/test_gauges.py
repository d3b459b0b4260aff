"""What is read from real engines when somebody scrapes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan import threads
from matyan.clock import ManualClock
from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.engines.kv.measured import MeasuredKv
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import LogEntry
from matyan.ingestion.backlog import Backlog
from matyan.observe.metrics import Metrics
from matyan.roles.gauges import sample_backlog, sample_outbox, sample_producer, sample_store, sample_threads
from matyan.store import outbox
from matyan.store.outbox import OutboxEntry
from tests.support.kv import put_all

NOW_SECONDS = 1_800_000_000.0


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[EmbeddedKv]:
    opened = open_embedded_kv(tmp_path / "kv", map_bytes=2**30)
    yield opened
    opened.close()


def sampled(metrics: Metrics, name: str, **labels: str) -> float | None:
    metrics.exposition()
    return metrics.registry.get_sample_value(name, labels)


def test_the_store_tells_its_size_and_what_of_it_is_free(metrics: Metrics, kv: EmbeddedKv) -> None:
    sample_store(metrics, kv)

    put_all(kv, [(b"%d" % number, bytes(50_000)) for number in range(20)])
    kv.write(lambda tx: tx.clear_range(b"0", b":"))

    assert sampled(metrics, "matyan_store_bytes") == kv.size_bytes()
    free = sampled(metrics, "matyan_store_free_bytes")
    assert free is not None
    assert 1_000_000 < free < kv.size_bytes()


def test_a_store_that_is_no_file_tells_nothing(metrics: Metrics, kv: EmbeddedKv) -> None:
    sample_store(metrics, MeasuredKv(kv, metrics))

    assert sampled(metrics, "matyan_store_bytes") == 0


def test_the_outbox_tells_how_much_waits_and_since_when(metrics: Metrics, kv: EmbeddedKv) -> None:
    sample_outbox(metrics, kv, ("events", "letters"), ManualClock(NOW_SECONDS))

    for seconds_ago in (90, 30):
        entry = OutboxEntry(time_ms=round((NOW_SECONDS - seconds_ago) * 1000), key=b"k", value=b"v")
        kv.write(lambda tx, entry=entry: outbox.put(tx, "events", entry, name=b""))  # type: ignore[misc]  # called at once

    assert sampled(metrics, "matyan_outbox_entries", topic="events") == 2
    assert sampled(metrics, "matyan_outbox_age_seconds", topic="events") == 90
    assert sampled(metrics, "matyan_outbox_entries", topic="letters") == 0
    assert sampled(metrics, "matyan_outbox_age_seconds", topic="letters") == 0


def test_the_producer_tells_what_is_not_durable(metrics: Metrics, tmp_path: Path) -> None:
    log = open_embedded_log(tmp_path / "log", partitions=1)
    sample_producer(metrics, log.producer())
    reached, go_on = threading.Event(), threading.Event()

    def hold_the_writer(_: object) -> None:
        reached.set()
        go_on.wait(5)

    log.producer().append_many("t", [LogEntry(b"k", b"")]).add_done_callback(hold_the_writer)
    reached.wait(5)
    waiting = log.producer().append_many("t", [LogEntry(b"k", bytes(1000))])
    queued = sampled(metrics, "matyan_log_queue_bytes")
    go_on.set()
    waiting.result(5)
    log.close()

    assert queued is not None
    assert queued > 1000
    assert sampled(metrics, "matyan_log_queue_bytes") == 0


def test_the_backlog_tells_its_bytes_and_its_age(metrics: Metrics) -> None:
    clock = ManualClock()
    backlog = Backlog(clock)
    sample_backlog(metrics, backlog)

    backlog.appended(0, 0, 500)
    clock.advance(3.0)

    assert sampled(metrics, "matyan_ingest_backlog_bytes") == 500
    assert sampled(metrics, "matyan_ingest_backlog_age_seconds") == 3.0


def test_pools_tell_how_busy_they_are(metrics: Metrics) -> None:
    threads.configure(query_threads=2)
    sample_threads(metrics)
    release = threading.Event()
    calls = [threads.query_pool().submit(release.wait) for _ in range(3)]

    busy = sampled(metrics, "matyan_pool_calls", pool="query")
    release.set()
    for call in calls:
        call.result(5)
    threads.close(timeout_seconds=5)

    assert busy == 3
    assert sampled(metrics, "matyan_pool_threads", pool="query") == 2
    assert sampled(metrics, "matyan_streams_parked") == 0
