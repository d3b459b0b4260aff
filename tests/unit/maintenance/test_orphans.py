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
from matyan.maintenance.orphans import LETTER_SECONDS_MIN, Graces, Orphans, Swept
from matyan.maintenance.watch import Watch
from matyan.store import deadletters
from matyan.wire import frames
from matyan.wire.codec import encode_envelope
from matyan.wire.messages import BlobRef, CreateRun, Envelope, LogCustomObject, SetRunProperty
from tests.support.pipeline import KINDS, RUN, TOPIC, Pipeline, pipeline

pytestmark = pytest.mark.one_python

HOUR = 3600.0
DAY = 24 * HOUR
LOOK = 6 * HOUR
"""From one look at the horizon to the next; a break is longer than a day here."""


class World:
    """A pipeline, clients that upload, and the jobs that look after it."""

    def __init__(self, pipe: Pipeline) -> None:
        self.pipe = pipe
        horizon = Horizon(kv=pipe.kv, log=pipe.log, topic=TOPIC, clock=pipe.clock)
        self.watch = Watch(kv=pipe.kv, horizon=horizon.measure, clock=pipe.clock, break_seconds=DAY)
        self.watch.look()
        self.orphans = self.job(unknown_seconds=DAY)
        self.deletions = Deletions(kv=pipe.kv, graves=pipe.graves, clock=pipe.clock)

    def job(self, *, unknown_seconds: float) -> Orphans:
        return Orphans(
            kv=self.pipe.kv,
            blobs=self.pipe.blobs,
            graves=self.pipe.graves,
            limit=self.watch.limit,
            clock=self.pipe.clock,
            graces=Graces(unknown_seconds=unknown_seconds),
        )

    def upload(self, *paths: str, run: str = RUN) -> None:
        for path in paths:
            self.pipe.blobs.put(blob_key(DEFAULT_PROJECT, run, path), [b"data"], content_type="x")

    def keys(self) -> list[str]:
        return [info.key for info in self.pipe.blobs.list("")]

    def wait(self, seconds: float) -> None:
        """Let time go by while the other jobs run."""
        while seconds > 0:
            self.pipe.clock.advance(min(LOOK, seconds))
            self.watch.look()
            seconds -= LOOK
        self.deletions.free_due(DEFAULT_PROJECT, seconds_max=60)

    def refuse(self, *, run: str, named: str) -> None:
        """Have a record in a form that this release cannot read; its letter is about `named`."""
        payload = frames.encode_commands([CreateRun()])
        record = Envelope(1, DEFAULT_PROJECT, named, self.pipe.now_ms, "a form of the future", payload)
        self.pipe.append_value(encode_envelope(record), run=run)
        self.pipe.work()

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


def test_files_whose_announcements_wait_in_a_frontier_while_nothing_moves_get_their_grace_anew(world: World) -> None:
    world.upload("model.bin")  # by an address that was given out before; the frontier keeps what is said of it
    world.pipe.clock.advance(2 * DAY)  # log or store cannot be asked, or nobody is there to look
    world.watch.look()

    deleted = [world.sweep().deleted]
    world.wait(DAY - HOUR)
    deleted.append(world.sweep().deleted)

    assert deleted == [0, 0]
    world.pipe.apply(CreateRun(), BlobRef(f"{RUN}/model.bin", "model.bin"))
    world.wait(30 * DAY)
    assert world.sweep() == Swept(1, 0, is_complete=True)


def test_files_of_unknown_runs_get_their_grace_anew_when_workers_stood_still(world: World) -> None:
    world.upload("model.bin", run="ghost")
    world.pipe.append(CreateRun())
    world.wait(2 * DAY)  # the workers stand still
    world.pipe.work()
    world.wait(LOOK)

    deleted = [world.sweep().deleted]
    world.wait(DAY)
    deleted.append(world.sweep().deleted)

    assert deleted == [0, 1]


@pytest.mark.parametrize("named", ["ghost", ""])
def test_files_of_a_run_that_a_letter_may_be_about_are_kept_until_it_is_gone(world: World, named: str) -> None:
    world.upload("model.bin", run="ghost")
    world.refuse(run="ghost", named=named)
    (letter,) = read_all(world.pipe.kv)
    world.wait(30 * DAY)

    deleted = [world.sweep().deleted]
    world.pipe.kv.write(lambda tx: deadletters.clear(tx, letter.origin))
    deleted.append(world.sweep().deleted)

    assert letter.run_id == named
    assert deleted == [0, 1]


def test_files_of_a_run_that_no_letter_is_about_go(world: World) -> None:
    world.upload("model.bin", run="ghost")
    world.refuse(run="other", named="other")
    world.wait(2 * DAY)

    assert world.sweep().deleted == 1


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


def test_the_content_of_a_letter_that_is_about_to_be_written_stays_though_everything_else_goes(world: World) -> None:
    key = "deadletters/log/data-ingestion/0/7/-1"
    world.pipe.blobs.put(key, [b"data"], content_type="x")
    at_once = world.job(unknown_seconds=0)

    world.wait(LETTER_SECONDS_MIN - 60)
    deleted = [at_once.sweep_letters(seconds_max=60).deleted]
    world.wait(120)
    deleted.append(at_once.sweep_letters(seconds_max=60).deleted)

    assert deleted == [0, 1]


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
