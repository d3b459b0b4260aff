"""Selections: a condition of a plan -> numbers of the runs that the index gives for it.

Reading the index must pay: a term is read up to a bound that grows in steps, all terms of a conjunction to the same one
before any to the next, and no further once the runs in hand are asked sooner than more entries are read. What was not
read narrows nothing, which is always right (see plan.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np

from matyan.engines.kv.protocol import KvReader
from matyan.ids import Project
from matyan.query.plan import And, Condition, Everything, Not, Nothing, Or, Term
from matyan.runs import index
from matyan.runs.index import Match, Numbers

ROWS_PER_TERM: Final = (256, 4096, 32_768)
"""Entries that are read of one term at most, step by step."""
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
        self._reader = reader
        self._project = project
        self._matches: dict[Term, Match] = {}
        self._looked: dict[Term, Looked] = {}

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
            numbers = self._select(condition, rows_max)
        return numbers

    def _select(self, condition: Condition, rows_max: int) -> Numbers | None:
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
                found = self._select(part, rows_max)
                met = found if met is None or found is None else np.intersect1d(met, found, assume_unique=True)
            elif met is not None:
                excluded = self._find(part.term, rows_max)
                met = met if excluded is None else np.setdiff1d(met, excluded.sure, assume_unique=True)
        return met

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
        """Read a term once, and again with a greater bound only when that was not enough."""
        if term in self._matches:
            return self._matches[term]
        known = self._looked.get(term)
        if known is not None and known.rows_max >= rows_max:
            return None
        found = index.find(self._reader, self._project, term.field, term.spans, rows_max=rows_max)
        self._looked[term] = Looked(term, rows_max, None if found is None else len(found.numbers))
        if found is not None:
            self._matches[term] = found
        return found


def _are_few(numbers: Numbers | None, rows_max: int) -> bool:
    """Return whether to ask these runs is sooner done than to read so many entries more."""
    return numbers is not None and len(numbers) * ROWS_PER_RUN < rows_max
