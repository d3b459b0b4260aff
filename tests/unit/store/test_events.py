"""What happened is told in the transaction that makes it true: never without it, never twice by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from matyan.entities.deletion import EntityDeletions
from matyan.entities.service import ExperimentService, TagService
from matyan.errors import UnavailableError
from matyan.ids import DEFAULT_PROJECT, RunId
from matyan.runs import tombstones
from matyan.runs.changes import RunChanges, RunEdit
from matyan.runs.graves import Graves
from matyan.runs.model import EditMark
from matyan.wire.events import RunDeleted
from tests.support.control_world import World, opened_world
from tests.support.kv_faults import FaultRates, FaultyKv
from tests.support.store import make_run


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with opened_world(tmp_path) as found:
        yield found


def test_a_deletion_is_told_with_the_run_and_its_project(world: World) -> None:
    world.fill("a")

    world.changes.delete(RunId("a"))
    world.changes.delete(RunId("a"))
    world.changes.delete(RunId("unknown"))

    ((event, payload),) = world.events()
    now = world.clock.now_seconds()
    assert (event.type, event.timestamp.timestamp()) == ("run_deleted", now)
    assert payload == RunDeleted(run_id="a", project="default", number=1, deleted_at_seconds=now)
    assert event.id


def test_many_deletions_of_one_transaction_are_each_told_once(world: World) -> None:
    for number in range(120):
        make_run(world.engine, f"r{number}")

    world.changes.delete_many([RunId(f"r{number}") for number in range(120)])

    told = world.events()
    assert sorted(payload.run_id for _, payload in told if isinstance(payload, RunDeleted)) == sorted(
        f"r{number}" for number in range(120)
    )
    assert len({event.id for event, _ in told}) == 120


def test_archiving_is_told_when_it_changes_something(world: World) -> None:
    make_run(world.engine, "a")

    for archived in (True, True, False, None):
        world.changes.edit(RunId("a"), RunEdit(archived=archived, name="x"))

    told = [(event.type, msgspec.json.decode(event.payload)) for event, _ in world.events()]
    assert told == [
        ("run_archived", {"run_id": "a", "archived": True, "project": "default"}),
        ("run_unarchived", {"run_id": "a", "archived": False, "project": "default"}),
    ]


def test_an_experiment_and_its_runs_are_each_told(world: World) -> None:
    make_run(world.engine, "a", experiment="e")
    service = ExperimentService(
        kv=world.kv, deletions=EntityDeletions(kv=world.kv, run_changes=world.changes), clock=world.clock
    )
    (experiment,) = [one.entity for one in service.list_all()]

    service.delete(experiment.id, deletes_runs=True)

    told = [(event.type, msgspec.json.decode(event.payload)) for event, _ in world.events()]
    assert told[0] == ("experiment_deleted", {"experiment_id": experiment.id, "project": "default"})
    assert [kind for kind, _ in told[1:]] == ["run_deleted"]


def test_a_tag_is_told(world: World) -> None:
    service = TagService(
        kv=world.kv, deletions=EntityDeletions(kv=world.kv, run_changes=world.changes), clock=world.clock
    )
    tag = service.create("t")

    service.delete(tag.id)

    told = [(event.type, msgspec.json.decode(event.payload)) for event, _ in world.events()]
    assert told == [("tag_deleted", {"tag_id": tag.id, "project": "default"})]


def test_what_fails_is_not_told(world: World) -> None:
    make_run(world.engine, "a")
    changes = RunChanges(
        kv=FaultyKv(world.engine, seed=1, rates=FaultRates(unavailable=1.0)),
        graves=Graves(kv=world.kv, blobs=world.blobs),
        mark_of=lambda *_: EditMark("log", 7),
        clock=world.clock,
    )

    # Now and then a store takes what it says it did not: then both the deletion and its event are there.
    for _ in range(5):
        with pytest.raises(UnavailableError):
            changes.delete(RunId("a"))
        stone = world.engine.read(lambda reader: tombstones.get(reader, DEFAULT_PROJECT, RunId("a")))
        assert len(world.events()) == (stone is not None)


@pytest.mark.parametrize("seed", range(5))
def test_a_deletion_whose_answer_is_lost_is_told_once_and_counts(world: World, seed: int) -> None:
    runs = [RunId(f"r{number}") for number in range(3)]
    for run in runs:
        make_run(world.engine, run)
    faulty = FaultyKv(world.engine, seed=seed, rates=FaultRates(unknown_applied=0.9))
    graves = Graves(kv=world.kv, blobs=world.blobs)
    changes = RunChanges(kv=faulty, graves=graves, mark_of=lambda *_: EditMark("log", 7), clock=world.clock)

    changes.edit(runs[0], RunEdit(archived=True))
    deleted = changes.delete_many([*runs, RunId("unknown")])

    assert deleted == 3, faulty
    assert [event.type for event, _ in world.events()] == ["run_archived", *["run_deleted"] * 3]
