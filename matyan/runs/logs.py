"""RunLogs: terminal lines and log records of a run, read in pages of short transactions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine, KvReader
from matyan.errors import NotFoundError
from matyan.ids import DEFAULT_PROJECT, Project, RunId, RunNumber
from matyan.runs import repository
from matyan.sequences import items
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket, Item, SequenceKey
from matyan.sequences.repository import SequenceRef

LINES: Final = SequenceKey(Bucket.LOGS, "logs")
RECORDS: Final = SequenceKey(Bucket.LOG_RECORDS, "log_records")
PAGE_ITEMS_FIRST: Final = 64
PAGE_ITEMS_MAX: Final = 1000
"""Items that one read transaction fetches."""
PAGE_CHARACTERS: Final = 1_000_000
"""About how much text a page holds after the first: a stream may be parked with one in its hands."""


class _Extent(NamedTuple):
    number: RunNumber
    total: int
    """One beyond the greatest number of a line or record; 0 when there is none."""


class Selection(NamedTuple):
    """A range of lines or records being read."""

    total: int
    """How many there are in all: one beyond the greatest number."""
    entries: Iterator[tuple[int, Item]]
    """(number, item), ascending, read while it is iterated."""


class RunLogs:
    """Reads what a run wrote to its terminal and its log."""

    def __init__(self, *, kv: KvEngine, blobs: BlobEngine) -> None:
        self._kv = kv
        self._blobs = blobs

    def select(
        self,
        run_id: RunId,
        key: SequenceKey,
        *,
        begin: int | None,
        end: int | None,
        tail: int,
        project: Project = DEFAULT_PROJECT,
    ) -> Selection:
        """Choose the entries `begin <= number < end` of LINES or RECORDS; with neither end, the last `tail` numbers.

        A range that starts below 0, or not before its end, is empty.

        Raises:
            NotFoundError: no such run.
        """
        number, total = self._kv.read(lambda reader: _extent(reader, project, run_id, key))
        if begin is None and end is None:
            begin = max(total - tail, 0)
        low, high = begin or 0, total if end is None else min(end, total)
        entries = self._entries(project, number, key, low, high) if 0 <= low < high else iter(())
        return Selection(total, entries)

    def _entries(
        self, project: Project, number: RunNumber, key: SequenceKey, low: int, high: int
    ) -> Iterator[tuple[int, Item]]:
        size = PAGE_ITEMS_FIRST
        while True:
            read = partial(_page, project=project, number=number, key=key, begin=low, end=high, size=size)
            page = self._kv.read(read)
            for step, item in page:
                yield step, items.whole(item, self._blobs)
                low = step + 1
            if len(page) < size:
                return
            average = 1 + sum(len(str(item.value)) for _, item in page) // len(page)
            size = max(1, min(2 * size, PAGE_ITEMS_MAX, PAGE_CHARACTERS // average))


def _extent(reader: KvReader, project: Project, run_id: RunId, key: SequenceKey) -> _Extent:
    number = repository.get_number(reader, project, run_id)
    if number is None:
        raise NotFoundError("Run not found.")
    (summary,) = sequences.get_summaries(reader, project, [SequenceRef(number, key)])
    return _Extent(number, 0 if summary is None else summary.last_step + 1)


def _page(
    reader: KvReader, *, project: Project, number: RunNumber, key: SequenceKey, begin: int, end: int, size: int
) -> list[tuple[int, Item]]:
    # One row more than the page: the iterator knows that an item is whole only when it sees the next.
    found = items.read_range(reader, project, number, key, begin=begin, end=end, rows_max=size + 1)
    return list(islice(found, size))
