"""Every byte of a run is counted, wherever it lies, and those of no other; a deleted run is found by its tombstone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.blobs.service import blob_key
from matyan.errors import NotFoundError
from matyan.ids import DEFAULT_PROJECT, RunId
from matyan.maintenance import space
from matyan.maintenance.deletion import Deletions
from matyan.maintenance.space import Amount, Space
from matyan.store.subspaces import Subspace
from matyan.wire.messages import AddTag, CreateRun, LogHparams, LogMetric, LogTerminalLine
from tests.support.kv import engine_under, read_all
from tests.support.pipeline import RUN, Pipeline, pipeline

SHARED = {
    Subspace.APPLIED,
    Subspace.RUN_COUNTER,
    Subspace.EXPERIMENTS,
    Subspace.EXPERIMENT_NAMES,
    Subspace.TAGS,
    Subspace.TAG_NAMES,
    Subspace.INDEX_STATE,
    Subspace.CHANGES,
}
"""What belongs to no run alone."""


@pytest.fixture(params=["embedded", "embedded-twice"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pipeline]:
    with pipeline(request.param, tmp_path) as made:
        yield made


def fill(world: Pipeline, run: str = RUN) -> None:
    points = [LogMetric("loss", 1.0, step) for step in range(2000)]
    world.apply(
        CreateRun(), AddTag("t"), LogHparams({"k": "v" * 100_000}), LogTerminalLine("hello", 0), *points, run=run
    )
    world.blobs.put(blob_key(DEFAULT_PROJECT, run, "a.bin"), [b"x" * 1000], content_type="x")


def of_run(world: Pipeline, run: str = RUN) -> Space:
    return space.of_run(world.kv, world.blobs, DEFAULT_PROJECT, RunId(run))


def of_all(world: Pipeline) -> Space:
    return space.of_project(world.kv, world.blobs, DEFAULT_PROJECT)


def test_a_run_takes_all_that_the_store_got_by_it(world: Pipeline) -> None:
    fill(world)

    found = of_run(world)

    everything = of_all(world)
    assert found.keys == {where: amount for where, amount in everything.keys.items() if where not in SHARED}
    assert found.files == everything.files == Amount(1, 1000)


def test_everything_is_every_key_and_every_value(world: Pipeline) -> None:
    fill(world)
    fill(world, "b")

    found = of_all(world).store

    pairs = read_all(engine_under(world.kv))
    assert found == Amount(len(pairs), sum(len(key) + len(value) for key, value in pairs.items()))


def test_another_run_adds_nothing(world: Pipeline) -> None:
    fill(world)
    before = of_run(world)

    for name in ("a", "a10", "b"):
        fill(world, name)

    assert of_run(world) == before


def test_what_is_left_of_a_deleted_run_is_its_tombstone(world: Pipeline) -> None:
    fill(world)
    before = of_run(world)
    world.changes.delete(RUN)
    hidden = of_run(world)
    deletions = Deletions(kv=world.kv, graves=world.graves, clock=world.clock)
    world.clock.advance(1)
    deletions.free_due(DEFAULT_PROJECT, seconds_max=60)

    after = of_run(world)

    assert hidden.keys[Subspace.POINTS] == before.keys[Subspace.POINTS], "not freed yet"
    assert set(after.keys) == {Subspace.TOMBSTONES}
    assert after.files == Amount()


def test_a_run_that_never_was_is_an_error(world: Pipeline) -> None:
    with pytest.raises(NotFoundError, match="no run nobody"):
        of_run(world, "nobody")
