"""The stages of a search, each on its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from matyan.clock import ManualClock
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.ids import DEFAULT_PROJECT, RunId
from matyan.query import executor
from matyan.query.executor import AllRuns, Batch, Candidate, WorkClock
from matyan.query.language import Asked, compile_query
from matyan.query.summaries import Sequences
from matyan.runs import repository as runs
from matyan.runs.cache import RunCache
from matyan.runs.model import Run
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket, Summary
from tests.support import store


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[KvEngine]:
    engine = open_embedded_kv(tmp_path / "kv")
    yield engine
    engine.close()


def candidates(kv: KvEngine, *, after: bytes | None = None) -> list[Batch]:
    return list(
        executor.read_candidates(kv, AllRuns(), DEFAULT_PROJECT, cache=RunCache(kv), after=after, system_params=False)
    )


def names(batches: list[Batch]) -> list[str]:
    return [candidate.run.hash for batch in batches for candidate in batch.candidates]


def make_runs(kv: KvEngine, count: int) -> list[str]:
    """Store runs; return their names, newest first."""
    made = [f"run-{i}" for i in range(count)]
    for i, run_id in enumerate(made):
        store.make_run(kv, run_id, created_at_seconds=1e9 + i)
    return made[::-1]


# ---- candidates


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 192, 300])
def test_candidates_are_all_runs_newest_first_with_their_places(kv: KvEngine, count: int) -> None:
    made = make_runs(kv, count)

    batches = candidates(kv)

    assert names(batches) == made
    assert [candidate.place for batch in batches for candidate in batch.candidates] == list(range(1, count + 1))
    assert [batch.checked for batch in batches] == [batch.candidates[-1].place for batch in batches]


def test_candidates_behind_a_position_are_counted_from_one(kv: KvEngine) -> None:
    made = make_runs(kv, 100)
    position = kv.read(lambda reader: runs.position(reader, DEFAULT_PROJECT, RunId(made[69])))

    batches = candidates(kv, after=position)

    assert names(batches) == made[70:]
    assert batches[0].candidates[0].place == 1


def test_first_read_no_further_than_the_last_wanted_run(kv: KvEngine) -> None:
    make_runs(kv, 300)
    read: list[Batch] = []

    def noting() -> Iterator[Batch]:
        for batch in executor.read_candidates(kv, AllRuns(), DEFAULT_PROJECT, cache=RunCache(kv), system_params=False):
            read.append(batch)
            yield batch

    found = list(executor.first(noting(), 70))

    assert sum(len(batch.candidates) for batch in found) == 70
    assert found[-1].checked == 70
    assert len(read) == 2


# ---- narrowing


def narrowed(kv: KvEngine, wanted: set[int], *, counts_all: bool) -> list[Batch]:
    """Return candidates narrowed down to those whose names end with a number that is wanted."""

    def ask(found: Sequence[Run], _: object) -> Iterator[Asked]:
        yield [at for at, run in enumerate(found) if int(run.hash.removeprefix("run-")) in wanted], len(found)

    return list(executor.narrow(candidates(kv), ask, WorkClock(), counts_all=counts_all))


def test_narrowing_counts_dropped_runs_or_not(kv: KvEngine) -> None:
    make_runs(kv, 100)

    counted = narrowed(kv, {97, 10}, counts_all=True)
    uncounted = narrowed(kv, {97, 10}, counts_all=False)

    assert names(counted) == names(uncounted)
    assert [batch.checked for batch in counted] == [64, 100]
    assert [batch.checked for batch in uncounted] == [3, 90]


def test_batches_without_any_match_are_passed_on_as_a_sign_of_life(kv: KvEngine) -> None:
    make_runs(kv, 100)

    batches = narrowed(kv, set(), counts_all=False)

    assert [(batch.candidates, batch.checked) for batch in batches] == [([], 0), ([], 0)]


def test_slow_queries_hand_on_what_they_found_so_far(kv: KvEngine) -> None:
    made = make_runs(kv, 20)
    clock = ManualClock()

    def ask(found: Sequence[Run], _: object) -> Iterator[Asked]:
        for at in range(len(found)):
            clock.advance(executor.SLICE_SECONDS / 4.5)
            yield [at], at + 1

    batches = list(executor.narrow(candidates(kv), ask, WorkClock(clock.monotonic_seconds)))

    assert len(batches) == 5
    assert names(batches) == made
    assert [batch.checked for batch in batches] == [5, 10, 15, 20, 20]


def test_a_run_that_is_wanted_in_any_case_is_selected_besides_the_others(kv: KvEngine) -> None:
    make_runs(kv, 100)
    (number,) = (run.number for batch in candidates(kv) for run in batch.runs if run.hash == "run-50")

    def ask(found: Sequence[Run], _: object) -> Iterator[Asked]:
        for begin in range(0, len(found), 10):
            yield [begin], min(begin + 10, len(found))

    found = names(list(executor.narrow(candidates(kv), executor.with_run(ask, number), WorkClock())))

    others = names(list(executor.narrow(candidates(kv), ask, WorkClock())))
    assert "run-50" not in others
    assert found == sorted([*others, "run-50"], key=lambda name: -int(name.removeprefix("run-")))


# ---- sequences


def test_summaries_are_read_of_one_kind_or_all(kv: KvEngine) -> None:
    number = store.make_run(kv, "a")
    for name in "abc":
        store.make_metric(kv, number, name, [1.0])
    store.make_objects(kv, number, "text", "t", [{"type": "text", "data": "x"}])

    (everything,) = executor.with_summaries(kv, DEFAULT_PROJECT, candidates(kv), Sequences())
    (metrics,) = executor.with_summaries(kv, DEFAULT_PROJECT, candidates(kv), Sequences(Bucket.METRIC))

    assert len(everything.candidates[0].summaries) == 4
    assert len(metrics.candidates[0].summaries) == 3


def test_fewer_runs_are_read_at_once_when_they_have_many_sequences(kv: KvEngine) -> None:
    made = make_runs(kv, 200)
    batches = candidates(kv)
    for batch in batches:
        kv.write(lambda tx, batch=batch: put_summaries(tx, batch, each=100))  # type: ignore[misc]  # mypy cannot infer a lambda with a default

    found = list(executor.with_summaries(kv, DEFAULT_PROJECT, batches, Sequences()))

    assert names(found) == made
    assert [len(batch.candidates) for batch in found] == [64, 81, 47, 8]
    assert [batch.checked for batch in found] == [64, 145, 192, 200]


def put_summaries(tx: KvTransaction, batch: Batch, *, each: int) -> None:
    for candidate in batch.candidates:
        for i in range(each):
            summary = Summary(bucket=Bucket.METRIC, name=f"m{i}", context="{}", dtype="float")
            sequences.put_summary(tx, DEFAULT_PROJECT, candidate.run.number, summary)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run.metrics['loss'].last < 1", True),
        ("metric.run.metrics['loss'].last < 1", True),
        ("run['metrics'] == 1", False),
        ("run.name == 'run.metrics'", False),
    ],
)
def test_whether_a_query_reads_sequences_is_seen_in_its_tree(text: str, expected: bool) -> None:
    assert executor.reads_sequences(compile_query(text, variable="metric")) is expected


# ---- time


def test_work_clock_stands_still_while_a_chunk_is_out() -> None:
    clock = ManualClock()
    work = WorkClock(clock.monotonic_seconds)

    def working() -> Iterator[bytes]:
        for _ in range(3):
            clock.advance(1.0)
            yield b"x"

    began = work.seconds()
    for _ in work.metered(working()):
        clock.advance(100.0)

    assert work.seconds() - began == 3.0


def test_a_run_with_many_sequences_gives_others_a_turn_while_they_are_asked(kv: KvEngine) -> None:
    clock = ManualClock()
    make_runs(kv, 1)
    summary = Summary(bucket=Bucket.METRIC, name="loss", context="{}", dtype="float")
    (one,) = (candidate._replace(summaries=[summary] * 1000) for candidate in candidates(kv)[0].candidates)

    def select(candidate: Candidate) -> Iterator[Summary | None]:
        for place, each in enumerate(candidate.summaries):
            clock.advance(executor.SLICE_SECONDS / 9.5)
            yield each if place % 2 else None

    batches = list(executor.narrow_sequences([Batch.of([one], 1)], select, WorkClock(clock.monotonic_seconds)))

    assert len(batches) > 90
    assert [len(candidate.summaries) for batch in batches for candidate in batch.candidates] == [500]
    assert [batch.checked for batch in batches] == [0] * (len(batches) - 1) + [1]
