"""A long sequence that is unpacked column by column reads like one that is decoded and merged as a whole."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.errors import CorruptedError
from matyan.limits import CHUNK_POINTS_MAX
from matyan.sequences import chunks
from matyan.sequences.chunks import ColumnName
from matyan.sequences.model import Columns
from matyan.sequences.packed import PackedColumns, unpack

NAMES: Final[tuple[ColumnName, ...]] = ("steps", "values", "epochs", "times")


def make_columns(steps: list[int], *, has_epochs: bool = False, is_wide: bool = False) -> Columns:
    numbers = np.array(steps, np.int64)
    values = numbers / 3 if is_wide else numbers / 4
    epochs = numbers / 10 if has_epochs else np.full(len(steps), math.nan)
    return Columns(numbers, values, epochs, numbers * 7 + 1_750_000_000_000)


blocks = st.builds(
    lambda steps, has_epochs, is_wide, is_raw: (
        chunks.encode_raw(make_columns(sorted(steps), has_epochs=has_epochs, is_wide=is_wide))
        if is_raw or not steps
        else chunks.encode_chunk(make_columns(sorted(steps), has_epochs=has_epochs, is_wide=is_wide))
    ),
    st.sets(st.integers(-50, 50), max_size=12),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


def columns_of(points: Columns | PackedColumns) -> Columns:
    if isinstance(points, Columns):
        return points
    return Columns(*(np.concatenate(list(points.parts(name))) for name in NAMES))


@given(found=st.lists(blocks, max_size=4), columns_max=st.integers(0, 20))
def test_blocks_in_any_order_read_like_their_merge(found: list[bytes], columns_max: int) -> None:
    merged = chunks.merge([chunks.decode(block) for block in found])

    points = unpack(found, columns_max=columns_max)

    assert len(points) == len(merged)
    for column, expected in zip(columns_of(points), merged, strict=True):
        assert column.dtype == expected.dtype
        assert column.tobytes() == expected.tobytes()


def test_a_long_sequence_in_order_stays_packed_and_comes_in_small_parts() -> None:
    whole = make_columns(list(range(3 * CHUNK_POINTS_MAX + 5)), has_epochs=True)

    points = unpack([chunks.encode_chunk(part) for part in chunks.cut(whole, CHUNK_POINTS_MAX)], columns_max=100)

    assert isinstance(points, PackedColumns)
    assert [len(part) for part in points.parts("values")] == [CHUNK_POINTS_MAX] * 3 + [5]


def test_blocks_that_overlap_are_merged() -> None:
    found = [chunks.encode_chunk(make_columns(list(range(begin, begin + 100)))) for begin in (0, 99)]

    points = unpack(found, columns_max=10)

    assert isinstance(points, Columns)
    assert points.steps.tolist() == list(range(199))


def test_a_short_sequence_comes_as_columns() -> None:
    assert isinstance(unpack([chunks.encode_raw(make_columns([1, 2, 3]))], columns_max=3), Columns)


def test_a_block_of_a_newer_format_is_refused() -> None:
    block = bytes((9,)) + chunks.encode_raw(make_columns([1, 2, 3]))[1:]

    with pytest.raises(CorruptedError, match="format 9"):
        unpack([block], columns_max=0)
