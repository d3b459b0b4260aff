"""IngestMeasures: what a worker did, in figures. Names and label values are those of the existing system."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from matyan.clock import Clock, SystemClock
from matyan.errors import OffsetMovedError, TooLargeError, UnavailableError
from matyan.ingestion.batches import FAULTS_OF_DATA, Piece, RunGroup, Spoilt
from matyan.observe.metrics import DELAY_SECONDS_MAX, Metrics
from matyan.wire.frames import tag_of

_POINT: Final = "log_metric"
_ERRORS: Final[tuple[tuple[tuple[type[BaseException], ...], str], ...]] = (
    ((UnavailableError,), "fdb"),
    ((TooLargeError,), "txn_too_large_split"),
    (FAULTS_OF_DATA, "validation"),
    ((BaseException,), "unknown"),
)
"""What stopped a slice -> its `error_type`; `fdb` is an engine that cannot work now, whichever it is."""


class Attempt:
    """One transaction under way: how often it ran, and what it wrote the last time."""

    __slots__ = ("runs", "written_bytes")

    def __init__(self) -> None:
        self.runs = 0
        self.written_bytes = 0

    def begin(self) -> None:
        """Note that the transaction runs, for the first time or again."""
        self.runs += 1
        self.written_bytes = 0


class IngestMeasures:
    """Counts for one worker. It looks at runs and sequences, never at single points."""

    def __init__(self, metrics: Metrics, clock: Clock | None = None) -> None:
        self._metrics = metrics
        self._clock = clock or SystemClock()

    def consumed(self, pieces: Sequence[Piece], spoilt: Sequence[Spoilt]) -> int:
        """Count the commands read from the log, those that are unreadable as faults; return how many are readable."""
        commands = sum(piece.end - piece.begin for piece in pieces)
        self._metrics.ingestion_messages_consumed.inc(commands + len(spoilt))
        if spoilt:
            self._metrics.ingestion_processing_errors.labels("validation").inc(len(spoilt))
        return commands

    def failed(self, error: BaseException) -> None:
        """Count why a slice was not applied as it is. That another worker applied it is no failure."""
        if isinstance(error, OffsetMovedError):
            return
        name = next(name for kind, name in _ERRORS if isinstance(error, kind))
        self._metrics.ingestion_processing_errors.labels(name).inc()

    @contextmanager
    def transaction(self, groups: Sequence[RunGroup]) -> Iterator[Attempt]:
        """Measure one transaction; what it applied is counted when the block ends without an error."""
        attempt = Attempt()
        began = time.perf_counter()
        try:
            yield attempt
        finally:
            self._metrics.ingestion_retries.inc(max(0, attempt.runs - 1))
        self._metrics.ingestion_batch_seconds.observe(time.perf_counter() - began)
        self._metrics.ingestion_transaction_bytes.observe(attempt.written_bytes)
        self._applied(groups)

    def _applied(self, groups: Sequence[RunGroup]) -> None:
        types = Counter(tag_of(event.command) for found in groups for event in found.events)
        types[_POINT] += sum(len(buffer.steps) for found in groups for buffer in found.points.values())
        for kind, number in types.items():
            self._metrics.ingestion_messages_processed.labels(kind).inc(number)
        self._metrics.ingestion_batch_size.observe(types.total())
        now_ms = self._clock.now_seconds() * 1000
        for found in groups:
            if found.points:
                # The first of each sequence stands for the others: they follow one another.
                oldest_ms = min(buffer.times[0] for buffer in found.points.values())
                delay_seconds = (now_ms - oldest_ms) / 1000
                self._metrics.ingest_delay_seconds.observe(min(max(0.0, delay_seconds), DELAY_SECONDS_MAX))
