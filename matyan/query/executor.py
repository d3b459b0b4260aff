"""The stages of a search: runs that may match -> those that do, with their sequences; `traces` reads samples of these.

A search is a chain of generators that pass on batches of one type. A `CandidateSource` says which runs may match, the
newest first; `read_candidates` reads them in short transactions, `with_summaries` adds their sequences, `narrow` asks
the query, `first` ends the search early. A planner replaces the source and nothing else. A search that must see all
matches before it can answer (`in_order`) keeps their numbers and reads them again with `read_known`.
"""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol, Self

from matyan.engines.kv.protocol import KvEngine, KvReader
from matyan.ids import Project, RunNumber
from matyan.query.language import Ask, Asked, Query
from matyan.query.ordering import Ordering, SortRow
from matyan.query.summaries import Sequences
from matyan.runs import repository as runs
from matyan.runs.cache import RunCache
from matyan.runs.model import Run
from matyan.sequences.model import Summary

RUNS_PER_FIRST_READ: Final = 64
"""Many searches end after their first page."""
RUNS_PER_READ_MAX: Final = 512
PARAM_BYTES_PER_READ: Final = 16_000_000
"""About how many bytes of params one transaction reads: those of a single run can be megabytes."""
SUMMARIES_PER_READ: Final = 8192
"""About how many sequence records one transaction reads: a single run can have a hundred thousand."""
SLICE_SECONDS: Final = 0.01
"""A slow query hands on what it found so far this often."""
_NO_SUMMARIES: Final[list[Sequence[Summary]]] = [()]


class Candidate(NamedTuple):
    """A run that may match, or does."""

    place: int
    """1 for the first run of the source."""
    run: Run
    summaries: Sequence[Summary] = ()
    """Its sequences as far as they were read and not filtered out."""


class Batch(NamedTuple):
    """Candidates on their way. An empty one is passed on too: it tells that the search is alive.

    They are kept by columns: of a hundred thousand runs that are asked most go no further, and are never put together.
    """

    places: Sequence[int]
    runs: Sequence[Run]
    summaries: Sequence[Sequence[Summary]]
    checked: int
    """Place of the last run so far that counts as looked at; 0 when none does."""

    @classmethod
    def of(cls, candidates: Sequence[Candidate], checked: int) -> Self:
        """Return a batch of candidates."""
        places, runs, summaries = zip(*candidates, strict=True) if candidates else ((), (), ())
        return cls(places, runs, summaries, checked)

    @property
    def candidates(self) -> list[Candidate]:
        """The candidates, put together."""
        return list(map(Candidate, self.places, self.runs, self.summaries))

    def only(self, indexes: Sequence[int], checked: int) -> Batch:
        """Return a batch of some of these."""
        places, runs, summaries = self.places, self.runs, self.summaries
        return Batch(
            [places[at] for at in indexes], [runs[at] for at in indexes], [summaries[at] for at in indexes], checked
        )


class Known(NamedTuple):
    """A run to be read again."""

    place: int
    number: RunNumber


class Listing(NamedTuple):
    """A page of what a source lists."""

    numbers: Sequence[RunNumber]
    """Of the runs, newest first."""
    places: Sequence[int]
    """Of each: how many runs there are behind the position asked for up to this one, listed or not."""
    passed: int
    """How many runs there are behind that position up to where the next page begins."""
    rest: bytes | None
    """The position behind which the next page begins; None at the end."""


class CandidateSource(Protocol):
    """Where the runs come from that a query may be true of."""

    def list_runs(
        self, reader: KvReader, project: Project, *, after: bytes | None, place: int, rows_max: int
    ) -> Listing | None:
        """Return the next runs behind a position, newest first: `rows_max` or fewer; None stands for all that follow.

        Args:
            reader: the snapshot.
            project: the project.
            after: a position.
            place: how many runs there are from where the search began up to that one.
            rows_max: how many to list at most.
        """


class AllRuns:
    """Every run there is."""

    def list_runs(self, reader: KvReader, project: Project, *, after: bytes | None, place: int, rows_max: int) -> None:
        """Return None: all that follow."""


