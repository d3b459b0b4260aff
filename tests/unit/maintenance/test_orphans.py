"""Blobs without an owner are found wherever a process died or a client went away; no other blob is ever touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.blobs.service import blob_key
from matyan.ids import DEFAULT_PROJECT, RunId
from matyan.maintenance import orphans as orphans_module
from matyan.maintenance.deletion import Deletions
from matyan.maintenance.horizon import Horizon
from matyan.maintenance.letters import read_all
from matyan.maintenance.orphans import Graces, Orphans, Swept
from matyan.store import deadletters
from matyan.wire.messages import BlobRef, CreateRun, LogCustomObject, SetRunProperty
from tests.support.pipeline import KINDS, RUN, TOPIC, Pipeline, pipeline

HOUR = 3600.0
DAY = 24 * HOUR


class World:
    """A pipeline, clients that upload, and the jobs that look after it."""

    def __init__(self, pipe: Pipeline) -> None:
        self.pipe = pipe
        horizon = Horizon(kv=pipe.kv, log=pipe.log, topic=TOPIC, clock=pipe.clock)
        self.orphans = Orphans(
            kv=pipe.kv,
            blobs=pipe.blobs,
            graves=pipe.graves,
            horizon=horizon.measure,
            clock=pipe.clock,
            graces=Graces(unknown_seconds=DAY),
        )
        self.deletions = Deletions(kv=pipe.kv, graves=pipe.graves, clock=pipe.clock)

    def upload(self, *paths: str, run: str = RUN) -> None:
        for path in paths:
            self.pipe.blobs.put(blob_key(DEFAULT_PROJECT, run, path), [b"data"], content_type="x")

    def keys(self) -> list[str]:
        return [info.key for info in self.pipe.blobs.list("")]

    def wait(self, seconds: float) -> None:
        self.pipe.clock.advance(seconds)
        self.deletions.free_due(DEFAULT_PROJECT, seconds_max=60)

    def sweep(self, *, seconds_max: float = 60) -> Swept:
        runs = self.orphans.sweep_runs(DEFAULT_PROJECT, seconds_max=seconds_max)
        return runs.plus(self.orphans.sweep_letters(seconds_max=seconds_max))


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with pipeline(request.param, tmp_path) as pipe:
        yield World(pipe)


def test_files_of_a_stored_run_are_left_alone(world: World) -> None:
    world.pipe.apply(CreateRun())
    world.upload("model.bin", "seq/images/a.png", "never/announced")
    world.wait(30 * DAY)

    swept = world.sweep()

    assert swept == Swept(3, 0, is_complete=True)
    assert len(world.keys()) == 3


def test_a_file_uploaded_long_after_the_deletion_and_never_announced_is_found(world: World) -> None:
    world.pipe.apply(CreateRun())
    world.pipe.changes.delete(RUN)
    world.wait(3 * HOUR)
    world.wait(3 * HOUR)
    world.upload("late.bin")
    assert world.sweep().deleted == 0, "it is still young"
    world.wait(3 * HOUR)
    assert world.keys(), "no deletion looks for it any more"

    assert world.sweep().deleted == 1
    assert world.keys() == []


def test_files_of_a_run_that_nobody_ever_made_go_after_their_grace(world: World) -> None:
    world.upload("a", "b", run="ghost")
    world.wait(DAY - HOUR)
    world.upload("c", run="ghost")

    deleted = [world.sweep().deleted]
    world.wait(2 * HOUR)
    deleted.append(world.sweep().deleted)

    assert deleted == [0, 2]
    assert world.keys() == ["default/ghost/c"]


def test_files_of_a_run_whose_records_wait_in_the_log_are_kept(world: World) -> None:
    world.upload("model.bin")
    world.pipe.append(CreateRun(), BlobRef(f"{RUN}/model.bin", "model.bin"))
    world.wait(10 * DAY)  # the workers stand still

    assert world.sweep().deleted == 0
    world.pipe.work()
    world.sweep()
    assert world.keys() == ["default/a1/model.bin"]


def test_files_that_a_hash_gets_after_it_was_cleared_have_their_own_grace(world: World) -> None:
    world.pipe.apply(CreateRun())
    world.pipe.changes.delete(RUN)
    world.pipe.changes.clear_tombstone(RUN)
    world.upload("model.bin")
    world.wait(5 * HOUR)

    assert world.sweep().deleted == 0
    world.pipe.apply(CreateRun())
    world.wait(3 * DAY)
    assert world.sweep().deleted == 0


def test_what_is_neither_a_file_of_a_run_nor_a_letter_is_left_alone(world: World) -> None:
    for key in ("health", "default", "default/x", "other/run/file", "deadletters/x", "deadletters/a/b/c/d/e"):
        world.pipe.blobs.put(key, [b"data"], content_type="x")
    world.wait(30 * DAY)

    assert world.sweep().deleted == 0
    assert len(world.keys()) == 6


def test_the_content_of_a_letter_goes_when_the_letter_has_gone(world: World) -> None:
    for start in (0, 1):
        name = "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(start, 4000))
        world.pipe.apply(SetRunProperty(name=name))
    first, second = read_all(world.pipe.kv)
    world.pipe.kv.write(lambda tx: deadletters.clear(tx, first.origin))  # and the process died
    world.wait(DAY + HOUR)

    assert world.sweep().deleted == 1
    assert world.keys() == [second.blob_key]


def test_a_large_item_is_no_orphan(world: World) -> None:
    text = "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(300_000))
    world.pipe.apply(CreateRun(), LogCustomObject("t", {"type": "text", "data": text}, 0))
    assert len(world.keys()) == 1
    world.wait(30 * DAY)

    assert world.sweep().deleted == 0


def test_a_part_at_a_time_reaches_all_and_begins_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans_module, "_BATCH", 7)
    for number in range(20):
        world.upload("a", "b", run=f"ghost{number:02}")
    world.upload("a", run="~last")
    world.wait(2 * DAY)

    parts = [world.orphans.sweep_runs(DEFAULT_PROJECT, seconds_max=0) for _ in range(7)]

    assert [part.is_complete for part in parts] == [False] * 6 + [True]
    assert sum(part.deleted for part in parts) == 41
    assert sum(part.looked_at for part in parts) == 41
    assert world.keys() == []
    world.upload("a", run="again")
    world.wait(2 * DAY)
    assert world.orphans.sweep_runs(DEFAULT_PROJECT, seconds_max=60).deleted == 1


def test_a_file_put_again_since_it_was_listed_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.upload("a", run="ghost")
    world.wait(2 * DAY)
    real = world.pipe.blobs.entries

    def entries(prefix: str, *, after: str = "") -> Iterator[object]:
        found = list(real(prefix, after=after))
        world.upload("a", run="ghost")
        return iter(found)

    monkeypatch.setattr(world.pipe.blobs, "entries", entries)

    assert world.sweep().deleted == 0
    assert world.keys() == ["default/ghost/a"]


def test_another_run_of_the_same_prefix_is_not_mistaken(world: World) -> None:
    world.pipe.apply(CreateRun(), run="ab")
    world.upload("x", run="a")
    world.upload("x", run="ab")
    world.pipe.apply(CreateRun(), run="abc")
    world.upload("x", run="abc")
    world.pipe.changes.delete(RunId("abc"))
    world.wait(2 * DAY)
    world.upload("y", run="abc")
    world.wait(2 * DAY)

    assert world.sweep().deleted == 2
    assert world.keys() == ["default/ab/x"]
