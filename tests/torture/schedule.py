"""Which fault happens when: a pure function of the seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

QUIET_SECONDS: Final = 3.0
"""At the beginning, so that there is something to lose."""


class Kind(StrEnum):
    """What is done to a target; `seconds` later it is undone."""

    KILL = "kill -9"
    STOP = "SIGTERM"
    FREEZE = "SIGSTOP"
    CUT = "cut off"
    JOIN = "one more"
    FILL = "outage and full disk of"


class Choice(NamedTuple):
    """A fault that a deployment offers."""

    kind: Kind
    target: str
    shortest: float
    longest: float
    """Seconds until it is undone."""


class Fault(NamedTuple):
    """A fault of a schedule."""

    at: float
    """Seconds after the beginning."""
    kind: Kind
    target: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:6.1f} s  {self.kind} {self.target} for {self.seconds:.1f} s"


def make_schedule(seed: int, seconds: float, choices: Sequence[Choice], gap_seconds: float) -> list[Fault]:
    """Return faults that are all undone after `seconds`, every choice about as often as any other.

    A target that is down is not hit again, and what no choice of `choices` says happens.

    Args:
        seed: the same seed gives the same faults.
        seconds: how long writers write.
        choices: what may happen.
        gap_seconds: mean distance of two faults.
    """
    noise = random.Random(f"torture {seed}")
    faults: list[Fault] = []
    free: dict[str, float] = {}
    deck: list[Choice] = []
    at = QUIET_SECONDS
    while at < seconds:
        deck = deck or noise.sample(list(choices), len(choices))
        choice = next((choice for choice in deck if free.get(choice.target, 0.0) <= at), None)
        lasting = noise.uniform(choice.shortest, choice.longest) if choice else 0.0
        if choice is not None:
            deck.remove(choice)
            if at + lasting <= seconds:
                faults.append(Fault(round(at, 2), choice.kind, choice.target, round(lasting, 2)))
                free[choice.target] = at + lasting + QUIET_SECONDS
        at += noise.uniform(0.4, 1.6) * gap_seconds
    return faults
