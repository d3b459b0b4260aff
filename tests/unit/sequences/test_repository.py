"""Whatever the order of arrival, a sequence reads back as a dict of its last writes would."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.ids import Project, RunNumber
from matyan.sequences import chunks
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket, Columns, Points, SequenceKey, Summary
from matyan.sequences.repository import SequenceRef
from matyan.sequences.sampling import sample
from matyan.store import keyspace
from matyan.store.subspaces import Subspace

PROJECT = Project("default")


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[EmbeddedKv]:
    engine = open_embedded_kv(tmp_path / "kv", map_bytes=2**30)
    yield engine
    engine.close()


def make_columns(points: list[tuple[int, float]]) -> Columns:
    steps = np.array([step for step, _ in points], np.int64)
    values = np.array([value for _, value in points], np.float64)
    return Columns(steps, values, np.full(len(points), math.nan), steps * 10)


def make_points(points: list[tuple[int, float]]) -> Points:
    return Points([step for step, _ in points], [value for _, value in points], None, [step * 10 for step, _ in points])


def append(kv: EmbeddedKv, ref: SequenceRef, points: list[tuple[int, float]], dtype: str = "float") -> None:
    def transact(tx) -> None:  # type: ignore[no-untyped-def] # tx is what the engine hands out
        (opened,) = sequences.open_many(tx, PROJECT, [ref])
        sequences.append(tx, PROJECT, ref, opened, make_points(points), dtype=dtype)

    kv.write(transact, durable=False)


def read(kv: EmbeddedKv, ref: SequenceRef, points: int) -> Columns:
    summary = summary_of(kv, ref)
    return kv.read(lambda reader: sequences.read_samples(reader, PROJECT, [(ref.number, summary)], points))[0]


def summary_of(kv: EmbeddedKv, ref: SequenceRef) -> Summary:
    (summary,) = kv.read(lambda reader: sequences.get_summaries(reader, PROJECT, [ref]))
    assert summary is not None
    return summary


def blocks_of(kv: EmbeddedKv) -> dict[bytes, bytes]:
    where = keyspace.children(keyspace.subspace(PROJECT, Subspace.POINTS))
    return dict(kv.read(lambda reader: reader.scan(*where, rows_max=1000)))


NUMBERS = itertools.count(1)
"""The store is the same for all examples of a test, so each takes a run of its own."""
BATCHES = st.lists(
    st.builds(
        lambda start, count, stride, salt: [
            (start + stride * i, math.nan if (i + salt) % 97 == 0 else float(i * salt)) for i in range(count)
        ],
        st.integers(-2_000, 2_000),
        st.integers(1, 900),
        st.sampled_from([1, -1, 3, 0, 7]),
        st.integers(1, 1000),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=BATCHES,
    points=st.sampled_from([1, 2, 50, 500, 514, 700, -1]),
    settled=st.sampled_from(["never", "in the end", "after each"]),
)
def test_any_order_of_arrival_reads_back_as_the_last_writes(
    kv: EmbeddedKv, batches: list[list[tuple[int, float]]], points: int, settled: str
) -> None:
    ref = SequenceRef(RunNumber(next(NUMBERS)), SequenceKey(Bucket.METRIC, "loss", '{"a":1}'))
    written: dict[int, float] = {}
    for batch in batches:
        append(kv, ref, batch)
        written.update(batch)
        if settled == "after each":
            kv.write(lambda tx: sequences.settle(tx, PROJECT, ref))
    if settled == "in the end":
        kv.write(lambda tx: sequences.settle(tx, PROJECT, ref))

    found = read(kv, ref, points)

    whole = make_columns(sorted(written.items()))
    expected = sample(whole, points)
    assert found.steps.tolist() == expected.steps.tolist()
    assert np.array_equal(found.values, expected.values, equal_nan=True)
    summary = summary_of(kv, ref)
    tracked = [value for batch in batches for _, value in batch if not math.isnan(value)]
    assert summary.last_step == max(written)
    assert summary.last == written[max(written)] or math.isnan(written[max(written)])
    assert summary.first_step == batches[0][0][0]
    assert summary.step_min == min(written)
    assert (summary.minimum, summary.maximum) == ((min(tracked), max(tracked)) if tracked else (None, None))


@pytest.mark.parametrize("slice_points", [1, 7, 100, 5000])
def test_blocks_stay_few_whatever_the_size_of_the_slices(kv: EmbeddedKv, slice_points: int) -> None:
    ref = SequenceRef(RunNumber(1), SequenceKey(Bucket.METRIC, "loss"))
    total = 10_000
    for begin in range(0, total, slice_points):
        append(kv, ref, [(step, step / 7) for step in range(begin, min(total, begin + slice_points))])

    summary = summary_of(kv, ref)

    blocks = kv.read(lambda reader: reader.scan(b"\x00", b"\xff", rows_max=1000))
    assert len(blocks) <= 1 + 2 + 8 + total / 2048 + 1  # summary, preview and tail, small blocks, chunks
    assert summary.count == total
    assert read(kv, ref, -1).steps.tolist() == list(range(total))


def test_a_late_old_step_does_not_move_last_backwards(kv: EmbeddedKv) -> None:
    ref = SequenceRef(RunNumber(1), SequenceKey(Bucket.METRIC, "loss"))
    append(kv, ref, [(5, 0.5), (3, 0.3), (3, 0.33), (10, 1.0), (4, 0.4)])
    append(kv, ref, [(9, 0.9)])

    summary = summary_of(kv, ref)

    assert (summary.last_step, summary.last) == (10, 1.0)
    assert (summary.first_step, summary.first) == (5, 0.5)
    assert read(kv, ref, -1).values.tolist() == [0.33, 0.4, 0.5, 0.9, 1.0]
    assert summary.count == 5


def test_ints_and_floats_together_are_numbers(kv: EmbeddedKv) -> None:
    ref = SequenceRef(RunNumber(1), SequenceKey(Bucket.METRIC, "n"))
    append(kv, ref, [(0, 1.0)], "int")
    assert summary_of(kv, ref).dtype == "int"

    append(kv, ref, [(1, 1.5)], "float")

    assert summary_of(kv, ref).dtype == "number"


def test_settling_compresses_the_tail_and_appending_goes_on(kv: EmbeddedKv) -> None:
    ref = SequenceRef(RunNumber(1), SequenceKey(Bucket.METRIC, "loss"))
    append(kv, ref, [(step, step * 0.5) for step in range(200)])
    before = sum(len(value) for _, value in kv.read(lambda reader: reader.scan(b"\x00", b"\xff", rows_max=10)))

    kv.write(lambda tx: sequences.settle(tx, PROJECT, ref))

    after = sum(len(value) for _, value in kv.read(lambda reader: reader.scan(b"\x00", b"\xff", rows_max=10)))
    assert after < before / 3
    append(kv, ref, [(200, 7.0)])
    assert len(read(kv, ref, -1)) == 201
    assert chunks.EMPTY.steps.shape == (0,)


def test_points_that_are_remembered_from_one_reading_to_the_next_cannot_be_changed(kv: EmbeddedKv) -> None:
    ref = SequenceRef(RunNumber(next(NUMBERS)), SequenceKey(Bucket.METRIC, "m"))
    append(kv, ref, [(step, step / 2) for step in range(20)])
    kv.write(lambda tx: sequences.settle(tx, PROJECT, ref))

    first, again = read(kv, ref, 50), read(kv, ref, 50)

    assert again.values.tolist() == [step / 2 for step in range(20)]
    for column in first:
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1


def test_settling_leaves_chunks_alone_as_long_as_only_the_tail_is_new(kv: EmbeddedKv) -> None:
    ref = SequenceRef(RunNumber(1), SequenceKey(Bucket.METRIC, "loss"))
    append(kv, ref, [(step, step * 0.5) for step in range(1_000)])
    kv.write(lambda tx: sequences.settle(tx, PROJECT, ref))
    before = blocks_of(kv)
    append(kv, ref, [(1_000, 7.0)])

    kv.write(lambda tx: sequences.settle(tx, PROJECT, ref))

    changed = {key for key, value in blocks_of(kv).items() if before.get(key) != value}
    assert [key[-4:] for key in changed] == [keyspace.TAIL.to_bytes(4, "big")]
    assert read(kv, ref, -1).steps.tolist() == list(range(1_001))
    assert read(kv, ref, 50).steps[-1] == 1_000


@pytest.mark.parametrize("known", [1, 200, 300, 2_000, 2_100])
@pytest.mark.parametrize("more", [1, 100, 300, 2_500])
def test_a_summary_older_than_the_points_hides_none_of_them(kv: EmbeddedKv, known: int, more: int) -> None:
    ref = SequenceRef(RunNumber(1), SequenceKey(Bucket.METRIC, "loss"))
    append(kv, ref, [(step, step / 7) for step in range(known)])
    summary = summary_of(kv, ref)
    for begin in range(known, known + more, 50):
        append(kv, ref, [(step, step / 7) for step in range(begin, min(known + more, begin + 50))])

    (found,) = kv.read(lambda reader: sequences.read_samples(reader, PROJECT, [(ref.number, summary)], 500))

    expected = sample(make_columns([(step, step / 7) for step in range(known + more)]), 500)
    assert found.steps.tolist() == expected.steps.tolist()


def test_points_are_compressed_once_while_a_run_lives(kv: EmbeddedKv) -> None:
    ref = SequenceRef(RunNumber(1), SequenceKey(Bucket.METRIC, "loss"))
    for begin in range(0, 5_000, 50):
        append(kv, ref, [(step, step / 7) for step in range(begin, begin + 50)])

    packed = {key[-4:]: chunks.count(block) for key, block in blocks_of(kv).items() if chunks.is_packed(block)}

    preview = packed.pop(keyspace.PREVIEW.to_bytes(4, "big"))
    assert preview == sequences.SAMPLE_POINTS_MAX
    assert set(packed.values()) == {2_048}


@pytest.mark.parametrize("slice_points", [50, 257, 1_000, 1_750])
def test_few_points_wait_for_the_preview_whatever_the_size_of_the_slices(kv: EmbeddedKv, slice_points: int) -> None:
    ref = SequenceRef(RunNumber(1), SequenceKey(Bucket.METRIC, "loss"))
    small = keyspace.SMALL_BLOCKS.to_bytes(4, "big")
    waiting = []
    for begin in range(0, 20 * slice_points, slice_points):
        append(kv, ref, [(step, step / 7) for step in range(begin, begin + slice_points)])
        waiting.append(sum(chunks.count(block) for key, block in blocks_of(kv).items() if key[-4:] >= small))

    assert max(waiting) < 5_500


def test_sequences_that_grow_in_step_are_not_merged_in_the_same_slice(kv: EmbeddedKv) -> None:
    refs = [SequenceRef(RunNumber(1), SequenceKey(Bucket.METRIC, f"loss_{number}")) for number in range(40)]
    waiting = [0] * len(refs)
    merged = []
    for begin in range(0, 8_192, 256):
        for ref in refs:
            append(kv, ref, [(step, step / 7) for step in range(begin, begin + 256)])
        now = [len(summary_of(kv, ref).small_blocks) for ref in refs]
        merged.append(sum(after < before for before, after in zip(waiting, now, strict=True)))
        waiting = now

    assert sum(merged) >= 2 * len(refs)
    assert max(merged) < len(refs) / 2


@pytest.mark.parametrize("points", [300, 1_900, 2_400])
def test_a_sample_of_a_settled_sequence_reads_preview_and_tail_only(kv: EmbeddedKv, points: int) -> None:
    ref = SequenceRef(RunNumber(1), SequenceKey(Bucket.METRIC, "loss"))
    for begin in range(0, points, 100):
        append(kv, ref, [(step, step / 7) for step in range(begin, begin + 100)])
    kv.write(lambda tx: sequences.settle(tx, PROJECT, ref))

    above = [key for key in blocks_of(kv) if key[-4:] >= keyspace.SMALL_BLOCKS.to_bytes(4, "big")]

    assert [key[-4:] for key in above] == [keyspace.TAIL.to_bytes(4, "big")]
    assert read(kv, ref, -1).steps.tolist() == list(range(points))
