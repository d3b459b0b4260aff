"""SearchService: searches of runs and metrics -> the bytes of their answer streams, made while they are taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from matyan.engines.kv.protocol import KvReader
from matyan.ids import DEFAULT_PROJECT, Project, RunId, RunNumber
from matyan.query import executor, views
from matyan.query.executor import Batch, Candidate, WorkClock
from matyan.query.language import Query, compile_query
from matyan.query.ordering import NEWEST_FIRST, Order, Ordering, parse_orders
from matyan.query.searches import Route, Search, Searches
from matyan.query.summaries import Sequences
from matyan.query.syntax import RUN
from matyan.query.traces import PlacedTrace, read_traces
from matyan.runs import repository as runs
from matyan.runs.model import Run
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket, Summary
from matyan.sequences.service import check_points
from matyan.wire.trees import encode_tree_records, progress

ACTIVE_RUNS_PER_READ: Final = 64
METRICS: Final = Sequences(Bucket.METRIC)
"""What a run search tells of each run that matches."""
CHUNK_BYTES: Final = 32 * 1024
"""About what is handed over at once: a millisecond of work."""


class RunSearch(Search, frozen=True, kw_only=True):
    """A search of runs."""

    limit: int = 0
    """At most so many runs that match; 0 for all, and a negative number is taken for 1 (recorded)."""
    offset: str | None = None
    """The run behind which to begin; an unknown one is ignored."""
    exclude_params: bool = False
    exclude_traces: bool = False
    sort: str = ""
    """JSON list of fields and directions; offset and limit apply to the sorted list. Nothing is the newest first."""
    excluded_params_are_empty: bool = False
    """Send `{}` for excluded params instead of leaving them out."""

    @property
    def runs_max(self) -> int:
        """How many runs that match to send at most; 0 for all."""
        return 1 if self.limit < 0 else self.limit


class MetricSearch(Search, frozen=True, kw_only=True):
    """A search of metrics."""

    points: int = 50
    """Size of a sample, -1 for all points."""
    x_axis: str = ""
    """Name of the metric whose values are the x axis; empty for none."""


class Found(NamedTuple):
    """What a search finds."""

    route: Route
    candidates: Iterator[Candidate]
    """The runs that match, with the sequences that match."""


class SearchService(Searches):
    """Searches of runs and metrics. Each method checks its request, then returns the stream."""

    # ---- runs

    def runs(self, search: RunSearch, *, project: Project = DEFAULT_PROJECT) -> Iterator[bytes]:
        """Stream the runs that match, newest first or sorted, with props, params and the summaries of their metrics.

        Raises:
            QuerySyntaxError, InvalidArgumentError: the query is none, or what to sort by.
            QueryBudgetError: it took too long.
        """
        work = WorkClock(self._clock.monotonic_seconds)
        query = compile_query(search.q, variable=RUN, budget=self._budget(work))
        orders = parse_orders(search.sort)
        if orders == NEWEST_FIRST:
            found = self._newest_first(project, search, query, work)
        else:
            found = self._in_order(project, search, query, work, orders)
        report = self._progress(project, search, work)
        return self._watched("run", work, _runs_stream(found, search, report), report)

    def _newest_first(self, project: Project, search: RunSearch, query: Query, work: WorkClock) -> Iterator[Batch]:
        """Return the page of runs that match, found while it is sent."""
        after = None
        if search.offset:
            offset = RunId(search.offset)
            after = self._kv.read(lambda reader: runs.position(reader, project, offset))
        matching = self._matching(project, search, query, work, self.route(project, search, query), after=after)
        found = executor.first(matching, search.runs_max)
        return found if search.exclude_traces else executor.with_summaries(self._kv, project, found, METRICS)

    def _in_order(
        self, project: Project, search: RunSearch, query: Query, work: WorkClock, orders: Sequence[Order]
    ) -> Iterator[Batch]:
        """Return the page of runs that match, read again when all are found and sorted."""
        offset = RunId(search.offset or "")
        after = self._kv.read(lambda reader: runs.get_number(reader, project, offset))
        # Params that only the answer needs are read when the page is known.
        gathering = msgspec.structs.replace(search, skip_system=True)
        route = self.route(project, search, query, besides=after)
        found = executor.in_order(
            self._kv,
            project,
            self._matching(project, gathering, query, work, route, besides=after),
            Ordering(orders, now_seconds=self._clock.now_seconds()),
            after=after,
            runs_max=search.runs_max,
            cache=self._cache,
            system_params=not search.skip_system,
        )
        return found if search.exclude_traces else executor.with_summaries(self._kv, project, found, METRICS)

    def _matching(
        self,
        project: Project,
        search: Search,
        query: Query,
        work: WorkClock,
        route: Route,
        *,
        after: bytes | None = None,
        besides: RunNumber | None = None,
    ) -> Iterator[Batch]:
        """Return the runs behind `after` that match, and `besides` whether it does or not."""
        batches = self._candidates(project, search, query, route.source, after=after)
        if executor.reads_sequences(query):
            batches = executor.with_summaries(self._kv, project, batches, route.looked_up)
        ask = query.of_runs(self._name(project, search, query))
        return executor.narrow(batches, ask if besides is None else executor.with_run(ask, besides), work)

    def find(self, search: Search, word: str, *, project: Project = DEFAULT_PROJECT) -> Found:
        """Return what a search finds that goes by this word, newest first, and how: for people at a terminal.

        Raises:
            QuerySyntaxError, InvalidArgumentError: the query is none.
            QueryBudgetError: it took too long; raised while the runs are taken.
        """
        work = WorkClock(self._clock.monotonic_seconds)
        query = compile_query(search.q, variable=word, budget=self._budget(work))
        route = self.route(project, search, query)
        if word == RUN:
            batches = self._matching(project, search, query, work, route)
        else:
            batches = self._sequences(project, search, query, work, route)
        return Found(route, (candidate for batch in batches for candidate in batch.candidates))

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
                tree = {
                    "props": views.props_tree(views.props_of(run)),
                    "traces": {"metric": views.metrics_tree(metrics)},
                }
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
        found = self._sequences(project, search, query, work, self.route(project, search, query))
        report = self._progress(project, search, work)
        chunks = self._metrics_stream(project, found, search, report)
        return self._watched(Bucket.METRIC.word, work, chunks, report)

    def _metrics_stream(
        self, project: Project, found: Iterable[Batch], search: MetricSearch, report: views.Progress
    ) -> Iterator[bytes]:
        for batch in found:
            traces = read_traces(self._kv, project, batch, points=search.points, x_axis=search.x_axis)
            yield from _gathered(_traces_stream(traces, search, report))
            yield report.pulse(batch.checked)
        yield report.end()


def _traces_stream(traces: Iterable[PlacedTrace], search: MetricSearch, report: views.Progress) -> Iterator[bytes]:
    for (place, run, summaries), index, trace in traces:
        if index == 0:
            yield views.metrics_head(run, skip_system=search.skip_system)
        yield from views.trace_pieces(run, index, trace, points=search.points)
        if index == len(summaries) - 1:
            yield views.run_tail(run) + report.after_run(place)


def _gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in fewer pieces: each costs its way through the layers above, whatever its size."""
    gathered: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            gathered.append(piece)
            size += len(piece)
            if size >= CHUNK_BYTES:
                yield b"".join(gathered)
                gathered, size = [], 0
    except Exception:
        # What was found before a read that fails counts as told: it leaves first.
        if gathered:
            yield b"".join(gathered)
        raise
    if gathered:
        yield b"".join(gathered)


def _runs_stream(found: Iterable[Batch], search: RunSearch, report: views.Progress) -> Iterator[bytes]:
    for batch in found:
        for candidate in batch.candidates:
            run = candidate.run
            tree: dict[str, Any] = {"props": views.props_tree(views.props_of(run))}
            if not search.exclude_params:
                tree["params"] = views.params_tree(run, skip_system=search.skip_system)
            elif search.excluded_params_are_empty:
                tree["params"] = {}
            if not search.exclude_traces:
                tree["traces"] = {"metric": views.metrics_tree(candidate.summaries)}
            yield encode_tree_records({run.hash: tree}) + report.after_run(candidate.place)
        yield report.pulse(batch.checked)
    yield report.end()
