"""What is read through a cache is what stands in the store, whoever wrote it and however much fits into memory."""

from __future__ import annotations

import contextlib
import gc
import itertools
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from matyan.catalog import repository as catalog
from matyan.catalog.model import Experiment
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KvEngine, KvReader, KvTransaction
from matyan.engines.kv.tuples import pack
from matyan.errors import CorruptedError, TooSlowError, UnavailableError
from matyan.ids import DEFAULT_PROJECT, Project, RunId, RunNumber
from matyan.runs import cache as caches
from matyan.runs import repository as runs
from matyan.runs.cache import RunCache
from matyan.runs.model import Run
from matyan.runs.repository import Page
from matyan.store import changes, keyspace
from matyan.store.records import head_key
from matyan.store.subspaces import Subspace
from matyan.wire.codec import decode_tree, encode_tree
from tests.support.kv import RunTwiceKv
from tests.support.kv_faults import MODERATE, FaultRates, FaultyKv
from tests.support.store import clear_run, make_experiment, make_run, make_tag
from tests.support.stores import opened_store

pytestmark = pytest.mark.one_python

T = TypeVar("T")
OTHER: Final = Project("other")
PAGE: Final = 7
ROUNDS: Final = 4


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[KvEngine]:
    with opened_store(tmp_path / "kv") as engine:
        yield RunTwiceKv(engine)


class Seen(NamedTuple):
    """A run as a search sees it."""

    number: int
    document: Any
    experiment: Any
    tags: tuple[Any, ...]


def seen(run: Run) -> Seen:
    return Seen(run.number, msgspec.structs.asdict(run.document), run.experiment, run.tags)


def stored(kv: KvEngine, *, project: Project = DEFAULT_PROJECT) -> list[Seen]:
    """Return all runs, newest first, as they stand in the store."""

    def read(reader: Any) -> list[Run]:
        listed = runs.list_newest(reader, project)
        return runs.load(reader, project, [entry.number for entry in listed])

    return list(map(seen, kv.read(read)))


def scanned(cache: RunCache, *, project: Project = DEFAULT_PROJECT, rows_max: int = PAGE) -> list[Seen]:
    """Return all runs as a search reads them through the cache."""
    cache.catch_up(project)
    found: list[Run] = []
    after: bytes | None = None
    while True:
        page, after = cache.list_newest(project, after=after, rows_max=rows_max)
        found += page
        if after is None:
            return list(map(seen, found))


def change(kv: KvEngine, number: RunNumber, **fields: Any) -> None:
    """Write some fields of a run's document."""

    def write(tx: KvTransaction) -> None:
        (document,) = runs.read_documents(tx, DEFAULT_PROJECT, [number])
        assert document is not None
        runs.put(tx, DEFAULT_PROJECT, number, msgspec.structs.replace(document, **fields))

    kv.write(write, durable=False)


def make_runs(kv: KvEngine, count: int, *, project: Project = DEFAULT_PROJECT) -> list[RunNumber]:
    return [
        make_run(kv, f"run-{i}", created_at_seconds=1e9 + i, params={"i": i}, experiment=None, project=project)
        for i in range(count)
    ]


def trim_all(kv: KvEngine, project: Project = DEFAULT_PROJECT) -> None:
    """Leave the newest note alone."""
    for seconds in (0.0, 1.0):
        changes.trim(kv, project, now_seconds=seconds, keep_seconds=1.0)


