"""A deleted run is freed to the last key and file, wherever the work is stopped and however often it is repeated."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from matyan.catalog.notes import run_notes
from matyan.clock import ManualClock
from matyan.engines.blob.filesystem import FilesystemBlobs, open_filesystem_blobs
from matyan.engines.blob.protocol import always
from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.errors import UnavailableError
from matyan.ids import DEFAULT_PROJECT, RunId
from matyan.maintenance.deletion import LATE_SECONDS, RETRY_SECONDS, Deletions
from matyan.maintenance.settle import settle_quiet_runs
from matyan.runs import repository, tombstones
from matyan.runs.changes import RunChanges
from matyan.runs.graves import Graves
from matyan.runs.model import SYSTEM_PARAMS, EditMark
from matyan.sequences import terminal
from matyan.sequences.terminal import Terminal
from matyan.store import keyspace
from matyan.store.subspaces import Subspace
from matyan.workers.leases import StoreLeases
from tests.support.kv import read_all
from tests.support.kv_faults import ROUGH, FaultyKv
from tests.support.store import make_metric, make_objects, make_run

T = TypeVar("T")
RUN = RunId("a")


class _KilledError(Exception):
    """The process ends here."""


class MortalKv:
    """A store whose process dies just before, or just after, one of its commits."""

    def __init__(self, engine: EmbeddedKv, *, writes: int, dies_before: bool) -> None:
        self._engine = engine
        self._writes_left = writes
        self._dies_before = dies_before

    def read(self, fn: Callable[[KvReader], T]) -> T:
        return self._engine.read(fn)

    def write(self, fn: Callable[[KvTransaction], T], *, durable: bool = True) -> T:
        self._writes_left -= 1
        if self._writes_left < 0 and self._dies_before:
            raise _KilledError
        found = self._engine.write(fn, durable=durable)
        if self._writes_left < 0:
            raise _KilledError
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class BrokenBlobs:
    """An object store that cannot be reached."""

    def __init__(self, blobs: FilesystemBlobs) -> None:
        self._blobs = blobs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def delete_prefix(self, prefix: str, *, may_go_on: Callable[[], bool] = always) -> int:
        del may_go_on
        raise UnavailableError(f"no way to {prefix}")


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[EmbeddedKv]:
    engine = open_embedded_kv(tmp_path / "kv", map_bytes=2**30)
    yield engine
    engine.close()


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[FilesystemBlobs]:
    store = open_filesystem_blobs(tmp_path / "blobs", keys=[b"s" * 32])
    yield store
    store.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def fill(kv: EmbeddedKv, blobs: FilesystemBlobs, run: str = RUN, items: int = 1200) -> None:
    """Store a run with something in every place where a run can have something, and files."""
    number = make_run(kv, run, params={"lr": 0.1, SYSTEM_PARAMS: {"host": "x"}}, tags=["t"], archived=True)
    make_metric(kv, number, "loss", list(range(3000)))
    make_objects(kv, number, "text", "samples", [{"type": "text", "data": str(step)} for step in range(items)])
    kv.write(lambda tx: run_notes.create(tx, DEFAULT_PROJECT, number, "x" * 200_000, 0.0))
    kv.write(lambda tx: terminal.put(tx, DEFAULT_PROJECT, number, Terminal(line_next=3)))
    kv.write(lambda tx: tx.put(keyspace.unsettled_run(DEFAULT_PROJECT, number), bytes(8)))
    for name in ("a.bin", "seq/images/b.png"):
        blobs.put(f"default/{run}/{name}", [b"data"], content_type="x")


def changes(kv: EmbeddedKv, blobs: FilesystemBlobs, clock: ManualClock) -> RunChanges:
    return RunChanges(
        kv=kv, graves=Graves(kv=kv, blobs=blobs), mark_of=lambda project, run_id: EditMark("log", 7), clock=clock
    )


def deletions(kv: Any, blobs: Any, clock: ManualClock) -> Deletions:
    return Deletions(kv=kv, graves=Graves(kv=kv, blobs=blobs), clock=clock)


def space_of(key: bytes) -> Subspace:
    """Return the second element of a key: a one-byte integer behind the project's text and its end."""
    return Subspace(key[key.index(b"\x00") + 2])


def contents(kv: EmbeddedKv) -> Counter[Subspace]:
    """Return how many keys each subspace holds."""
    return Counter(map(space_of, read_all(kv)))


