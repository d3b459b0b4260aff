"""Candidates: the runs that a query is asked, newest first, as its plan and the index narrow them down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matyan.catalog.model import RunPlace
from matyan.engines.kv.protocol import KvReader
from matyan.ids import Project, RunNumber
from matyan.limits import SCAN_ROWS_MAX
from matyan.query.executor import Listing
from matyan.query.plan import Condition, Everything
from matyan.query.selections import Looked, Selector
from matyan.runs import index
from matyan.runs import repository as runs
from matyan.runs.cache import RunCache
from matyan.runs.index import Numbers
from matyan.store import keyspace
from matyan.store.subspaces import Subspace

SORTED_MAX: Final = 512
"""So many runs are read to be put in order at once; of more, a page may be found sooner by going through the order of
creation."""
SORTED_LATE_MAX: Final = 4096
"""So many are when that took too long: thirty milliseconds."""
PASSED_PER_SORTED: Final = 16
"""To read a run and put it in order takes as long as to go past so many."""
SORTED_BYTES_MAX: Final = 16_000_000
"""About how many bytes of params may be read for that: those of a single run can be megabytes."""
DOCUMENTS_PER_FIRST_READ: Final = 16
DOCUMENTS_PER_READ_MAX: Final = 256
"""Each next read takes twice as many, up to this: only between two of them is it seen how large they are."""
KEYS_PER_SCAN: Final = 1024
"""The first time; each next one takes twice as many."""
KEYS_PER_READ_MAX: Final = 20_000
"""Places that one transaction goes through."""


class Path(StrEnum):
    """How the runs of a search were found; labels of a metric."""

    NEWEST = "newest"
    """The search ended with the newest runs, which are asked in any case."""
    INDEX = "index"
    """Those were asked that the index named."""
    SCAN = "scan"
    """All were asked."""


class Reason(StrEnum):
    """Why a search went this way; labels of a metric."""

    ENOUGH = "enough"
    """The newest runs were."""
    PLAN = "plan"
    """The index rules out most runs."""
    NO_TERM = "no_term"
    """Nothing of the query is indexed, or only what it excludes."""
    TOO_MANY = "too_many"
    """The index names too many runs for it to help."""
    NO_INDEX = "no_index"
    """The index is not complete."""


class Choice(NamedTuple):
    """How the runs of a search are found."""

    path: Path
    reason: Reason
    numbers: Numbers | None = None
    """Of the runs to ask, ascending; None: all runs."""
    looked: Sequence[Looked] = ()


ENOUGH: Final = Choice(Path.NEWEST, Reason.ENOUGH)


def choose(reader: KvReader, project: Project, condition: Condition) -> Choice:
    """Return how to find the runs of a condition in this snapshot."""
    if isinstance(condition, Everything):
        return Choice(Path.SCAN, Reason.NO_TERM)
    if not index.is_complete(reader, project):
        return Choice(Path.SCAN, Reason.NO_INDEX)
    selector = Selector(reader, project)
    numbers = selector.select(condition)
    if numbers is None:
        return Choice(Path.SCAN, Reason.TOO_MANY if selector.looked else Reason.NO_TERM, None, selector.looked)
    return Choice(Path.INDEX, Reason.PLAN, numbers, selector.looked)


class PlannedRuns:
    """The newest runs, then those further ones that a plan does not rule out. Belongs to one search.

    Most searches with a limit end with the newest runs, and most projects have no others: the index is read only when
    that was not enough. What a method remembers does no harm when its transaction runs again.
    """

    def __init__(self, condition: Condition, cache: RunCache, *, besides: RunNumber | None = None) -> None:
        """Keep the plan, and what is known of runs; the run `besides` is listed whatever the plan says."""
        self._condition = condition
        self._cache = cache
        self._besides = besides
        self._began: tuple[bytes | None] | None = None
        self._is_sorted = False
        self._sorted: Sorted | None = None
        """None when there are too many to be sorted."""
        self.asked = 0
        """How many runs were asked so far; counted by who asks them."""
        self.choice = ENOUGH
        """What was decided when the newest runs turned out not to be enough."""

    def list_runs(
        self, reader: KvReader, project: Project, *, after: bytes | None, place: int, rows_max: int
    ) -> Listing | None:
        """Return the next runs in the order of creation, None for all that come next; see `CandidateSource`."""
        if self._began is None or self._began == (after,):
            self._began = (after,)
            return None
        if self.choice is ENOUGH:
            self.choice = choose(reader, project, self._condition)
        numbers = self.choice.numbers
        if numbers is None:
            return None
        if self._besides is not None:
            numbers = np.union1d(numbers, np.array([self._besides], np.uint64))
        if not self._is_sorted and self._is_worth_sorting(project, len(numbers), after, place):
            found = read_places(reader, project, numbers, self._cache)
            self._sorted = None if found is None else Sorted(reader, project, found, began=self._began[0])
            # Last: any read above may fail, and then all of this runs again.
            self._is_sorted = True
        if self._sorted is None:
            return walk(reader, project, numbers, self._cache, after=after, rows_max=rows_max)
        return self._sorted.list_runs(after=after, place=place, rows_max=rows_max)

    def _is_worth_sorting(self, project: Project, count: int, after: bytes | None, place: int) -> bool:
        """Return whether to put runs in order that are few, or by now the lesser work: nobody knows how far to go.

        Going past runs in memory is no work, and counts them besides.
        """
        if count <= SORTED_MAX:
            return True
        return place >= PASSED_PER_SORTED * count and self._cache.list_held(project, after=after, rows_max=1) is None


class _Stretch(NamedTuple):
    """Runs that follow one another in the order of creation."""

    numbers: Numbers
    """Newest first."""
    position: Callable[[int], bytes]
    """Of each of them."""
    rest: bytes | None
    """The position behind which others follow; None at the end."""


def walk(
    reader: KvReader, project: Project, wanted: Numbers, cache: RunCache, *, after: bytes | None, rows_max: int
) -> Listing:
    """Return the next runs that are wanted in the order of creation, and how many others lie between them."""
    rest = after
    listed: list[RunNumber] = []
    places: list[int] = []
    passed, size = 0, KEYS_PER_SCAN
    while passed < KEYS_PER_READ_MAX:
        stretch = _held_stretch(cache, project, rest, size) or _stored_stretch(reader, project, rest, size)
        found = np.flatnonzero(_are_in(stretch.numbers, wanted))[: rows_max - len(listed)]
        listed += stretch.numbers[found].tolist()
        places += (found + (passed + 1)).tolist()
        if len(listed) == rows_max:
            return Listing(listed, places, places[-1], stretch.position(int(found[-1])))
        passed += len(stretch.numbers)
        rest = stretch.rest
        if rest is None:
            break
        size = min(2 * size, SCAN_ROWS_MAX)
    return Listing(listed, places, passed, rest)


def _held_stretch(cache: RunCache, project: Project, after: bytes | None, rows_max: int) -> _Stretch | None:
    """Return runs that are in memory, where a hundred thousand of them are gone through in a few milliseconds."""
    held = cache.list_held(project, after=after, rows_max=rows_max)
    if held is None:
        return None

    def position(at: int) -> bytes:
        return keyspace.run_by_time(project, *held.runs[at].document.place(held.runs[at].number))

    return _Stretch(np.frombuffer(held.numbers, np.uint64), position, position(-1) if held.runs else None)


def _stored_stretch(reader: KvReader, project: Project, after: bytes | None, rows_max: int) -> _Stretch:
    base = keyspace.subspace(project, Subspace.RUNS_BY_TIME)
    begin, end = keyspace.children(base)
    rows = reader.scan(begin, end if after is None else after, rows_max=rows_max, reverse=True)
    keys = [key for key, _ in rows]
    rest = keys[-1] if len(keys) == rows_max else None
    return _Stretch(keyspace.place_number_array(keys, len(base)), keys.__getitem__, rest)


def _are_in(numbers: Numbers, wanted: Numbers) -> NDArray[np.bool_]:
    """Return which of `numbers` are in `wanted`, which is ascending and not empty."""
    places = np.searchsorted(wanted, numbers)
    found: NDArray[np.bool_] = wanted[np.minimum(places, len(wanted) - 1)] == numbers
    return found


def read_places(reader: KvReader, project: Project, numbers: Numbers, cache: RunCache) -> list[RunPlace] | None:
    """Return where runs stand in the order of creation, newest first; None when reading them takes too long."""
    if len(numbers) > SORTED_LATE_MAX:
        return None
    found: list[RunPlace] = []
    begin, size, bytes_left = 0, DOCUMENTS_PER_FIRST_READ, SORTED_BYTES_MAX
    while begin < len(numbers) and bytes_left >= 0:
        part = [RunNumber(int(number)) for number in numbers[begin : begin + size]]
        known = cache.load(reader, project, part)
        found += [run.document.place(run.number) for run in known]
        bytes_left -= sum(len(run.document.params) for run in known)
        begin, size = begin + size, min(2 * size, DOCUMENTS_PER_READ_MAX)
    return sorted(found, reverse=True) if bytes_left >= 0 else None


class Sorted:
    """A few runs in the order of creation.

    How many others lie between them is not counted but estimated: runs have numbers in the order in which they came, so
    that is exact where that was the order of creation and none was deleted. Only progress messages show it.
    """

    def __init__(self, reader: KvReader, project: Project, places: list[RunPlace], *, began: bytes | None) -> None:
        """Read what the estimates need.

        Args:
            reader: the snapshot.
            project: the project.
            places: where the runs stand, newest first.
            began: the position behind which the search began; None for the newest run.
        """
        self._project = project
        self._places = places
        self._count = runs.count(reader, project)
        self._last = max(1, runs.next_number(reader, project) - 1)
        self._before = 0 if began is None else self._estimate(RunNumber(keyspace.last_number(began)))

    def list_runs(self, *, after: bytes | None, place: int, rows_max: int) -> Listing:
        """Return the next runs behind `after`, which is the `place`-th behind where the search began."""
        begin = 0
        if after is not None:
            before = RunPlace(*keyspace.run_by_time_place(after))
            begin = next((at for at, each in enumerate(self._places) if each < before), len(self._places))
        page = self._places[begin : begin + rows_max]
        listed = [each.number for each in page]
        behind = self._count - self._before - place
        places = list(self._rising(page, place, behind - len(self._places) + begin))
        if begin + rows_max < len(self._places):
            return Listing(listed, places, places[-1], keyspace.run_by_time(self._project, *page[-1]))
        return Listing(listed, places, max(behind, *places[-1:], 0), None)

    def _rising(self, page: Sequence[RunPlace], place: int, others: int) -> Iterator[int]:
        """Yield the places of runs, relative to `place`, where at most so many `others` may lie before them."""
        last = 0
        for nth, each in enumerate(page, 1):
            last = max(last + 1, min(self._estimate(each.number) - self._before - place, others + nth))
            yield last

    def _estimate(self, number: RunNumber) -> int:
        """Return how many runs there are from the newest to this one."""
        return self._count - (number - 1) * self._count // self._last
