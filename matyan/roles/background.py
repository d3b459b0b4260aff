"""The parts that work beside: they apply the log, follow events, tidy up. A role pays for its own: imports are late."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from matyan.engines.log.protocol import LogRecord, TopicPartition
from matyan.roles.context import (
    DATA_TOPIC,
    INGEST_GROUP,
    Context,
    backlog_of,
    graves_of,
    require_log,
    require_store,
    run_changes_of,
)
from matyan.roles.runner import Built

TRIM_SECONDS: Final = 5.0
SETTLE_SECONDS: Final = 10.0
TEND_SECONDS: Final = 60.0
FREE_SECONDS: Final = 1.0
"""How soon after a deletion its bytes are freed, and how long that may hold up the other jobs."""


def build_follow(context: Context) -> Built:
    """Make what tells the gateway how far workers in other processes are."""
    from matyan.ingestion.backlog import SECONDS_FAR, Backlog  # noqa: PLC0415 - see the module's docstring
    from matyan.ingestion.following import BacklogFollower  # noqa: PLC0415

    backlog = context.backlog = Backlog(context.clock, seconds_high=SECONDS_FAR)
    return Built(BacklogFollower(backlog, kv=context.kv, log=context.log, topic=DATA_TOPIC))


def build_ingest(context: Context) -> Built:
    """Make the worker that applies the log to the store."""
    from matyan.ingestion.apply import Applier  # noqa: PLC0415 - see the module's docstring
    from matyan.maintenance.retention import check_continuity  # noqa: PLC0415
    from matyan.workers.consume import ConsumerService, Pace  # noqa: PLC0415

    require_store(context)
    require_log(context)
    check_continuity(context.kv, context.log, DATA_TOPIC)
    applier = Applier(kv=context.kv, log_id=context.log.log_id, blobs=context.blobs)
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


def build_control(context: Context) -> Built:
    """Make what carries events out of the store and acts on them."""
    require_store(context)
    return Built()


def build_sweep(context: Context) -> Built:
    """Make the periodic jobs."""
    from matyan.entities.deletion import EntityDeletions  # noqa: PLC0415 - see the module's docstring
    from matyan.ids import DEFAULT_PROJECT  # noqa: PLC0415
    from matyan.maintenance.deletion import Deletions  # noqa: PLC0415
    from matyan.maintenance.retention import trim_applied  # noqa: PLC0415
    from matyan.maintenance.settle import settle_quiet_runs  # noqa: PLC0415
    from matyan.workers.periodic import Job, PeriodicService  # noqa: PLC0415

    kv, log, clock = context.kv, context.log, context.clock
    deletions = Deletions(kv=kv, graves=graves_of(context), clock=clock)
    entity_deletions = EntityDeletions(kv=kv, run_changes=run_changes_of(context))
    jobs = [
        Job(
            name="free-deleted",
            every_seconds=FREE_SECONDS,
            run=lambda: deletions.free_due(DEFAULT_PROJECT, seconds_max=FREE_SECONDS),
        ),
        Job(
            name="detach-deleted",
            every_seconds=FREE_SECONDS,
            run=lambda: entity_deletions.finish_all(seconds_max=FREE_SECONDS),
        ),
        Job(name="trim-log", every_seconds=TRIM_SECONDS, run=lambda: trim_applied(kv, log, DATA_TOPIC)),
        Job(name="tend-store", every_seconds=TEND_SECONDS, run=kv.tend),
        Job(
            name="settle-runs",
            every_seconds=SETTLE_SECONDS,
            run=lambda: settle_quiet_runs(kv, DEFAULT_PROJECT, clock),
        ),
    ]
    return Built(PeriodicService("sweep", jobs, metrics=context.metrics))


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
