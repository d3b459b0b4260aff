"""Periodic jobs that finish what was begun and keep store and log small. Imports are late, as in `background.py`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from matyan.roles.context import DATA_TOPIC, Context, graves_of, run_changes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matyan.workers.periodic import Job

FREE_SECONDS: Final = 1.0
"""How often deletions are looked for that are due, and how long that may hold up the other jobs."""
FREE_PATIENCE_SECONDS: Final = 10.0
"""How old a deletion is when the job takes it on: most are done by then, at their event."""
TRIM_SECONDS: Final = 5.0
TEND_SECONDS: Final = 60.0
SETTLE_SECONDS: Final = 10.0
INDEX_SECONDS: Final = 1.0
"""How often it is looked whether the index is complete, and how long making it may hold up the other jobs."""
CHANGES_KEPT_SECONDS: Final = 3600.0
"""Who reads the change feed less often begins anew."""
FORGET_SECONDS: Final = 3600.0
GATEWAYS_KEPT_SECONDS: Final = 90 * 86_400.0
"""So long after its last record a gateway's spill may still be forwarded by somebody without repeats."""


def standing_jobs(context: Context) -> Sequence[Job]:
    """Return the jobs; those with a lease run in one process of all."""
    return [*_deletion_jobs(context), *_log_jobs(context), *_run_jobs(context), *_store_jobs(context)]


def _deletion_jobs(context: Context) -> Sequence[Job]:
    from matyan.entities.deletion import EntityDeletions  # noqa: PLC0415
    from matyan.ids import DEFAULT_PROJECT  # noqa: PLC0415
    from matyan.maintenance.deletion import Deletions  # noqa: PLC0415
    from matyan.workers.periodic import leased  # noqa: PLC0415

    deletions = Deletions(kv=context.kv, graves=graves_of(context), clock=context.clock)
    free = partial(deletions.free_due, seconds_max=FREE_SECONDS, patience_seconds=FREE_PATIENCE_SECONDS)
    entity_deletions = EntityDeletions(kv=context.kv, run_changes=run_changes_of(context))
    return [
        leased("free-deleted", FREE_SECONDS, partial(free, DEFAULT_PROJECT)),
        leased("detach-deleted", FREE_SECONDS, partial(entity_deletions.finish_all, seconds_max=FREE_SECONDS)),
    ]


def _log_jobs(context: Context) -> Sequence[Job]:
    from matyan.maintenance.events import EVENTS_KEPT  # noqa: PLC0415
    from matyan.maintenance.retention import trim_applied  # noqa: PLC0415
    from matyan.wire.topics import CONTROL_EVENTS  # noqa: PLC0415
    from matyan.workers.periodic import leased  # noqa: PLC0415

    trim = partial(trim_applied, context.kv, context.log)
    return [
        leased("trim-log", TRIM_SECONDS, partial(trim, DATA_TOPIC)),
        leased("trim-events", TEND_SECONDS, partial(trim, CONTROL_EVENTS, keep_records=EVENTS_KEPT)),
    ]


def _run_jobs(context: Context) -> Sequence[Job]:
    from matyan.ids import DEFAULT_PROJECT  # noqa: PLC0415
    from matyan.maintenance.reindex import complete  # noqa: PLC0415
    from matyan.maintenance.settle import settle_quiet_runs  # noqa: PLC0415
    from matyan.workers.periodic import leased  # noqa: PLC0415

    kv = context.kv
    return [
        leased("settle-runs", SETTLE_SECONDS, partial(settle_quiet_runs, kv, DEFAULT_PROJECT, context.clock)),
        leased("complete-index", INDEX_SECONDS, partial(complete, kv, DEFAULT_PROJECT, seconds_max=INDEX_SECONDS)),
    ]


def _store_jobs(context: Context) -> Sequence[Job]:
    from matyan.ids import DEFAULT_PROJECT  # noqa: PLC0415
    from matyan.store.changes import trim  # noqa: PLC0415
    from matyan.store.gateways import forget_gateways  # noqa: PLC0415
    from matyan.workers.periodic import Job, leased  # noqa: PLC0415

    kv, now_seconds = context.kv, context.clock.now_seconds
    return [
        Job(name="tend-store", every_seconds=TEND_SECONDS, run=kv.tend),
        leased(
            "trim-changes",
            TEND_SECONDS,
            lambda: trim(kv, DEFAULT_PROJECT, now_seconds=now_seconds(), keep_seconds=CHANGES_KEPT_SECONDS),
        ),
        leased(
            "forget-gateways",
            FORGET_SECONDS,
            lambda: forget_gateways(kv, int((now_seconds() - GATEWAYS_KEPT_SECONDS) * 1000)),
        ),
    ]
