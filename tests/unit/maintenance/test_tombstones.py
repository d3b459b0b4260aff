"""A tombstone goes when nothing can bring its run back, and not a moment earlier; whoever goes on keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.ids import DEFAULT_PROJECT, RunId
from matyan.maintenance.deletion import Deletions
from matyan.maintenance.horizon import Horizon
from matyan.maintenance.letters import read_all
from matyan.maintenance.tombstones import TombstoneExpiry
from matyan.maintenance.watch import Watch
from matyan.runs import tombstones
from matyan.runs.tombstones import Tombstone
from matyan.store import deadletters
from matyan.wire.messages import CreateRun, LogMetric, SetRunProperty
from tests.support.pipeline import KINDS, RUN, TOPIC, Pipeline, pipeline

pytestmark = pytest.mark.one_python

HOUR = 3600.0
KEPT = 168 * HOUR
LOOK = 12 * HOUR
"""From one look at the horizon to the next; a break is longer than a day here."""


class World:
    """A pipeline, and the jobs that follow a deletion."""

    def __init__(self, pipe: Pipeline) -> None:
        self.pipe = pipe
        horizon = Horizon(kv=pipe.kv, log=pipe.log, topic=TOPIC, clock=pipe.clock)
        self.watch = Watch(kv=pipe.kv, horizon=horizon.measure, clock=pipe.clock, break_seconds=2 * LOOK)
        self.watch.look()
        self.expiry = TombstoneExpiry(kv=pipe.kv, limit=self.watch.limit, keep_seconds=KEPT)
        self.deletions = Deletions(kv=pipe.kv, graves=pipe.graves, clock=pipe.clock)

    def wait(self, seconds: float) -> int:
        """Let time go by, free what is due, then remove tombstones; return how many."""
        self.watch_for(seconds)
        self.deletions.free_due(DEFAULT_PROJECT, seconds_max=60)
        return self.expiry.expire(DEFAULT_PROJECT, seconds_max=60)

    def watch_for(self, seconds: float) -> None:
        """Let time go by and only look at the horizon."""
        while seconds > 0:
            self.pipe.clock.advance(min(LOOK, seconds))
            self.watch.look()
            seconds -= LOOK

    def tombstone(self, run: str = RUN) -> Tombstone | None:
        return self.pipe.kv.read(lambda reader: tombstones.get(reader, DEFAULT_PROJECT, RunId(run)))

    def delete(self, run: str = RUN) -> None:
        """Make a run and delete it; its files are looked for a second time within the next hours."""
        self.pipe.apply(CreateRun(), run=run)
        self.pipe.changes.delete(RunId(run))


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with pipeline(request.param, tmp_path) as pipe:
        yield World(pipe)


def test_an_old_tombstone_goes_and_a_young_one_stays(world: World) -> None:
    world.delete("old")
    world.wait(3 * HOUR)
    world.delete("young")

    removed = [world.wait(KEPT - 3 * HOUR - 60), world.wait(120)]

    assert removed == [0, 1]
    assert world.tombstone("old") is None
    assert world.tombstone("young") is not None


def test_a_client_that_trains_on_for_weeks_never_revives_its_run(world: World) -> None:
    world.delete()

    for _ in range(24):
        assert world.wait(24 * HOUR) == 0
        world.pipe.apply(CreateRun(), LogMetric("loss", 1.0, 0))
        assert world.pipe.find() is None

    assert world.wait(KEPT - HOUR) == 0
    assert world.wait(3 * HOUR) == 1


def test_late_records_are_noted_once_an_hour(world: World) -> None:
    world.delete()
    noted = []

    for _ in range(40):
        world.pipe.clock.advance(HOUR / 8)
        world.pipe.apply(LogMetric("loss", 1.0, 0))
        noted.append(world.tombstone())

    assert 4 <= len(set(noted)) <= 6


def test_clearing_begins_the_time_anew(world: World) -> None:
    world.delete()
    world.wait(KEPT - HOUR)
    world.pipe.changes.clear_tombstone(RUN)
    world.pipe.apply(CreateRun())

    removed = [world.wait(KEPT - HOUR), world.wait(2 * HOUR)]

    assert removed == [0, 1]
    assert world.pipe.find() is not None


def test_a_tombstone_stays_while_something_is_left_to_free(world: World) -> None:
    world.delete()
    world.watch_for(2 * KEPT)

    removed = world.expiry.expire(DEFAULT_PROJECT, seconds_max=60)

    assert removed == 0
    assert world.watch.limit(KEPT), "it is old enough"


def test_a_tombstone_outlives_records_that_the_workers_have_not_seen(world: World) -> None:
    world.delete()
    world.wait(3 * HOUR)
    world.wait(3 * HOUR)
    world.pipe.append(CreateRun(), LogMetric("loss", 1.0, 0))  # and the workers stand still for months

    assert world.wait(10 * KEPT) == 0
    world.pipe.work()
    assert world.pipe.find() is None


def test_a_tombstone_stays_while_a_dead_letter_of_its_run_could_be_tried_again(world: World) -> None:
    world.pipe.apply(SetRunProperty(name="x" * 5000))
    world.delete()
    world.wait(3 * HOUR)

    assert world.wait(2 * KEPT) == 0


def test_a_tombstone_is_kept_for_its_time_anew_after_nothing_moved(world: World) -> None:
    world.delete()
    world.wait(3 * HOUR)
    world.pipe.clock.advance(2 * KEPT)  # log or store cannot be asked; a frontier keeps records of the dead run

    removed = [world.wait(60), world.wait(KEPT - HOUR)]
    world.pipe.apply(CreateRun(), LogMetric("loss", 1.0, 0))

    assert removed == [0, 0]
    assert world.pipe.find() is None


def test_no_tombstone_goes_while_a_dead_letter_names_no_run(world: World) -> None:
    world.delete()
    world.wait(3 * HOUR)
    world.pipe.append_value(b"not an envelope")
    world.pipe.work()
    (letter,) = read_all(world.pipe.kv)

    removed = [world.wait(2 * KEPT)]
    world.pipe.kv.write(lambda tx: deadletters.clear(tx, letter.origin))
    removed.append(world.wait(60))

    assert letter.run_id == ""
    assert removed == [0, 1]


def test_a_run_of_the_job_that_ends_early_goes_on_where_it_ended(world: World) -> None:
    for number in range(450):
        world.pipe.append(CreateRun(), run=f"r{number:03}")
    world.pipe.work()
    world.pipe.changes.delete_many([RunId(f"r{number:03}") for number in range(450)])
    world.wait(3 * HOUR)
    world.watch_for(KEPT)

    removed = [world.expiry.expire(DEFAULT_PROJECT, seconds_max=0) for _ in range(4)]

    assert sum(removed) == 450
    assert max(removed) < 450
    assert world.tombstone("r000") is None
    assert world.tombstone("r449") is None
