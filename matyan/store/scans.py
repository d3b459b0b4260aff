"""Reading a range that may be longer than one scan."""

from __future__ import annotations

from collections.abc import Iterator

from matyan.engines.kv.protocol import KvEngine, KvReader, Pair
from matyan.limits import SCAN_ROWS_MAX


def scan_all(reader: KvReader, begin: bytes, end: bytes, *, rows_max: int = SCAN_ROWS_MAX) -> Iterator[Pair]:
    """Yield every pair of `begin <= key < end`, ascending.

    `rows_max` bounds what one scan brings into memory: callers that stop early ask for few.
    """
    while begin < end:
        rows = reader.scan(begin, end, rows_max=rows_max)
        yield from rows
        if len(rows) < rows_max:
            return
        begin = rows[-1][0] + b"\x00"


def scan_pages(kv: KvEngine, begin: bytes, end: bytes, *, rows_max: int = SCAN_ROWS_MAX) -> Iterator[list[Pair]]:
    """Yield the pairs of `begin <= key < end`, ascending, in pages of at most `rows_max`, none of them empty.

    Each page is read in a transaction of its own when it is asked for: the range may take longer than a transaction
    may, its pages may mix moments, and what is done with one of them changes only what the later ones show.
    """
    while begin < end and (rows := kv.read(lambda reader: reader.scan(begin, end, rows_max=rows_max))):  # noqa: B023 (called at once)
        yield rows
        begin = rows[-1][0] + b"\x00"
