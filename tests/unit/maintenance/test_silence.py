"""A run nobody hears of is marked crashed, and only such a run; whatever is heard of it later sets it going again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.errors import CorruptedError
from matyan.ids import DEFAULT_PROJECT
from matyan.maintenance.horizon import Horizon
from matyan.maintenance.settle import settle_quiet_runs
from matyan.maintenance.silence import Silence
from matyan.runs.changes import RunEdit
from matyan.store import deadletters
from matyan.wire.messages import CreateRun, FinishRun, LogMetric, LogTerminalLine, SetRunProperty
from tests.support.pipeline import KINDS, RUN, TOPIC, Pipeline, pipeline

pytestmark = pytest.mark.one_python

SILENT = 300.0
EVERY = 30.0


class World:
    """A pipeline, and somebody who listens."""

    def __init__(self, pipe: Pipeline) -> None:
        self.pipe = pipe
        self.listen_anew()

    def listen_anew(self) -> None:
        pipe = self.pipe
        horizon = Horizon(kv=pipe.kv, log=pipe.log, topic=TOPIC, clock=pipe.clock)
        self.silence = Silence(kv=pipe.kv, horizon=horizon.measure, clock=pipe.clock, silent_seconds=SILENT)

    def wait(self, seconds: float) -> int:
        """Let time go by while the jobs run; return how many runs were marked."""
        marked = 0
        for _ in range(int(seconds / EVERY)):
            self.pipe.clock.advance(EVERY)
            settle_quiet_runs(self.pipe.kv, DEFAULT_PROJECT, self.pipe.clock)
            marked += self.silence.mark_silent(DEFAULT_PROJECT)
        return marked


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with pipeline(request.param, tmp_path) as pipe:
        yield World(pipe)


def test_a_silent_run_is_marked_crashed_at_its_last_sign_of_life(world: World) -> None:
    world.pipe.apply(CreateRun(), LogMetric("loss", 1.0, 0))
    world.wait(120)
    world.pipe.apply(LogMetric("loss", 1.0, 1))
    last = world.pipe.clock.now_seconds()

    marked = world.wait(SILENT + 2 * EVERY)

    document = world.pipe.run().document
    assert marked == 1
    assert (document.active, document.crashed) == (False, True)
    assert document.end_time_seconds == pytest.approx(last, abs=0.002)


def test_a_run_is_not_marked_before_its_time(world: World) -> None:
    world.pipe.apply(CreateRun())

    assert world.wait(SILENT - EVERY) == 0
    assert world.pipe.run().document.active


def test_a_silent_client_that_is_connected_keeps_its_run_running(world: World) -> None:
    world.pipe.apply(CreateRun(), LogMetric("loss", 1.0, 0))
    for _ in range(30):
        world.pipe.apply()
        assert world.wait(60) == 0

    assert world.pipe.run().document.active


@pytest.mark.parametrize("command", [LogMetric("loss", 2.0, 1), LogTerminalLine("on", 0), None])
def test_whatever_is_heard_of_a_crashed_run_sets_it_going_again(world: World, command: LogMetric | None) -> None:
    world.pipe.apply(CreateRun(), LogMetric("loss", 1.0, 0))
    assert world.wait(SILENT + 2 * EVERY) == 1

    world.pipe.apply(*([] if command is None else [command]))

    document = world.pipe.run().document
    assert (document.active, document.crashed, document.end_time_seconds) == (True, False, None)
    assert world.wait(SILENT - EVERY) == 0
    assert world.wait(3 * EVERY) == 1


def test_a_crashed_run_that_ends_properly_has_that_end(world: World) -> None:
    world.pipe.apply(CreateRun())
    world.wait(SILENT + 2 * EVERY)

    world.pipe.apply(FinishRun(client_datetime=1_700_000_000.0))

    document = world.pipe.run().document
    assert (document.active, document.crashed, document.end_time_seconds) == (False, False, 1_700_000_000.0)


def test_a_finished_run_is_never_touched(world: World) -> None:
    world.pipe.apply(CreateRun(), FinishRun(client_datetime=1_700_000_000.0))

    assert world.wait(2 * SILENT) == 0
    assert world.pipe.run().document.end_time_seconds == 1_700_000_000.0


def test_what_a_person_decided_stays(world: World) -> None:
    world.pipe.apply(CreateRun(), FinishRun())
    world.pipe.changes.edit(RUN, RunEdit(active=True))

    assert world.wait(2 * SILENT) == 0
    assert world.pipe.run().document.active


def test_a_crashed_run_that_a_person_ended_stays_ended_when_data_comes(world: World) -> None:
    world.pipe.apply(CreateRun())
    world.wait(SILENT + 2 * EVERY)
    world.pipe.changes.edit(RUN, RunEdit(active=False))

    world.pipe.apply(LogMetric("loss", 1.0, 0))

    assert not world.pipe.run().document.active


def test_a_run_set_going_by_a_person_and_then_by_its_client_is_judged_like_any_other(world: World) -> None:
    world.pipe.apply(CreateRun(), FinishRun())
    world.pipe.changes.edit(RUN, RunEdit(active=True))
    world.pipe.apply(CreateRun())

    assert world.wait(SILENT + 2 * EVERY) == 1


def test_data_that_waits_in_the_log_is_no_silence(world: World) -> None:
    world.pipe.apply(CreateRun())
    world.wait(SILENT - 2 * EVERY)
    world.pipe.append(LogMetric("loss", 1.0, 0))  # and the workers stand still

    assert world.wait(3 * SILENT) == 0
    world.pipe.work()
    assert world.pipe.run().document.active


def test_who_begins_to_listen_gives_everybody_time(world: World) -> None:
    world.pipe.apply(CreateRun())
    world.pipe.clock.advance(10 * SILENT)  # everything was switched off
    world.listen_anew()

    assert world.wait(SILENT) == 0
    assert world.wait(2 * EVERY) == 1


def test_a_sign_of_life_makes_no_run(world: World) -> None:
    world.pipe.apply()

    assert world.pipe.find() is None
    assert world.wait(SILENT + 2 * EVERY) == 0


def test_a_sign_that_cannot_be_applied_is_passed_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.pipe.apply(CreateRun())

    def fail(*_: object) -> None:
        raise CorruptedError("a record cannot be read")

    with monkeypatch.context() as patch:
        patch.setattr("matyan.runs.signs.note", fail)
        world.pipe.apply()
    world.pipe.apply(SetRunProperty(name="goes on"))

    assert world.pipe.run().name == "goes on"
    assert world.pipe.kv.read(deadletters.read) == []


def test_nothing_is_left_of_a_crashed_run_that_is_deleted(world: World) -> None:
    world.pipe.apply(CreateRun())
    world.wait(SILENT + 2 * EVERY)
    world.pipe.changes.delete(RUN)
    world.pipe.changes.clear_tombstone(RUN)

    world.pipe.apply(CreateRun())

    document = world.pipe.run().document
    assert (document.active, document.crashed) == (True, False)
