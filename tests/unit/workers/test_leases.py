"""What a process holds stays its own while it lives, and passes on when it does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from matyan.clock import ManualClock
from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.errors import LeaseLostError, UnavailableError
from matyan.store import leases as records
from matyan.workers.leases import Lease, Leases, ProcessLeases, StoreLeases
from tests.support.kv_faults import FaultRates, FaultyKv

NAME = "job"
SECONDS_MAX = 10.0


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[EmbeddedKv]:
    engine = open_embedded_kv(tmp_path / "kv", map_bytes=2**28)
    yield engine
    engine.close()


@pytest.fixture(params=["process", "store"])
def leases(request: pytest.FixtureRequest, kv: EmbeddedKv) -> Iterator[Leases]:
    found: Leases = ProcessLeases() if request.param == "process" else StoreLeases(kv=kv)
    yield found
    found.close()


def acquired(leases: Leases) -> Lease:
    lease = leases.acquire(NAME)
    assert lease is not None
    return lease


def eventually(check: Callable[[], bool]) -> bool:
    """Return whether `check` comes true in time."""
    ends = time.monotonic() + SECONDS_MAX
    while not (found := check()) and time.monotonic() < ends:
        time.sleep(0.005)
    return found


def test_threads_exclude_each_other(leases: Leases) -> None:
    lease = acquired(leases)

    assert leases.acquire(NAME) is None
    assert leases.acquire("other") is not None
    leases.release(lease)
    assert acquired(leases).is_held()


def test_a_block_holds_a_lease_and_whoever_waits_gets_it_after(leases: Leases) -> None:
    entered, order = threading.Event(), []

    def wait() -> None:
        entered.set()
        with leases.holding(NAME, wait_seconds=SECONDS_MAX):
            order.append("second")

    with leases.holding(NAME, wait_seconds=0.0):
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert entered.wait(SECONDS_MAX)
        time.sleep(0.1)
        order.append("first")
    waiting.join(SECONDS_MAX)

    assert order == ["first", "second"]


def test_waiting_ends(leases: Leases) -> None:
    acquired(leases)

    with pytest.raises(LeaseLostError), leases.holding(NAME, wait_seconds=0.1):
        pytest.fail("two hold it")


def test_a_block_that_fails_gives_the_lease_back(leases: Leases) -> None:
    with pytest.raises(ZeroDivisionError), leases.holding(NAME, wait_seconds=0.0):
        raise ZeroDivisionError

    assert leases.acquire(NAME) is not None


def test_what_is_held_is_renewed_until_it_is_released(kv: EmbeddedKv) -> None:
    ours, theirs = StoreLeases(kv=kv, seconds=1.0), StoreLeases(kv=kv, seconds=1.0)
    lease = acquired(ours)
    ends = time.monotonic() + 2.0
    tries = 0
    while time.monotonic() < ends:
        assert theirs.acquire(NAME) is None
        assert lease.is_held()
        tries += 1
        time.sleep(0.02)

    ours.release(lease)

    assert tries > 10
    assert not lease.is_held()
    assert theirs.acquire(NAME) is not None
    ours.close()
    theirs.close()


def test_what_a_dead_process_held_passes_on_and_the_dead_one_may_not_write(kv: EmbeddedKv) -> None:
    dead, theirs = StoreLeases(kv=kv, seconds=0.3), StoreLeases(kv=kv, seconds=0.3)
    lease = acquired(dead)
    dead.close()  # as if killed: nothing is renewed any more

    assert eventually(lambda: theirs.acquire(NAME) is not None)

    assert not lease.is_held()
    with pytest.raises(LeaseLostError):
        kv.write(lease.require)
    dead.renew_all()
    assert not lease.is_held()
    theirs.close()


def test_a_holder_that_slept_past_its_expiry_holds_nothing_until_the_store_says_so(kv: EmbeddedKv) -> None:
    clock = ManualClock()
    leases = StoreLeases(kv=kv, clock=clock, seconds=10)
    lease = acquired(leases)

    clock.advance(60)
    was_held = lease.is_held()
    leases.renew_all()

    assert not was_held
    assert lease.is_held(), "nobody has taken it meanwhile"
    leases.close()


def test_a_store_out_of_reach_gives_up_nothing_at_once(kv: EmbeddedKv) -> None:
    clock = ManualClock()
    faulty = FaultyKv(kv, seed=1, rates=FaultRates())
    leases = StoreLeases(kv=faulty, clock=clock, seconds=10)
    lease = acquired(leases)
    faulty.rates = FaultRates(unavailable=1.0)

    with pytest.raises(UnavailableError):
        leases.renew_all()

    assert lease.is_held()
    clock.advance(10)
    assert not lease.is_held()
    leases.release(lease)
    record = kv.read(lambda reader: records.get(reader, NAME))
    assert record is not None
    assert record.expires_at_seconds > 0, "it is left to expire"
    leases.close()


def test_no_two_of_many_threads_of_two_processes_are_inside_at_once(kv: EmbeddedKv) -> None:
    rates = FaultRates(conflict=0.2, unknown_lost=0.1, unknown_applied=0.2)
    processes = [StoreLeases(kv=FaultyKv(kv, seed=seed, rates=rates)) for seed in (1, 2)]
    inside, overlaps, entries = [0], [0], [0]

    def enter(leases: StoreLeases) -> None:
        for _ in range(5):
            with leases.holding(NAME, wait_seconds=60.0, forget=True):
                inside[0] += 1
                overlaps[0] += inside[0] > 1
                time.sleep(0.001)
                entries[0] += 1
                inside[0] -= 1

    threads = [threading.Thread(target=enter, args=(leases,)) for leases in processes * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert (entries[0], overlaps[0]) == (30, 0)
    for leases in processes:
        leases.close()
