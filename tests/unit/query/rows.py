"""Rows of the golden dataset as queries see them."""

from __future__ import annotations

from typing import Final

from matyan.query.names import RunName
from tests.support.dataset import GoldenRun

NOW_SECONDS: Final = 1_717_700_000.0


def name_run(golden: GoldenRun, offset_minutes: int = 0) -> RunName:
    """Return the name `run` for a golden run, at a fixed time after all of them."""
    name = RunName(now_seconds=NOW_SECONDS, tz_offset_minutes=offset_minutes, notes=lambda _: golden.notes)
    return name.of(golden.run, golden.summaries)
