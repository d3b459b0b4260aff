"""Counting runs by hour and day of local time."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.runs.activity import Activity
from matyan.runs.model import RunDocument

NOON = datetime(2024, 6, 1, 12, 30, tzinfo=UTC).timestamp()


def counted(*moments: float, offset: int = 0) -> Activity:
    activity = Activity()
    for moment in moments:
        activity.add(RunDocument(hash="a", created_at_seconds=moment), timezone_offset_minutes=offset)
    return activity


@pytest.mark.parametrize(
    ("offset", "hour"),
    [
        (0, "2024-06-01T12:00:00"),
        (240, "2024-06-01T08:00:00"),
        (-330, "2024-06-01T18:00:00"),
        (780, "2024-05-31T23:00:00"),
    ],
)
def test_hours_are_local(offset: int, hour: str) -> None:
    assert counted(NOON, offset=offset).by_hour() == {hour: 1}


def test_time_before_1970_has_its_hour() -> None:
    assert counted(-1.0).by_hour() == {"1969-12-31T23:00:00": 1}
    assert counted(-1.0).by_day() == {"1969-12-31T00:00:00": 1}


def test_clocks_beyond_the_calendar_count_at_its_ends() -> None:
    activity = counted(-1e15, 1e15, offset=-1440)

    assert list(activity.by_hour()) == ["9999-12-31T23:00:00", "0001-01-01T00:00:00"]


@given(st.lists(st.floats(min_value=0, max_value=4e9), max_size=30), st.integers(-840, 840))
def test_days_and_hours_count_every_run_once(moments: list[float], offset: int) -> None:
    activity = counted(*moments, offset=offset)

    assert sum(activity.by_hour().values()) == sum(activity.by_day().values()) == len(moments)
    assert list(activity.by_hour()) == sorted(activity.by_hour(), reverse=True)
    assert {hour[:10] for hour in activity.by_hour()} == {day[:10] for day in activity.by_day()}


@given(st.lists(st.integers(-(2**60), 2**60), max_size=30), st.integers(-840, 840))
def test_times_of_creation_count_as_documents_do(moments_us: list[int], offset: int) -> None:
    by_document = counted(*(moment // 1_000_000 for moment in moments_us), offset=offset)
    by_time = Activity()
    by_time.count(np.array(moments_us, np.int64), timezone_offset_minutes=offset)

    assert by_time.by_hour() == by_document.by_hour()
    assert by_time.runs == by_document.runs