class CountingKv:
    """Counts the transactions and the documents that are read."""

    def __init__(self, engine: KvEngine) -> None:
        self._engine = engine
        self.transactions = 0
        self.documents = 0

    def read(self, fn: Callable[[KvReader], T]) -> T:
        self.transactions += 1
        return self._engine.read(lambda reader: fn(CountingReader(reader, self)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class CountingReader:
    def __init__(self, reader: KvReader, kv: CountingKv) -> None:
        self._reader = reader
        self._kv = kv

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._count(keys)
        return self._reader.get_many(keys)

    def scan(self, begin: bytes, end: bytes, *, rows_max: int, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        rows = self._reader.scan(begin, end, rows_max=rows_max, reverse=reverse)
        self._count([key for key, _ in rows])
        return rows

    def _count(self, keys: Sequence[bytes]) -> None:
        prefix = keyspace.subspace(DEFAULT_PROJECT, Subspace.RUNS)
        self._kv.documents += sum(key.startswith(prefix) for key in keys)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[CountingKv]:
    engine = open_embedded_kv(tmp_path / "kv")  # faults would be counted, too
    yield CountingKv(engine)
    engine.close()


# ---- what is read


def test_what_is_in_memory_is_not_read_again(counting: CountingKv) -> None:
    make_runs(counting, 30)
    cache = RunCache(counting)
    scanned(cache)
    assert counting.documents == 30

    again = scanned(cache)

    assert again == stored(counting)
    assert counting.documents == 30 + 30  # those of `stored`


def test_following_a_quiet_store_is_one_transaction(counting: CountingKv) -> None:
    make_runs(counting, 3)
    cache = RunCache(counting)
    scanned(cache)
    before = counting.transactions

    cache.catch_up(DEFAULT_PROJECT)

    assert counting.transactions - before == 1


def test_only_runs_that_changed_are_read_again(counting: CountingKv) -> None:
    numbers = make_runs(counting, 30)
    cache = RunCache(counting)
    scanned(cache)
    change(counting, numbers[4], name="new")
    change(counting, numbers[4], name="newer")
    make_run(counting, "fresh")
    before = counting.documents

    found = scanned(cache)

    assert counting.documents - before == 2
    assert found == stored(counting)


def test_a_scan_of_more_than_fits_leaves_the_newest_in_memory(counting: CountingKv) -> None:
    make_runs(counting, 100)
    cache = RunCache(counting, bytes_max=20_000)
    assert scanned(cache) == stored(counting)
    held, before = cache.runs_held, counting.documents

    assert scanned(cache) == stored(counting)

    assert 10 < held < 40
    assert cache.runs_held == held
    assert counting.documents - before == 100 + 100 - held
    assert cache.bytes_held <= 20_000


def test_new_runs_take_the_place_of_the_oldest(counting: CountingKv) -> None:
    make_runs(counting, 50)
    cache = RunCache(counting, bytes_max=20_000)
    scanned(cache)
    held = cache.runs_held
    fresh = [make_run(counting, f"fresh-{i}", created_at_seconds=2e9 + i, experiment=None) for i in range(5)]
    cache.catch_up(DEFAULT_PROJECT)
    before = counting.documents

    page, _ = cache.list_newest(DEFAULT_PROJECT, after=None, rows_max=8)

    assert [run.number for run in page[:5]] == fresh[::-1]
    assert counting.documents == before
    assert abs(cache.runs_held - held) <= 1
    assert cache.bytes_held <= 20_000


def test_a_cache_without_memory_reads_everything_from_the_store(counting: CountingKv) -> None:
    make_runs(counting, 10)
    cache = RunCache(counting, bytes_max=0)

    assert scanned(cache) == scanned(cache) == stored(counting)

    assert cache.runs_held == cache.bytes_held == 0


def test_a_single_page_holds_no_more_than_it_shows(counting: CountingKv) -> None:
    make_runs(counting, 30)
    cache = RunCache(counting)
    cache.catch_up(DEFAULT_PROJECT)

    cache.list_newest(DEFAULT_PROJECT, after=None, rows_max=5)

    assert (cache.runs_held, counting.documents) == (5, 5)


def test_nothing_is_held_of_what_nobody_follows(counting: CountingKv) -> None:
    make_runs(counting, 30)
    cache = RunCache(counting)

    page, _ = cache.list_newest(DEFAULT_PROJECT, after=None, rows_max=5)

    assert len(page) == 5
    assert cache.runs_held == 0


def test_a_page_from_the_middle_of_an_empty_cache_is_not_held(counting: CountingKv) -> None:
    make_runs(counting, 30)
    cache = RunCache(counting)
    cache.catch_up(DEFAULT_PROJECT)
    after = counting.read(lambda reader: runs.position(reader, DEFAULT_PROJECT, RunId("run-20")))

    page, _ = cache.list_newest(DEFAULT_PROJECT, after=after, rows_max=5)

    assert [run.hash for run in page] == [f"run-{i}" for i in range(19, 14, -1)]
    assert cache.runs_held == 0


def test_runs_asked_for_by_number_come_from_both_memory_and_store(counting: CountingKv) -> None:
    numbers = make_runs(counting, 30)
    cache = RunCache(counting)
    cache.catch_up(DEFAULT_PROJECT)
    cache.list_newest(DEFAULT_PROJECT, after=None, rows_max=5)
    before = counting.documents
    wanted = [numbers[0], numbers[29], RunNumber(999), numbers[28], numbers[1]]

    found = counting.read(lambda reader: cache.load(reader, DEFAULT_PROJECT, wanted))

    assert [run.number for run in found] == [number for number in wanted if number != 999]
    assert counting.documents - before == 3


# ---- what changes meanwhile


def test_a_cache_that_missed_notes_begins_anew(kv: KvEngine) -> None:
    numbers = make_runs(kv, 10)
    cache = RunCache(kv)
    scanned(cache)
    for number in numbers:
        change(kv, number, name=f"new {number}")
    trim_all(kv)

    assert scanned(cache) == stored(kv)


def test_notes_of_a_store_that_had_none_before_are_not_missed(kv: KvEngine) -> None:
    """As with a store that an older release wrote: its runs are there, its notes are not."""
    numbers = make_runs(kv, 10)
    kv.write(lambda tx: tx.clear_range(*keyspace.children(keyspace.changes(DEFAULT_PROJECT))))
    cache = RunCache(kv)
    scanned(cache)
    change(kv, numbers[3], name="new")
    change(kv, numbers[4], name="new")
    trim_all(kv)

    assert scanned(cache) == stored(kv)


def test_more_changes_than_one_transaction_reads_are_all_followed(
    kv: KvEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "NOTES_PER_READ", 3)
    monkeypatch.setattr(caches, "RUNS_PER_READ", 2)
    numbers = make_runs(kv, 10)
    cache = RunCache(kv)
    scanned(cache)
    for number in numbers:
        change(kv, number, name=f"new {number}")

    assert scanned(cache) == stored(kv)


def test_a_run_that_is_created_late_takes_its_place(kv: KvEngine) -> None:
    make_runs(kv, 10)
    cache = RunCache(kv)
    scanned(cache)
    make_run(kv, "between", created_at_seconds=1e9 + 4.5)
    make_run(kv, "oldest", created_at_seconds=1.0)

    found = scanned(cache)

    assert [run.document["hash"] for run in found].index("between") == 5
    assert found == stored(kv)


def test_a_change_of_a_run_beyond_the_memory_leaves_no_gap(kv: KvEngine) -> None:
    numbers = make_runs(kv, 20)
    cache = RunCache(kv)
    cache.catch_up(DEFAULT_PROJECT)
    cache.list_newest(DEFAULT_PROJECT, after=None, rows_max=5)
    change(kv, numbers[2], name="new")

    assert scanned(cache) == stored(kv)


def test_a_store_out_of_reach_is_told_and_forgets_nothing(kv: KvEngine) -> None:
    make_runs(kv, 10)
    faulty = FaultyKv(kv, seed=1, rates=FaultRates())
    cache = RunCache(faulty)
    scanned(cache)
    faulty.rates = FaultRates(unavailable=1.0)
    with pytest.raises(UnavailableError):
        cache.catch_up(DEFAULT_PROJECT)
    faulty.rates = FaultRates()
    make_run(kv, "fresh")
    found = None
    while found is None:  # the outage lasts for some calls
        with contextlib.suppress(UnavailableError):
            found = scanned(cache)

    assert found == stored(kv)


def test_projects_do_not_see_each_other_and_the_one_asked_for_last_stays(counting: CountingKv) -> None:
    make_runs(counting, 30)
    make_runs(counting, 20, project=OTHER)
    cache = RunCache(counting, bytes_max=25_000)
    assert scanned(cache) == stored(counting)

    assert scanned(cache, project=OTHER) == stored(counting, project=OTHER)

    assert cache.runs_held == 20
    assert cache.bytes_held <= 25_000


def test_projects_share_the_memory_as_long_as_all_of_them_fit(counting: CountingKv) -> None:
    make_runs(counting, 10)
    make_runs(counting, 10, project=OTHER)
    cache = RunCache(counting, bytes_max=25_000)
    for project in (DEFAULT_PROJECT, OTHER):
        scanned(cache, project=project)

    assert cache.runs_held == 20


class Contest:
    """Writers set name and params of a run to one number; each scan must see what was committed before it began."""

    def __init__(self, engine: KvEngine) -> None:
        self.engine = engine
        self.numbers = make_runs(engine, 60)
        self.cache = RunCache(engine, bytes_max=40_000)
        self.committed = dict.fromkeys(self.numbers, 0)
        self.faults: list[str] = []
        self._is_over = threading.Event()

    def run(self) -> None:
        """Let two writers and three scanners work until every run was written a few times."""
        threads = [threading.Thread(target=self._write, args=(self.numbers[i::2],)) for i in range(2)]
        threads += [threading.Thread(target=self._scan) for _ in range(3)]
        for thread in threads:
            thread.start()
        while min(self.committed.values()) < ROUNDS:
            time.sleep(0.01)
        self._is_over.set()
        for thread in threads:
            thread.join(60)

    def _write(self, mine: Sequence[RunNumber]) -> None:
        for count in itertools.count(1):
            for number in mine:
                if self._is_over.is_set():
                    return
                change(self.engine, number, name=str(count), params=encode_tree({"i": count}))
                self.committed[number] = count

    def _scan(self) -> None:
        while not self._is_over.is_set():
            before = dict(self.committed)
            for run in scanned(self.cache, rows_max=20):
                self._check(run, before[RunNumber(run.number)])

    def _check(self, run: Seen, committed: int) -> None:
        count = int(run.document["name"] or 0)
        if count and decode_tree(run.document["params"]) != {"i": count}:
            self.faults.append(f"run {run.number} is torn")
        if count < committed:
            self.faults.append(f"run {run.number} has {count}, {committed} was committed before")


def test_threads_that_scan_while_others_write_see_whole_and_fresh_runs(tmp_path: Path) -> None:
    engine = open_embedded_kv(tmp_path / "kv")
    contest = Contest(engine)

    contest.run()

    assert contest.faults == []
    assert scanned(contest.cache) == stored(engine)
    engine.close()


def first_page(kv: KvEngine) -> tuple[RunCache, Page]:
    """Store two runs of one experiment and read the newer one, which has no tag."""
    make_run(kv, "old", experiment="vision", tags=["best"], created_at_seconds=1e9)
    make_run(kv, "new", experiment="vision", created_at_seconds=2e9)
    cache = RunCache(kv)
    cache.catch_up(DEFAULT_PROJECT)
    return cache, cache.list_newest(DEFAULT_PROJECT, after=None, rows_max=1)


def test_an_experiment_renamed_between_two_pages_takes_no_tags_away(kv: KvEngine) -> None:
    cache, page = first_page(kv)
    rename_experiment(kv, "vision", "sight")
    cache.list_newest(DEFAULT_PROJECT, after=page.position, rows_max=1)

    found = scanned(cache)

    assert found == stored(kv)
    assert [(run.experiment.name, len(run.tags)) for run in found] == [("sight", 0), ("sight", 1)]


def test_a_page_shows_the_newest_name_before_its_note_was_followed(kv: KvEngine) -> None:
    cache, page = first_page(kv)
    rename_experiment(kv, "vision", "sight")
    cache.list_newest(DEFAULT_PROJECT, after=page.position, rows_max=1)

    held = cache.list_newest(DEFAULT_PROJECT, after=page.position, rows_max=1)

    assert [run.experiment and run.experiment.name for run in held.runs] == ["sight"]


def test_more_experiments_than_the_catalog_remembers_take_no_tags_away(kv: KvEngine) -> None:
    others = make_experiments(kv, catalog.DECODED_MAX)
    cache, page = first_page(kv)
    kv.read(lambda reader: catalog.experiments.get_many(reader, DEFAULT_PROJECT, others))
    cache.list_newest(DEFAULT_PROJECT, after=page.position, rows_max=1)

    assert scanned(cache) == stored(kv)


@pytest.mark.parametrize("count", [21, 60])
def test_where_much_has_changed_the_memory_begins_anew(
    counting: CountingKv, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(caches, "CHANGED_RUNS_MAX", 20, raising=False)
    monkeypatch.setattr(caches, "READS_MAX", 2, raising=False)
    monkeypatch.setattr(caches, "NOTES_PER_READ", 25)
    make_runs(counting, 10)
    cache = RunCache(counting)
    scanned(cache)
    make_runs_later(counting, count)
    before = counting.documents

    cache.catch_up(DEFAULT_PROJECT)

    assert (counting.documents - before, cache.runs_held) == (0, 0)
    assert scanned(cache) == scanned(cache) == stored(counting)


def test_many_changes_of_few_runs_are_followed(counting: CountingKv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "NOTES_PER_READ", 4)
    numbers = make_runs(counting, 10)
    cache = RunCache(counting)
    scanned(cache)
    for i in range(20):
        change(counting, numbers[i % 2], name=f"new {i}")
    before = counting.documents

    cache.catch_up(DEFAULT_PROJECT)

    assert (counting.documents - before, cache.runs_held) == (2, 10)
    assert scanned(cache) == stored(counting)


def test_a_cache_without_memory_reads_no_run_that_changed(counting: CountingKv) -> None:
    make_runs(counting, 10)
    cache = RunCache(counting, bytes_max=0)
    scanned(cache)
    make_runs_later(counting, 5)
    before = counting.documents

    cache.catch_up(DEFAULT_PROJECT)

    assert counting.documents == before


def test_a_run_that_cannot_be_read_stops_only_the_searches_that_come_by_it(
    counting: CountingKv, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = make_runs(counting, 10)
    cache = RunCache(counting)
    scanned(cache)
    spoil(counting, numbers[0])

    cache.catch_up(DEFAULT_PROJECT)

    assert "cannot be followed" in caplog.text
    page = cache.list_newest(DEFAULT_PROJECT, after=None, rows_max=9)
    assert [run.number for run in page.runs] == numbers[:0:-1]
    with pytest.raises(CorruptedError):
        cache.list_newest(DEFAULT_PROJECT, after=page.position, rows_max=9)


def test_a_note_that_only_a_later_release_knows_stops_no_search(kv: KvEngine) -> None:
    make_runs(kv, 10)
    cache = RunCache(kv)
    scanned(cache)
    kv.write(lambda tx: tx.put_versionstamped(keyspace.changes(DEFAULT_PROJECT), pack((250, "x")), b""))

    assert scanned(cache) == stored(kv)


def test_changes_that_take_too_long_to_read_are_not_followed(kv: KvEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = make_runs(kv, 10)
    cache = RunCache(kv)
    scanned(cache)
    change(kv, numbers[4], name="new")
    with monkeypatch.context() as slow:
        slow.setattr(cache, "_renew", too_slow)
        cache.catch_up(DEFAULT_PROJECT)

    assert cache.runs_held == 0
    assert scanned(cache) == stored(kv)


def too_slow(*_: object) -> None:
    raise TooSlowError("a transaction takes longer than 5 s")


def rename_experiment(kv: KvEngine, before: str, after: str) -> None:
    experiment = make_experiment(kv, before)
    renamed = msgspec.structs.replace(experiment, name=after)
    kv.write(lambda tx: catalog.experiments.replace(tx, DEFAULT_PROJECT, experiment, renamed), durable=False)


def make_experiments(kv: KvEngine, count: int) -> list[str]:
    """Store experiments that no run refers to, in one transaction; return their ids."""
    made = [Experiment(id=f"other-{i}", name=f"other {i}") for i in range(count)]

    def write(tx: KvTransaction) -> None:
        for experiment in made:
            catalog.experiments.put(tx, DEFAULT_PROJECT, experiment)

    kv.write(write, durable=False)
    return [experiment.id for experiment in made]


def make_runs_later(kv: KvEngine, count: int, *, bytes_each: int = 0) -> None:
    """Store runs that are newer than those of `make_runs`, the oldest first."""
    for i in range(count):
        params = {"x": "y" * bytes_each}
        make_run(kv, f"later-{i}", created_at_seconds=2e9 + i, experiment=None, params=params)


def spoil(kv: KvEngine, number: RunNumber) -> None:
    """Write a run's document as a later release may, and the note of it."""
    key = head_key(keyspace.run_document(DEFAULT_PROJECT, number))

    def write(tx: KvTransaction) -> None:
        value = tx.get(key)
        assert value is not None
        tx.put(key, value[:1] + bytes([value[1] + 1]) + value[2:])
        changes.note(tx, DEFAULT_PROJECT, Subspace.RUNS, number)

    kv.write(write, durable=False)


# ---- memory


class WatchingKv(CountingKv):
    """Watches how much a cache holds whenever it reads."""

    cache: RunCache | None = None
    bytes_most = 0

    def read(self, fn: Callable[[KvReader], T]) -> T:
        self.bytes_most = max(self.bytes_most, self.cache.bytes_held if self.cache else 0)
        return super().read(fn)


def test_following_an_import_holds_no_more_than_the_bound(
    counting: CountingKv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "RUNS_PER_READ", 2)
    watching = WatchingKv(counting)
    make_runs(watching, 10)
    cache = watching.cache = RunCache(watching, bytes_max=20_000)
    scanned(cache)
    make_runs_later(watching, 30, bytes_each=3000)

    cache.catch_up(DEFAULT_PROJECT)

    assert cache.runs_held > 2
    assert 10_000 < watching.bytes_most <= 20_000


def test_experiments_leave_the_memory_with_their_runs(counting: CountingKv) -> None:
    cache = RunCache(counting, bytes_max=20_000)
    for i in range(100):
        make_run(counting, f"run-{i}", created_at_seconds=1e9 + i, experiment=f"e{i}", tags=[f"t{i}"])
        cache.catch_up(DEFAULT_PROJECT)
        cache.list_newest(DEFAULT_PROJECT, after=None, rows_max=PAGE)

    assert cache.runs_held >= PAGE
    assert cache.bytes_held <= 20_000


def test_experiments_that_no_run_refers_to_take_no_memory(counting: CountingKv) -> None:
    (number,) = make_runs(counting, 1)
    cache = RunCache(counting)
    scanned(cache)
    before = cache.bytes_held
    make_experiments(counting, 50)

    cache.catch_up(DEFAULT_PROJECT)

    assert cache.bytes_held == before > 0
    clear_run(counting, number)
    assert scanned(cache) == []
    assert cache.bytes_held == 0


def test_a_tag_that_is_archived_and_taken_back_is_seen_again(kv: KvEngine) -> None:
    make_run(kv, "run", tags=["best"])
    cache = RunCache(kv)
    shown = []
    for archived in (True, False):
        tag = make_tag(kv, "best")
        changed = msgspec.structs.replace(tag, archived=archived)
        kv.write(lambda tx, tag=tag, changed=changed: catalog.tags.replace(tx, DEFAULT_PROJECT, tag, changed))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        shown += [[each.name for each in run.tags] for run in scanned(cache)]

    assert shown == [[], ["best"]]


def test_memory_is_counted_about_right(counting: CountingKv) -> None:
    for i in range(1000):
        make_run(
            counting,
            f"{i:024x}",
            name=f"run {i}",
            created_at_seconds=1e9 + i,
            experiment=f"e{i % 5}",
            tags=["a", "b"][: i % 3],
            params={"hparams": {"lr": i / 7, "layers": i, "optimizer": "adam"}, "note": "x" * (i % 500)},
        )
    cache = RunCache(counting)
    cache.catch_up(DEFAULT_PROJECT)
    cache.list_newest(DEFAULT_PROJECT, after=None, rows_max=1)
    tracemalloc.start()

    scanned_page = cache.list_newest(DEFAULT_PROJECT, after=after_newest(counting), rows_max=999)
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(scanned_page.runs) == 999
    assert 0.7 < cache.bytes_held / used < 1.5


def after_newest(kv: CountingKv) -> bytes | None:
    return kv.read(lambda reader: runs.position(reader, DEFAULT_PROJECT, RunId(f"{999:024x}")))


# ---- a model


class CacheMachine(RuleBasedStateMachine):
    """Random writes, and caches of three sizes that follow them, as those of three processes do."""

    numbers = Bundle("numbers")

    @initialize(rates=st.sampled_from([None, MODERATE, FaultRates(unknown_applied=0.5)]), seed=st.integers(0, 2**32))
    def open(self, rates: FaultRates | None, seed: int) -> None:
        self.directory = TemporaryDirectory()
        self.engine = open_embedded_kv(Path(self.directory.name), map_bytes=2**28)
        self.kv: KvEngine = self.engine if rates is None else FaultyKv(self.engine, seed=seed, rates=rates)
        self.caches = [RunCache(self.kv, bytes_max=bytes_max) for bytes_max in (0, 8000, 10**9)]
        self.positions: list[bytes | None] = [None] * 3
        self.made = 0

    @rule(
        target=numbers,
        created=st.integers(0, 20),
        experiment=st.sampled_from([None, "e", "f"]),
        tags=st.sets(st.sampled_from(["s", "t"])),
        size=st.sampled_from([1, 300]),
    )
    def make(self, created: int, experiment: str | None, tags: set[str], size: int) -> RunNumber:
        self.made += 1
        return make_run(
            self.kv,
            f"run-{self.made}",
            created_at_seconds=1e9 + created,
            experiment=experiment,
            tags=sorted(tags),
            params={"x": "y" * size},
        )

    @rule(number=numbers, name=st.sampled_from(["a", "b"]), params=st.dictionaries(st.text(), st.integers(0, 9)))
    def edit(self, number: RunNumber, name: str, params: dict[str, int]) -> None:
        if self._exists(number):
            change(self.kv, number, name=name, params=encode_tree(params))

    @rule(number=numbers)
    def delete(self, number: RunNumber) -> None:
        clear_run(self.kv, number)

    @rule(name=st.sampled_from(["e", "f"]), described=st.sampled_from(["x", "y"]))
    def describe_experiment(self, name: str, described: str) -> None:
        before = make_experiment(self.kv, name)
        after = msgspec.structs.replace(before, description=described)
        self.kv.write(lambda tx: catalog.experiments.replace(tx, DEFAULT_PROJECT, before, after), durable=False)

    @rule(name=st.sampled_from(["s", "t"]), archived=st.booleans(), color=st.sampled_from(["red", "blue"]))
    def edit_tag(self, name: str, archived: bool, color: str) -> None:
        before = make_tag(self.kv, name)
        after = msgspec.structs.replace(before, archived=archived, color=color)
        self.kv.write(lambda tx: catalog.tags.replace(tx, DEFAULT_PROJECT, before, after), durable=False)

    @rule(name=st.sampled_from(["s", "t"]))
    def delete_tag(self, name: str) -> None:
        tag = make_tag(self.kv, name)
        self.kv.write(lambda tx: catalog.tags.begin_deletion(tx, DEFAULT_PROJECT, tag, deletes_runs=False))

    @rule()
    def trim(self) -> None:
        trim_all(self.kv)

    @rule(index=st.integers(0, 2), pages=st.integers(1, 3))
    def read_some(self, index: int, pages: int) -> None:
        cache = self.caches[index]
        cache.catch_up(DEFAULT_PROJECT)
        after: bytes | None = None
        for _ in range(pages):
            _, after = cache.list_newest(DEFAULT_PROJECT, after=after, rows_max=2)
            if after is None:
                break

    @rule(index=st.integers(0, 2), rows_max=st.integers(1, 5))
    def read_all(self, index: int, rows_max: int) -> None:
        assert scanned(self.caches[index], rows_max=rows_max) == stored(self.engine)

    @rule(index=st.integers(0, 2), rows_max=st.integers(1, 5))
    def list_held(self, index: int, rows_max: int) -> None:
        cache = self.caches[index]
        cache.catch_up(DEFAULT_PROJECT)
        numbers: list[int] = []
        after: bytes | None = None
        while (page := cache.list_held(DEFAULT_PROJECT, after=after, rows_max=rows_max)) is not None and page.runs:
            numbers += page.numbers
            after = keyspace.run_by_time(DEFAULT_PROJECT, *page.runs[-1].document.place(page.runs[-1].number))
        assert numbers == [run.number for run in stored(self.engine)][: len(numbers)]
        assert page is None or len(numbers) == len(stored(self.engine))
        assert len(numbers) == cache.runs_held

    @rule(index=st.integers(0, 2), wanted=st.lists(st.integers(1, 30), unique=True))
    def load(self, index: int, wanted: list[int]) -> None:
        cache = self.caches[index]
        numbers = [RunNumber(number) for number in wanted]
        cache.catch_up(DEFAULT_PROJECT)

        found = self.kv.read(lambda reader: cache.load(reader, DEFAULT_PROJECT, numbers))

        everything = {run.number: run for run in stored(self.engine)}
        assert list(map(seen, found)) == [everything[number] for number in wanted if number in everything]

    @rule(index=st.integers(0, 2))
    def read_on(self, index: int) -> None:
        """Read the next page of a search that began before whatever was written meanwhile."""
        page = self.caches[index].list_newest(DEFAULT_PROJECT, after=self.positions[index], rows_max=2)
        self.positions[index] = page.position

    @invariant()
    def memory_is_bounded(self) -> None:
        for cache, bytes_max in zip(getattr(self, "caches", []), (0, 8000, 10**9), strict=False):
            assert cache.bytes_held <= bytes_max

    def _exists(self, number: RunNumber) -> bool:
        return self.engine.read(lambda reader: runs.read_documents(reader, DEFAULT_PROJECT, [number])) != [None]

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.engine.close()
            self.directory.cleanup()


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
