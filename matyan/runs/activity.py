"""Activity: how many runs there are, and when they were created. Pure."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

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

    def count(self, created_us: NDArray[np.int64], *, timezone_offset_minutes: int) -> None:
        """Count runs by when they were created, in microseconds since 1970-01-01 UTC; their state is not looked at.

        Runs of one hour stand together where they come in order: each stretch of them is noted once.
        """
        self.runs += len(created_us)
        hours = (created_us - timezone_offset_minutes * 60 * _MICROSECONDS) // _HOUR_US
        begins = np.flatnonzero(np.diff(hours, prepend=hours[:1] - 1))
        for hour, runs in zip(hours[begins].tolist(), np.diff(begins, append=len(hours)).tolist(), strict=True):
            self._note(hour, runs)

    def _note(self, hour: int, runs: int = 1) -> None:
        self.created[min(max(hour, _FIRST_HOUR), _LAST_HOUR)] += runs

    def by_hour(self) -> dict[str, int]:
        """Return hour -> runs, `2024-06-05T16:00:00`, the latest first."""
        return _calendar(self.created)

    def by_day(self) -> dict[str, int]:
        """Return day -> runs, `2024-06-05T00:00:00`, the latest first."""
        days: Counter[int] = Counter()
        for hour, runs in self.created.items():
            days[hour // 24 * 24] += runs
        return _calendar(days)


def _calendar(counts: Counter[int]) -> dict[str, int]:
    """Return counts by hour with the hours as ISO 8601 texts, the latest first."""
    hours = sorted(counts, reverse=True)
    texts = np.datetime_as_string(np.array(hours, "datetime64[h]"), unit="s").tolist()
    return dict(zip(texts, map(counts.__getitem__, hours), strict=True))
