"""MetricReads: points of named metrics of named runs, sampled or aligned with another metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from matyan.engines.kv.protocol import KvEngine, KvReader
from matyan.errors import InvalidArgumentError, NotFoundError
from matyan.ids import DEFAULT_PROJECT, Project, RunId, RunNumber
from matyan.sequences import repository
from matyan.sequences.model import Bucket, Columns, SequenceKey, Summary, canonical_context
from matyan.sequences.ranges import EVERYTHING, OpenRange
from matyan.sequences.repository import SAMPLE_POINTS_MAX, SequenceRef
from matyan.sequences.sampling import align, between, sample
from matyan.wire.trees import encode_tree_records

NumbersOf = Callable[[KvReader, Project, Sequence[RunId]], list[RunNumber | None]]
"""How runs are found by id; handed in, since runs stand above sequences."""

ALL_POINTS: Final = -1
SEQUENCES_PER_READ_MAX: Final = 256
"""Samples that one read transaction fetches: a few hundred milliseconds of work at the very worst."""


class TraceName(msgspec.Struct, frozen=True):
    """How a request names a metric of a run."""

    name: str
    context: dict[str, Any]

    @property
    def key(self) -> SequenceKey:
        """The identity in the store."""
        return metric_key(self.name, self.context)


class AlignTrace(TraceName, frozen=True):
    """A metric as a search answered it, with the `slice` it came with: [0, 0, number of points]."""

    slice: tuple[int, int, int]


class AlignRun(msgspec.Struct, frozen=True):
    """The metrics of one run that are to be aligned."""

    run_id: str
    traces: list[AlignTrace]


class AlignRequest(msgspec.Struct, frozen=True):
    """What to align, and the metric whose values become the x axis."""

    align_by: str
    runs: list[AlignRun]


class BatchTrace(msgspec.Struct, frozen=True):
    """The sampled points of one metric; values that are not finite leave as null."""

    name: str
    context: dict[str, Any]
    values: list[float | None]
    iters: list[int]


class StoredMetric(NamedTuple):
    """A metric that exists."""

    number: RunNumber
    summary: Summary

    @property
    def place(self) -> tuple[RunNumber, str]:
        """Run and context: what a metric shares with its x axis."""
        return self.number, self.summary.context


def metric_key(name: str, context: dict[str, Any] | None) -> SequenceKey:
    """Return the identity of a metric."""
    return SequenceKey(Bucket.METRIC, name, canonical_context(context))


def check_points(points: int) -> int:
    """Return `points`, the size of a sample.

    Raises:
        InvalidArgumentError: neither positive nor -1 (all points).
    """
    if points < 1 and points != ALL_POINTS:
        raise InvalidArgumentError(f"the number of points is {points}; it is at least 1, or -1 for all")
    return points


def read_whole(reader: KvReader, project: Project, metrics: Sequence[StoredMetric]) -> list[Columns]:
    """Return every point of each metric; the short ones, which have nothing but a tail, in one round trip."""
    short = [metric for metric in metrics if not metric.summary.chunked]
    read = iter(repository.read_samples(reader, project, short, SAMPLE_POINTS_MAX))
    return [
        repository.read_all(reader, project, metric.number, metric.summary) if metric.summary.chunked else next(read)
        for metric in metrics
    ]


class MetricReads:
    """Reads of metrics that a client names itself; searches find theirs."""

    def __init__(self, *, kv: KvEngine, numbers_of: NumbersOf) -> None:
        self._kv = kv
        self._numbers_of = numbers_of

    def batch(
        self,
        run_id: RunId,
        traces: Sequence[TraceName],
        *,
        points: int,
        wanted: OpenRange = EVERYTHING,
        project: Project = DEFAULT_PROJECT,
    ) -> list[BatchTrace]:
        """Return up to `points` of the points of each metric, in the order asked; unknown metrics are left out.

        Args:
            run_id: the run.
            traces: the metrics.
            points: the size of a sample, -1 for all.
            wanted: the steps to choose from.
            project: whose run it is.

        Raises:
            NotFoundError: no such run.
            InvalidArgumentError: `points` is neither positive nor -1.
        """
        check_points(points)
        return self._kv.read(lambda reader: self._batch(reader, project, run_id, traces, points, wanted))

    def aligned(self, request: AlignRequest, *, project: Project = DEFAULT_PROJECT) -> Iterator[bytes]:
        """Check the request, then yield one tree per run: for each trace the x values at the steps of its sample.

        The web UI merges the answer into its own by position, so every run and trace asked for is answered, in order,
        with null where there is nothing to align with.

        Raises:
            InvalidArgumentError: a run is asked for twice (the tree stream cannot say that), or a sample has no size.
        """
        run_ids = [run.run_id for run in request.runs]
        if len(set(run_ids)) < len(run_ids):
            raise InvalidArgumentError("a run is asked for twice")
        for run in request.runs:
            for trace in run.traces:
                check_points(trace.slice[2])
        return (self._aligned_run(project, request.align_by, run) for run in request.runs)

    def _batch(
        self,
        reader: KvReader,
        project: Project,
        run_id: RunId,
        traces: Sequence[TraceName],
        points: int,
        wanted: OpenRange,
    ) -> list[BatchTrace]:
        (number,) = self._numbers_of(reader, project, [run_id])
        if number is None:
            raise NotFoundError("Run not found.")
        found = _find(reader, project, number, [trace.key for trace in traces])
        metrics = [metric for metric in found if metric is not None]
        samples = _samples(reader, project, metrics, points, wanted)
        answer = []
        for trace, metric in zip(traces, found, strict=True):
            if metric is not None:
                sample = next(samples)
                answer.append(BatchTrace(trace.name, trace.context, sample.values.tolist(), sample.steps.tolist()))
        return answer

    def _aligned_run(self, project: Project, axis: str, run: AlignRun) -> bytes:
        return encode_tree_records({run.run_id: self._kv.read(lambda reader: self._align(reader, project, axis, run))})

    def _align(self, reader: KvReader, project: Project, axis: str, run: AlignRun) -> list[dict[str, Any]]:
        (number,) = self._numbers_of(reader, project, [RunId(run.run_id)])
        keys = [(trace.key, metric_key(axis, trace.context)) for trace in run.traces]
        found = iter([] if number is None else _find(reader, project, number, [key for pair in keys for key in pair]))
        return [_align_trace(reader, project, trace, next(found, None), next(found, None)) for trace in run.traces]


def _samples(
    reader: KvReader, project: Project, metrics: Sequence[StoredMetric], points: int, wanted: OpenRange
) -> Iterator[Columns]:
    """Return a sample of the wanted points of each metric; for a part of the steps, metrics are read whole in turn."""
    if wanted == EVERYTHING:
        return iter(repository.read_samples(reader, project, metrics, points))
    whole = (read_whole(reader, project, [metric])[0] for metric in metrics)
    return (sample(between(columns, *wanted), points) for columns in whole)


def _find(
    reader: KvReader, project: Project, number: RunNumber, keys: Sequence[SequenceKey]
) -> list[StoredMetric | None]:
    summaries = repository.get_summaries(reader, project, [SequenceRef(number, key) for key in keys])
    return [None if summary is None else StoredMetric(number, summary) for summary in summaries]


def _align_trace(
    reader: KvReader, project: Project, trace: AlignTrace, metric: StoredMetric | None, axis: StoredMetric | None
) -> dict[str, Any]:
    found = None
    if metric is not None and axis is not None:
        # The same sample as the search's: the choice depends on the steps alone.
        (sample,) = repository.read_samples(reader, project, [metric], trace.slice[2])
        found = align(sample, *read_whole(reader, project, [axis]))
    values, steps = found or (None, None)
    return {"name": trace.name, "context": trace.context, "x_axis_values": values, "x_axis_iters": steps}
