"""What fresh points change in the summary of their sequence. Pure."""

from __future__ import annotations

import math
import operator
from itertools import islice

import numpy as np

from matyan.sequences.model import Columns, Points, SequenceKey, Summary


def summarise(known: Summary | None, key: SequenceKey, fresh: Columns, dtype: str) -> Summary:
    """Return the summary with fresh points, in order of arrival, entered into it; all but `count` and the chunks."""
    steps, values, _, times = fresh
    step_max = int(steps.max())
    # Of a step given several times the last row is the stored one.
    last = float(values[len(steps) - 1 - int(np.argmax(steps[::-1]))])
    if known is None:
        known = Summary.begin(key, dtype=dtype, step=int(steps[0]), time_ms=int(times[0]))
        known.first = float(values[0])
    if step_max >= known.last_step:
        known.last_step, known.last = step_max, last
    if known.dtype != dtype:
        known.dtype = "number"
    known.step_min = min(known.step_min, int(steps.min()))
    known.time_first_ms = min(known.time_first_ms, int(times.min()))
    known.time_last_ms = max(known.time_last_ms, int(times.max()))
    known.non_finite += int(np.count_nonzero(~np.isfinite(values)))
    numbers = values[~np.isnan(values)]
    if len(numbers):
        low, high = float(numbers.min()), float(numbers.max())
        known.minimum = low if known.minimum is None else min(known.minimum, low)
        known.maximum = high if known.maximum is None else max(known.maximum, high)
    return known


def follow(summary: Summary, fresh: Points) -> bool:
    """Tell whether points are finite, in order and beyond all that is there, so that `add_followers` does for them."""
    steps = fresh.steps
    return (
        steps[0] > summary.last_step
        and math.isfinite(sum(fresh.values))
        and (len(steps) == 1 or all(map(operator.lt, steps, islice(steps, 1, None))))
    )


def add_followers(summary: Summary, fresh: Points) -> None:
    """Enter points into the summary that `follow` all others and have its type. Numpy would cost five times as much."""
    steps, values, _, times = fresh
    summary.count += len(steps)
    summary.last_step, summary.last = steps[-1], values[-1]
    low, high, earliest, latest = min(values), max(values), min(times), max(times)
    summary.minimum = low if summary.minimum is None else min(summary.minimum, low)
    summary.maximum = high if summary.maximum is None else max(summary.maximum, high)
    summary.time_first_ms = min(summary.time_first_ms, earliest)
    summary.time_last_ms = max(summary.time_last_ms, latest)
