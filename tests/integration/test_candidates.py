"""Which runs and sequences a search reads, and in which order it lists the runs that the index names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matyan.engines.kv.protocol import KvEngine
from matyan.ids import DEFAULT_PROJECT, RunId, RunNumber
from matyan.query import candidates, executor, selections
from matyan.query.candidates import PlannedRuns, Reason, choose, read_places
from matyan.query.executor import Batch
from matyan.query.plan import EVERYTHING, TRUE, And, Not, Or, Term
from matyan.query.searches import Search
from matyan.query.selections import Looked, Selector
from matyan.query.service import SearchService
from matyan.query.summaries import CONTEXTS_MAX
from matyan.runs import index
from matyan.runs import repository as runs
from matyan.runs.cache import RunCache
from matyan.runs.index import Field, Kind, Span, equal_to
from matyan.store import indexes
from tests.bench.counted_kv import CountedKv, Counts
from tests.support import store
from tests.support.stores import opened_store

pytestmark = pytest.mark.one_python

RUNS = 200


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[KvEngine]:
    with opened_store(tmp_path / "kv") as engine:
        yield engine


def make_runs(kv: KvEngine, count: int = RUNS) -> None:
    """Store runs of which each has its number in `i`, and in `half` and `tenth` what is left of it."""
    for i in range(count):
        params = {"i": i, "half": i % 2, "tenth": i % 10}
        store.make_run(kv, f"r{i}", created_at_seconds=1e9 + i, params=params, archived=i % 4 == 0)


def param(name: str, value: Any) -> Term:
    return Term(Field(Kind.PARAM, (name,)), (equal_to(value),))


ARCHIVED = Term(Field(Kind.ARCHIVED), (TRUE,))


def selected(kv: KvEngine, condition: Any) -> tuple[list[int] | None, Sequence[Looked]]:
    """Return the numbers `i` of the runs selected, and what was read."""

    def select(reader: Any) -> tuple[Any, Sequence[Looked]]:
        selector = Selector(reader, DEFAULT_PROJECT)
        return selector.select(condition), selector.looked

    numbers, looked = kv.read(select)
    return None if numbers is None else [int(number) - 1 for number in numbers], looked


# ---- selections


def test_conditions_are_set_algebra(kv: KvEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    make_runs(kv)
    monkeypatch.setattr(selections, "ROWS_PER_RUN", 10_000)  # so that nothing is left unread
    few = Term(Field(Kind.PARAM, ("i",)), (Span(0, 10, includes_high=False),))

    assert selected(kv, few)[0] == list(range(10))
    assert selected(kv, And((few, Not(param("half", 0)))))[0] == [1, 3, 5, 7, 9]
    assert selected(kv, Or((param("i", 190), And((few, ARCHIVED)), param("i", 4))))[0] == [0, 4, 8, 190]
    assert selected(kv, Not(few))[0] is None
    assert selected(kv, Or((few, Not(few))))[0] is None
    assert selected(kv, Or((few, EVERYTHING)))[0] is None


def test_a_term_is_read_no_further_than_it_pays(kv: KvEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    make_runs(kv)
    monkeypatch.setattr(selections, "ROWS_PER_TERM", (16, 64, 128))
    few, some, many = param("i", 7), param("tenth", 7), param("half", 1)

    assert selected(kv, And((many, few))) == ([7], (Looked(many, 16, None), Looked(few, 16, 1)))
    # 20 runs are sooner asked than 128 entries read, at 16 entries a run; 3 are not worth a second look at 64.
    assert selected(kv, And((many, some)))[1] == (Looked(many, 128, 100), Looked(some, 64, 20))
    assert selected(kv, many) == (list(range(1, RUNS, 2)), (Looked(many, 128, 100),))
    assert selected(kv, Term(Field(Kind.PARAM, ("i",)), (Span(low=0),)))[0] is None


def test_reading_and_joining_have_a_bound_however_many_terms_there_are(
    kv: KvEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_runs(kv)
    counting = CountedKv(kv)
    wide = [Term(Field(Kind.PARAM, (name,)), (Span(low=-i),)) for i in range(1, 101) for name in ("i", "tenth")]
    pairs = Or(tuple(And((first, second)) for first, second in zip(wide[::2], wide[1::2], strict=True)))
    half = Or(tuple(And((param("half", 1), param("i", i))) for i in range(RUNS)))
    monkeypatch.setattr(selections, "ROWS_MAX", 2000)

    assert selected(counting, pairs)[0] is None
    assert counting.counts.values_read <= 2 * selections.ROWS_MAX
    # What is read already is gone through again for each part.
    numbers, looked = selected(kv, half)
    assert numbers is None
    assert len(looked) < 50


def test_what_was_found_before_the_bound_is_kept(kv: KvEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    make_runs(kv)
    monkeypatch.setattr(selections, "ROWS_PER_TERM", (64, 256))
    monkeypatch.setattr(selections, "ROWS_PER_RUN", 1000)
    monkeypatch.setattr(selections, "ROWS_MAX", 100)

    numbers, looked = selected(kv, And((param("tenth", 7), Term(Field(Kind.PARAM, ("i",)), (Span(low=0),)))))

    assert numbers == list(range(7, RUNS, 10))
    assert [each.found for each in looked] == [20, None]


def test_without_a_complete_index_all_runs_are_asked(kv: KvEngine) -> None:
    make_runs(kv, 3)
    kv.write(lambda tx: indexes.set_incomplete(tx, DEFAULT_PROJECT))

    choice = kv.read(lambda reader: choose(reader, DEFAULT_PROJECT, param("i", 1)))

    assert (choice.numbers, choice.reason) == (None, Reason.NO_INDEX)


# ---- the order of creation


def listed(
    kv: KvEngine,
    condition: Term,
    *,
    besides: RunNumber | None = None,
    after: bytes | None = None,
    cache: RunCache | None = None,
) -> list[Batch]:
    cache = cache or RunCache(kv)
    source = PlannedRuns(condition, cache, besides=besides)
    return list(executor.read_candidates(kv, source, DEFAULT_PROJECT, cache=cache, after=after, system_params=False))


def places(batches: Sequence[Batch]) -> list[tuple[str, int]]:
    return [(candidate.run.hash, candidate.place) for batch in batches for candidate in batch.candidates]


def cache_of(kv: KvEngine, held: int) -> RunCache:
    """Return a cache with so many runs in memory."""
    cache = RunCache(kv)
    cache.catch_up(DEFAULT_PROJECT)
    if held:
        _, after = cache.list_newest(DEFAULT_PROJECT, after=None, rows_max=held)
        cache.list_newest(DEFAULT_PROJECT, after=after, rows_max=1 if held < RUNS else RUNS)
    return cache


@pytest.mark.parametrize("held", [0, 90, RUNS])
@pytest.mark.parametrize("sorted_max", [0, 512])
@pytest.mark.parametrize("first_page", [1, 64])
def test_runs_come_newest_first_with_their_places_among_all(
    kv: KvEngine, monkeypatch: pytest.MonkeyPatch, sorted_max: int, first_page: int, held: int
) -> None:
    make_runs(kv)
    monkeypatch.setattr(candidates, "SORTED_MAX", sorted_max)
    monkeypatch.setattr(candidates, "KEYS_PER_SCAN", 32)
    monkeypatch.setattr(executor, "RUNS_PER_FIRST_READ", first_page)

    batches = listed(kv, param("tenth", 3), besides=RunNumber(1), cache=cache_of(kv, held))

    newest = [(f"r{i}", RUNS - i) for i in range(RUNS - 1, RUNS - 1 - first_page, -1)]
    others = [(f"r{i}", RUNS - i) for i in range(RUNS - 1 - first_page, -1, -1) if i % 10 == 3 or i == 0]
    assert places(batches) == newest + others
    assert batches[-1].checked == RUNS


@pytest.mark.parametrize("sorted_max", [0, 512])
def test_behind_a_run_the_count_begins_anew(kv: KvEngine, monkeypatch: pytest.MonkeyPatch, sorted_max: int) -> None:
    make_runs(kv)
    monkeypatch.setattr(candidates, "SORTED_MAX", sorted_max)
    monkeypatch.setattr(executor, "RUNS_PER_FIRST_READ", 1)
    after = kv.read(lambda reader: runs.position(reader, DEFAULT_PROJECT, RunId("r100")))

    batches = listed(kv, param("tenth", 3), after=after)

    assert places(batches) == [("r99", 1), *((f"r{i}", 100 - i) for i in range(93, 0, -10))]
    assert batches[-1].checked == 100


def rows_read(kv: KvEngine, condition: Term, *, held: int = 0) -> tuple[list[RunNumber], int]:
    """Return which runs come behind the newest one, and how many entries were read to list them."""
    counting = CountedKv(kv)
    source = PlannedRuns(condition, cache_of(kv, held))
    kv.read(lambda reader: source.list_runs(reader, DEFAULT_PROJECT, after=None, place=0, rows_max=1))
    found: list[RunNumber] = []
    place, after = 1, kv.read(lambda reader: runs.position(reader, DEFAULT_PROJECT, RunId(f"r{RUNS - 1}")))
    while after is not None:
        list_next = partial(source.list_runs, project=DEFAULT_PROJECT, after=after, place=place, rows_max=RUNS)
        listing = counting.read(list_next)
        assert listing is not None
        found += listing.numbers
        place, after = place + listing.passed, listing.rest
    return found, counting.counts.values_read


def test_the_order_of_many_runs_in_memory_is_not_read(kv: KvEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    make_runs(kv)
    monkeypatch.setattr(candidates, "SORTED_MAX", 0)

    numbers, read = rows_read(kv, param("tenth", 3), held=RUNS)

    assert numbers == [i + 1 for i in range(193, 0, -10)]
    assert read < RUNS / 2


def test_many_runs_are_put_in_order_when_going_on_would_take_longer(
    kv: KvEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_runs(kv)
    term = param("tenth", 3)
    monkeypatch.setattr(candidates, "SORTED_MAX", 0)
    monkeypatch.setattr(candidates, "KEYS_PER_SCAN", 10)
    monkeypatch.setattr(candidates, "KEYS_PER_READ_MAX", 10)

    walked = rows_read(kv, term)
    monkeypatch.setattr(candidates, "PASSED_PER_SORTED", 1)
    ordered = rows_read(kv, term)

    assert ordered[0] == walked[0] == [i + 1 for i in range(193, 0, -10)]
    assert walked[1] > RUNS > ordered[1]


def test_runs_with_huge_params_are_not_read_to_be_sorted(kv: KvEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "RUNS_PER_FIRST_READ", 1)
    monkeypatch.setattr(candidates, "SORTED_BYTES_MAX", 50_000)
    for i in range(60):
        store.make_run(kv, f"r{i}", created_at_seconds=1e9 + i, params={"third": i % 3, "huge": "x" * 5000})
    numbers = np.arange(1, 61, dtype=np.uint64)

    batches = listed(kv, param("third", 1))

    assert kv.read(lambda reader: read_places(reader, DEFAULT_PROJECT, numbers, RunCache(kv))) is None
    assert places(batches) == [("r59", 1), *((f"r{i}", 60 - i) for i in range(58, 0, -3))]


def test_places_only_rise_and_end_with_all_when_runs_came_in_another_order(
    kv: KvEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "RUNS_PER_FIRST_READ", 1)
    for i in range(50):
        store.make_run(kv, f"r{i}", created_at_seconds=1e9 + i * 7 % 50, params={"third": i % 3})

    batches = listed(kv, param("third", 1))

    found = [place for _, place in places(batches)]
    assert found == sorted(set(found))
    assert max(found) <= batches[-1].checked == 50
    times = [candidate.run.document.created_at_seconds for batch in batches for candidate in batch.candidates]
    assert times == sorted(times, reverse=True)


# ---- sequences


def counted(kv: KvEngine, q: str, word: str) -> tuple[int, Counts]:
    """Return how many sequences a search finds, and what it read."""
    counting = CountedKv(kv)
    found = SearchService(kv=counting).find(Search(q=q), word)
    return sum(len(candidate.summaries) for candidate in found.candidates), counting.counts


@pytest.mark.parametrize(
    ("q", "word", "found"),
    [
        ("metric.name == 'm7'", "metric", 3),
        ("metric.name == 'm7' and metric.context == {'s': 'b'}", "metric", 1),
        ("metric.name in ('m7', 'm8') and not metric.context", "metric", 2),
        ("metric.name == 'm7' and run.metrics['m8'].last == 1", "metric", 3),
        ("run.metrics['m7', {'s': 'a'}].last == 1", "run", 1),
    ],
)
def test_a_search_for_some_names_does_not_read_the_other_sequences(kv: KvEngine, q: str, word: str, found: int) -> None:
    number = store.make_run(kv, "a")
    for i in range(200):
        store.make_metric(kv, number, f"m{i}", [1.0])
    for context in ({"s": "a"}, {"s": "b"}):
        store.make_metric(kv, number, "m7", [1.0], context=context)

    count, counts = counted(kv, q, word)

    assert count == found
    assert counts.values_read < 40


def test_a_name_of_many_contexts_is_found_in_all(kv: KvEngine) -> None:
    number = store.make_run(kv, "a")
    for i in range(CONTEXTS_MAX + 1):
        store.make_metric(kv, number, "m", [1.0], context={"i": i})

    assert counted(kv, "metric.name == 'm'", "metric")[0] == CONTEXTS_MAX + 1


def test_objects_are_looked_for_in_runs_that_have_some(kv: KvEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "RUNS_PER_FIRST_READ", 1)
    make_runs(kv, 100)
    number = kv.read(lambda reader: runs.get_number(reader, DEFAULT_PROJECT, RunId("r5")))
    assert number is not None
    store.make_objects(kv, number, "text", "prompts", [{"data": "x"}])

    service = SearchService(kv=kv)
    search = service.find(Search(q=""), "texts")

    assert [candidate.run.hash for candidate in search.candidates] == ["r5"]
    assert search.route.source.asked == 2


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (index.starting_with("lo"), {"lo", "loss", "long" * 30}),
        (equal_to("loss"), {"loss", "long" * 30}),
        (Span("a", "loss", includes_low=False, includes_high=False), {"lo", "long" * 30}),
        (Span(), {"a", "lo", "loss", "long" * 30, "z"}),
    ],
)
def test_sequences_are_found_by_a_span_of_names(kv: KvEngine, span: Span, expected: set[str]) -> None:
    names = {store.make_run(kv, name[:9]): name for name in ("a", "lo", "loss", "long" * 30, "z")}
    for number, name in names.items():
        store.make_metric(kv, number, name, [1.0])

    match = kv.read(
        lambda reader: index.find(reader, DEFAULT_PROJECT, Field(Kind.SEQUENCE, ("metric",)), [span], rows_max=99)
    )

    assert match is not None
    assert {names[RunNumber(int(number))] for number in match.numbers} == expected
    assert len(match.sure) == 0
