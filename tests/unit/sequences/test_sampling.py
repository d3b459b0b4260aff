"""A sample is a subset with both ends, depends on steps alone, and is spread evenly."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from matyan.sequences import chunks
from matyan.sequences.model import Columns
from matyan.sequences.sampling import align, choose, rank, sample

STEP_SETS = st.sets(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=400).map(
    lambda steps: np.array(sorted(steps), np.int64)
)


def make_columns(steps: np.ndarray) -> Columns:
    return Columns(steps, steps.astype(np.float64) * 0.5, np.full(len(steps), np.nan), steps)


@given(STEP_SETS, st.integers(1, 500))
def test_a_sample_has_the_size_asked_for_and_both_ends(steps: np.ndarray, points: int) -> None:
    rows = choose(steps, points)

    assert len(rows) == min(points, len(steps))
    assert (np.diff(rows) > 0).all()
    assert rows[-1] == len(steps) - 1
    assert points == 1 or rows[0] == 0


@given(STEP_SETS, st.integers(1, 200), st.integers(0, 200))
def test_a_sample_of_a_sample_is_the_sample_of_the_whole(steps: np.ndarray, points: int, more: int) -> None:
    whole = make_columns(steps)

    twice = sample(sample(whole, points + more), points)

    assert twice.steps.tolist() == sample(whole, points).steps.tolist()


@given(STEP_SETS, st.integers(2, 100), st.data())
def test_thinning_while_points_arrive_equals_thinning_at_the_end(
    steps: np.ndarray, points: int, data: st.DataObject
) -> None:
    order = np.array(data.draw(st.permutations(range(len(steps)))), np.intp)
    kept = chunks.EMPTY
    for part in np.array_split(order, 7):
        kept = sample(chunks.merge([kept, chunks.take(make_columns(steps), part)]), points)

    assert kept.steps.tolist() == sample(make_columns(steps), points).steps.tolist()


@given(st.integers(-(2**63), 2**63 - 1))
def test_rank_is_the_step_with_its_bits_reversed(step: int) -> None:
    expected = int(f"{step % 2**64:064b}"[::-1], 2)

    assert rank(np.array([step]))[0] == expected


def test_a_sample_of_a_counter_has_no_gap_wider_than_four_shares() -> None:
    for points in (50, 200, 500):
        gaps = np.diff(choose(np.arange(100_000), points))

        assert gaps.max() <= 4 * 100_000 / points


def test_minus_one_means_all() -> None:
    assert len(choose(np.arange(1000), -1)) == 1000


def test_alignment_finds_the_axis_value_of_each_common_step() -> None:
    found = align(make_columns(np.array([1, 2, 3, 9])), make_columns(np.array([2, 3, 4])))

    assert found is not None
    assert [column.tolist() for column in found] == [[1.0, 1.5], [2.0, 3.0]]
    assert align(make_columns(np.array([1])), make_columns(np.array([2]))) is None
    assert align(make_columns(np.array([1])), chunks.EMPTY) is None
