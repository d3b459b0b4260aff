"""A job every N seconds, with jitter, under a lease; a failing one is logged, counted and tried again next time."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from matyan.observe.metrics import Metrics
from matyan.workers.leases import Lease, Leases, ProcessLeases
from matyan.workers.lifecycle import ThreadService

logger = logging.getLogger(__name__)

JITTER: Final = 0.1


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Something to do now and then."""

    name: str
    every_seconds: float
    run: Callable[[], object]
    lease: str | None = None
    """Only one process of all runs the jobs of this lease, until it stops or dies; None: every process does.

    Two may still overlap for a moment when one of them slept past its lease: every step of a job is harmless to repeat.
    """


def leased(name: str, every_seconds: float, run: Callable[[], object]) -> Job:
    """Return a job that runs in one process of all, under a lease of its own name."""
    return Job(name=name, every_seconds=every_seconds, run=run, lease=name)


class PeriodicService(ThreadService):
    """One thread that runs jobs when they are due, one after another. Every replica may run the same."""

    def __init__(self, name: str, jobs: Sequence[Job], *, metrics: Metrics, leases: Leases | None = None) -> None:
        """Put jobs on the list; without `leases` this is the only process that has them."""
        super().__init__(name)
        self._jobs = tuple(jobs)
        self._metrics = metrics
        self._leases = leases or ProcessLeases()
        self._held: dict[str, Lease] = {}

    def run(self, stop: threading.Event) -> None:
        """Run jobs until told to stop; each for the first time one period after the start."""
        try:
            self._run_due(stop)
        finally:
            for lease in self._held.values():
                self._leases.release(lease)

    def _run_due(self, stop: threading.Event) -> None:
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
            if self._is_ours(job):
                job.run()
            else:
                outcome = "elsewhere"
        except Exception:
            outcome = "failed"
            logger.exception("job failed", extra={"job": job.name})
        self._metrics.job_runs.labels(job.name, outcome).inc()
        if outcome != "elsewhere":
            self._metrics.job_seconds.labels(job.name).observe(time.monotonic() - began)

    def _is_ours(self, job: Job) -> bool:
        """Return whether this process is the one to run a job; once it is, it stays so."""
        if job.lease is None:
            return True
        lease = self._held.get(job.lease)
        if lease is not None and lease.is_held():
            return True
        if lease is not None:
            del self._held[job.lease]
            self._leases.release(lease)
        lease = self._leases.acquire(job.lease)
        if lease is not None:
            self._held[job.lease] = lease
        return lease is not None


def _period(job: Job) -> float:
    return job.every_seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - jitter, not a secret
