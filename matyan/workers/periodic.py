"""A job every N seconds, with jitter; a failing job is logged, counted and tried again next time."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from matyan.observe.metrics import Metrics
from matyan.workers.lifecycle import ThreadService

logger = logging.getLogger(__name__)

JITTER: Final = 0.1


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Something to do now and then."""

    name: str
    every_seconds: float
    run: Callable[[], object]


class PeriodicService(ThreadService):
    """One thread that runs jobs when they are due, one after another."""

    def __init__(self, name: str, jobs: Sequence[Job], *, metrics: Metrics) -> None:
        super().__init__(name)
        self._jobs = tuple(jobs)
        self._metrics = metrics

    def run(self, stop: threading.Event) -> None:
        """Run jobs until told to stop; each for the first time one period after the start."""
        due = {job.name: time.monotonic() + _period(job) for job in self._jobs}
        if not due:
            stop.wait()
        while not stop.is_set():
            for job in self._jobs:
                if due[job.name] <= time.monotonic() and not stop.is_set():
                    self._run_one(job)
                    due[job.name] = time.monotonic() + _period(job)
            stop.wait(max(0.0, min(due.values()) - time.monotonic()))

    def _run_one(self, job: Job) -> None:
        outcome = "done"
        began = time.monotonic()
        try:
            job.run()
        except Exception:
            outcome = "failed"
            logger.exception("job failed", extra={"job": job.name})
        self._metrics.job_runs.labels(job.name, outcome).inc()
        self._metrics.job_seconds.labels(job.name).observe(time.monotonic() - began)


def _period(job: Job) -> float:
    return job.every_seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - jitter, not a secret
