"""Columns survive packing bit for bit, and merging keeps the last write of a step."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.errors import CorruptedError, InvalidArgumentError
from matyan.limits import CHUNK_POINTS_MAX, VALUE_BYTES_MAX
from matyan.sequences import chunks
from matyan.sequences.model import Columns, Points

STEPS = st.integers(-(2**63), 2**63 - 1)
BITS = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0])
VALUES = st.one_of(BITS, st.floats(width=32), st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 5e-324]))
POINTS = st.lists(st.tuples(STEPS, VALUES, st.none() | st.floats(), STEPS), min_size=1, max_size=300)


def make_columns(points: list[tuple[int, float, float | None, int]]) -> Columns:
    steps, values, epochs, times = zip(*points, strict=True)
    return Columns(
        np.array(steps, np.int64),
        np.array(values, np.float64),
        np.array([math.nan if epoch is None else epoch for epoch in epochs]),
        np.array(times, np.int64),
    )


def bits(columns: Columns) -> list[bytes]:
    return [column.tobytes() for column in columns]


@given(POINTS)
def test_a_chunk_comes_back_bit_for_bit(points: list[tuple[int, float, float | None, int]]) -> None:
    columns = chunks.merge([make_columns(points)])

    packed, raw = chunks.encode_chunk(columns), chunks.encode_raw(columns)

    # A NaN epoch means "none given": its payload is not data.
    assert bits(chunks.decode(packed))[:2] == bits(chunks.decode(raw))[:2] == bits(columns)[:2]
    assert np.array_equal(chunks.decode(packed).epochs, columns.epochs, equal_nan=True)
    assert bits(chunks.decode(packed))[3] == bits(columns)[3]


@given(st.lists(POINTS, min_size=1, max_size=5))
def test_merging_keeps_the_last_write_of_each_step(parts: list[list[tuple[int, float, float | None, int]]]) -> None:
    written = {step: (value, time) for part in parts for step, value, _, time in part}

    merged = chunks.merge([make_columns(part) for part in parts])

    assert merged.steps.tolist() == sorted(written)
    assert merged.times.tolist() == [written[step][1] for step in sorted(written)]
    expected = np.array([written[step][0] for step in sorted(written)], np.float64)
    assert merged.values.tobytes() == expected.tobytes()


def test_the_worst_chunk_fits_a_value() -> None:
    random = np.random.default_rng(7)
    n = CHUNK_POINTS_MAX
    columns = Columns(
        np.sort(random.integers(-(2**63), 2**63 - 1, n)),
        random.integers(0, 2**63, n).view(np.float64),
        random.random(n),
        random.integers(-(2**63), 2**63 - 1, n),
    )

    assert len(chunks.encode_chunk(columns)) < VALUE_BYTES_MAX


def test_an_empty_or_overlong_chunk_is_refused() -> None:
    too_many = chunks.merge([make_columns([(step, 0.0, None, 0) for step in range(CHUNK_POINTS_MAX + 1)])])

    with pytest.raises(InvalidArgumentError, match="2049 points"):
        chunks.encode_chunk(too_many)
    with pytest.raises(InvalidArgumentError, match="0 points"):
        chunks.encode_chunk(chunks.EMPTY)


def test_a_block_of_a_newer_format_or_a_cut_block_is_refused() -> None:
    block = chunks.encode_raw(make_columns([(0, 1.0, None, 0)]))

    with pytest.raises(CorruptedError, match="format 9"):
        chunks.decode(b"\x09" + block[1:])
    with pytest.raises(CorruptedError, match="header says"):
        chunks.decode(block + b"x")


def test_float32_losses_take_less_than_five_bytes_a_point() -> None:
    random = np.random.default_rng(1)
    n = CHUNK_POINTS_MAX
    steps = np.arange(n)
    losses = (1 / (1 + steps * 0.01) + random.normal(0, 0.05, n)).astype(np.float32).astype(np.float64)
    times = 1_700_000_000_000 + np.cumsum(random.integers(40, 60, n))

    size = len(chunks.encode_chunk(Columns(steps, losses, np.full(n, math.nan), times)))

    assert size / n < 5


@pytest.mark.parametrize("stored", [0, 1, 100])
@pytest.mark.parametrize("stored_epochs", [True, False])
@pytest.mark.parametrize("fresh_epochs", [True, False])
def test_points_are_appended_to_an_uncompressed_block_where_both_or_neither_have_epochs(
    stored: int, stored_epochs: bool, fresh_epochs: bool
) -> None:
    def columns(begin: int, count: int, has_epochs: bool) -> Columns:
        steps = np.arange(begin, begin + count)
        return Columns(steps, steps / 7, steps / 2 if has_epochs else np.full(count, math.nan), steps * 20)

    before, after = columns(0, stored, stored_epochs), columns(stored, 10, fresh_epochs)
    epochs = after.epochs.tolist() if fresh_epochs else None
    fresh = Points(after.steps.tolist(), after.values.tolist(), epochs, after.times.tolist())

    extended = chunks.extend_raw(chunks.encode_raw(before), fresh)

    if stored and stored_epochs != fresh_epochs:
        assert extended is None
    else:
        assert extended == chunks.encode_raw(chunks.merge([before, after]))


def test_nothing_is_appended_to_a_compressed_block() -> None:
    one = Columns(np.arange(1), np.zeros(1), np.zeros(1), np.arange(1))

    assert chunks.extend_raw(chunks.encode_chunk(one), Points([5], [1.0], [0.0], [1])) is None
