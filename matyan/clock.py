"""Time as an argument: the system's clock, and one that tests move by hand."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where a component gets the time from."""

    def now_seconds(self) -> float:
        """Return seconds since 1970-01-01 UTC."""

    def monotonic_seconds(self) -> float:
        """Return seconds that never go back, from an arbitrary start."""


class SystemClock:
    """The machine's clock. Searches ask it for every run, so it is the functions themselves."""

    now_seconds = staticmethod(time.time)
    monotonic_seconds = staticmethod(time.monotonic)


class ManualClock:
    """A clock that stands still until told."""

    def __init__(self, seconds: float = 1_700_000_000.0) -> None:
        self._seconds = seconds

    def now_seconds(self) -> float:
        """Return the time set last."""
        return self._seconds

    def monotonic_seconds(self) -> float:
        """Return the same: this clock is moved forward only."""
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Move forward."""
        self._seconds += seconds
