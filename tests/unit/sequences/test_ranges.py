"""Ranges, densities and totals of object sequences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.errors import InvalidArgumentError
from matyan.sequences.model import Bucket, Summary
from matyan.sequences.ranges import Asked, Extent, OpenRange, Totals, Window, thin_out


def make_summary(step_min: int, last_step: int, *, objects: int = 1, first_step: int | None = None) -> Summary:
    return Summary(
        bucket=int(Bucket.IMAGES),
        name="samples",
        context="{}",
        dtype="image",
        first_step=step_min if first_step is None else first_step,
        step_min=step_min,
        last_step=last_step,
        record_length_max=objects,
    )


def make_window(asked: Asked, *summaries: Summary) -> Window:
    totals = Totals()
    for summary in summaries or (make_summary(0, 9),):
        totals.add(summary)
    return totals.window(asked)


def test_totals_span_all_sequences_whatever_was_tracked_first() -> None:
    window = make_window(Asked(), make_summary(0, 3), make_summary(7, 20, objects=5), make_summary(2, 4, first_step=4))

    assert window.records_total == (0, 21)
    assert window.positions_total == (0, 5)


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        (OpenRange(), (0, 10)),
        (OpenRange(2, None), (2, 10)),
        (OpenRange(None, 4), (0, 4)),
        (OpenRange(500, 600), (500, 600)),
    ],
)
def test_missing_ends_come_from_the_total(asked: OpenRange, used: tuple[int, int]) -> None:
    window = make_window(Asked(records=asked))

    assert window.records == used
    assert window.shown_steps == used


@pytest.mark.parametrize("asked", [OpenRange(4, 2), OpenRange(4, 4), OpenRange(-3, None), OpenRange(10, None)])
def test_a_range_without_sense_shows_nothing_and_is_reported_as_asked(asked: OpenRange) -> None:
    window = make_window(Asked(records=asked, positions=asked))

    begin, end = window.shown_steps
    assert begin >= end
    assert window.records == asked.within(Extent(0, 10))
    assert not window.shown_positions


def test_a_range_may_begin_below_zero_where_steps_do() -> None:
    window = make_window(Asked(records=OpenRange(-5, 3)), make_summary(-5, 9))

    assert window.shown_steps == (-5, 3)


def test_without_sequences_everything_is_empty() -> None:
    window = Totals().window(Asked())

    assert window.records_total == (0, 0)
    assert window.shown_steps == (0, 0)


@pytest.mark.parametrize(("step", "shown"), [(3, (3, 4)), (-1, (9, 10)), (-2, (8, 9)), (5000, (5000, 5001))])
def test_a_step_is_a_range_of_one(step: int, shown: tuple[int, int]) -> None:
    window = make_window(Asked()).at_step(step)

    assert window.records == shown
    assert window.shown_steps == shown


def test_a_step_before_the_beginning_shows_nothing() -> None:
    begin, end = make_window(Asked()).at_step(-100).shown_steps

    assert begin >= end


@pytest.mark.parametrize(
    ("asked", "positions"),
    [
        (Asked(), [0, 1, 2, 3, 4, 5, 6]),
        (Asked(position_density=2), [0, 3, 6]),
        (Asked(position_density=1), [0]),
        (Asked(position_density=100), [0, 1, 2, 3, 4, 5, 6]),
        (Asked(positions=OpenRange(1, 6), position_density=2), [1, 3, 5]),
    ],
)
def test_positions_are_the_same_for_every_record(asked: Asked, positions: list[int]) -> None:
    assert list(make_window(asked, make_summary(0, 0, objects=7)).shown_positions) == positions


@pytest.mark.parametrize("asked", [Asked(record_density=0), Asked(position_density=-1)])
def test_a_density_is_positive(asked: Asked) -> None:
    with pytest.raises(InvalidArgumentError, match=r"Density must be greater than 0\."):
        asked.check()


@given(st.lists(st.integers(), unique=True), st.integers(1, 20))
def test_thinning_keeps_order_first_and_last_and_a_bounded_number(steps: list[int], density: int) -> None:
    chosen = list(thin_out(steps, density))

    assert chosen == [step for step in steps if step in set(chosen)]
    assert chosen[:1] == steps[:1]
    assert chosen[-1:] == steps[-1:]
    assert min(len(steps), density) <= len(chosen) <= 2 * density
    if len(steps) <= density:
        assert chosen == steps


@given(st.integers(1, 300), st.integers(1, 40))
def test_thinning_takes_every_nth_and_the_last(count: int, density: int) -> None:
    stride = count // density or 1
    expected = [step for step in range(count) if step % stride == 0 or step == count - 1]

    assert list(thin_out(range(count), density)) == expected
