"""When replies are held back, and when they go out again."""

from __future__ import annotations

import asyncio
import threading

import pytest

from matyan.clock import ManualClock
from matyan.ingestion.backlog import (
    BYTES_HIGH,
    BYTES_LOW,
    RECORDS_MAX,
    SECONDS_NEAR,
    SECONDS_STUCK,
    Backlog,
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def backlog(clock: ManualClock) -> Backlog:
    return Backlog(clock)


def test_nothing_appended_is_low(backlog: Backlog) -> None:
    assert (backlog.is_low(), backlog.is_high(), backlog.is_stuck(), backlog.age_seconds()) == (True, False, False, 0)


def test_bytes_make_it_high_and_half_of_them_low_again(backlog: Backlog) -> None:
    for offset in range(5):
        backlog.appended(0, offset, BYTES_HIGH // 4)
    assert backlog.is_high()

    backlog.applied(0, 2)
    assert not backlog.is_high()
    assert not backlog.is_low()

    backlog.applied(0, 3)
    assert backlog.size_bytes == BYTES_HIGH // 4 * 2 <= BYTES_LOW
    assert backlog.is_low()


def test_the_age_of_the_oldest_record_of_any_partition_counts(backlog: Backlog, clock: ManualClock) -> None:
    backlog.appended(0, 10, 1)
    clock.advance(SECONDS_NEAR / 2)
    backlog.appended(1, 0, 1)
    clock.advance(SECONDS_NEAR / 2 + 0.001)
    assert backlog.is_high()
    assert backlog.age_seconds() == pytest.approx(SECONDS_NEAR + 0.001)

    backlog.applied(1, 1)
    assert backlog.is_high()

    backlog.applied(0, 11)
    assert backlog.is_low()


def test_a_worker_that_commits_every_50_ms_never_makes_it_high(backlog: Backlog, clock: ManualClock) -> None:
    high = []
    for round_ in range(20):
        for offset in range(round_ * 10, round_ * 10 + 10):
            backlog.appended(0, offset, 20_000)
            clock.advance(0.005)
        high.append(backlog.is_high())
        backlog.applied(0, round_ * 10 + 8)

    assert not any(high)


def test_a_record_applied_before_it_is_noted_is_not_waited_for(backlog: Backlog, clock: ManualClock) -> None:
    backlog.applied(0, 7)
    backlog.appended(0, 6, BYTES_HIGH + 1)
    clock.advance(SECONDS_STUCK + 1)

    assert backlog.is_low()


def test_workers_that_stand_still_are_stuck(backlog: Backlog, clock: ManualClock) -> None:
    backlog.appended(0, 0, 1)
    clock.advance(SECONDS_STUCK + 1)

    assert backlog.is_stuck()


def test_memory_is_bounded_and_bytes_are_still_right_when_the_worker_stands_still(backlog: Backlog) -> None:
    total = RECORDS_MAX * 3
    for offset in range(total):
        backlog.appended(0, offset, 1)
    assert len(backlog._waiting[0]) == RECORDS_MAX

    backlog.applied(0, RECORDS_MAX - 1)
    assert backlog.size_bytes == total - RECORDS_MAX + 1

    backlog.applied(0, total)
    assert backlog.size_bytes == 0


def test_a_watcher_is_woken_from_the_workers_thread_when_it_is_low_and_not_before(backlog: Backlog) -> None:
    async def watch() -> list[bool]:
        event = asyncio.Event()
        found = []
        with backlog.watching(event):
            for next_offset in (1, 4):
                thread = threading.Thread(target=backlog.applied, args=(0, next_offset))
                thread.start()
                await asyncio.to_thread(thread.join)
                await asyncio.sleep(0)  # what the thread has scheduled runs
                found.append(event.is_set())
        return found

    for offset in range(4):
        backlog.appended(0, offset, BYTES_HIGH)

    assert asyncio.run(watch()) == [False, True]


def test_watching_ends_with_its_block(backlog: Backlog) -> None:
    async def watch() -> bool:
        event = asyncio.Event()
        with backlog.watching(event):
            pass
        backlog.applied(0, 1)
        await asyncio.sleep(0)
        return event.is_set()

    assert not asyncio.run(watch())
