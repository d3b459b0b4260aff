"""Activity: how many runs there are, and when they were created. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from matyan.runs.model import RunDocument

_SECONDS: Final = 3600
_MICROSECONDS: Final = 1_000_000
_HOUR_US: Final = _SECONDS * _MICROSECONDS
_FIRST_HOUR: Final = int(datetime(1, 1, 1, tzinfo=UTC).timestamp()) // _SECONDS
_LAST_HOUR: Final = int(datetime(9999, 12, 31, 23, tzinfo=UTC).timestamp()) // _SECONDS
"""Ends of the calendar: a client's clock may say anything, and no run may break the page of all."""


class Activity(msgspec.Struct):
    """Counts of runs, archived ones included, and when they were created."""

    runs: int = 0
    archived: int = 0
    active: int = 0
    created: Counter[int] = msgspec.field(default_factory=Counter)
    """Hour since 1970-01-01 local time -> runs created in it."""

    def add(self, document: RunDocument, *, timezone_offset_minutes: int) -> None:
        """Count one run; the offset is UTC minus local."""
        self.runs += 1
        self.archived += document.archived
        self.active += document.active
        self._note(int((document.created_at_seconds - timezone_offset_minutes * 60) // _SECONDS))

    def count(self, created_us: Sequence[int], *, timezone_offset_minutes: int) -> None:
        """Count runs by when they were created, in microseconds since 1970-01-01 UTC; their state is not looked at."""
        self.runs += len(created_us)
        offset_us = timezone_offset_minutes * 60 * _MICROSECONDS
        hours = Counter([(moment_us - offset_us) // _HOUR_US for moment_us in created_us])
        for hour, runs in hours.items():
            self._note(hour, runs)

    def _note(self, hour: int, runs: int = 1) -> None:
        self.created[min(max(hour, _FIRST_HOUR), _LAST_HOUR)] += runs

    def by_hour(self) -> dict[str, int]:
        """Return hour -> runs, `2024-06-05T16:00:00`, the latest first."""
        return {_hour(hour): self.created[hour] for hour in sorted(self.created, reverse=True)}

    def by_day(self) -> dict[str, int]:
        """Return day -> runs, `2024-06-05T00:00:00`, the latest first."""
        days: Counter[int] = Counter()
        for hour, runs in self.created.items():
            days[hour // 24] += runs
        return {_hour(day * 24): days[day] for day in sorted(days, reverse=True)}


def _hour(hour: int) -> str:
    return datetime.fromtimestamp(hour * _SECONDS, UTC).replace(tzinfo=None).isoformat()