class WorkClock:
    """Seconds of work: time without the waits for whoever takes the results.

    A slow client must not use up the budget of its search.
    """

    def __init__(self, monotonic_seconds: Callable[[], float] = time.monotonic) -> None:
        self.now = monotonic_seconds
        """Seconds with the waits."""
        self._waited_seconds = 0.0

    def seconds(self) -> float:
        """Return seconds of work, from an arbitrary start."""
        return self.now() - self._waited_seconds

    def metered(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass `chunks` on; the time until the next one is asked for does not count."""
        for chunk in chunks:
            began = self.now()
            yield chunk
            self._waited_seconds += self.now() - began


def reads_sequences(query: Query) -> bool:
    """Return whether the query looks at `run.metrics`, so that a run's sequences must be read before it is asked."""
    return any(isinstance(node, ast.Attribute) and node.attr == "metrics" for node in ast.walk(query.tree))


class _Page(NamedTuple):
    runs: list[Run]
    places: Sequence[int]
    """Of each."""
    place: int
    """How many runs there are up to where the next page begins."""
    after: bytes | None
    """The position behind which the next page begins; None when there is none."""


def read_candidates(
    kv: KvEngine,
    source: CandidateSource,
    project: Project,
    *,
    cache: RunCache,
    after: bytes | None = None,
    system_params: bool,
) -> Iterator[Batch]:
    """Yield the runs of `source` behind the position `after`, a page a batch, from the cache as far as it goes.

    Nothing that was committed before the first batch is asked for is missed.
    """
    cache.catch_up(project)
    place, rows_max = 0, RUNS_PER_FIRST_READ
    while True:
        page = _next_listed(kv, source, project, cache, after, place, rows_max) or _next_runs(
            cache, project, after, place, rows_max
        )
        found = _completed(kv, project, page.runs) if system_params else page.runs
        if page.place > place:
            yield Batch(page.places, found, _NO_SUMMARIES * len(found), page.place)
        if page.after is None:
            return
        after, place = page.after, page.place
        rows_max = _next_size(rows_max, [len(run.document.params) for run in found], per_read=PARAM_BYTES_PER_READ)


def _next_runs(cache: RunCache, project: Project, after: bytes | None, place: int, rows_max: int) -> _Page:
    found, position = cache.list_newest(project, after=after, rows_max=rows_max)
    end = place + len(found)
    return _Page(found, range(place + 1, end + 1), end, position)


def _next_listed(
    kv: KvEngine,
    source: CandidateSource,
    project: Project,
    cache: RunCache,
    after: bytes | None,
    place: int,
    rows_max: int,
) -> _Page | None:
    def read(reader: KvReader) -> _Page | None:
        listing = source.list_runs(reader, project, after=after, place=place, rows_max=rows_max)
        if listing is None:
            return None
        numbers, places, passed, rest = listing
        place_of = dict(zip(numbers, places, strict=True))
        found = cache.load(reader, project, list(place_of))
        return _Page(found, [place + place_of[run.number] for run in found], place + passed, rest)

    return kv.read(read)


def _completed(kv: KvEngine, project: Project, found: list[Run]) -> list[Run]:
    return kv.read(lambda reader: runs.with_system_params(reader, project, found))


def read_known(
    kv: KvEngine, project: Project, known: Sequence[Known], *, cache: RunCache, system_params: bool
) -> Iterator[Batch]:
    """Yield the runs in the order given, those that are gone left out, some at a time."""
    cache.catch_up(project)
    begin, runs_max = 0, RUNS_PER_FIRST_READ
    while begin < len(known):
        places = {entry.number: entry.place for entry in known[begin : begin + runs_max]}
        found = kv.read(lambda reader, places=places: cache.load(reader, project, list(places)))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        if system_params:
            found = _completed(kv, project, found)
        begin += len(places)
        yield Batch.of([Candidate(places[run.number], run) for run in found], known[begin - 1].place)
        runs_max = _next_size(runs_max, [len(run.document.params) for run in found], per_read=PARAM_BYTES_PER_READ)


def in_order(
    kv: KvEngine,
    project: Project,
    batches: Iterable[Batch],
    order: Ordering,
    *,
    after: RunNumber | None,
    runs_max: int,
    cache: RunCache,
    system_params: bool,
) -> Iterator[Batch]:
    """Yield the candidates sorted, as many as wanted; empty batches first, while they are gathered.

    Args:
        kv: the store.
        project: the project.
        batches: all candidates, and the run `after` even when it is none.
        order: how to sort.
        after: the run behind which to begin; None for the beginning.
        runs_max: how many to yield; 0 for all.
        cache: what is known of runs.
        system_params: whether to read them.
    """
    rows: list[SortRow] = []
    checked = 0
    for batch in batches:
        rows += [SortRow(order.keys(run), run.number) for run in batch.runs]
        checked = batch.checked
        yield Batch.of([], checked)
    order.sort(rows)
    begin = next((place for place, row in enumerate(rows, 1) if row.number == after), 0)
    page = rows[begin : begin + runs_max if runs_max else None]
    known = [Known(checked, row.number) for row in page]
    yield from read_known(kv, project, known, cache=cache, system_params=system_params)


def _next_size(runs_max: int, sizes: Sequence[int], *, per_read: int) -> int:
    """Return how many runs to read after a read of up to `runs_max` that had these sizes."""
    average = max(1, sum(sizes) // max(1, len(sizes)))
    return max(1, min(RUNS_PER_READ_MAX, 2 * runs_max, per_read // average))


def narrow(batches: Iterable[Batch], ask: Ask, clock: WorkClock, *, counts_all: bool = True) -> Iterator[Batch]:
    """Yield the candidates that are selected, in smaller batches when that takes long.

    Args:
        batches: candidates.
        ask: tells which of them are, a few at a time.
        clock: of the search.
        counts_all: whether a run that is dropped counts as looked at; it does not when a search of sequences asks the
            part of its query that is about the run alone (contract, metric search).
    """
    checked, now = 0, clock.now
    for batch in batches:
        kept: list[int] = []
        due = now() + SLICE_SECONDS
        for selected, end in ask(batch.runs, batch.summaries):
            kept += selected
            if now() > due:
                checked = batch.places[end - 1] if counts_all else _last_place(batch, kept, checked)
                yield batch.only(kept, checked)
                kept, due = [], now() + SLICE_SECONDS
        checked = batch.checked if counts_all else _last_place(batch, kept, checked)
        yield batch.only(kept, checked)


def _last_place(batch: Batch, kept: Sequence[int], before: int) -> int:
    return batch.places[kept[-1]] if kept else before


def with_run(ask: Ask, number: RunNumber) -> Ask:
    """Return what asks as `ask` does, and selects one run in any case."""

    def asking(runs: Sequence[Run], summaries: Sequence[Sequence[Summary]]) -> Iterator[Asked]:
        begin = 0
        for selected, end in ask(runs, summaries):
            chosen = set(selected)
            yield [at for at in range(begin, end) if at in chosen or runs[at].number == number], end
            begin = end

    return asking


def narrow_sequences(
    batches: Iterable[Batch], select: Callable[[Candidate], Iterator[Summary | None]], clock: WorkClock
) -> Iterator[Batch]:
    """Yield the candidates with the sequences that `select` yields, without those that have none.

    A single run can have a hundred thousand: a smaller batch may come, too, while its sequences are asked.

    Args:
        batches: candidates with their sequences.
        select: yields each sequence in question, None for one that is not selected.
        clock: of the search.
    """
    checked, now = 0, clock.now
    for batch in batches:
        kept: list[Candidate] = []
        due = now() + SLICE_SECONDS
        for candidate in batch.candidates:
            found: list[Summary] = []
            for summary in select(candidate):
                if summary is not None:
                    found.append(summary)
                if now() > due:
                    yield Batch.of(kept, checked)
                    kept, due = [], now() + SLICE_SECONDS
            if found:
                kept.append(Candidate(candidate.place, candidate.run, found))
            checked = candidate.place
        yield Batch.of(kept, batch.checked)


def with_summaries(kv: KvEngine, project: Project, batches: Iterable[Batch], wanted: Sequences) -> Iterator[Batch]:
    """Yield the candidates with those of their sequences that are wanted, so many at once as their number allows."""
    runs_max = RUNS_PER_FIRST_READ
    for batch in batches:
        begin, count = 0, len(batch.runs)
        while begin < count:
            part = slice(begin, begin + runs_max)
            begin += runs_max
            places, found = batch.places[part], batch.runs[part]
            numbers = [run.number for run in found]
            summaries = kv.read(lambda reader, numbers=numbers: wanted.read(reader, project, numbers))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            yield Batch(places, found, summaries, places[-1] if begin < count else batch.checked)
            runs_max = _next_size(runs_max, [len(each) for each in summaries], per_read=SUMMARIES_PER_READ)
        if not count:
            yield batch


def first(batches: Iterable[Batch], runs_max: int) -> Iterator[Batch]:
    """Yield up to `runs_max` candidates (0 for all), and read no further than the last of them."""
    left = runs_max
    for batch in batches:
        if left and len(batch.runs) >= left:
            yield batch.only(range(left), batch.places[left - 1])
            return
        left -= len(batch.runs) if left else 0
        yield batch