def rows_of_runs(kv: EmbeddedKv) -> int:
    """Return how many keys there are without the index, of which nothing is read to free a run."""
    return sum(count for space, count in contents(kv).items() if space is not Subspace.INDEX)


KEPT = {
    Subspace.RUN_COUNTER,
    Subspace.INDEX_STATE,
    Subspace.CHANGES,
    Subspace.CLEARED_RUNS,
    Subspace.NOTE_COUNTER,
    Subspace.EXPERIMENTS,
    Subspace.EXPERIMENT_NAMES,
    Subspace.TAGS,
    Subspace.TAG_NAMES,
    Subspace.TOMBSTONES,
    Subspace.DELETIONS,
    Subspace.OUTBOX,
}


def test_everything_of_a_run_is_freed_but_its_tombstone(
    kv: EmbeddedKv, blobs: FilesystemBlobs, clock: ManualClock
) -> None:
    fill(kv, blobs)
    fill(kv, blobs, "ab", items=3)
    other = {key: value for key, value in read_all(kv).items() if space_of(key) in (Subspace.ITEMS, Subspace.POINTS)}
    changes(kv, blobs, clock).delete(RunId("ab"))
    deletions(kv, blobs, clock).free_due(DEFAULT_PROJECT, seconds_max=60)
    assert set(read_all(kv)) & set(other), "the other run is still there"
    changes(kv, blobs, clock).delete(RUN)

    freed = deletions(kv, blobs, clock).free_due(DEFAULT_PROJECT, seconds_max=60)

    assert freed == 1
    assert set(contents(kv)) == KEPT
    assert list(blobs.list("")) == []


@pytest.mark.parametrize("dies_before", [True, False])
def test_work_that_is_stopped_at_any_commit_is_ended_by_the_next_process(
    kv: EmbeddedKv, blobs: FilesystemBlobs, clock: ManualClock, *, dies_before: bool
) -> None:
    fill(kv, blobs, items=4000)
    before = len(read_all(kv))
    changes(kv, blobs, clock).delete(RUN)

    deaths = 0
    while True:
        mortal = MortalKv(kv, writes=deaths, dies_before=dies_before)
        try:
            deletions(mortal, blobs, clock).free_due(DEFAULT_PROJECT, seconds_max=60)
            break
        except _KilledError:
            deaths += 1
            assert kv.read(lambda reader: repository.find(reader, DEFAULT_PROJECT, RUN)) is None

    assert deaths >= 3
    assert set(contents(kv)) == KEPT
    assert len(read_all(kv)) < 0.05 * before
    assert list(blobs.list("")) == []


def test_little_time_frees_little_and_the_next_call_goes_on(
    kv: EmbeddedKv, blobs: FilesystemBlobs, clock: ManualClock
) -> None:
    fill(kv, blobs)
    changes(kv, blobs, clock).delete(RUN)
    job = deletions(kv, blobs, clock)

    calls = 1
    while not job.free_due(DEFAULT_PROJECT, seconds_max=1e-9 if calls % 2 else 0.001):
        calls += 1
        assert calls < 100

    assert calls > 1
    assert set(contents(kv)) == KEPT


def test_files_uploaded_after_the_deletion_are_freed_when_their_address_has_expired(
    kv: EmbeddedKv, blobs: FilesystemBlobs, clock: ManualClock
) -> None:
    fill(kv, blobs)
    changes(kv, blobs, clock).delete(RUN)
    job = deletions(kv, blobs, clock)
    job.free_due(DEFAULT_PROJECT, seconds_max=60)
    blobs.put("default/a/late.bin", [b"late"], content_type="x")
    clock.advance(LATE_SECONDS - 1)
    assert job.free_due(DEFAULT_PROJECT, seconds_max=60) == 0

    clock.advance(1)
    job.free_due(DEFAULT_PROJECT, seconds_max=60)

    assert list(blobs.list("")) == []
    assert Subspace.DELETIONS not in contents(kv)
    assert contents(kv)[Subspace.TOMBSTONES] == 1


def test_files_of_a_hash_that_lives_again_are_left_alone(
    kv: EmbeddedKv, blobs: FilesystemBlobs, clock: ManualClock
) -> None:
    fill(kv, blobs)
    people = changes(kv, blobs, clock)
    people.delete(RUN)
    people.clear_tombstone(RUN)
    assert list(blobs.list("")) == [], "clearing frees the old run's files"
    blobs.put("default/a/new.bin", [b"new"], content_type="x")
    people.clear_tombstone(RUN)
    job = deletions(kv, blobs, clock)

    job.free_due(DEFAULT_PROJECT, seconds_max=60)
    clock.advance(LATE_SECONDS)
    job.free_due(DEFAULT_PROJECT, seconds_max=60)

    assert [info.key for info in blobs.list("")] == ["default/a/new.bin"]
    assert set(contents(kv)) == KEPT - {Subspace.DELETIONS}


