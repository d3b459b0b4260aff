"""The parts that work beside: they apply the log, follow events, tidy up. A role pays for its own: imports are late."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matyan.engines.log.protocol import LogRecord, TopicPartition
from matyan.roles.context import (
    CONTROL_GROUP,
    DATA_TOPIC,
    INGEST_GROUP,
    Context,
    backlog_of,
    graves_of,
    handover_of,
    leases_of,
    require_log,
    require_store,
)
from matyan.roles.gauges import sample_outbox
from matyan.roles.jobs import standing_jobs
from matyan.roles.runner import Built
from matyan.roles.tidying import tidying_jobs


def build_follow(context: Context) -> Built:
    """Make what tells the gateway how far workers in other processes are."""
    from matyan.ingestion.backlog import SECONDS_FAR, Backlog  # noqa: PLC0415 - see the module's docstring
    from matyan.ingestion.following import BacklogFollower  # noqa: PLC0415

    backlog = context.backlog = Backlog(context.clock, seconds_high=SECONDS_FAR)
    return Built(BacklogFollower(backlog, kv=context.kv, log=context.log, topic=DATA_TOPIC))


def build_ingest(context: Context) -> Built:
    """Make the worker that applies the log to the store."""
    from matyan.ingestion.apply import Applier  # noqa: PLC0415 - see the module's docstring
    from matyan.ingestion.measures import IngestMeasures  # noqa: PLC0415
    from matyan.maintenance.retention import check_continuity  # noqa: PLC0415
    from matyan.workers.consume import ConsumerService, Pace  # noqa: PLC0415

    require_store(context)
    require_log(context)
    check_continuity(context.kv, context.log, DATA_TOPIC)
    measures = IngestMeasures(context.metrics, context.clock)
    applier = Applier(
        kv=context.kv,
        log_id=context.log.log_id,
        blobs=context.blobs,
        measures=measures,
        clock=context.clock,
        handover=handover_of(context),
    )
    ingest = context.settings.ingest
    service = ConsumerService(
        "ingest",
        open_consumer=lambda: context.log.consumer(DATA_TOPIC, INGEST_GROUP, applier.start_offset),
        handle=applier.handle,
        observe=_observe_ingest(context),
        metrics=context.metrics,
        pace=Pace(records_max=ingest.records_max, linger_seconds=ingest.linger_seconds),
    )
    return Built(service)


def build_relay(context: Context) -> Built:
    """Make what carries events and dead letters out of the store into the log."""
    from matyan.wire.topics import OUTBOX_TOPICS  # noqa: PLC0415 - see the module's docstring
    from matyan.workers.relay import OutboxRelay  # noqa: PLC0415

    require_store(context)
    sample_outbox(context.metrics, context.kv, OUTBOX_TOPICS, context.clock)
    relay = OutboxRelay(
        kv=context.kv,
        producer=context.log.producer(),
        leases=leases_of(context),
        topics=OUTBOX_TOPICS,
        metrics=context.metrics,
    )
    return Built(relay)


def build_control(context: Context) -> Built:
    """Make what acts on events."""
    from matyan.maintenance.deletion import Deletions  # noqa: PLC0415 - see the module's docstring
    from matyan.maintenance.events import RECORDS_MAX, Effects, EventHandler  # noqa: PLC0415
    from matyan.wire.topics import CONTROL_EVENTS  # noqa: PLC0415
    from matyan.workers.consume import ConsumerService, Pace  # noqa: PLC0415

    require_store(context)
    deletions = Deletions(kv=context.kv, graves=graves_of(context), clock=context.clock)
    handler = EventHandler(
        kv=context.kv,
        log=context.log,
        effects=Effects(kv=context.kv, deletions=deletions),
        metrics=context.metrics,
        clock=context.clock,
    )
    service = ConsumerService(
        "control",
        open_consumer=lambda: context.log.consumer(CONTROL_EVENTS, CONTROL_GROUP, handler.start_offset),
        handle=handler.handle,
        observe=lambda *_: None,
        metrics=context.metrics,
        pace=Pace(records_max=RECORDS_MAX),
    )
    return Built(service)


def build_sweep(context: Context) -> Built:
    """Make the periodic jobs."""
    from matyan.workers.periodic import PeriodicService  # noqa: PLC0415 - see the module's docstring

    jobs = [*standing_jobs(context), *tidying_jobs(context)]
    return Built(PeriodicService("sweep", jobs, metrics=context.metrics, leases=leases_of(context)))


def _observe_ingest(context: Context) -> Callable[[TopicPartition, Sequence[LogRecord], Any], None]:
    """Return what the worker calls after each slice: it counts, and tells the backlog."""
    metrics, clock, backlog = context.metrics, context.clock, backlog_of(context)

    def observe(partition: TopicPartition, records: Sequence[LogRecord], outcome: Any) -> None:
        metrics.ingest_records.labels("applied").inc(outcome.records)
        metrics.ingest_records.labels("repeated").inc(len(records) - outcome.records)
        metrics.ingest_items.labels("applied").inc(outcome.commands - outcome.dead_letters - outcome.dropped_deleted)
        metrics.ingest_items.labels("dropped_deleted").inc(outcome.dropped_deleted)
        metrics.ingest_items.labels("dead").inc(outcome.dead_letters)
        if outcome.records:
            metrics.ingest_visibility_seconds.observe(max(0.0, clock.now_seconds() - outcome.received_ms_min / 1000))
        backlog.applied(partition.partition, records[-1].offset + 1)

    return observe
