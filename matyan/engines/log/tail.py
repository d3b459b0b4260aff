"""The newest records of a partition, kept in memory: a worker that keeps up never touches the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matyan.engines.log.protocol import LogRecord

_RECORD_OVERHEAD_BYTES: Final = 250
"""About what CPython needs for the tuple and the headers of its members."""


class Tail:
    """A window over the end of a partition, bounded by bytes. The partition's lock guards it."""

    def __init__(self, *, next_offset: int, bytes_max: int) -> None:
        self._records: list[LogRecord] = []
        self._bytes = 0
        self._bytes_max = bytes_max
        self._next_offset = next_offset

    def extend(self, records: Sequence[LogRecord]) -> None:
        """Add the records that follow; the oldest ones make room."""
        self._records.extend(records)
        self._next_offset += len(records)
        self._bytes += sum(map(_held_bytes, records))
        gone = 0
        while self._bytes > self._bytes_max:
            self._bytes -= _held_bytes(self._records[gone])
            gone += 1
        del self._records[:gone]

    def read(self, offset: int, records_max: int) -> list[LogRecord] | None:
        """Return records from `offset` on; None when they are older than the window."""
        at = offset - (self._next_offset - len(self._records))
        return None if at < 0 else self._records[at : at + records_max]


def _held_bytes(record: LogRecord) -> int:
    return len(record.key) + len(record.value) + _RECORD_OVERHEAD_BYTES
