"""Jobs that come again and again."""

from __future__ import annotations

import asyncio
import threading

from matyan.observe.metrics import Metrics
from matyan.workers.lifecycle import State
from matyan.workers.periodic import Job, PeriodicService


def run_until(service: PeriodicService, done: threading.Event) -> None:
    async def scenario() -> None:
        await service.start()
        assert await asyncio.to_thread(done.wait, 5)
        await service.stop()
        await service.ended()

    asyncio.run(scenario())


def test_a_failing_job_is_counted_and_comes_again_and_the_others_go_on() -> None:
    metrics, done = Metrics(), threading.Event()
    failures, successes = iter(range(2)), []

    def fail() -> None:
        next(failures)  # raises StopIteration the third time: then it counts as failed as well
        raise ValueError("boom")

    def succeed() -> None:
        successes.append(1)
        if len(successes) == 5:
            done.set()

    jobs = [Job(name="bad", every_seconds=0.005, run=fail), Job(name="good", every_seconds=0.005, run=succeed)]
    run_until(PeriodicService("test", jobs, metrics=metrics), done)

    text = metrics.exposition().decode()
    assert 'matyan_job_runs_total{job="good",outcome="done"}' in text
    assert 'matyan_job_runs_total{job="bad",outcome="failed"}' in text
    assert 'matyan_job_runs_total{job="bad",outcome="done"}' not in text


def test_no_job_runs_before_its_first_period_is_over() -> None:
    ran = threading.Event()
    service = PeriodicService("test", [Job(name="late", every_seconds=3600, run=ran.set)], metrics=Metrics())

    async def scenario() -> None:
        await service.start()
        await service.stop()
        await service.ended()

    asyncio.run(scenario())
    assert not ran.is_set()
    assert service.state is State.STOPPED
