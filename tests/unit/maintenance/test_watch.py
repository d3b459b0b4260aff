"""What looks old is judged only by who has watched all the while; a break of any kind begins the time anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.clock import ManualClock
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KvEngine
from matyan.errors import UnavailableError
from matyan.maintenance.watch import BREAK_SECONDS, Watch
from tests.support.kv import RunTwiceKv

AGE = 7200.0
EVERY = 60.0


class World:
    """A horizon that is now, unless told to stand still or to be away, and who watches it."""

    def __init__(self, kv: KvEngine) -> None:
        self.kv = kv
        self.clock = ManualClock()
        self.lag_seconds = 0.0
        self.is_away = False
        self.start()

    def start(self) -> None:
        """Begin to watch as a new process does."""
        self.watch = Watch(kv=self.kv, horizon=self.horizon, clock=self.clock)

    def horizon(self) -> float:
        if self.is_away:
            raise UnavailableError("no broker answers")
        return self.now - self.lag_seconds

    @property
    def now(self) -> float:
        return self.clock.now_seconds()

    def look_for(self, seconds: float) -> None:
        for _ in range(int(seconds / EVERY)):
            self.clock.advance(EVERY)
            self.watch.look()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    engine = open_embedded_kv(tmp_path / "kv", map_bytes=2**28)
    yield World(RunTwiceKv(engine))
    engine.close()


def test_nothing_has_an_age_before_anybody_looked(world: World) -> None:
    assert world.watch.limit(0) == 0


def test_an_age_is_known_when_all_of_it_was_watched(world: World) -> None:
    world.watch.look()

    world.look_for(AGE - EVERY)
    limits = [world.watch.limit(AGE)]
    world.look_for(EVERY)
    limits.append(world.watch.limit(AGE))

    assert limits == [0, world.now - AGE]


def test_ages_end_at_the_horizon(world: World) -> None:
    world.lag_seconds = 300
    world.look_for(2 * AGE)

    assert world.watch.limit(AGE) == world.now - 300 - AGE


def test_a_restart_is_no_break(world: World) -> None:
    world.look_for(AGE + EVERY)
    world.clock.advance(BREAK_SECONDS - EVERY)
    world.start()

    world.watch.look()

    assert world.watch.limit(AGE) == world.now - AGE


def test_time_begins_anew_when_nobody_looked(world: World) -> None:
    world.look_for(2 * AGE)
    world.clock.advance(BREAK_SECONDS + EVERY)

    world.look_for(AGE)
    limits = [world.watch.limit(AGE)]
    world.look_for(EVERY)
    limits.append(world.watch.limit(AGE))

    assert limits == [0, world.now - AGE]


def test_time_begins_anew_when_the_horizon_stood_still(world: World) -> None:
    world.look_for(2 * AGE)
    for _ in range(int(AGE / EVERY)):
        world.lag_seconds += EVERY
        world.look_for(EVERY)
    stood = world.watch.limit(AGE)
    world.lag_seconds = 0

    world.look_for(EVERY)

    assert stood == world.now - EVERY - 2 * AGE, "up to there all is known"
    assert world.watch.limit(AGE) == 0


def test_time_begins_anew_when_the_log_was_away(world: World) -> None:
    world.look_for(2 * AGE)
    world.is_away = True
    with pytest.raises(UnavailableError):
        world.watch.look()
    world.clock.advance(BREAK_SECONDS + EVERY)
    world.is_away = False

    world.watch.look()

    assert world.watch.limit(AGE) == 0


def test_time_begins_anew_when_the_clock_was_set_back(world: World) -> None:
    world.look_for(2 * AGE)
    world.clock = ManualClock(world.now - 4 * AGE)
    world.start()

    world.watch.look()
    limits = [world.watch.limit(AGE)]
    world.look_for(AGE)
    limits.append(world.watch.limit(AGE))

    assert limits == [0, world.now - AGE]


def test_who_knows_less_takes_nothing_away(world: World) -> None:
    world.look_for(2 * AGE)
    world.lag_seconds = AGE

    world.watch.look()

    assert world.watch.limit(AGE) == world.now - AGE


def test_a_horizon_that_is_unknown_is_not_noted(world: World) -> None:
    world.look_for(2 * AGE)
    world.lag_seconds = world.now

    world.watch.look()

    assert world.watch.limit(AGE) == world.now - AGE
