"""The index equals its recomputation after whatever happened, and what is found in it is what the runs say.

On the embedded engine, and on one that runs write functions again after their commit, as FoundationDB may.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matyan.catalog import repository as catalog
from matyan.catalog.model import Experiment, Tag
from matyan.engines.blob.filesystem import FilesystemBlobs, open_filesystem_blobs
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.ids import Project, RunNumber
from matyan.limits import KEY_BYTES_MAX
from matyan.maintenance import reindex
from matyan.maintenance.settle import settle_quiet_runs
from matyan.projects import scanning
from matyan.projects.service import ProjectService
from matyan.projects.vocabulary import VocabularyReader
from matyan.runs.entries import PARAMS_INDEXED_MAX
from matyan.runs.index import Field, Kind, Span, equal_to, find, is_complete, starting_with
from matyan.sequences.model import Bucket, Summary, canonical_context
from matyan.sequences.repository import put_summary
from matyan.store import indexes, keyspace
from matyan.store.records import RecordCodec
from tests.bench.counted_kv import CountedKv
from tests.support.index_world import IndexWorld, lies_in, values_of
from tests.support.kv_faults import FaultRates, FaultyKv
from tests.support.query_world import Operation, operation
from tests.support.stores import opened_store

pytestmark = pytest.mark.one_python

FAULTS = FaultRates(conflict=0.1, unknown_lost=0.05, unknown_applied=0.1)
ROWS_MAX = 100_000
LONG = "x" * 70
PROJECTS = (Project(f"p{number}") for number in itertools.count())

HASHES = st.sampled_from(["a", "ab", "b", "é", "zz"])
TEXTS = st.sampled_from(
    ["", "a", "ab", "b", "é", "a\x00", "a\x00b", "a\x01", LONG, LONG + "a", LONG[:64], LONG[:63], "\U0001f600"]
)
HUGE = [2**53, 2**53 + 1, 2**53 + 2, -(2**53), 2**70, 10**400, -(10**400), 1e300, 5e-324]
NUMBERS = st.sampled_from([0, 1, True, False, -1, 0.5, -0.0, 0.1, 2, math.nan, math.inf, -math.inf, *HUGE])
KEYS = st.sampled_from(["a", "b", "a b", "é", LONG, "\x00"])
SCALARS = st.one_of(NUMBERS, TEXTS, st.none())
TREES = st.dictionaries(
    st.one_of(KEYS, st.integers(0, 2)),
    st.recursive(
        SCALARS,
        lambda below: st.one_of(st.lists(below, max_size=2), st.dictionaries(KEYS, below, max_size=3)),
        max_leaves=6,
    ),
    max_size=4,
)
METRICS = st.sampled_from(["loss", "acc", LONG])
CONTEXTS = st.sampled_from([{}, {"subset": "train"}, {"subset": LONG}])
VALUES = st.lists(st.sampled_from([0.0, 0.5, 1.0, -2.0, math.nan, math.inf, 2.0**53]), min_size=1, max_size=3)
SECONDS = st.sampled_from([0.0, 1.5, -1.5, 1_717_243_200.0, 1_717_243_200.0000002, 1_717_243_201.25, -1e15, 9e15])


OPERATIONS = st.one_of(
    operation("create", HASHES, TREES, SECONDS, st.one_of(st.none(), SECONDS)),
    operation("create", HASHES, TREES, SECONDS, st.one_of(st.none(), SECONDS)),
    operation("set_params", HASHES, TREES),
    operation("set_system_params", HASHES, TREES),
    operation("edit", HASHES, name=TEXTS),
    operation("edit", HASHES, archived=st.booleans()),
    operation("edit", HASHES, active=st.booleans()),
    operation("edit", HASHES, experiment=st.sampled_from(["one", "two"])),
    operation("end", HASHES, st.one_of(st.none(), SECONDS)),
    operation("tag", HASHES, st.sampled_from(["t", "u"])),
    operation("track", HASHES, METRICS, CONTEXTS, VALUES),
    operation("track", HASHES, METRICS, CONTEXTS, VALUES),
    operation("bring", HASHES, METRICS, VALUES),
    operation("track_text", HASHES, METRICS),
    operation("settle"),
    operation("settle"),
    operation("delete", HASHES),
    operation("free"),
)
SPANS = st.one_of(
    st.just(Span()),
    NUMBERS.map(equal_to),
    TEXTS.map(equal_to),
    TEXTS.map(starting_with),
    st.builds(Span, NUMBERS, st.none(), st.booleans()),
    st.builds(Span, st.none(), NUMBERS, st.just(value=True), st.booleans()),
    st.builds(Span, NUMBERS, NUMBERS, st.booleans(), st.booleans()),
    st.builds(Span, TEXTS, TEXTS, st.booleans(), st.booleans()),
)
FIELDS = st.one_of(
    st.sampled_from([Field(kind) for kind in (Kind.HASH, Kind.NAME, Kind.CREATED, Kind.ENDED, Kind.DURATION)]),
    st.sampled_from([Field(Kind.EXPERIMENT), Field(Kind.TAG)]),
    st.builds(lambda keys: Field(Kind.PARAM, tuple(keys)), st.lists(KEYS, min_size=1, max_size=3)),
    st.builds(
        lambda kind, word, name, context: Field(kind, (word, name, *context)),
        st.sampled_from([Kind.SEQUENCE, Kind.LAST, Kind.MINIMUM, Kind.MAXIMUM]),
        st.sampled_from(["metric", "texts"]),
        METRICS,
        st.sampled_from([(), ("{}",), ('{"subset":"train"}',)]),
    ),
)
FLAGS = st.sampled_from([(Field(Kind.ACTIVE), [equal_to(value=True)]), (Field(Kind.ARCHIVED), [equal_to(value=True)])])


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KvEngine]:
    with opened_store(tmp_path_factory.mktemp("kv") / "kv") as opened:
        yield opened


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilesystemBlobs]:
    store = open_filesystem_blobs(tmp_path_factory.mktemp("blobs"), keys=[b"s" * 32])
    yield store
    store.close()


@pytest.fixture(params=["plain", "faulty"])
def kv(request: pytest.FixtureRequest, engine: KvEngine) -> KvEngine:
    return engine if request.param == "plain" else FaultyKv(engine, seed=7, rates=FAULTS)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    operations=st.lists(OPERATIONS, max_size=25),
    asked=st.lists(st.tuples(FIELDS, st.lists(SPANS, min_size=1, max_size=3)), min_size=1, max_size=12),
    flags=FLAGS,
)
def test_index_is_what_it_should_be_whatever_happened(
    kv: KvEngine,
    blobs: FilesystemBlobs,
    operations: list[Operation],
    asked: list[tuple[Field, list[Span]]],
    flags: tuple[Field, list[Span]],
) -> None:
    world = IndexWorld(kv, blobs, next(PROJECTS))

    for change in operations:
        change(world)

    verdict = reindex.verify(kv, world.project)
    assert verdict.is_good, [each.described(world.project) for each in verdict.examples]
    for field, spans in [*asked, flags]:
        assert_found(world, field, spans)
    assert_vocabulary(world)


def assert_found(world: IndexWorld, field: Field, spans: list[Span]) -> None:
    """Compare what is found with what the runs say."""
    match = world.kv.read(lambda reader: find(reader, world.project, field, spans, rows_max=ROWS_MAX))
    if match is None:
        assert field.kind in (Kind.LAST, Kind.MINIMUM, Kind.MAXIMUM), field
        assert field.path[0] != "metric"
        return
    there = world.runs()
    values = {number: values_of(*known, field) for number, known in there.items()}
    true = {number for number, each in values.items() if any(lies_in(value, span) for value in each for span in spans)}
    numbers, sure = assert_ordered(match.numbers), assert_ordered(match.sure)
    assert sure <= numbers, (field, spans)
    assert true <= numbers, (field, spans, values)
    assert sure & there.keys() <= true, (field, spans, values)


def assert_vocabulary(world: IndexWorld) -> None:
    """Compare vocabulary and activity with those of all runs."""
    reader = VocabularyReader(world.kv)
    buckets = [Bucket.METRIC, Bucket.TEXTS]
    for _ in ("at first", "knowing where to look"):
        assert names_of(reader.params(world.project).tree()) == names_of(
            scanning.params(world.kv, world.project).tree()
        )
        found = {bucket: reader.sequences(world.project, bucket) for bucket in buckets}
        assert found == scanning.contexts(world.kv, world.project, buckets)
    counted = ProjectService(kv=world.kv).activity(timezone_offset_minutes=90, project=world.project).runs
    assert counted == scanning.activity(world.kv, world.project, timezone_offset_minutes=90)


def names_of(tree: Any) -> Any:
    """Return a tree of params without the types, which are those of any one run."""
    return {key: names_of(value) if isinstance(value, dict) else "type" for key, value in tree.items()}


def assert_ordered(numbers: Any) -> set[int]:
    assert numbers.dtype == np.uint64
    assert (np.diff(numbers.astype(np.int64)) > 0).all()
    return set(numbers.tolist())


# ---- making anew and verifying


@pytest.fixture
def world(kv: KvEngine, blobs: FilesystemBlobs) -> IndexWorld:
    """Return a project with a run of each sort."""
    made = IndexWorld(kv, blobs, next(PROJECTS))
    made.create("a", {"lr": 0.1, "opt": {"name": "adam"}, "layers": [1, 2]}, 100.0, 200.0)
    made.create("b", {"lr": 0.2, LONG: {LONG: {LONG: {LONG: 1}}}}, 300.0, None)
    made.track("a", "loss", {"subset": "train"}, [1.0, 0.5])
    made.track("b", LONG, {"subset": LONG}, [3.0])
    made.track_text("b", "samples")
    made.settle()
    made.edit("b", archived=True)
    return made


def numbers(world: IndexWorld, field: Field, *spans: Span, rows_max: int = ROWS_MAX) -> list[int] | None:
    found = world.kv.read(lambda reader: find(reader, world.project, field, spans, rows_max=rows_max))
    return None if found is None else found.numbers.tolist()


def index_of(world: IndexWorld) -> dict[bytes, bytes]:
    begin, end = keyspace.children(keyspace.index(world.project))
    return dict(world.kv.read(lambda reader: reader.scan(begin, end, rows_max=10_000)))


def forget_index(world: IndexWorld) -> None:
    """Leave the store as a release without an index would."""

    def write(tx: KvTransaction) -> None:
        tx.clear_range(*keyspace.children(keyspace.index(world.project)))
        tx.clear(keyspace.index_state(world.project))
        for run, summaries in world.runs().values():
            for summary in summaries:
                summary.indexed = None
                key = keyspace.summary(world.project, run.number, summary.bucket, summary.key.digest())
                tx.put(key, RecordCodec(Summary).encode(summary))

    world.kv.write(write)


def is_indexed(world: IndexWorld) -> bool:
    return world.kv.read(lambda reader: is_complete(reader, world.project))


def test_project_is_indexed_from_its_first_run_on(world: IndexWorld) -> None:
    empty = IndexWorld(world.kv, None, next(PROJECTS))  # type: ignore[arg-type]  # nothing has files

    assert is_indexed(world)
    assert is_indexed(empty)


def test_store_without_index_gets_the_one_that_writing_makes(world: IndexWorld) -> None:
    written = index_of(world)
    forget_index(world)
    assert not is_indexed(world)
    assert not reindex.verify(world.kv, world.project).is_good

    calls = 1
    while not reindex.complete(world.kv, world.project, seconds_max=0):
        calls += 1

    assert calls > len(("clear", "build"))
    assert index_of(world) == written
    assert reindex.verify(world.kv, world.project).is_good


def test_run_that_changes_before_its_turn_has_its_entries_once(world: IndexWorld) -> None:
    forget_index(world)
    reindex.begin(world.kv, world.project)
    world.set_params("a", {"lr": 0.7})
    world.track("a", "loss", {"subset": "train"}, [0.1])
    world.create("c", {"lr": 0.1}, 400.0, None)

    reindex.go_on(world.kv, world.project)

    assert reindex.verify(world.kv, world.project).is_good
    assert numbers(world, Field(Kind.PARAM, ("lr",)), equal_to(0.7)) == [1]
    assert numbers(world, Field(Kind.PARAM, ("lr",)), equal_to(0.1)) == [3]


def test_writers_go_on_while_the_index_is_made_and_verified(world: IndexWorld) -> None:
    stop = threading.Event()

    def write() -> None:
        for turn in itertools.count():
            if stop.is_set():
                return
            name = f"busy-{turn % 7}"
            world.create(name, {"turn": turn}, 500.0 + turn, None)
            world.set_params(name, {"turn": turn, f"key-{turn % 3}": "x"})
            world.track(name, "loss", {}, [float(turn)])
            world.settle()
            world.delete(f"busy-{(turn + 3) % 7}")
            world.free()

    writer = threading.Thread(target=write)
    writer.start()
    verdicts = []
    for _ in range(3):
        reindex.begin(world.kv, world.project)
        reindex.go_on(world.kv, world.project)
        verdicts.append(reindex.verify(world.kv, world.project))
    stop.set()
    writer.join()

    assert [each.described(world.project) for verdict in verdicts for each in verdict.examples] == []
    assert reindex.verify(world.kv, world.project).is_good


def test_run_with_more_sequences_than_fit_a_transaction_is_indexed_whole(world: IndexWorld) -> None:
    count = 450
    summaries = [Summary(bucket=Bucket.METRIC, name=f"m{place}", context="{}", dtype="float") for place in range(count)]
    world.kv.write(lambda tx: [put_summary(tx, world.project, RunNumber(1), each) for each in summaries])  # type: ignore[func-returns-value]  # nobody reads the list
    forget_index(world)

    reindex.begin(world.kv, world.project)
    reindex.go_on(world.kv, world.project)

    verdict = reindex.verify(world.kv, world.project)
    assert verdict.is_good
    assert verdict.entries > count
    assert numbers(world, Field(Kind.SEQUENCE, ("metric", f"m{count - 1}")), equal_to(value=True)) == [1]


def test_verifying_finds_what_is_missing_and_what_is_left_over(world: IndexWorld) -> None:
    field = indexes.field_of(Kind.PARAM, ("lr",))
    right = indexes.entry_key(world.project, field + (indexes.code_of(0.1) or b""), RunNumber(1))
    wrong = indexes.entry_key(world.project, field + (indexes.code_of(0.3) or b""), RunNumber(1))
    dead = indexes.entry_key(world.project, field + (indexes.code_of(0.3) or b""), RunNumber(99))

    def spoil(tx: KvTransaction) -> None:
        tx.clear(right)
        tx.put(wrong, b"f")
        tx.put(dead, b"f")

    world.kv.write(spoil)

    verdict = reindex.verify(world.kv, world.project)

    assert (verdict.missing, verdict.left_over, verdict.is_good) == (1, 2, False)
    lines = [each.described(world.project) for each in verdict.examples]
    assert lines[0].startswith("missing: run 1, param lr, code ")
    assert {line.split(",")[0] for line in lines[1:]} == {"left over: run 1", "left over: run 99"}


# ---- what keys have no room for


def test_names_contexts_and_paths_too_long_for_a_key_are_found_exactly(world: IndexWorld) -> None:
    context = canonical_context({"subset": LONG})

    assert numbers(world, Field(Kind.SEQUENCE, ("metric", LONG, context)), equal_to(value=True)) == [2]
    assert numbers(world, Field(Kind.SEQUENCE, ("metric", LONG + "x")), equal_to(value=True)) == []
    assert numbers(world, Field(Kind.LAST, ("metric", LONG)), Span(2)) == [2]
    assert numbers(world, Field(Kind.PARAM, (LONG, LONG, LONG, LONG)), equal_to(1)) == [2]
    assert max(map(len, index_of(world))) <= KEY_BYTES_MAX


def test_run_with_too_many_params_is_found_whatever_they_are_and_never_surely(world: IndexWorld) -> None:
    world.set_params("a", {f"p{number}": number for number in range(PARAMS_INDEXED_MAX + 1)})

    match = world.kv.read(
        lambda reader: find(reader, world.project, Field(Kind.PARAM, ("p1",)), [equal_to(2)], rows_max=ROWS_MAX)
    )

    assert match is not None
    assert (match.numbers.tolist(), match.sure.tolist()) == ([1], [])
    assert reindex.verify(world.kv, world.project).is_good
    assert "p7" in VocabularyReader(world.kv).params(world.project).tree()


def test_more_rows_than_allowed_find_nothing(world: IndexWorld) -> None:
    field = Field(Kind.PARAM, ("lr",))

    assert numbers(world, field, Span(0), rows_max=2) == [1, 2]
    assert numbers(world, field, Span(0), rows_max=1) is None
    assert numbers(world, field, equal_to(0.1), rows_max=1) == [1]


@pytest.mark.parametrize("kind", [Kind.EXPERIMENT, Kind.TAG])
def test_no_more_experiments_and_tags_are_read_than_rows_allowed(world: IndexWorld, kind: Kind) -> None:
    def make(tx: KvTransaction) -> None:
        for number in range(100):
            catalog.experiments.put(tx, world.project, Experiment(id=f"e{number}", name=f"x{number}"))
            catalog.tags.put(tx, world.project, Tag(id=f"t{number}", name=f"x{number}"))

    world.kv.write(make)
    if kind is Kind.TAG:
        world.tag("a", "x7")
    else:
        world.edit("a", experiment="x7")
    kv = CountedKv(world.kv)

    def found(*spans: Span, rows_max: int) -> list[int] | None:
        match = kv.read(lambda reader: find(reader, world.project, Field(kind), spans, rows_max=rows_max))
        return None if match is None else match.numbers.tolist()

    assert found(starting_with("x"), rows_max=20) is None
    assert found(*(equal_to(f"x{number}") for number in range(21)), rows_max=20) is None
    assert kv.counts.values_read <= 2 * 21
    assert found(starting_with("x"), rows_max=250) == [1]
    assert found(equal_to("x7"), rows_max=20) == [1]


@pytest.mark.parametrize("field", [Field(Kind.HASH), Field(Kind.NAME), Field(Kind.CREATED), Field(Kind.PARAM, ("lr",))])
def test_no_more_ranges_are_read_than_rows_allowed(world: IndexWorld, field: Field) -> None:
    spans = [Span(place, place + 0.5) if field.kind is not Kind.HASH else equal_to(f"{place}") for place in range(30)]

    assert numbers(world, field, *spans, rows_max=20) is None
    assert numbers(world, field, *spans, rows_max=100) is not None


def test_system_params_are_not_looked_for(world: IndexWorld) -> None:
    world.set_system_params("a", {"host": "x"})

    assert numbers(world, Field(Kind.PARAM, ("__system_params", "host")), equal_to("x")) is None


# ---- settling


class InterruptedKv:
    """A store in which something else happens before one of the writes."""

    def __init__(self, engine: KvEngine, before: int, happens: Callable[[], None]) -> None:
        self._engine = engine
        self._left = before
        self._happens = happens

    def write(self, fn: Callable[[KvTransaction], Any], *, durable: bool = True) -> Any:
        self._left -= 1
        if self._left == 0:
            self._happens()
        return self._engine.write(fn, durable=durable)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


@pytest.mark.parametrize("write", [1, 2, 3])
def test_points_that_come_in_the_millisecond_of_those_being_settled_are_not_overlooked(
    world: IndexWorld, write: int
) -> None:
    world.track("a", "acc", {}, [0.5])
    kv: Any = InterruptedKv(world.kv, write, lambda: world.track("a", "acc", {}, [7.0]))
    last = Field(Kind.LAST, ("metric", "acc"))

    settle_quiet_runs(kv, world.project, world.clock, all_runs=True)
    found = numbers(world, last, equal_to(7))
    world.settle()

    assert found == [1]
    assert numbers(world, last, equal_to(7)) == [1]
    assert numbers(world, last, equal_to(0.5)) == []
    assert reindex.verify(world.kv, world.project).is_good
