"""Which records of object sequences an answer shows, and which of each record's objects. Pure.

Records are chosen by step, objects by position. Both are asked for as a range and a density (about how many); ends that
a request leaves open come from the total over all sequences that it selects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from matyan.errors import InvalidArgumentError
from matyan.sequences.model import Summary

T = TypeVar("T")

RECORD_DENSITY: Final = 50
INDEX_DENSITY: Final = 5


class Extent(NamedTuple):
    """A half-open range of steps or positions."""

    begin: int
    end: int


class OpenRange(NamedTuple):
    """A half-open range whose ends may be missing."""

    begin: int | None = None
    end: int | None = None

    def within(self, total: Extent) -> Extent:
        """Return the range with its missing ends taken from the total."""
        begin, end = self
        return Extent(total.begin if begin is None else begin, total.end if end is None else end)


EVERYTHING: Final = OpenRange()


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The part of its sequences that a request wants to see."""

    records: OpenRange = EVERYTHING
    record_density: int = RECORD_DENSITY
    positions: OpenRange = EVERYTHING
    """Of objects in the list of a record."""
    position_density: int = INDEX_DENSITY

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            InvalidArgumentError: a density is not positive.
        """
        if self.record_density <= 0 or self.position_density <= 0:
            raise InvalidArgumentError("Density must be greater than 0.")


class Totals:
    """What the selected sequences have in all; grows while they are selected."""

    def __init__(self) -> None:
        self._records: Extent | None = None
        self._objects_max = 1

    def add(self, summary: Summary) -> None:
        """Take one more sequence into account."""
        begin, end = self._records or (summary.step_min, summary.last_step + 1)
        self._records = Extent(min(begin, summary.step_min), max(end, summary.last_step + 1))
        self._objects_max = max(self._objects_max, summary.record_length_max)

    def window(self, asked: Asked) -> Window:
        """Return what is shown; to be called when every sequence was added.

        Without any sequence everything is empty.
        """
        records, positions = self._records or Extent(0, 0), Extent(0, self._objects_max)
        return Window(
            records=asked.records.within(records),
            records_total=records,
            record_density=asked.record_density,
            positions=asked.positions.within(positions),
            positions_total=positions,
            position_density=asked.position_density,
        )


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the selected sequences that is shown: what was asked, with all ends known."""

    records: Extent
    records_total: Extent
    record_density: int
    positions: Extent
    positions_total: Extent
    position_density: int

    def at_step(self, step: int) -> Window:
        """Return the window on one step, a negative one counted from the end of the total: -1 is the last step."""
        step = step + self.records_total.end if step < 0 else step
        return msgspec.structs.replace(self, records=Extent(step, step + 1))

    @property
    def shown_steps(self) -> Extent:
        """The steps that are shown; empty for a range that makes no sense."""
        return _sensible(self.records, self.records_total)

    @property
    def shown_positions(self) -> range:
        """The positions that are shown of every record, as far as it has them."""
        begin, end = _sensible(self.positions, self.positions_total)
        return range(begin, end, max(1, (end - begin) // self.position_density))


def thin_out(found: Sequence[T], density: int) -> Sequence[T]:
    """Return elements at even distances, the first and the last among them: all of up to `density`, else at most 2x."""
    stride = max(1, len(found) // density)
    chosen = found[::stride]
    is_last_missing = found and (len(found) - 1) % stride
    return [*chosen, found[-1]] if is_last_missing else chosen


def _sensible(wanted: Extent, total: Extent) -> Extent:
    """Return the range; an empty one when it ends before it begins, or begins below 0 where nothing is."""
    is_below = wanted.begin < 0 <= total.begin
    return Extent(0, 0) if is_below or wanted.end <= wanted.begin else wanted
