"""What is logged for a deleted run is dropped until its hash lives again; what came before that is dead for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from matyan.catalog import repository as catalog
from matyan.clock import ManualClock
from matyan.engines.blob.filesystem import FilesystemBlobs, open_filesystem_blobs
from matyan.engines.blob.protocol import BlobEngine, BlobInfo
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KvEngine
from matyan.ids import DEFAULT_PROJECT
from matyan.ingestion.apply import Outcome
from matyan.limits import INLINE_BYTES_MAX
from matyan.maintenance.deletion import Deletions
from matyan.runs import tombstones
from matyan.runs.changes import RunChanges
from matyan.runs.graves import Graves
from matyan.store import deadletters
from matyan.wire.messages import BlobRef, CreateRun, LogCustomObject, SetRunProperty
from tests.support.applier import PARTITION, RUN, Bench, metric
from tests.support.kv import RunTwiceKv

LATE_MS = 4_000_000_000_000


class World(Bench):
    """A worker, and people who delete its runs."""

    def __init__(self, kv: KvEngine, blobs: BlobEngine) -> None:
        super().__init__(kv, blobs)
        self.clock = ManualClock()
        graves = Graves(kv=kv, blobs=blobs)
        self.changes = RunChanges(kv=kv, graves=graves, mark_of=self.mark, clock=self.clock)
        self.deletions = Deletions(kv=kv, graves=graves, clock=self.clock)

    def handle_all(self) -> Outcome:
        """Offer the whole log, as after a restart."""
        outcome: Outcome = self.restart().handle(PARTITION, self.log)
        return outcome


@pytest.fixture(params=["embedded", "embedded-twice"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    engine = open_embedded_kv(tmp_path / "kv", map_bytes=2**32)
    blobs = open_filesystem_blobs(tmp_path / "blobs", keys=[b"s" * 32])
    yield World(engine if request.param == "embedded" else RunTwiceKv(engine), blobs)
    engine.close()
    blobs.close()


def test_records_of_a_deleted_run_are_dropped_and_counted(world: World) -> None:
    world.apply(CreateRun(), metric(0, 1.0))
    world.changes.delete(RUN)

    dropped = world.applier.handle(PARTITION, [world.record(CreateRun(), metric(1, 2.0)), world.record(metric(2, 3.0))])

    assert world.find() is None
    assert (dropped.commands, dropped.dropped_deleted) == (3, 3)


def test_records_of_other_runs_in_the_same_slice_are_applied(world: World) -> None:
    world.apply(CreateRun(), metric(0, 1.0))
    world.changes.delete(RUN)

    slice_ = [world.record(metric(1, 2.0)), world.record(metric(7, 1.0), run="b"), world.record(metric(2, 3.0))]
    outcome = world.applier.handle(PARTITION, slice_)

    assert world.find("b") is not None
    assert (outcome.commands, outcome.dropped_deleted) == (3, 2)


def test_records_queued_at_the_deletion_stay_dead_when_the_hash_lives_again(world: World) -> None:
    world.apply(CreateRun(), SetRunProperty(name="old"), metric(0, 1.0))
    queued = [world.record(SetRunProperty(name="queued")), world.record(metric(1, 1.0))]
    world.changes.delete(RUN)
    queued.append(world.record(metric(2, 1.0)))
    world.changes.clear_tombstone(RUN)
    fresh = world.record(CreateRun(), metric(0, 5.0))

    outcome = world.applier.handle(PARTITION, [*queued, fresh])

    assert outcome.dropped_deleted == 3
    assert world.run().document.name is None
    assert dict(zip(world.points("loss").steps.tolist(), world.points("loss").values.tolist(), strict=True)) == {0: 5.0}


def test_the_new_run_of_a_hash_is_another_run(world: World) -> None:
    world.apply(CreateRun(), metric(0, 1.0))
    before = world.run().number
    world.changes.delete(RUN)
    world.changes.clear_tombstone(RUN)
    world.apply(CreateRun())

    world.deletions.free_due(DEFAULT_PROJECT, seconds_max=60)

    assert world.run().number != before
    assert world.summaries() == []


def test_a_log_offered_again_after_deleting_and_clearing_changes_nothing(world: World) -> None:
    world.apply(CreateRun(), metric(0, 1.0))
    world.changes.delete(RUN)
    world.apply(metric(1, 1.0))
    world.changes.clear_tombstone(RUN)
    world.apply(CreateRun(), metric(2, 1.0))

    outcome = world.handle_all()

    assert outcome.records == 0
    assert world.points("loss").steps.tolist() == [2]


def test_a_hash_dies_and_lives_many_times(world: World) -> None:
    for life in range(3):
        world.apply(CreateRun(), metric(life, 1.0))
        assert world.points("loss").steps.tolist() == [life]
        assert world.changes.delete(RUN)
        assert not world.changes.delete(RUN)
        world.apply(metric(99, 1.0))
        world.changes.clear_tombstone(RUN)

    assert world.find() is None


def test_clearing_a_hash_that_lives_harms_nothing(world: World) -> None:
    world.apply(CreateRun())
    world.changes.delete(RUN)
    world.changes.clear_tombstone(RUN)
    record = world.record(CreateRun(), metric(0, 1.0))
    world.changes.clear_tombstone(RUN)

    world.applier.handle(PARTITION, [record])

    assert world.points("loss").steps.tolist() == [0]


def test_no_blob_is_written_for_a_dead_run(world: World) -> None:
    world.apply(CreateRun())
    world.changes.delete(RUN)

    world.apply(LogCustomObject("t", {"type": "text", "data": "x" * (INLINE_BYTES_MAX + 1)}, 0))

    assert list(world.blobs.list("")) == []


def test_an_item_of_a_dead_run_that_cannot_be_applied_is_no_dead_letter(world: World) -> None:
    world.apply(CreateRun())
    world.changes.delete(RUN)

    world.apply(SetRunProperty(name="x" * 10_000))

    assert world.kv.read(deadletters.read) == []


def test_a_file_that_arrives_for_a_dead_run_is_freed_within_the_hour(world: World) -> None:
    world.apply(CreateRun())
    world.changes.delete(RUN)
    world.deletions.free_due(DEFAULT_PROJECT, seconds_max=60)
    world.clock.advance(10 * 3600)
    world.deletions.free_due(DEFAULT_PROJECT, seconds_max=60)
    world.blobs.put(f"default/{RUN}/late.bin", [b"late"], content_type="x")

    world.apply(BlobRef("key", "late.bin"), BlobRef("key", "late.bin"))
    world.apply(BlobRef("key", "later.bin"))

    due = world.kv.read(lambda reader: tombstones.list_due(reader, DEFAULT_PROJECT, LATE_MS, rows_max=10))
    assert [one.deletion.is_late for one in due] == [True]
    assert 0 < due[0].due_ms - 1_000_000 <= 3_600_000
    world.deletions.free_due(DEFAULT_PROJECT, seconds_max=60)
    assert list(world.blobs.list("")) == []


class WatchedBlobs:
    """An object store that does something before every write."""

    def __init__(self, blobs: FilesystemBlobs) -> None:
        self._blobs = blobs
        self.before_put: Callable[[], object] = bool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def put(self, key: str, chunks: Iterable[bytes], *, content_type: str) -> BlobInfo:
        self.before_put()
        return self._blobs.put(key, chunks, content_type=content_type)


def test_a_deletion_between_reading_ahead_and_the_transaction_is_seen(tmp_path: Path) -> None:
    engine = open_embedded_kv(tmp_path / "kv", map_bytes=2**32)
    blobs = WatchedBlobs(open_filesystem_blobs(tmp_path / "blobs", keys=[b"s" * 32]))
    world = World(engine, blobs)
    world.apply(CreateRun())
    blobs.before_put = partial(world.changes.delete, RUN)
    big = LogCustomObject("t", {"type": "text", "data": "x" * (INLINE_BYTES_MAX + 1)}, 0)

    outcome = world.applier.handle(PARTITION, [world.record(big)])

    assert outcome.dropped_deleted == 1
    assert world.find() is None
    world.deletions.free_due(DEFAULT_PROJECT, seconds_max=60)
    assert list(blobs.list("")) == []
    engine.close()


class Lives(RuleBasedStateMachine):
    """Records, deletions, clearings and freeing in any order, applied late and more than once."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        path = Path(self._folder.name)
        self._engine = open_embedded_kv(path / "kv", map_bytes=2**28)
        self._files = open_filesystem_blobs(path / "blobs", keys=[b"s" * 32])
        self.world = World(self._engine, self._files)
        self.applied = 0
        self.born = 0
        """Records before this one are dead, or were before the last deletion."""
        self.is_dead = False

    def teardown(self) -> None:
        self._engine.close()
        self._files.close()
        self._folder.cleanup()

    def known(self) -> bool:
        """Whether the model says that the run is there."""
        return not self.is_dead and self.applied > self.born

    @rule()
    def log(self) -> None:
        self.world.record(metric(len(self.world.log), 1.0))

    @rule(records=st.integers(1, 5), again=st.integers(0, 3))
    def apply(self, records: int, again: int) -> None:
        fresh = self.world.log[max(0, self.applied - again) : self.applied + records]
        if fresh:
            self.world.applier.handle(PARTITION, fresh)
        end = min(len(self.world.log), self.applied + records)
        if self.is_dead:
            self.lost(end)
        self.applied = end

    def lost(self, end: int) -> None:
        """Records applied while the run was dead are gone."""
        self.born = max(self.born, end)

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @rule()
    def delete(self) -> None:
        found = self.world.changes.delete(RUN)
        assert found == self.known()
        if found:
            self.is_dead = True

    @rule()
    @precondition(lambda self: self.is_dead)
    def clear(self) -> None:
        self.world.changes.clear_tombstone(RUN)
        self.is_dead = False
        self.born = len(self.world.log)

    @rule()
    def free(self) -> None:
        self.world.deletions.free_due(DEFAULT_PROJECT, seconds_max=60)

    @invariant()
    def the_run_holds_what_was_applied_of_its_life(self) -> None:
        expected = list(range(self.born, self.applied)) if self.known() else []
        found = self.world.find()
        steps = [] if found is None else self.world.points("loss").steps.tolist()
        assert steps == expected

    @invariant()
    def experiments_count_the_run_when_it_is_there(self) -> None:
        default = self._engine.read(lambda reader: catalog.experiments.find(reader, DEFAULT_PROJECT, "default"))
        if default is not None:
            count = self._engine.read(
                lambda reader: catalog.experiments.count_runs(reader, DEFAULT_PROJECT, default.id)
            )
            assert count == int(self.known())


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