def test_an_object_store_that_is_away_holds_up_nothing_and_is_asked_again(
    kv: EmbeddedKv, blobs: FilesystemBlobs, clock: ManualClock
) -> None:
    fill(kv, blobs, "a", items=1)
    fill(kv, blobs, "b", items=1)
    changes(kv, blobs, clock).delete_many([RunId("a"), RunId("b")])

    deletions(kv, BrokenBlobs(blobs), clock).free_due(DEFAULT_PROJECT, seconds_max=60)
    assert Subspace.ITEMS not in contents(kv)
    assert len(list(blobs.list(""))) == 4
    clock.advance(RETRY_SECONDS)
    deletions(kv, blobs, clock).free_due(DEFAULT_PROJECT, seconds_max=60)

    assert list(blobs.list("")) == []


def test_settling_a_run_while_it_is_freed_writes_nothing_back(
    kv: EmbeddedKv, blobs: FilesystemBlobs, clock: ManualClock
) -> None:
    fill(kv, blobs, items=3)
    number = kv.read(lambda reader: repository.get_number(reader, DEFAULT_PROJECT, RUN))
    assert number is not None
    changes(kv, blobs, clock).delete(RUN)
    deletions(kv, blobs, clock).free_due(DEFAULT_PROJECT, seconds_max=60)
    assert set(contents(kv)) == KEPT
    kv.write(lambda tx: tx.put(keyspace.unsettled_run(DEFAULT_PROJECT, number), bytes(8)))

    settle_quiet_runs(kv, DEFAULT_PROJECT, clock, all_runs=True)

    assert set(contents(kv)) == KEPT


@pytest.mark.parametrize("seed", range(3))
def test_a_store_that_fails_as_foundationdb_does_is_freed_to_the_end_by_two_at_once(
    kv: EmbeddedKv, blobs: FilesystemBlobs, clock: ManualClock, seed: int
) -> None:
    for run in ("a", "b", "c"):
        fill(kv, blobs, run, items=30)
    faulty = FaultyKv(kv, seed=seed, rates=ROUGH)
    changes(kv, blobs, clock).delete_many([RunId("a"), RunId("b"), RunId("c")])
    processes = [StoreLeases(kv=faulty, seconds=5) for _ in range(2)]
    jobs = [Deletions(kv=faulty, graves=Graves(kv=faulty, blobs=blobs, leases=one), clock=clock) for one in processes]

    def free(job: Deletions) -> None:
        with contextlib.suppress(UnavailableError):  # the service logs it and comes again
            job.free_due(DEFAULT_PROJECT, seconds_max=60)

    for _ in range(20):
        threads = [threading.Thread(target=free, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        clock.advance(RETRY_SECONDS)

    left = set(contents(kv)) - {Subspace.LEASES}  # one that was given back while the store was away expires
    assert left == KEPT, faulty
    assert list(blobs.list("")) == []
    for one in processes:
        one.close()


def test_one_transaction_reads_no_more_of_a_run_than_a_hundred_rows(
    kv: EmbeddedKv, blobs: FilesystemBlobs, clock: ManualClock
) -> None:
    fill(kv, blobs, items=300)
    changes(kv, blobs, clock).delete(RUN)
    (due,) = kv.read(lambda reader: tombstones.list_due(reader, DEFAULT_PROJECT, 2**53, rows_max=10))
    before = rows_of_runs(kv)

    is_done = deletions(kv, blobs, clock).free(DEFAULT_PROJECT, due, seconds_max=0)

    assert not is_done
    assert 0 < before - rows_of_runs(kv) <= 100


def test_a_deletion_is_due_at_once(kv: EmbeddedKv, blobs: FilesystemBlobs, clock: ManualClock) -> None:
    fill(kv, blobs, items=1)

    changes(kv, blobs, clock).delete(RUN)

    now_ms = int(clock.now_seconds() * 1000)
    (due,) = kv.read(lambda reader: tombstones.list_due(reader, DEFAULT_PROJECT, now_ms, rows_max=10))
    assert (due.deletion.run_id, due.deletion.is_late) == (RUN, False)
