"""LocalTime: a run's date as the viewer's wall clock shows it, which also compares with plain numbers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

SECONDS_PER_MINUTE: Final = 60


class LocalTime(datetime):
    """A naive local datetime that remembers its UTC seconds.

    Datetimes compare as in Python. Numbers compare with the UTC seconds, because matyan-client asks
    `run.created_at > <float>`. What arithmetic and `replace` return has forgotten the seconds.
    """

    utc_seconds: float | None = None
    """Set in what `local_time` returns, and only there."""

    def __eq__(self, other: object) -> bool:
        if type(other) is float or type(other) is int:
            return self.utc_seconds == other
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = datetime.__hash__

    def __lt__(self, other: object) -> bool:
        if self.utc_seconds is not None and (type(other) is float or type(other) is int):
            return self.utc_seconds < other
        return super().__lt__(other)  # type: ignore[operator]  # NotImplemented for what is no datetime

    def __le__(self, other: object) -> bool:
        if self.utc_seconds is not None and (type(other) is float or type(other) is int):
            return self.utc_seconds <= other
        return super().__le__(other)  # type: ignore[operator]  # as above

    def __gt__(self, other: object) -> bool:
        if self.utc_seconds is not None and (type(other) is float or type(other) is int):
            return self.utc_seconds > other
        return super().__gt__(other)  # type: ignore[operator]  # as above

    def __ge__(self, other: object) -> bool:
        if self.utc_seconds is not None and (type(other) is float or type(other) is int):
            return self.utc_seconds >= other
        return super().__ge__(other)  # type: ignore[operator]  # as above


def local_time(utc_seconds: float, offset_minutes: int) -> LocalTime:
    """Return the moment on a wall clock that is `offset_minutes` behind UTC (as JavaScript's getTimezoneOffset)."""
    moment = LocalTime.fromtimestamp(utc_seconds - offset_minutes * SECONDS_PER_MINUTE, UTC).replace(tzinfo=None)
    moment.utc_seconds = utc_seconds
    return moment
