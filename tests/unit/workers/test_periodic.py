"""Jobs that come again and again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

from matyan.engines.kv.embedded import open_embedded_kv
from matyan.errors import UnavailableError
from matyan.observe.metrics import Metrics
from matyan.workers.leases import Lease, ProcessLeases, StoreLeases
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


def test_of_two_services_one_runs_a_job_and_the_other_takes_over_when_it_stops(tmp_path: Path) -> None:
    kv = open_embedded_kv(tmp_path, map_bytes=2**28)
    processes = [StoreLeases(kv=kv) for _ in range(2)]
    metrics = [Metrics() for _ in processes]
    ran: list[int] = []

    def make_service(number: int) -> PeriodicService:
        job = Job(name="shared", every_seconds=0.005, run=lambda: ran.append(number), lease="shared")
        return PeriodicService(f"s{number}", [job], metrics=metrics[number], leases=processes[number])

    async def scenario() -> None:
        first, second = make_service(0), make_service(1)
        await first.start()
        await until(lambda: len(ran) >= 3)
        await second.start()
        await until(lambda: 'outcome="elsewhere"' in metrics[1].exposition().decode())
        assert set(ran) == {0}
        await first.stop()
        await until(lambda: ran[-1] == 1)
        await second.stop()

    asyncio.run(scenario())

    assert ran == sorted(ran), "never both"
    assert 'outcome="elsewhere"' not in metrics[0].exposition().decode()
    for leases in processes:
        leases.close()
    kv.close()


async def until(check: Callable[[], bool]) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110 - it knows of no event
            await asyncio.sleep(0.005)


def test_a_job_without_a_lease_runs_in_every_process(tmp_path: Path) -> None:
    kv = open_embedded_kv(tmp_path, map_bytes=2**28)
    leases = StoreLeases(kv=kv)
    dones = [threading.Event(), threading.Event()]

    for number, done in enumerate(dones):
        job = Job(name="own", every_seconds=0.005, run=done.set)
        run_until(PeriodicService(f"s{number}", [job], metrics=Metrics(), leases=leases), done)

    assert all(done.is_set() for done in dones)
    assert leases.acquire("own") is not None
    leases.close()
    kv.close()


def test_a_job_whose_lease_cannot_be_asked_for_fails_and_comes_again() -> None:
    metrics, done, failures = Metrics(), threading.Event(), iter(range(2))

    class Faltering(ProcessLeases):
        def acquire(self, name: str) -> Lease | None:
            if next(failures, None) is not None:
                raise UnavailableError("store away")
            return super().acquire(name)

    job = Job(name="shared", every_seconds=0.005, run=done.set, lease="shared")
    run_until(PeriodicService("test", [job], metrics=metrics, leases=Faltering()), done)

    assert 'matyan_job_runs_total{job="shared",outcome="failed"} 2.0' in metrics.exposition().decode()


def test_a_lease_that_was_lost_is_asked_for_anew(tmp_path: Path) -> None:
    kv = open_embedded_kv(tmp_path, map_bytes=2**28)
    # Expired for most of the time from one run to the next, so that others get their turn.
    ours, theirs = StoreLeases(kv=kv, seconds=0.05), StoreLeases(kv=kv)
    ran: list[float] = []
    job = Job(name="shared", every_seconds=0.15, run=lambda: ran.append(time.monotonic()), lease="shared")

    async def scenario() -> None:
        service = PeriodicService("test", [job], metrics=Metrics(), leases=ours)
        await service.start()
        await until(lambda: bool(ran))
        ours.close()  # as if the process slept: nothing is renewed any more
        with theirs.holding("shared", wait_seconds=10):
            await asyncio.sleep(0.05)
            during = len(ran)
            await asyncio.sleep(0.5)
            assert len(ran) == during
        await until(lambda: len(ran) > during)
        await service.stop()

    asyncio.run(scenario())
    theirs.close()
    kv.close()
