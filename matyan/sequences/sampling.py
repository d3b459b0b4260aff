"""n of N points, evenly thinned, first and last kept; x-axis alignment. Pure functions.

Steps are ranked by their bits reversed: multiples of large powers of two come first. So the k best-ranked steps are
spread evenly over a counter (they form the van der Corput sequence), the choice depends on the steps alone (curves
of equal steps stay comparable), a sample of a sample equals the sample of the whole, and a sketch of the best-ranked
points can be kept while points arrive in any order, repeated or not. That sketch is the preview of a sequence.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from matyan.sequences import chunks
from matyan.sequences.model import Columns, Float64s, Int64s

_BYTE_REVERSED: Final = np.array([int(f"{i:08b}"[::-1], 2) for i in range(256)], np.uint8)


def rank(steps: Int64s) -> NDArray[np.uint64]:
    """Return the place of each step in the order of choice: its 64 bits in reverse."""
    as_bytes = np.ascontiguousarray(steps).view(np.uint8)
    # Reversing the bits of each little-endian byte and reading the bytes as big-endian reverses all 64.
    return _BYTE_REVERSED[as_bytes].view(">u8").astype(np.uint64)


def choose(steps: Int64s, points: int) -> NDArray[np.intp]:
    """Return the rows of a sample, ascending.

    Args:
        steps: int64 (n,), strictly rising.
        points: how many; -1 for all.

    Returns:
        min(n, points) row numbers. The last row is always among them, the first one when `points` is at least 2.
    """
    n = len(steps)
    if points < 0 or n <= points:
        return np.arange(n)
    if points <= 1:
        return np.arange(n - points, n)
    inner = rank(steps[1:-1])
    wanted = points - 2
    rows = np.argpartition(inner, wanted)[:wanted] + 1 if wanted < len(inner) else np.arange(1, n - 1)
    return np.concatenate(([0], np.sort(rows), [n - 1]))


def sample(columns: Columns, points: int) -> Columns:
    """Return the chosen points of `columns` (steps strictly rising); the very same object when all are chosen."""
    if points < 0 or len(columns) <= points:
        return columns
    return chunks.take(columns, choose(columns.steps, points))


def between(columns: Columns, begin: int | None, end: int | None) -> Columns:
    """Return the points of `begin <= step < end` (steps strictly rising); None is an open end."""
    ends = [np.searchsorted(columns.steps, step) for step in (begin, end) if step is not None]
    low = ends[0] if begin is not None else 0
    high = ends[-1] if end is not None else len(columns)
    return chunks.take(columns, slice(low, max(low, high)))


def align(columns: Columns, axis: Columns) -> tuple[Float64s, Float64s] | None:
    """Look up the values of an x-axis metric at the steps of `columns`.

    Returns:
        The values found, in step order, and their steps as float64; None when no step is common.
    """
    if not len(axis):
        return None
    rows = np.minimum(np.searchsorted(axis.steps, columns.steps), len(axis) - 1)
    found = axis.steps[rows] == columns.steps
    if not found.any():
        return None
    return axis.values[rows[found]], columns.steps[found].astype(np.float64)
