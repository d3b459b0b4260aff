"""What `/metrics/` says of a server that was given known data.

A raw writer sends points and one item that cannot be stored, an upload and a search follow; then every figure that
an operator looks at has to say exactly that, and what is merely waiting has to be zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import loopback
from tests.support.rest import Rest, eventually
from tests.support.server import MatyanServer
from tests.support.writer import RawWriter, create, metric, upload

POINTS: Final = 40
RUN: Final = "watched"
Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(url: str) -> Figures:
    text = loopback.get(f"{url}/metrics/").text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(figures: Figures, name: str, **labels: str) -> float:
    """Return a figure; one that nobody has set is 0."""
    return figures.get(("matyan_" + name, frozenset(labels.items())), 0.0)


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Figures]:
    home = tmp_path_factory.mktemp("watched") / "home"
    with MatyanServer(home) as server, RawWriter(server.websocket_url, RUN) as writer, Rest(server.url) as rest:
        a_second_ago = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
        writer.send(create(RUN))
        for step in range(POINTS):
            writer.send(metric(RUN, "loss", 0.5, step, client_datetime=a_second_ago))
        writer.send({"type": "no such thing"})
        upload(server.url, RUN, "file", b"bytes")
        rest.runs("run.active")
        yield eventually(lambda: scrape(server.url), is_quiet)


def is_quiet(found: Figures) -> bool:
    """Whether everything was applied, and the workers have said so: they measure their lag now and then."""
    applied = value(found, "ingestion_messages_processed_total", message_type="log_metric")
    lags = [figure for (name, _), figure in found.items() if name == "matyan_consumer_lag_records"]
    return applied == POINTS and value(found, "ingest_backlog_bytes") == 0 and not any(lags)


def test_what_was_taken_in_was_applied(figures: Figures) -> None:
    assert value(figures, "ws_messages_total", message_type="log_metric") == POINTS
    assert value(figures, "ingestion_messages_processed_total", message_type="log_metric") == POINTS
    assert value(figures, "ingestion_messages_consumed_total") == POINTS + 1
    assert value(figures, "ingest_items_total", outcome="dead") == 0


def test_what_was_refused_is_told_apart(figures: Figures) -> None:
    assert value(figures, "ingest_refused_items_total", reason="unreadable") == 1
    assert value(figures, "ws_frames_total", outcome="error") == 1


def test_delays_are_those_that_there_were(figures: Figures) -> None:
    seen = value(figures, "ingest_delay_seconds_count")

    assert seen > 0
    # The client stamped every point a second before it began to send.
    assert seen <= value(figures, "ingest_delay_seconds_sum") < 30 * seen
    assert value(figures, "ingest_visibility_seconds_count") > 0


def test_nothing_waits(figures: Figures) -> None:
    lags = {
        (dict(labels)["topic"], dict(labels)["partition"]): figure
        for (name, labels), figure in figures.items()
        if name == "matyan_consumer_lag_records"
    }

    assert lags == {("data-ingestion", "0"): 0, ("control-events", "0"): 0}
    for name in ("log_queue_bytes", "ingest_backlog_bytes", "ingest_backlog_age_seconds", "spill_bytes"):
        assert value(figures, name) == 0
    assert value(figures, "outbox_entries", topic="control-events") == 0
    assert value(figures, "dead_letters") == 0


def test_the_store_and_the_machine_are_told(figures: Figures) -> None:
    assert value(figures, "kv_transaction_seconds_count", kind="write", outcome="done") > 0
    assert value(figures, "kv_transaction_bytes_sum") > POINTS
    assert value(figures, "store_bytes") > value(figures, "store_free_bytes") >= 0
    assert value(figures, "pool_threads", pool="blocking") == 16
    assert value(figures, "uploads_total", outcome="stored") == 1
    assert figures["process_resident_memory_bytes", frozenset()] > 10_000_000


def test_every_service_runs(figures: Figures) -> None:
    running = {
        dict(labels)["service"]: figure
        for (name, labels), figure in figures.items()
        if name == "matyan_service_running"
    }

    assert {"ingest", "control", "sweep", "http"} <= set(running)
    assert set(running.values()) == {1.0}
