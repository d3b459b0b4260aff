"""A planned search answers what the same search without plan, index and cache answers: the same bytes.

On the embedded engine, on one that runs functions again as FoundationDB does, and while others write.
"""

from __future__ import annotations

import ast
import itertools
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matyan.blobs.service import BlobService
from matyan.blobs.uris import BlobUris
from matyan.clock import ManualClock
from matyan.engines.blob.filesystem import FilesystemBlobs, open_filesystem_blobs
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KvEngine
from matyan.errors import InvalidArgumentError
from matyan.ids import DEFAULT_PROJECT, Project
from matyan.query import candidates, executor, plan, planning, selections, spans, summaries
from matyan.query.objects import ObjectSearch, ObjectSearchService
from matyan.query.plan import ANY_SEQUENCE, EVERYTHING, Plan
from matyan.query.service import MetricSearch, RunSearch, SearchService
from matyan.sequences.model import Bucket
from matyan.sequences.objects import ObjectReader
from tests.support import golden_store, treestream
from tests.support import query_grammar as grammar
from tests.support.dataset import GOLDEN
from tests.support.index_world import IndexWorld
from tests.support.kv import RunTwiceKv
from tests.support.kv_faults import MODERATE, FaultyKv
from tests.support.query_world import Operation, histories, operations

pytestmark = pytest.mark.one_python

SECRET: Final = b"0123456789abcdef"
PROJECTS: Final = (Project(f"p{number}") for number in itertools.count())
THOROUGH: Final = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def scan(_tree: ast.Expression, **_: Any) -> Plan:
    """Stand in for `make_plan`: whatever the query, all runs and all their sequences."""
    return Plan(EVERYTHING, ANY_SEQUENCE, None)


class Searcher:
    """All searches over one store."""

    def __init__(self, kv: KvEngine, blobs: FilesystemBlobs, **options: Any) -> None:
        reader = ObjectReader(kv=kv, engine=blobs, blobs=BlobService(blobs=blobs, uris=BlobUris([SECRET])))
        self._search = SearchService(kv=kv, clock=ManualClock(), **options)
        self._objects = ObjectSearchService(reader=reader, kv=kv, clock=ManualClock(), **options)

    def answer(self, word: str, q: str, project: Project, **fields: Any) -> bytes:
        """Return a whole stream."""
        asked = {"q": q, "report_progress": False, **fields}
        if word == "run":
            return b"".join(self._search.runs(RunSearch(**asked), project=project))
        if word == "metric":
            return b"".join(self._search.metrics(MetricSearch(**asked), project=project))
        return b"".join(self._objects.objects(ObjectSearch(bucket=Bucket.TEXTS, **asked), project=project))


class Stores:
    """One store, and searches over it in both ways."""

    def __init__(self, engine: KvEngine, blobs: FilesystemBlobs, searched: KvEngine) -> None:
        self.kv = engine
        self.blobs = blobs
        self.planned = Searcher(searched, blobs)
        self.scanned = Searcher(engine, blobs, planner=scan)

    def world(self) -> IndexWorld:
        """Return an empty project."""
        return IndexWorld(self.kv, self.blobs, next(PROJECTS))


@contextmanager
def opened(path: Path, kind: str) -> Iterator[Stores]:
    engine = open_embedded_kv(path / "kv")
    blobs = open_filesystem_blobs(path / "blobs", keys=[SECRET])
    searched: Mapping[str, KvEngine] = {"twice": RunTwiceKv(engine), "faulty": FaultyKv(engine, seed=5, rates=MODERATE)}
    yield Stores(engine, blobs, searched.get(kind, engine))
    blobs.close()
    engine.close()


