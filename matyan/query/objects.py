"""ObjectSearchService: searches of images, texts, distributions, audios and figures -> their answer streams.

The ranges that every run's tree repeats are those of all sequences of the answer. So a search goes over the runs twice:
first it selects, reading summaries alone, and keeps a few bytes per sequence; then it reads the selected runs and their
records, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from matyan.ids import DEFAULT_PROJECT, Project, RunNumber
from matyan.query import executor, views
from matyan.query.executor import Batch, Candidate, Known, WorkClock
from matyan.query.language import compile_query
from matyan.query.searches import Search, Searches
from matyan.query.summaries import Sequences
from matyan.sequences.model import Bucket, Summary
from matyan.sequences.objects import ObjectReader, RunRef, window_ranges
from matyan.sequences.ranges import Asked, Totals, Window
from matyan.wire.trees import encode_tree_records

DIGEST_BYTES: Final = 16


class ObjectSearch(Search, frozen=True, kw_only=True):
    """A search of object sequences."""

    bucket: Bucket
    asked: Asked = msgspec.field(default_factory=Asked)


class Selected(NamedTuple):
    """A run with what is to be read of it, in little memory."""

    known: Known
    digests: bytes
    """Of its selected sequences, one after the other."""

    def of(self, summaries: Iterable[Summary]) -> list[Summary]:
        """Return those of the run's sequences that were selected."""
        size = DIGEST_BYTES
        wanted = {self.digests[at : at + size] for at in range(0, len(self.digests), size)}
        return [summary for summary in summaries if summary.key.digest() in wanted]


class ObjectSearchService(Searches):
    """Searches of object sequences."""

    def __init__(self, *, reader: ObjectReader, **options: Any) -> None:
        """Keep what searches need.

        Args:
            reader: reads the records.
            options: as for `Searches`.
        """
        super().__init__(**options)
        self._reader = reader

    def objects(self, search: ObjectSearch, *, project: Project = DEFAULT_PROJECT) -> Iterator[bytes]:
        """Check the request and return the stream of runs that have sequences that match, newest first, with records.

        Raises:
            QuerySyntaxError, InvalidArgumentError: the query is none, or a density is not positive.
            QueryBudgetError: it took too long.
        """
        search.asked.check()
        work = WorkClock(self._clock.monotonic_seconds)
        query = compile_query(search.q, variable=search.bucket.word, budget=self._budget(work))
        # Params that only the answer needs are read when the selection is known.
        selecting = msgspec.structs.replace(search, skip_system=True)
        route = self.route(project, search, query)
        found = self._sequences(project, selecting, query, work, route)
        report = self._progress(project, search, work)
        chunks = self._stream(project, search, found, route.sequences, report)
        return self._watched(search.bucket.word, work, chunks, report)

    def _stream(
        self,
        project: Project,
        search: ObjectSearch,
        found: Iterable[Batch],
        sequences: Sequences,
        report: views.Progress,
    ) -> Iterator[bytes]:
        totals, checked = Totals(), 0
        selected: dict[RunNumber, Selected] = {}
        for batch in found:
            selected |= {candidate.run.number: _select(candidate, totals) for candidate in batch.candidates}
            checked = batch.checked
            yield report.pulse(checked)
        window = totals.window(search.asked)
        for candidate in self._selected(project, search, selected, sequences):
            yield from self._run(project, search, candidate, window)
            yield report.after_run(candidate.place)
        yield report.pulse(checked)
        yield report.end()

    def _selected(
        self, project: Project, search: ObjectSearch, selected: Mapping[RunNumber, Selected], sequences: Sequences
    ) -> Iterator[Candidate]:
        """Yield the runs with their selected ones of `sequences`; what was deleted meanwhile is left out."""
        known = [entry.known for entry in selected.values()]
        batches = executor.read_known(self._kv, project, known, cache=self._cache, system_params=not search.skip_system)
        for batch in executor.with_summaries(self._kv, project, batches, sequences):
            for candidate in batch.candidates:
                yield candidate._replace(summaries=selected[candidate.run.number].of(candidate.summaries))

    def _run(self, project: Project, search: ObjectSearch, candidate: Candidate, window: Window) -> Iterator[bytes]:
        run = candidate.run
        params = views.params_tree(run, skip_system=search.skip_system)
        yield encode_tree_records(
            {run.hash: {"ranges": window_ranges(search.bucket, window), "params": params, "traces": []}}
        )
        ref = RunRef(project, run.number, run.hash)
        for place, summary in enumerate(candidate.summaries):
            yield from self._reader.trace((run.hash, "traces", place), ref, summary, window, moments=True)
        yield views.run_tail(run)


def _select(candidate: Candidate, totals: Totals) -> Selected:
    for summary in candidate.summaries:
        totals.add(summary)
    digests = b"".join(summary.key.digest() for summary in candidate.summaries)
    return Selected(Known(candidate.place, candidate.run.number), digests)
