"""Rows: ranges of keys read up to so many rows in all, and which runs the keys name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from matyan.engines.kv.protocol import KeyRange, KvReader, Pair
from matyan.ids import Project
from matyan.limits import SCAN_ROWS_MAX
from matyan.store import indexes, keyspace
from matyan.store.indexes import NUMBER_BYTES

Numbers = NDArray[np.uint64]

NO_NUMBERS: Final[Numbers] = np.empty(0, np.uint64)
_NUMBER_OF: Final = itemgetter(slice(-NUMBER_BYTES, None))
_LISTS_MAX: Final = 2
"""Ranges that are read besides those of spans; see `index.py`, DURATION."""


class TooManyRowsError(Exception):
    """More rows would be read than allowed."""


class Rows:
    """Reads ranges to their end, up to so many rows in all; beyond that every method raises TooManyRowsError."""

    def __init__(self, reader: KvReader, rows_max: int) -> None:
        self.reader = reader
        self._left = rows_max

    def read(self, ranges: Sequence[KeyRange]) -> list[list[Pair]]:
        """Return the rows of each range, all first pages in one round trip."""
        self.require(len(ranges) - _LISTS_MAX)
        ranges = [where if where.begin < where.end else KeyRange(where.begin, where.begin) for where in ranges]
        if not ranges:
            return []
        size = min(SCAN_ROWS_MAX, self._left // len(ranges) + 1)
        pages = self.reader.scan_many(ranges, rows_max=size)
        self.charge(sum(map(len, pages)))
        for page, (_, end) in zip(pages, ranges, strict=True):
            wanted, found = size, len(page)
            while found == wanted:
                wanted = min(SCAN_ROWS_MAX, self._left + 1)
                rows = self.reader.scan(page[-1][0] + b"\x00", end, rows_max=wanted)
                found = len(rows)
                self.charge(found)
                page.extend(rows)
        return pages

    @property
    def left(self) -> int:
        """How many rows may still be read."""
        return self._left

    def require(self, reads: int) -> None:
        """Refuse what takes more reads than rows may be read, as a range without any row costs one, too."""
        if reads > self._left:
            raise TooManyRowsError

    def charge(self, rows: int) -> None:
        """Count rows that were read."""
        self.require(rows)
        self._left -= rows

    def seek(self, where: KeyRange) -> bytes | None:
        """Return the first key of a range."""
        rows = self.reader.scan(*where, rows_max=1)
        self.charge(1)
        return rows[0][0] if rows else None


def entry_numbers(keys: Iterable[bytes]) -> Numbers:
    """Return the runs of entries, in their order."""
    return np.frombuffer(b"".join(map(_NUMBER_OF, keys)), ">u8").astype(np.uint64)


def ascending(parts: Sequence[Numbers]) -> Numbers:
    """Return the runs of several lists, each once, ascending."""
    return np.unique(np.concatenate(parts)) if parts else NO_NUMBERS


def entry_range(project: Project, place: bytes) -> KeyRange:
    """Return the range of the entries whose places begin with `place`."""
    prefix = keyspace.index(project) + place
    return KeyRange(prefix, indexes.after(prefix))


def listed_numbers(keys: Sequence[bytes], at: int) -> Numbers:
    """Return the runs of keys that have nothing but a number from `at` on."""
    # An element of a tuple: a byte that tells its length, then the number.
    return np.array([int.from_bytes(key[at + 1 :], "big") for key in keys], np.uint64)
