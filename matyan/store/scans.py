"""Reading a range that may be longer than one scan."""

from __future__ import annotations

from collections.abc import Iterator

from matyan.engines.kv.protocol import KvReader, Pair
from matyan.limits import SCAN_ROWS_MAX


def scan_all(reader: KvReader, begin: bytes, end: bytes, *, rows_max: int = SCAN_ROWS_MAX) -> Iterator[Pair]:
    """Yield every pair of `begin <= key < end`, ascending.

    `rows_max` bounds what one scan brings into memory: callers that stop early ask for few.
    """
    while begin < end and (rows := reader.scan(begin, end, rows_max=rows_max)):
        yield from rows
        begin = rows[-1][0] + b"\x00"
