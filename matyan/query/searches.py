"""Searches: what all searches share, whatever they look for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec

from matyan.catalog.notes import run_notes
from matyan.clock import Clock, SystemClock
from matyan.engines.kv.protocol import KvEngine
from matyan.ids import Project
from matyan.observe.metrics import Metrics
from matyan.query import executor, views
from matyan.query.executor import AllRuns, Batch, Candidate, WorkClock
from matyan.query.language import Query
from matyan.query.names import RunName, SequenceName, index_sequences
from matyan.query.sandbox import SECONDS_MAX, Budget, QueryBudgetError
from matyan.query.syntax import RUN
from matyan.runs import repository as runs
from matyan.runs.model import Run
from matyan.sequences.model import Bucket


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """What every search is asked."""

    q: str = ""
    tz_offset_minutes: int = 0
    """UTC minus the viewer's time, as JavaScript's getTimezoneOffset."""
    skip_system: bool = True
    report_progress: bool = True


class Searches:
    """The base of services that search: candidates, names, budget, progress and counts.

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
