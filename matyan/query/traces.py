"""The last stage of a search of metrics: metrics that match -> their samples, and their x axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from matyan.engines.kv.protocol import KvEngine, KvReader
from matyan.ids import Project, RunNumber
from matyan.query.executor import Batch, Candidate
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket, Columns, Float64s, SequenceKey, Summary
from matyan.sequences.packed import PackedColumns, unpack
from matyan.sequences.repository import SAMPLE_POINTS_MAX, SequenceRef
from matyan.sequences.sampling import align
from matyan.sequences.service import ALL_POINTS, StoredMetric, read_whole

SEQUENCES_PER_READ: Final = 256
POINTS_PER_READ: Final = 500_000
"""Bounds of one transaction that reads samples: 16 MB of columns, besides a first sequence of any length."""


class Trace(NamedTuple):
    """A selected metric with its sample, and its x axis (values, steps) when one was asked for and found."""

    summary: Summary
    sample: Columns | PackedColumns
    axis: tuple[Float64s, Float64s] | None


class PlacedTrace(NamedTuple):
    """A trace and its place among those of its run, from 0."""

    candidate: Candidate
    place: int
    trace: Trace


def read_traces(kv: KvEngine, project: Project, batch: Batch, *, points: int, x_axis: str) -> Iterator[PlacedTrace]:
    """Yield all sequences of all candidates, in order, with samples, bounded parts of them per transaction.

    Args:
        kv: the store.
        project: the project.
        batch: candidates whose sequences are metrics.
        points: size of a sample, -1 for all points.
        x_axis: name of the metric, looked up in the same run and context, whose values are the x axis; empty for none.
    """
    wanted = [(candidate, place) for candidate in batch.candidates for place in range(len(candidate.summaries))]
    metrics = [StoredMetric(candidate.run.number, candidate.summaries[place]) for candidate, place in wanted]
    for begin, end in _parts(metrics, points):
        part = metrics[begin:end]
        traces = kv.read(lambda reader, part=part: _sample(reader, project, part, points, x_axis))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        for (candidate, place), trace in zip(wanted[begin:end], traces, strict=True):
            yield PlacedTrace(candidate, place, trace)


def _parts(metrics: Sequence[StoredMetric], points: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of what one transaction reads."""
    begin, size = 0, 0
    for end, metric in enumerate(metrics):
        count = metric.summary.count if points == ALL_POINTS else min(points, metric.summary.count)
        if end > begin and (end - begin == SEQUENCES_PER_READ or size + count > POINTS_PER_READ):
            yield begin, end
            begin, size = end, 0
        size += count
    if begin < len(metrics):
        yield begin, len(metrics)


def _sample(
    reader: KvReader, project: Project, metrics: Sequence[StoredMetric], points: int, x_axis: str
) -> list[Trace]:
    if points == ALL_POINTS and not x_axis:
        return [Trace(metric.summary, _read_packed(reader, project, metric), None) for metric in metrics]
    samples = sequences.read_samples(reader, project, metrics, points)
    axes = _read_axes(reader, project, metrics, x_axis) if x_axis else {}
    return [
        Trace(metric.summary, sample, align(sample, axes[metric.place]) if metric.place in axes else None)
        for metric, sample in zip(metrics, samples, strict=True)
    ]


def _read_packed(reader: KvReader, project: Project, metric: StoredMetric) -> Columns | PackedColumns:
    blocks = sequences.read_blocks(reader, project, metric.number, metric.summary)
    return unpack(blocks, columns_max=SAMPLE_POINTS_MAX)


def _read_axes(
    reader: KvReader, project: Project, metrics: Sequence[StoredMetric], name: str
) -> dict[tuple[RunNumber, str], Columns]:
    """Return the x-axis metric of each run and context that has one."""
    wanted = list(dict.fromkeys(metric.place for metric in metrics))
    refs = [SequenceRef(number, SequenceKey(Bucket.METRIC, name, context)) for number, context in wanted]
    found = sequences.get_summaries(reader, project, refs)
    known = [StoredMetric(number, axis) for (number, _), axis in zip(wanted, found, strict=True) if axis is not None]
    return dict(zip([axis.place for axis in known], read_whole(reader, project, known), strict=True))
