"""A sequence written whole is the one that appending and settling leaves, and goes on like it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.engines.kv.protocol import KvTransaction
from matyan.ids import DEFAULT_PROJECT, RunNumber
from matyan.sequences import repository
from matyan.sequences.model import Bucket, Columns, Points, SequenceKey, Summary
from matyan.sequences.repository import SAMPLE_POINTS_MAX, SequenceRef

KEY = SequenceKey(Bucket.METRIC, "loss")
WHOLE = SequenceRef(RunNumber(1), KEY)
APPENDED = SequenceRef(RunNumber(2), KEY)
SIZES = st.sampled_from([1, 2, 255, 256, 257, 514, 2047, 2048, 2049, 2304, 2305, 4096, 5000])
VALUES = st.sampled_from([0.5, -0.0, math.nan, math.inf, -math.inf, 1e308, 5e-324])


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[EmbeddedKv]:
    engine = open_embedded_kv(tmp_path / "kv", map_bytes=2**30)
    yield engine
    engine.close()


def make_columns(size: int, odd: list[float], first_step: int) -> Columns:
    steps = np.arange(first_step, first_step + 3 * size, 3, dtype=np.int64)
    values = np.sin(np.arange(size, dtype=np.float64))
    values[: len(odd)] = odd[:size]
    return Columns(steps, values, np.floor(np.arange(size) / 10), steps * 1000)


def put_whole(tx: KvTransaction, columns: Columns) -> None:
    whole = repository.encode_whole(KEY, columns, dtype="float")
    for number, block in whole.blocks:
        repository.put_block(tx, DEFAULT_PROJECT, WHOLE, number, block)
    repository.put_summary(tx, DEFAULT_PROJECT, WHOLE.number, whole.summary, is_settled=True)


def append(tx: KvTransaction, ref: SequenceRef, columns: Columns) -> None:
    (opened,) = repository.open_many(tx, DEFAULT_PROJECT, [ref])
    points = Points(*(column.tolist() for column in columns))
    repository.append(tx, DEFAULT_PROJECT, ref, opened, points, dtype="float")


def read(kv: EmbeddedKv, ref: SequenceRef, points: int) -> tuple[Summary, Columns]:
    (summary,) = kv.read(lambda reader: repository.get_summaries(reader, DEFAULT_PROJECT, [ref]))
    assert summary is not None
    pair = (ref.number, summary)
    return summary, kv.read(lambda reader: repository.read_samples(reader, DEFAULT_PROJECT, [pair], points))[0]


def assert_same(kv: EmbeddedKv) -> None:
    """Compare everything that readers see; which numbers the blocks have is nobody's business."""
    for points in (-1, 1, 50, 500, SAMPLE_POINTS_MAX):
        whole, found = read(kv, WHOLE, points)
        appended, wanted = read(kv, APPENDED, points)
        for mine, theirs in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    for field in Summary.__struct_fields__:
        if field not in ("small_blocks", "chunk_next", "chunk_settled", "chunked"):
            np.testing.assert_equal(getattr(whole, field), getattr(appended, field), err_msg=field)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=SIZES, odd=st.lists(VALUES, max_size=8), first_step=st.integers(-1000, 1000), more=st.booleans())
def test_a_whole_sequence_reads_like_an_appended_one(
    kv: EmbeddedKv, size: int, odd: list[float], first_step: int, more: bool
) -> None:
    columns = make_columns(size, odd, first_step)

    def write(tx: KvTransaction) -> None:
        tx.clear_range(b"\x00", b"\xf0")
        put_whole(tx, columns)
        append(tx, APPENDED, columns)
        repository.settle(tx, DEFAULT_PROJECT, APPENDED)
        if more:
            late = make_columns(700, odd, first_step + 3 * size)
            append(tx, WHOLE, late)
            append(tx, APPENDED, late)

    kv.write(write, durable=False)

    assert_same(kv)
