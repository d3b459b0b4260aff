"""Horizon: the moment up to which everything that the log took in is visible in the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matyan.clock import Clock
from matyan.engines.kv.protocol import KvEngine, KvReader
from matyan.engines.log.protocol import LogEngine, partitions_of
from matyan.store import offsets


class _Mark(NamedTuple):
    at_seconds: float
    ends: Sequence[int]


class Horizon:
    """Follows a topic, for jobs that take the absence of data for a sign: what is only late must not look absent."""

    def __init__(self, *, kv: KvEngine, log: LogEngine, topic: str, clock: Clock) -> None:
        self._kv = kv
        self._log = log
        self._partitions = partitions_of(log, topic)
        self._clock = clock
        self._pending: _Mark | None = None
        """The oldest end of the log that the workers have not been seen to reach."""
        self._seconds = 0.0

    def measure(self) -> float:
        """Return a moment, in seconds since 1970: all records that were durable then are applied. 0 while unknown.

        Raises:
            UnavailableError: log or store cannot be asked.
        """
        now = self._clock.now_seconds()
        producer = self._log.producer()
        ends = [producer.end_offset(partition) for partition in self._partitions]
        applied = self._kv.read(self._read_applied)
        for mark in (self._pending, _Mark(now, ends)):
            if mark is not None:
                if not all(done >= end for done, end in zip(applied, mark.ends, strict=True)):
                    self._pending = mark
                    return self._seconds
                self._seconds = mark.at_seconds
        self._pending = None
        return self._seconds

    def _read_applied(self, reader: KvReader) -> list[int]:
        found = offsets.get_many(reader, self._log.log_id, self._partitions)
        return [0 if one is None else one.offset for one in found]
