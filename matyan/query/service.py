"""SearchService: searches of runs and metrics -> the bytes of their answer streams, made while they are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

import msgspec

from matyan.catalog.notes import run_notes
from matyan.clock import Clock, SystemClock
from matyan.engines.kv.protocol import KvEngine, KvReader
from matyan.ids import DEFAULT_PROJECT, Project, RunId
from matyan.observe.metrics import Metrics
from matyan.query import executor, views
from matyan.query.executor import AllRuns, Batch, Candidate, WorkClock
from matyan.query.language import Query, compile_query
from matyan.query.names import RunName, SequenceName, index_sequences
from matyan.query.sandbox import SECONDS_MAX, Budget, QueryBudgetError
from matyan.query.syntax import RUN
from matyan.runs import repository as runs
from matyan.runs.model import Run
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket, Summary
from matyan.sequences.repository import SAMPLE_POINTS_MAX
from matyan.sequences.service import check_points
from matyan.wire.trees import encode_tree_records, progress

ACTIVE_RUNS_PER_READ: Final = 64
TRACES_PER_CHUNK: Final = 32
"""Traces of one run that are handed over at once; a run may have too many to be held in memory."""


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """What every search is asked."""

    q: str = ""
    tz_offset_minutes: int = 0
    """UTC minus the viewer's time, as JavaScript's getTimezoneOffset."""
    skip_system: bool = True
    report_progress: bool = True


class RunSearch(Search, frozen=True, kw_only=True):
    """A search of runs."""

    limit: int = 0
    """At most so many runs that match; 0 for all, and a negative number is taken for 1 (recorded)."""
    offset: str | None = None
    """The run behind which to begin; an unknown one is ignored."""
    exclude_params: bool = False
    exclude_traces: bool = False
    excluded_params_are_empty: bool = False
    """Send `{}` for excluded params instead of leaving them out."""


class MetricSearch(Search, frozen=True, kw_only=True):
    """A search of metrics."""

    points: int = 50
    """Size of a sample, -1 for all points."""
    x_axis: str = ""
    """Name of the metric whose values are the x axis; empty for none."""


class SearchService:
    """Searches. Each method checks its request, then returns the stream.

    A search that has used up its time raises QueryBudgetError wherever it is, between two trees too: a stream has no
    words for "incomplete", so an incomplete one must not end like a whole one. What takes long is interspersed with
    progress messages or, when nobody wants these, `b""`: whoever takes the stream can stop it there.
    """

    def __init__(
        self,
        *,
        kv: KvEngine,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
        seconds_max: float = SECONDS_MAX,
    ) -> None:
        """Keep what searches need.

        Args:
            kv: the store.
            clock: what `run.duration` and budgets are measured with.
            metrics: where searches are counted.
            seconds_max: of work for one search; waiting for the client is not counted.
        """
        self._kv = kv
        self._clock = clock or SystemClock()
        self._metrics = metrics or Metrics()
        self._seconds_max = seconds_max

    # ---- runs

    def runs(self, search: RunSearch, *, project: Project = DEFAULT_PROJECT) -> Iterator[bytes]:
        """Stream the runs that match, newest first, with props, params and the summaries of their metrics.

        Raises:
            QuerySyntaxError, InvalidArgumentError: the query is none.
            QueryBudgetError: it took too long.
        """
        work = WorkClock(self._clock.monotonic_seconds)
        query = compile_query(search.q, variable=RUN, budget=self._budget(work))
        names = self._names(project, search, query)
        after = None
        if search.offset:
            offset = RunId(search.offset)
            after = self._kv.read(lambda reader: runs.position(reader, project, offset))
        batches = self._candidates(project, search, query, after)
        everything = executor.reads_sequences(query)
        if everything:
            batches = executor.with_summaries(self._kv, project, batches)
        matching = executor.narrow(batches, lambda run: run if query.matches({RUN: names(run)}) else None, work)
        found = executor.first(matching, 1 if search.limit < 0 else search.limit)
        if not search.exclude_traces and not everything:
            found = executor.with_summaries(self._kv, project, found, Bucket.METRIC)
        return self._watched("run", work, _runs_stream(found, search, self._progress(project, search, work)))

    def active(self, *, project: Project = DEFAULT_PROJECT) -> Iterator[bytes]:
        """Stream the runs that have not ended, newest first, each with its metrics and a progress message."""
        numbers = self._kv.read(lambda reader: runs.list_active(reader, project))[::-1]
        done = 0
        for begin in range(0, len(numbers), ACTIVE_RUNS_PER_READ):
            part = numbers[begin : begin + ACTIVE_RUNS_PER_READ]

            def read(reader: KvReader, part: Sequence[Any] = part) -> Iterable[tuple[Run, list[Summary]]]:
                found = runs.load(reader, project, part)
                metrics = sequences.list_summaries(reader, project, [run.number for run in found], Bucket.METRIC)
                return list(zip(found, metrics, strict=True))

            for run, metrics in self._kv.read(read):
                tree = {"props": views.props_tree(run), "traces": {"metric": views.metrics_tree(metrics)}}
                yield encode_tree_records({run.hash: tree}) + progress(done, done + 1, len(numbers))
                done += 1

    # ---- metrics

    def metrics(self, search: MetricSearch, *, project: Project = DEFAULT_PROJECT) -> Iterator[bytes]:
        """Stream the runs that have metrics that match, newest first, with samples of these.

        Raises:
            QuerySyntaxError, InvalidArgumentError: the query is none, or the size of a sample makes no sense.
            QueryBudgetError: it took too long.
        """
        check_points(search.points)
        work = WorkClock(self._clock.monotonic_seconds)
        query = compile_query(search.q, variable=Bucket.METRIC.word, budget=self._budget(work))
        found = self._sequences(project, search, query, Bucket.METRIC, work)
        chunks = self._metrics_stream(project, found, search, self._progress(project, search, work))
        return self._watched(Bucket.METRIC.word, work, chunks)

    def _sequences(
        self, project: Project, search: Search, query: Query, bucket: Bucket, work: WorkClock
    ) -> Iterator[Batch]:
        """Return the runs that have sequences that match, with those. Asks first what is about the run alone."""
        names = self._names(project, search, query)
        about_run, about_sequence = query.split
        batches = self._candidates(project, search, query, None)
        everything = executor.reads_sequences(query)
        if everything:
            batches = executor.with_summaries(self._kv, project, batches)
        if about_run is not None:
            batches = executor.narrow(
                batches, lambda run: run if about_run.matches({RUN: names(run)}) else None, work, counts_all=False
            )
        if not everything:
            batches = executor.with_summaries(self._kv, project, batches, bucket)

        def keep(candidate: Candidate) -> Candidate | None:
            known = [summary for summary in candidate.summaries if summary.bucket == bucket]
            self._metrics.query_scanned_rows.inc(len(known))
            if about_sequence is not None:
                run = names(candidate)
                known = [
                    summary
                    for summary in known
                    if about_sequence.matches({RUN: run, query.variable: SequenceName(summary, run)})
                ]
            return candidate._replace(summaries=known) if known else None

        return executor.narrow(batches, keep, work)

    def _metrics_stream(
        self, project: Project, found: Iterable[Batch], search: MetricSearch, report: views.Progress
    ) -> Iterator[bytes]:
        for batch in found:
            parts: list[bytes] = []
            for candidate, place, trace in executor.read_traces(
                self._kv, project, batch, points=search.points, x_axis=search.x_axis
            ):
                if place == 0:
                    parts.append(views.metrics_head(candidate.run, skip_system=search.skip_system))
                parts.append(views.trace_bytes(candidate.run, place, trace, points=search.points))
                if place == len(candidate.summaries) - 1:
                    parts += (views.metrics_tail(candidate.run), report.after_run(candidate.place))
                elif len(parts) < TRACES_PER_CHUNK and len(trace.sample) <= SAMPLE_POINTS_MAX:
                    continue
                yield b"".join(parts)
                parts.clear()
            yield report.pulse(batch.checked)
        yield report.end()

    # ---- parts of every search

    def _budget(self, work: WorkClock) -> Budget:
        return Budget(seconds=self._seconds_max, clock=work.seconds)

    def _watched(self, endpoint: str, work: WorkClock, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass the stream on, measure it, and count it when it does not come to its end."""
        began = work.seconds()
        stopped = ""
        try:
            yield from work.metered(chunks)
        except GeneratorExit:
            stopped = "disconnect"
            raise
        except QueryBudgetError:
            stopped = "deadline"
            raise
        except Exception:
            stopped = "error"
            raise
        finally:
            self._metrics.query_seconds.labels(endpoint).observe(work.seconds() - began)
            if stopped:
                self._metrics.query_stopped.labels(stopped).inc()

    def _candidates(self, project: Project, search: Search, query: Query, after: bytes | None) -> Iterator[Batch]:
        system_params = not search.skip_system or query.may_read_system_params
        for batch in executor.read_candidates(self._kv, AllRuns(), project, after=after, system_params=system_params):
            self._metrics.query_scanned_rows.inc(len(batch.candidates))
            yield batch

    def _names(self, project: Project, search: Search, query: Query) -> Callable[[Candidate], RunName]:
        """Return what makes the name `run` of a candidate."""
        now_seconds = self._clock.now_seconds()
        were_read = executor.reads_sequences(query)

        def notes(run: Run) -> Sequence[Mapping[str, Any]]:
            found = self._kv.read(lambda reader: run_notes.list(reader, project, run.number))
            return [msgspec.structs.asdict(note) for note in found]

        def name(candidate: Candidate) -> RunName:
            return RunName(
                candidate.run,
                sequences=cache(lambda: index_sequences(candidate.summaries)) if were_read else dict,
                now_seconds=now_seconds,
                tz_offset_minutes=search.tz_offset_minutes,
                notes=lambda: notes(candidate.run),
            )

        return name

    def _progress(self, project: Project, search: Search, work: WorkClock) -> views.Progress:
        total = cache(lambda: self._kv.read(lambda reader: runs.count(reader, project)))
        return views.Progress(total if search.report_progress else None, work)


def _runs_stream(found: Iterable[Batch], search: RunSearch, report: views.Progress) -> Iterator[bytes]:
    for batch in found:
        for candidate in batch.candidates:
            run = candidate.run
            tree: dict[str, Any] = {"props": views.props_tree(run)}
            if not search.exclude_params:
                tree["params"] = views.params_tree(run, skip_system=search.skip_system)
            elif search.excluded_params_are_empty:
                tree["params"] = {}
            if not search.exclude_traces:
                tree["traces"] = {"metric": views.metrics_tree(candidate.summaries)}
            yield encode_tree_records({run.hash: tree}) + report.after_run(candidate.place)
        yield report.pulse(batch.checked)
    yield report.end()
