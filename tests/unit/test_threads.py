"""The bounded pools."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from concurrent import futures
from concurrent.futures import Future

import pytest

from matyan import threads
from matyan.errors import UnavailableError
from matyan.threads import Pool


def test_a_full_pool_refuses_at_once() -> None:
    pool, release = Pool("test", threads=1, waiting_max=1), threading.Event()
    first = pool.submit(release.wait)
    second = pool.submit(lambda: 2)

    with pytest.raises(UnavailableError, match="2 calls under way"):
        pool.submit(lambda: 3)
    release.set()

    assert (first.result(5), second.result(5)) == (True, 2)
    assert pool.close(timeout_seconds=5)


def test_a_pool_tells_how_busy_it_is() -> None:
    pool, release = Pool("test", threads=1), threading.Event()
    calls = [pool.submit(release.wait) for _ in range(3)]

    busy = pool.load()
    release.set()
    for call in calls:
        call.result(5)

    assert busy == (1, 3)
    assert pool.close(timeout_seconds=5)
    assert pool.load() == (1, 0)


def test_pools_that_nobody_used_are_not_told() -> None:
    threads.close()

    before = threads.loads()
    threads.query_pool()

    assert before == {}
    assert threads.loads() == {"query": (threads.QUERY_THREADS, 0)}


def test_a_full_pool_takes_the_next_part_of_a_call_it_let_in() -> None:
    pool, release = Pool("test", threads=1, waiting_max=0), threading.Event()
    first = pool.submit(release.wait)

    second = pool.resubmit(lambda: 2)
    release.set()

    assert (first.result(5), second.result(5)) == (True, 2)
    assert pool.close(timeout_seconds=5)
    with pytest.raises(UnavailableError, match="closed"):
        pool.resubmit(int)


def test_new_calls_come_before_the_next_parts_of_old_ones_but_not_always() -> None:
    pool, release, done = Pool("test", threads=1), threading.Event(), list[str]()
    pool.submit(release.wait)
    for number in range(3):
        pool.resubmit(done.append, f"later {number}")
    calls = [pool.submit(done.append, f"new {number}") for number in range(6)]

    release.set()
    for call in calls:
        call.result(5)
    assert pool.close(timeout_seconds=5)

    assert done[:7] == ["new 0", "new 1", "later 0", "new 2", "new 3", "new 4", "later 1"]


def test_a_pool_is_contended_when_a_call_waits() -> None:
    pool, release = Pool("test", threads=1), threading.Event()
    pool.submit(release.wait)

    alone = pool.is_contended()
    waiting = pool.submit(int)
    crowded = pool.is_contended()
    release.set()
    waiting.result(5)

    assert (alone, crowded) == (False, True)
    assert pool.close(timeout_seconds=5)


def test_next_parts_take_only_the_threads_that_are_for_them() -> None:
    pool, begun, release = Pool("test", threads=3, later_max=1), threading.Event(), threading.Event()

    def part() -> bool:
        begun.set()
        return release.wait(5)

    later = [pool.resubmit(part) for _ in range(3)]
    begun.wait(5)

    assert pool.submit(lambda: "new").result(5) == "new"
    running = [call.running() for call in later]
    release.set()

    assert running == [True, False, False]
    assert [call.result(5) for call in later] == [True] * 3
    assert pool.close(timeout_seconds=5)


def test_a_pool_that_is_always_busy_keeps_nothing_of_the_calls_it_has_run() -> None:
    pool, ended, kept = Pool("test", threads=2, later_max=1), threading.Event(), list[int]()

    def part(left: int) -> None:
        kept.append(pool._executor._work_queue.qsize())
        if left:
            pool.resubmit(part, left - 1)
        else:
            ended.set()

    chains = [pool.submit(part, 300) for _ in range(3)]
    assert ended.wait(30)

    assert all(chain.done() for chain in chains)
    assert max(kept) <= 2
    assert pool.close(timeout_seconds=5)


def test_every_call_gets_its_thread_however_calls_come_and_are_cancelled() -> None:
    pool, calls = Pool("test", threads=3, later_max=1, waiting_max=10_000), list[Future[int]]()
    lock, running, most = threading.Lock(), [0], [0]

    def part(number: int) -> int:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.0001)
        with lock:
            running[0] -= 1
        return number

    def feed(seed: int) -> None:
        chance = random.Random(seed)
        for number in range(500):
            calls.append(pool.resubmit(part, number) if chance.random() < 0.5 else pool.submit(int, number))
            if chance.random() < 0.1:
                calls[-1].cancel()
            if chance.random() < 0.05:
                time.sleep(0.001)

    feeders = [threading.Thread(target=feed, args=(seed,)) for seed in range(4)]
    for feeder in feeders:
        feeder.start()
    for feeder in feeders:
        feeder.join()

    assert futures.wait(calls, 30).not_done == set()
    assert len(calls) == 2000
    assert most == [1]
    assert pool.close(timeout_seconds=5)
    assert pool.load().calls == 0


def test_the_error_of_a_call_is_that_of_its_future() -> None:
    pool = Pool("test", threads=1)

    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result(5)
    assert pool.close(timeout_seconds=5)


def test_a_pool_takes_calls_again_when_earlier_ones_ended() -> None:
    pool = Pool("test", threads=1, waiting_max=0)

    assert [pool.submit(lambda: 1).result(5) for _ in range(1)] == [1]
    assert pool.close(timeout_seconds=5)


def test_closing_drops_what_has_not_begun_and_waits_for_the_rest() -> None:
    pool, begun, release = Pool("test", threads=1), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait()

    running = pool.submit(work)
    waiting = pool.submit(lambda: None)
    begun.wait(5)

    assert not pool.close(timeout_seconds=0.01)
    assert waiting.cancelled()
    with pytest.raises(UnavailableError, match="closed"):
        pool.submit(int)
    release.set()
    assert pool.close(timeout_seconds=5)
    assert running.done()


def test_a_closed_pool_refuses() -> None:
    pool = Pool("test", threads=1)
    pool.close()

    with pytest.raises(UnavailableError, match="closed"):
        pool.submit(lambda: None)


def test_run_blocking_returns_the_result_and_raises_the_error() -> None:
    assert asyncio.run(threads.run_blocking(divmod, 7, 2)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(threads.run_blocking(divmod, 1, 0))
    assert threads.close(timeout_seconds=5)