@pytest.fixture(params=["plain", "stingy", "twice", "faulty"])
def stores(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    # A page of the newest runs comes before the plan: here it is a single one, as runs are few.
    monkeypatch.setattr(executor, "RUNS_PER_FIRST_READ", 1)
    if request.param == "stingy":  # so that bounds are met which are far off for a few runs
        monkeypatch.setattr(selections, "ROWS_PER_TERM", (1, 2, 5))
        monkeypatch.setattr(selections, "ROWS_PER_RUN", 1)
        monkeypatch.setattr(selections, "ROWS_PER_RANGE", 1)
        monkeypatch.setattr(selections, "ROWS_MAX", 30)
        monkeypatch.setattr(planning, "LOOKED_UP_MAX", 3)
        monkeypatch.setattr(plan, "SPANS_MAX", 2)
        monkeypatch.setattr(spans, "SPANS_MAX", 2)
        monkeypatch.setattr(candidates, "SORTED_MAX", 1)
        monkeypatch.setattr(candidates, "KEYS_PER_SCAN", 1)
        monkeypatch.setattr(candidates, "KEYS_PER_READ_MAX", 2)
        monkeypatch.setattr(summaries, "CONTEXTS_MAX", 1)
    with opened(tmp_path, request.param) as made:
        yield made


@st.composite
def asked(draw: st.DrawFn) -> tuple[str, str, dict[str, Any]]:
    """Return a search: its word, the query, what else it is asked."""
    word = draw(st.sampled_from(["run", "run", "metric", "metric", "texts"]))
    fields: dict[str, Any] = {"tz_offset_minutes": draw(st.sampled_from([0, 0, -60, 210]))}
    if word == "run":
        fields["limit"] = draw(st.sampled_from([0, 0, 1, 2, 3]))
        fields["offset"] = draw(st.none() | st.sampled_from([f"r{number}" for number in range(5)]))
        fields["sort"] = draw(st.sampled_from(["", "", '[{"field": "hash", "order": "asc"}]']))
        fields["exclude_traces"] = draw(st.booleans())
    return word, draw(grammar.queries(word)), fields


@given(history=histories(), searches=st.lists(asked(), min_size=6, max_size=12))
@THOROUGH
def test_a_planned_search_answers_what_a_scan_answers(
    stores: Stores, history: Sequence[Operation], searches: Sequence[tuple[str, str, dict[str, Any]]]
) -> None:
    world = stores.world()
    for change in history:
        change(world)

    for word, q, fields in searches:
        try:
            expected = stores.scanned.answer(word, q, world.project, **fields)
        except InvalidArgumentError:  # no query
            continue
        found = stores.planned.answer(word, q, world.project, **fields)

        assert found == expected, (word, q, fields)


RECORDED: Final[list[dict[str, Any]]] = [
    row for row in json.loads((GOLDEN / "query-results.json").read_text(encoding="utf-8")) if row["status"] == 200
]


def test_recorded_queries_are_answered_alike_with_and_without_a_plan(stores: Stores) -> None:
    golden_store.fill(stores.kv)

    for row in RECORDED:
        if row["endpoint"] in ("run", "metric", "texts"):
            offset = row["timezone_offset"] or 0
            found, expected = (
                searcher.answer(row["endpoint"], row["q"], DEFAULT_PROJECT, tz_offset_minutes=offset)
                for searcher in (stores.planned, stores.scanned)
            )
            assert found == expected, row["q"]


# ---- while others write

STILL: Final = st.sampled_from([f"r{number}" for number in range(5)])
MOVING: Final = st.sampled_from([f"m{number}" for number in range(5)])


@given(
    history=st.lists(operations(STILL), min_size=8, max_size=20),
    moves=st.lists(operations(MOVING), min_size=20, max_size=40),
    searches=st.lists(asked(), min_size=4, max_size=6),
)
@settings(THOROUGH, max_examples=10)
def test_while_others_write_what_nobody_touches_is_answered_as_by_a_scan(
    stores: Stores,
    history: Sequence[Operation],
    moves: Sequence[Operation],
    searches: Sequence[tuple[str, str, dict[str, Any]]],
) -> None:
    world = stores.world()
    for change in history:
        change(world)
    world.settle()
    quiet = [(word, q, {**fields, "limit": 0} if word == "run" else fields) for word, q, fields in searches]

    with writing(world, moves):
        found = [still(stores.planned, world, *search) for search in quiet]

    assert found == [still(stores.scanned, world, *search) for search in quiet]
    for word, q, fields in quiet:
        assert stores.planned.answer(word, q, world.project, **fields) == stores.scanned.answer(
            word, q, world.project, **fields
        )


@contextmanager
def writing(world: IndexWorld, moves: Sequence[Operation]) -> Iterator[None]:
    """Make the changes over and over again in a thread."""
    is_over = threading.Event()

    def write() -> None:
        while not is_over.is_set():
            for change in moves:
                change(world)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def still(searcher: Searcher, world: IndexWorld, word: str, q: str, fields: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return what a search answers of the runs that nobody touches."""
    try:
        trees = treestream.runs(searcher.answer(word, q, world.project, **fields))
    except InvalidArgumentError:
        return []
    return [(run, repr(tree)) for run, tree in trees.items() if run.startswith("r")]
