"""Selections: a condition of a plan -> numbers of the runs that the index gives for it.

Reading the index must pay: a term is read up to a bound that grows in steps, all terms of a conjunction to the same one
before any to the next, and no further once the runs in hand are asked sooner than more entries are read. What was not
read narrows nothing, which is always right (see plan.py). All of this happens in one transaction and without a pause:
there is a bound on it in all, whatever the condition.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np

from matyan.engines.kv.protocol import KeyRange, KvReader, Pair
from matyan.ids import Project
from matyan.query.plan import And, Condition, Everything, Not, Nothing, Or, Term
from matyan.runs import index
from matyan.runs.index import Match, Numbers

ROWS_PER_TERM: Final = (256, 4096, 32_768)
"""Entries that are read of one term at most, step by step."""
ROWS_MAX: Final = 3 * ROWS_PER_TERM[-1]
"""Entries that are read in all, and runs that are gone through to meet and join them: some 0.1 s."""
ROWS_PER_RANGE: Final = 16
"""So many entries are read in about the time in which a range is begun."""
ROWS_PER_RUN: Final = 16
"""So many entries are read in about the time in which one run is asked."""

_NO_NUMBERS: Final[Numbers] = np.empty(0, np.uint64)


class Looked(NamedTuple):
    """What reading a term gave."""

    term: Term
    rows_max: int
    found: int | None
    """Runs; None when there are more entries than `rows_max`."""


class Selector:
    """Finds the runs of conditions in one snapshot."""

    def __init__(self, reader: KvReader, project: Project) -> None:
        """Read `project` with `reader`."""
        self._reader = _CountingReader(reader)
        self._project = project
        self._matches: dict[Term, Match] = {}
        self._looked: dict[Term, Looked] = {}
        self._left = ROWS_MAX

    @property
    def looked(self) -> Sequence[Looked]:
        """What was read, in the order of reading."""
        return tuple(self._looked.values())

    def select(self, condition: Condition) -> Numbers | None:
        """Return runs, ascending, among which are all those of a condition; None when these may be most of all."""
        numbers = None
        for rows_max in ROWS_PER_TERM:
            if _are_few(numbers, rows_max):
                break
            numbers = _fewer(self._select(condition, rows_max), numbers)
        return numbers

    def _select(self, condition: Condition, rows_max: int) -> Numbers | None:
        numbers = self._look(condition, rows_max)
        self._left -= 0 if numbers is None else len(numbers)
        return numbers

    def _look(self, condition: Condition, rows_max: int) -> Numbers | None:
        match condition:
            case Nothing():
                return _NO_NUMBERS
            case Term():
                found = self._find(condition, rows_max)
                return None if found is None else found.numbers
            case And():
                return self._meet(condition.parts, rows_max)
            case Or():
                return self._join(condition.parts, rows_max)
            case Everything() | Not():  # what is left when some are taken away is most of all
                return None

    def _meet(self, parts: Sequence[Condition], rows_max: int) -> Numbers | None:
        met: Numbers | None = None
        # What is read already costs nothing, and without it nothing can be taken away.
        for part in sorted(parts, key=self._rank):
            if _are_few(met, rows_max):
                break
            if not isinstance(part, Not):
                met = self._common(met, self._select(part, rows_max))
            elif met is not None:
                excluded = self._find(part.term, rows_max)
                if excluded is not None:
                    self._left -= len(excluded.sure) + len(met)
                    met = np.setdiff1d(met, excluded.sure, assume_unique=True)
        return met

    def _common(self, first: Numbers | None, second: Numbers | None) -> Numbers | None:
        if first is None or second is None:
            return second if first is None else first
        self._left -= len(first)
        return np.intersect1d(first, second, assume_unique=True)

    def _join(self, parts: Iterable[Condition], rows_max: int) -> Numbers | None:
        found: list[Numbers] = [_NO_NUMBERS]
        for part in parts:
            numbers = self._select(part, rows_max)
            if numbers is None:
                return None
            found.append(numbers)
        return np.unique(np.concatenate(found))

    def _rank(self, part: Condition) -> int:
        if isinstance(part, Not):
            return 2
        return 0 if isinstance(part, Term) and part in self._matches else 1

    def _find(self, term: Term, rows_max: int) -> Match | None:
        """Read a term once, and again with a greater bound only when that was not enough; nothing beyond ROWS_MAX."""
        if self._left <= 0:
            return None
        if term in self._matches:
            return self._matches[term]
        known = self._looked.get(term)
        if known is not None and known.rows_max >= rows_max:
            return None
        rows_max = min(rows_max, self._left)
        before = self._reader.cost
        found = index.find(self._reader, self._project, term.field, term.spans, rows_max=rows_max)
        self._left -= self._reader.cost - before
        self._looked[term] = Looked(term, rows_max, None if found is None else len(found.numbers))
        if found is not None:
            self._matches[term] = found
        return found


class _CountingReader:
    """Counts what reading costs, in entries: a term can be many ranges, and a range without any entry costs, too."""

    def __init__(self, reader: KvReader) -> None:
        self._reader = reader
        self.cost = 0

    def get(self, key: bytes) -> bytes | None:
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.cost += len(keys)
        return self._reader.get_many(keys)

    def scan(self, begin: bytes, end: bytes, *, rows_max: int, reverse: bool = False) -> list[Pair]:
        rows = self._reader.scan(begin, end, rows_max=rows_max, reverse=reverse)
        self.cost += len(rows) + ROWS_PER_RANGE
        return rows

    def scan_many(self, ranges: Sequence[KeyRange], *, rows_max: int) -> list[list[Pair]]:
        pages = self._reader.scan_many(ranges, rows_max=rows_max)
        self.cost += sum(map(len, pages)) + ROWS_PER_RANGE * len(ranges)
        return pages


def _fewer(first: Numbers | None, second: Numbers | None) -> Numbers | None:
    """Return the smaller of two answers to the same question; None is all runs."""
    if first is None or second is None:
        return second if first is None else first
    return min(first, second, key=len)


def _are_few(numbers: Numbers | None, rows_max: int) -> bool:
    """Return whether to ask these runs is sooner done than to read so many entries more."""
    return numbers is not None and len(numbers) * ROWS_PER_RUN < rows_max
