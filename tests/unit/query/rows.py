"""Rows of the golden dataset as queries see them."""

from __future__ import annotations

import functools
from typing import Final

from matyan.query.names import RunName, index_sequences
from tests.support.dataset import GoldenRun

NOW_SECONDS: Final = 1_717_700_000.0


def name_run(golden: GoldenRun, offset_minutes: int = 0) -> RunName:
    """Return the name `run` for a golden run, at a fixed time after all of them."""
    return RunName(
        golden.run,
        sequences=functools.partial(index_sequences, golden.summaries),
        now_seconds=NOW_SECONDS,
        tz_offset_minutes=offset_minutes,
        notes=lambda: golden.notes,
    )
