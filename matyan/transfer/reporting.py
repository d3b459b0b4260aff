"""What a transfer says while it works: runs done of all, points, rate; on one line of a terminal, else now and then."""

from __future__ import annotations

from typing import Final, TextIO

from matyan.clock import Clock, SystemClock

_TERMINAL_SECONDS: Final = 0.2
_FILE_SECONDS: Final = 5.0


class ProgressLine:
    """Counts, and prints the counts not too often."""

    def __init__(self, out: TextIO, *, clock: Clock | None = None) -> None:
        self._out = out
        self._clock = clock or SystemClock()
        self._is_terminal = out.isatty()
        self._every_seconds = _TERMINAL_SECONDS if self._is_terminal else _FILE_SECONDS
        self._what, self._total = "", 0
        self._runs = self.points = 0
        self._begun = self._said = self._clock.monotonic_seconds()

    def begin(self, what: str, total: int) -> None:
        """Start counting anew: `total` runs to be `what` (imported, verified)."""
        self._what, self._total = what, total
        self._runs = self.points = 0
        self._begun = self._said = self._clock.monotonic_seconds()

    @property
    def seconds(self) -> float:
        """How long this count has taken so far."""
        return self._clock.monotonic_seconds() - self._begun

    def count_points(self, points: int) -> None:
        """Count points and objects."""
        self.points += points
        self._say_sometimes()

    def count_run(self) -> None:
        """Count a run that is done."""
        self._runs += 1
        self._say_sometimes()

    def end(self) -> None:
        """Print the last counts and leave the line."""
        self._say(end="\n")

    def note(self, text: str) -> None:
        """Print a line of its own."""
        print(f"\r\x1b[K{text}" if self._is_terminal else text, file=self._out, flush=True)

    def _say_sometimes(self) -> None:
        now = self._clock.monotonic_seconds()
        if now - self._said >= self._every_seconds:
            self._said = now
            self._say(end="" if self._is_terminal else "\n")

    def _say(self, *, end: str) -> None:
        rate = self.points / max(self.seconds, 1e-3)
        text = f"{self._what} {self._runs:,}/{self._total:,} runs, {self.points:,} points, {rate:,.0f} points/s"
        print(f"\r\x1b[K{text}" if self._is_terminal else text, file=self._out, end=end, flush=True)
