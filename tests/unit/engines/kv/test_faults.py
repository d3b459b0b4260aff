"""The faulty engine of tests/support does what it says, and no more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KeyRange, KvEngine, KvReader, KvTransaction
from matyan.errors import TooLargeError, TooSlowError, UnavailableError
from tests.support.faulty_role import faulty, parse_rates
from tests.support.kv import counter_of, read_all
from tests.support.kv_faults import MODERATE, ROUGH, Fault, FaultRates, FaultyKv

CALLS = 100


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KvEngine]:
    engine = open_embedded_kv(tmp_path / "kv")
    yield engine
    engine.close()


def put_and_count(kv: KvEngine, runs: list[int]) -> None:
    """Make calls that are right under any fault; `runs` gets the number of the call at each run of its function."""
    for number in range(CALLS):

        def change(tx: KvTransaction, number: int = number) -> None:
            runs.append(number)
            tx.get(b"a")
            tx.put(b"%03d" % number, b"")

        try:
            kv.write(change, durable=False)
            kv.read(lambda snapshot: snapshot.get(b"a"))
        except UnavailableError:
            continue


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_seed_brings_the_same_faults_at_the_same_calls(tmp_path: Path, seed: int) -> None:
    courses = []
    for name in ("first", "second"):
        engine = open_embedded_kv(tmp_path / name)
        kv, runs = FaultyKv(engine, seed=seed, rates=ROUGH), list[int]()
        put_and_count(kv, runs)
        courses.append((runs, kv.faults))
        engine.close()

    assert courses[0] == courses[1]
    assert courses[0][1].total() > CALLS * 0.1


def test_another_seed_brings_other_faults(store: KvEngine) -> None:
    courses = []
    for seed in (1, 2):
        runs = list[int]()
        put_and_count(FaultyKv(store, seed=seed, rates=MODERATE), runs)
        courses.append(runs)

    assert courses[0] != courses[1]


@pytest.mark.parametrize("kind", ["too_old", "conflict", "unknown_lost", "unknown_applied"])
def test_a_write_under_one_error_runs_again_and_is_there_once(store: KvEngine, kind: str) -> None:
    kv, runs = FaultyKv(store, seed=1, rates=parse_rates(f"{kind}=0.5")), list[int]()

    put_and_count(kv, runs)

    assert set(kv.faults) == {kind}
    assert len(runs) > CALLS
    assert list(read_all(store)) == [b"%03d" % number for number in range(CALLS)]


def test_a_commit_of_unknown_result_was_applied_before_the_function_runs_again(store: KvEngine) -> None:
    kv, seen = FaultyKv(store, seed=1, rates=FaultRates(unknown_applied=0.99)), list[bytes | None]()

    def look_and_put(tx: KvTransaction) -> None:
        seen.append(tx.get(b"a"))
        tx.put(b"a", b"applied")

    kv.write(look_and_put)

    assert seen[0] is None
    assert set(seen[1:]) == {b"applied"}
    assert kv.faults[Fault.UNKNOWN_APPLIED] == len(seen) - 1


def test_a_counter_that_is_not_idempotent_miscounts_only_when_lost_answers_were_applied(store: KvEngine) -> None:
    def count(kv: KvEngine, key: bytes) -> int:
        for _ in range(CALLS):
            kv.write(lambda tx: tx.add(key, 1), durable=False)
        return counter_of(store.read(lambda snapshot: snapshot.get(key)))

    right = count(FaultyKv(store, seed=1, rates=MODERATE), b"right")
    wrong = count(FaultyKv(store, seed=1, rates=FaultRates(unknown_applied=0.1)), b"wrong")

    assert right == CALLS
    assert wrong > CALLS


def test_a_read_that_becomes_too_old_starts_over_on_a_snapshot_of_its_own(store: KvEngine) -> None:
    kv, reads = FaultyKv(store, seed=3, rates=FaultRates(too_old=0.5)), list[int]()

    def read_four_keys(snapshot: KvReader) -> None:
        for number in range(4):
            snapshot.get(b"%d" % number)
            reads.append(number)

    for _ in range(CALLS):
        kv.read(read_four_keys)

    assert kv.faults[Fault.TOO_OLD] > CALLS * 0.3
    assert reads.count(3) == CALLS
    assert reads.count(0) > CALLS


def test_an_outage_fails_calls_in_a_row_and_may_hide_a_commit(store: KvEngine) -> None:
    kv = FaultyKv(store, seed=5, rates=FaultRates(unavailable=0.02, outage_calls=10))
    failed = []
    for number in range(CALLS):
        try:
            kv.write(lambda tx, n=number: tx.put(b"%03d" % n, b""), durable=False)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        except UnavailableError:
            failed.append(number)

    assert len(failed) >= 10
    assert all(first + offset in failed for first in failed[:1] for offset in range(10))
    assert kv.faults[Fault.UNAVAILABLE] + kv.faults[Fault.UNAVAILABLE_APPLIED] == len(failed)
    rows = read_all(store)
    hidden = [number for number in failed if b"%03d" % number in rows]
    assert len(hidden) == kv.faults[Fault.UNAVAILABLE_APPLIED] > 0


def test_too_large_is_told_and_nothing_is_written(store: KvEngine) -> None:
    kv = FaultyKv(store, seed=1, rates=FaultRates(too_large=1.0))

    with pytest.raises(TooLargeError, match="too large"):
        kv.write(lambda tx: tx.put(b"a", b""))
    assert read_all(store) == {}


def test_many_small_rows_are_too_large_as_foundationdb_counts_them(store: KvEngine) -> None:
    kv = FaultyKv(store, seed=1, rates=FaultRates())

    def put_small(tx: KvTransaction, rows: int) -> None:
        for number in range(rows):
            tx.put(b"%06d" % number, b"")

    kv.write(lambda tx: put_small(tx, 80_000))
    with pytest.raises(TooLargeError, match="2101"):
        kv.write(lambda tx: put_small(tx, 120_000))


def test_a_function_that_always_outlives_a_transaction_fails(store: KvEngine) -> None:
    kv = FaultyKv(store, seed=1, rates=FaultRates(), transaction_seconds=0.001)

    def dawdle(snapshot: KvReader) -> None:
        snapshot.get(b"a")
        time.sleep(0.002)

    with pytest.raises(TooSlowError, match="retry budget"):
        kv.read(dawdle)
    assert kv.faults[Fault.OUTLIVED] > 1


def test_a_function_cannot_swallow_that_its_transaction_is_too_old(store: KvEngine) -> None:
    kv, runs = FaultyKv(store, seed=1, rates=FaultRates(too_old=0.99)), list[bool]()

    def read_in_spite_of_errors(snapshot: KvReader) -> None:
        try:
            for _ in range(4):
                snapshot.get(b"a")
        except Exception:  # noqa: BLE001 - what is not to be done
            runs.append(False)
        else:
            runs.append(True)

    kv.read(read_in_spite_of_errors)

    assert runs.count(True) == 1
    assert runs[-1] is True


@pytest.mark.parametrize(
    "look",
    [
        lambda tx: tx.get(b"v/" + b"\x01" * 10 + b"/s"),
        lambda tx: tx.get_many([b"a", b"v/" + b"\xff" * 10 + b"/s"]),
        lambda tx: tx.scan(b"", b"w", rows_max=1),
        lambda tx: tx.scan_many([KeyRange(b"a", b"b"), KeyRange(b"v/", b"v0")], rows_max=1),
    ],
    ids=["get", "get_many", "scan", "scan_many"],
)
def test_what_waits_for_its_versionstamp_cannot_be_read(
    store: KvEngine, look: Callable[[KvTransaction], object]
) -> None:
    def stamp_and_look(tx: KvTransaction) -> None:
        tx.put_versionstamped(b"v/", b"/s", b"")
        tx.get(b"v")
        tx.scan(b"w", b"z", rows_max=1)
        look(tx)

    with pytest.raises(RuntimeError, match="1036"):
        FaultyKv(store, seed=1, rates=FaultRates()).write(stamp_and_look)


def test_without_rates_nothing_is_injected(store: KvEngine) -> None:
    kv, runs = FaultyKv(store, seed=1, rates=FaultRates()), list[int]()

    put_and_count(kv, runs)

    assert runs == list(range(CALLS))
    assert repr(kv) == f"FaultyKv(seed=1, calls={2 * CALLS}, faults: none)"


def test_faults_are_reported_line_by_line_for_a_process_that_is_killed(store: KvEngine, tmp_path: Path) -> None:
    report = tmp_path / "faults"
    kv = faulty(lambda: store, seed=1, rates=parse_rates("conflict=0.5"), report=report)()
    assert isinstance(kv, FaultyKv)

    put_and_count(kv, [])

    assert report.read_text().splitlines() == ["conflict"] * kv.faults[Fault.CONFLICT]


def test_rates_are_read_from_text() -> None:
    assert parse_rates("conflict=0.5,outage_calls=3") == FaultRates(conflict=0.5, outage_calls=3)
    assert parse_rates("") == FaultRates()
