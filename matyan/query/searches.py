"""Searches: what all searches share, whatever they look for."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

import msgspec

from matyan.catalog.notes import run_notes
from matyan.clock import Clock, SystemClock
from matyan.engines.kv.protocol import KvEngine
from matyan.ids import Project, RunNumber
from matyan.observe.metrics import Metrics
from matyan.query import executor, views
from matyan.query.candidates import PlannedRuns
from matyan.query.executor import Batch, Candidate, WorkClock
from matyan.query.language import Query, compile_query
from matyan.query.names import RunName, SequenceName
from matyan.query.plan import Plan
from matyan.query.planning import make_plan
from matyan.query.projection import decoder_of, paths_read
from matyan.query.sandbox import SECONDS_MAX, Budget, QueryBudgetError
from matyan.query.summaries import Sequences, keys_looked_up, keys_of
from matyan.query.syntax import RUN
from matyan.runs import repository as runs
from matyan.runs.cache import RunCache
from matyan.runs.model import Run
from matyan.sequences.model import BUCKET_OF_WORD, Summary


class Planner(Protocol):
    """What `make_plan` is."""

    def __call__(self, tree: ast.Expression, *, variable: str, tz_offset_minutes: int, now_seconds: float) -> Plan:
        """Return the plan of a checked query."""


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """What every search is asked."""

    q: str = ""
    tz_offset_minutes: int = 0
    """UTC minus the viewer's time, as JavaScript's getTimezoneOffset."""
    skip_system: bool = True
    report_progress: bool = True


class Route(NamedTuple):
    """What one search goes over."""

    plan: Plan
    source: PlannedRuns
    sequences: Sequences
    """Those that the query is asked of; none in a search of runs."""

    @property
    def looked_up(self) -> Sequences:
        """These, and those that the query reads of `run.metrics`."""
        if self.plan.looked_up is None or self.sequences.keys is None:
            return Sequences()
        return Sequences(keys=[*keys_looked_up(self.plan.looked_up), *self.sequences.keys])


class Searches:
    """The base of services that search: candidates, names, budget, progress and counts.

    A search that has used up its time raises QueryBudgetError wherever it is, between two trees too, after a last
    message that says so. Most clients do not know that message, so an incomplete stream must not end like a whole one.
    What takes long is interspersed with progress messages or, when nobody wants these, `b""`: whoever takes the stream
    can stop it there, or give others a turn.
    """

    def __init__(
        self,
        *,
        kv: KvEngine,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
        seconds_max: float = SECONDS_MAX,
        cache: RunCache | None = None,
        planner: Planner = make_plan,
    ) -> None:
        """Keep what searches need.

        Args:
            kv: the store.
            clock: what `run.duration` and budgets are measured with.
            metrics: where searches are counted.
            seconds_max: of work for one search; waiting for the client is not counted.
            cache: the runs that the process knows; without, those that these searches come by.
            planner: makes the plans.
        """
        self._kv = kv
        self._cache = cache or RunCache(kv)
        self._clock = clock or SystemClock()
        self._metrics = metrics or Metrics()
        self._seconds_max = seconds_max
        self._planner = planner

    def explain(self, search: Search, word: str) -> str:
        """Return the plan of a search that goes by this word, in one line of printable ASCII.

        Raises:
            QuerySyntaxError, InvalidArgumentError: the query is none.
        """
        return str(self.plan(search, compile_query(search.q, variable=word)))

    def route(self, project: Project, search: Search, query: Query, *, besides: RunNumber | None = None) -> Route:
        """Return what a search is going to go over; the run `besides` is part of that in any case."""
        plan = self.plan(search, query)
        source = PlannedRuns(plan.runs, self._cache, besides=besides)
        if query.variable == RUN:
            return Route(plan, source, Sequences(keys=()))
        bucket = BUCKET_OF_WORD[query.variable]
        keys = self._kv.read(lambda reader: keys_of(reader, project, plan.sequences, bucket))
        return Route(plan, source, Sequences(bucket, keys))

    def _sequences(
        self, project: Project, search: Search, query: Query, work: WorkClock, route: Route
    ) -> Iterator[Batch]:
        """Return the runs that have sequences that match, with those. Asks first what is about the run alone."""
        name = self._name(project, search, query)
        about_run, about_sequence = query.split
        bucket = BUCKET_OF_WORD[query.variable]
        batches = self._candidates(project, search, query, route.source)
        everything = executor.reads_sequences(query)
        if everything:
            batches = executor.with_summaries(self._kv, project, batches, route.looked_up)
        if about_run is not None:
            ask = about_run.of_runs(self._name(project, search, query))
            batches = executor.narrow(batches, ask, work, counts_all=False)
        if not everything:
            batches = executor.with_summaries(self._kv, project, batches, route.sequences)

        def select(candidate: Candidate) -> Iterator[Summary | None]:
            known = [summary for summary in candidate.summaries if summary.bucket == bucket]
            self._metrics.query_scanned_rows.inc(len(known))
            if about_sequence is None:
                yield from known
                return
            run = name.of(candidate.run, candidate.summaries)
            for summary in known:
                is_selected = about_sequence.matches({RUN: run, query.variable: SequenceName(summary, run)})
                yield summary if is_selected else None

        return executor.narrow_sequences(batches, select, work)

    def _budget(self, work: WorkClock) -> Budget:
        return Budget(seconds=self._seconds_max, clock=work.seconds)

    def _watched(
        self, endpoint: str, work: WorkClock, chunks: Iterator[bytes], report: views.Progress
    ) -> Iterator[bytes]:
        """Pass the stream on, measure it, and count it when it does not come to its end.

        What comes after the first byte can be no error answer any more, so the stream says what stopped it, and raises.
        """
        began = work.seconds()
        stopped = ""
        has_begun = False
        try:
            for chunk in work.metered(chunks):
                yield chunk
                has_begun = has_begun or bool(chunk)
        except GeneratorExit:
            stopped = "disconnect"
            raise
        except QueryBudgetError as error:
            stopped = "deadline"
            if has_begun:
                yield report.stopped(stopped, error.message)
            raise
        except Exception:
            stopped = "error"
            if has_begun:
                yield report.stopped(stopped, "the search failed, the server's log says why")
            raise
        finally:
            self._metrics.query_seconds.labels(endpoint).observe(work.seconds() - began)
            if stopped:
                self._metrics.query_stopped.labels(stopped).inc()

    def plan(self, search: Search, query: Query) -> Plan:
        """Return the plan of a search."""
        # By the clock that `datetime.now()` reads in the query.
        now_seconds = time.time()
        return self._planner(
            query.tree,
            variable=query.variable,
            tz_offset_minutes=search.tz_offset_minutes,
            now_seconds=now_seconds,
        )

    def _candidates(
        self,
        project: Project,
        search: Search,
        query: Query,
        source: PlannedRuns,
        *,
        after: bytes | None = None,
    ) -> Iterator[Batch]:
        """Return the runs behind `after` that the plan does not rule out."""
        system_params = not search.skip_system or query.may_read_system_params
        try:
            for batch in executor.read_candidates(
                self._kv, source, project, cache=self._cache, after=after, system_params=system_params
            ):
                self._metrics.query_scanned_rows.inc(len(batch.runs))
                source.asked += len(batch.runs)
                yield batch
        finally:
            self._metrics.planner_path.labels(source.choice.path, query.variable, source.choice.reason).inc()

    def _name(self, project: Project, search: Search, query: Query) -> RunName:
        """Return the name `run` of a query, which does not stand for a run yet."""

        def notes(run: Run) -> Sequence[Mapping[str, Any]]:
            found = self._kv.read(lambda reader: run_notes.list(reader, project, run.number))
            return [msgspec.structs.asdict(note) for note in found]

        return RunName(
            now_seconds=self._clock.now_seconds(),
            tz_offset_minutes=search.tz_offset_minutes,
            notes=notes,
            decode=decoder_of(paths_read(query.tree, query.variable)),
        )

    def _progress(self, project: Project, search: Search, work: WorkClock) -> views.Progress:
        total = cache(lambda: self._kv.read(lambda reader: runs.count(reader, project)))
        return views.Progress(total if search.report_progress else None, work)
