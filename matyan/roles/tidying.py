"""Periodic jobs that look for what was lost, forgotten or left behind. Imports are late, as in `background.py`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from matyan.roles.context import DATA_TOPIC, Context, graves_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matyan.maintenance.horizon import Horizon
    from matyan.workers.periodic import Job

RETRY_SECONDS: Final = 1.0
REPORT_SECONDS: Final = 60.0
LISTEN_SECONDS_MAX: Final = 30.0
"""How often runs are listened for; more often where they may be silent for little time."""
LISTENS_PER_SILENCE: Final = 4
WATCH_SECONDS: Final = 60.0
EXPIRE_SECONDS: Final = 600.0
ORPHANS_SECONDS: Final = 60.0
SWEEP_SECONDS: Final = 1.0
"""How long one of these jobs may hold up the others."""
HOUR_SECONDS: Final = 3600.0


def tidying_jobs(context: Context) -> Sequence[Job]:
    """Return the jobs; those with a lease run in one process of all."""
    return [*_letter_jobs(context), *_run_jobs(context)]


def _letter_jobs(context: Context) -> Sequence[Job]:
    from matyan.maintenance.letters import LetterReport, LetterRetries, trim_notices  # noqa: PLC0415
    from matyan.workers.periodic import Job, leased  # noqa: PLC0415

    retries = LetterRetries(kv=context.kv, blobs=context.blobs, producer=context.log.producer(), topic=DATA_TOPIC)
    report = LetterReport(kv=context.kv, metrics=context.metrics)
    return [
        leased("retry-letters", RETRY_SECONDS, retries.send_asked),
        Job(name="report-letters", every_seconds=REPORT_SECONDS, run=report.run),  # a gauge of every process
        leased("trim-letters", REPORT_SECONDS, partial(trim_notices, context.log)),
    ]


def _run_jobs(context: Context) -> Sequence[Job]:
    from matyan.ids import DEFAULT_PROJECT  # noqa: PLC0415
    from matyan.maintenance.orphans import Graces, Orphans  # noqa: PLC0415
    from matyan.maintenance.silence import Silence  # noqa: PLC0415
    from matyan.maintenance.tombstones import TombstoneExpiry  # noqa: PLC0415
    from matyan.maintenance.watch import Watch  # noqa: PLC0415
    from matyan.workers.periodic import leased  # noqa: PLC0415

    settings = context.settings.sweep
    kv, clock = context.kv, context.clock
    watch = Watch(kv=kv, horizon=_horizon(context).measure, clock=clock)
    expiry = TombstoneExpiry(kv=kv, limit=watch.limit, keep_seconds=settings.tombstone_hours * HOUR_SECONDS)
    orphans = Orphans(
        kv=kv,
        blobs=context.blobs,
        graves=graves_of(context),
        limit=watch.limit,
        clock=clock,
        graces=Graces(unknown_seconds=settings.orphan_hours * HOUR_SECONDS),
    )
    jobs = [
        leased("watch-horizon", WATCH_SECONDS, watch.look),
        leased("expire-tombstones", EXPIRE_SECONDS, partial(expiry.expire, DEFAULT_PROJECT, seconds_max=SWEEP_SECONDS)),
        leased(
            "free-orphans", ORPHANS_SECONDS, partial(orphans.sweep_some, DEFAULT_PROJECT, seconds_max=SWEEP_SECONDS)
        ),
    ]
    if settings.silent_seconds:
        silence = Silence(kv=kv, horizon=_horizon(context).measure, clock=clock, silent_seconds=settings.silent_seconds)
        every = min(LISTEN_SECONDS_MAX, settings.silent_seconds / LISTENS_PER_SILENCE)
        jobs.append(leased("mark-silent", every, partial(silence.mark_silent, DEFAULT_PROJECT)))
    return jobs


def _horizon(context: Context) -> Horizon:
    """Return a horizon of a job's own: it keeps what it saw when it was asked last."""
    from matyan.maintenance.horizon import Horizon  # noqa: PLC0415

    return Horizon(kv=context.kv, log=context.log, topic=DATA_TOPIC, clock=context.clock)
