"""A frame of points by column. Training logs the same metrics at every step, so that most frames are tables.

Taken by column, points cost half of what they cost one by one, and least where they have just been decoded: there they
are still in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast, overload

import msgspec
from msgspec.structs import astuple, fields

from matyan.wire.messages import Command, LogMetric, Moment
from matyan.wire.moments import moments_ms

_ROWS_MIN: Final = 2
_POINTS_MIN: Final = 8
"""Fewer points are taken one by one."""
_CONTEXTS_MAX: Final = 16
"""Of the first name of a row: a search for more would cost more than it gives."""
_ONLY_POINTS: Final = {LogMetric}
_FIELDS: Final = [field.name for field in fields(LogMetric)]
_NAMES: Final = _FIELDS.index("name")
_CONTEXTS: Final = _FIELDS.index("context")


class PointTable(Sequence[LogMetric]):
    """n points in order of arrival that go through the same sequences again and again; the last row may be cut short.

    As a sequence it is the commands that it was made of, each made anew when it is asked for.
    """

    __slots__ = ("_times", "dtypes", "epochs", "heads", "moments", "steps", "values")

    def __init__(self, heads: Sequence[LogMetric], columns: Sequence[tuple[Any, ...]]) -> None:
        """Keep the first row, one point of each sequence, and the columns of all points in the order of the fields."""
        self.heads = heads
        self.values: tuple[float, ...]
        self.steps: tuple[int | None, ...]
        self.epochs: tuple[float | None, ...]
        self.dtypes: tuple[str | None, ...]
        self.moments: tuple[Moment, ...]
        _, self.values, self.steps, self.epochs, _, self.dtypes, self.moments = columns
        self._times: tuple[int, list[int]] | None = None

    def times(self, received_ms: int) -> list[int]:
        """Return the time of each point in milliseconds since 1970, that of arrival where the client gave none.

        What comes out is remembered: that is much cheaper while the points have just been made.
        """
        if self._times is None or self._times[0] != received_ms:
            self._times = received_ms, moments_ms(self.moments, received_ms)
        return self._times[1]

    def __len__(self) -> int:
        """Return n."""
        return len(self.values)

    @overload
    def __getitem__(self, index: int) -> LogMetric: ...
    @overload
    def __getitem__(self, index: slice) -> list[LogMetric]: ...
    def __getitem__(self, index: int | slice) -> LogMetric | list[LogMetric]:
        """Return one command, or several."""
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        head = self.heads[at % len(self.heads)]
        return LogMetric(
            name=head.name,
            value=self.values[at],
            step=self.steps[at],
            epoch=self.epochs[at],
            context=head.context,
            dtype=self.dtypes[at],
            client_datetime=self.moments[at],
        )


def tabulate(commands: Sequence[Command]) -> PointTable | None:
    """Return commands as a table, or None where they are none: other commands, few points, or no rows."""
    if len(commands) < _POINTS_MIN or set(map(type, commands)) != _ONLY_POINTS:
        return None
    points = cast("Sequence[LogMetric]", commands)
    columns = list(zip(*map(astuple, points), strict=True))
    width = _width(columns[_NAMES], columns[_CONTEXTS])
    return None if width * _ROWS_MIN > len(points) else PointTable(points[:width], columns)


def _width(names: tuple[str, ...], contexts: tuple[msgspec.Raw, ...]) -> int:
    """Return how many points come before the same sequences come again, in the same order to the end; else of all."""
    count, width = len(names), 1
    try:
        width = names.index(names[0], width)
        for _ in range(_CONTEXTS_MAX):
            if contexts[width] == contexts[0]:
                break
            width = names.index(names[0], width + 1)
    except ValueError:
        return count
    rows = -(-count // width)
    is_table = (names[:width] * rows)[:count] == names and (contexts[:width] * rows)[:count] == contexts
    return width if is_table else count
