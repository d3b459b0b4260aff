"""Poll -> handle -> report: the one loop of all consumers.

The handler applies a slice of one partition and keeps the partition's applied offset in the same transaction, so a
repeat, a crash and a second worker are one case: the handler says where to go on, the loop seeks there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from matyan.engines.log.protocol import LogConsumer, LogRecord, TopicPartition
from matyan.errors import CorruptedError, OffsetMovedError, UnavailableError
from matyan.limits import SLICE_BYTES_MAX
from matyan.observe.metrics import Metrics
from matyan.workers.backoff import growing_pauses
from matyan.workers.lifecycle import ThreadService

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.2
"""How long a stop may go unnoticed while nothing comes in."""
LAG_SECONDS: Final = 1.0


class Handler(Protocol):
    """Applies records of one partition."""

    def __call__(self, partition: TopicPartition, records: Sequence[LogRecord], /) -> Any:
        """Apply the records, which follow one another, and return what was done.

        Raises:
            OffsetMovedError: they do not continue what is applied; they are read again from the offset it names.
            UnavailableError: an engine cannot work now; the same records come again.
        """


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How much work goes into one slice."""

    records_max: int = 1000
    linger_seconds: float = 0.05
    """Under load slices begin this far apart, so that commits are few and large; what comes after a pause does not
    wait, nor does what fills a slice."""

    def rest_seconds(self, lasted_seconds: float) -> float:
        """Return how long to wait after a slice that took so long.

        Each slice costs something for every sequence that it touches, so slices that take over half of the time between
        them begin up to twice as far apart: a worker near its limit spends a quarter less on a point.
        """
        apart = min(max(self.linger_seconds, 2 * lasted_seconds), 2 * self.linger_seconds)
        return max(0.0, apart - lasted_seconds)


class ConsumerService(ThreadService):
    """A thread that owns a consumer and feeds a handler."""

    def __init__(
        self,
        name: str,
        *,
        open_consumer: Callable[[], LogConsumer],
        handle: Handler,
        observe: Callable[[TopicPartition, Sequence[LogRecord], Any], None],
        metrics: Metrics,
        pace: Pace | None = None,
    ) -> None:
        super().__init__(name)
        self._open_consumer = open_consumer
        self._handle = handle
        self._observe = observe
        self._metrics = metrics
        self._pace = pace or Pace()
        self._lagging: set[TopicPartition] = set()
        """Whose lag was reported last."""

    def run(self, stop: threading.Event) -> None:
        """Consume until told to stop."""
        consumer = self._open_consumer()
        try:
            self._loop(consumer, stop)
        finally:
            consumer.close()

    def _loop(self, consumer: LogConsumer, stop: threading.Event) -> None:
        backoff = growing_pauses()
        lag_due = 0.0
        while not stop.is_set():
            try:
                slices = consumer.poll(records_max=self._pace.records_max, timeout_seconds=POLL_SECONDS)
            except UnavailableError as error:
                logger.warning("nothing can be read", extra={"reason": error.message})
                self._metrics.worker_retries.labels(self.name, "unavailable").inc()
                stop.wait(next(backoff))
                continue
            polled = time.monotonic()
            went_well = [self._offer(consumer, partition, records) for partition, records in slices.items()]
            if polled >= lag_due:
                self._report_lag(consumer)
                lag_due = polled + LAG_SECONDS
            if not all(went_well):
                stop.wait(next(backoff))
            else:
                backoff = growing_pauses()
                if slices and not self._is_full(slices):
                    stop.wait(self._pace.rest_seconds(time.monotonic() - polled))

    def _offer(self, consumer: LogConsumer, partition: TopicPartition, records: Sequence[LogRecord]) -> bool:
        """Have one slice handled; return False when the engines need a pause."""
        try:
            outcome = self._handle(partition, records)
        except OffsetMovedError as error:
            logger.info("offset moved", extra={"partition": partition.partition, "to": error.applied_offset})
            self._metrics.worker_retries.labels(self.name, "offset_moved").inc()
            consumer.seek(partition, error.applied_offset)
            return True
        except UnavailableError as error:
            logger.warning("slice comes again", extra={"partition": partition.partition, "reason": error.message})
            self._metrics.worker_retries.labels(self.name, "unavailable").inc()
            _seek_back(consumer, partition, records)
            return False
        self._observe(partition, records, outcome)
        consumer.report(partition, records[-1].offset + 1)
        return True

    def _is_full(self, slices: dict[TopicPartition, list[LogRecord]]) -> bool:
        return any(
            len(records) >= self._pace.records_max or sum(len(record.value) for record in records) >= SLICE_BYTES_MAX
            for records in slices.values()
        )

    def _report_lag(self, consumer: LogConsumer) -> None:
        """Set the lag of every partition assigned now and forget those that others have taken over."""
        gauge, assigned = self._metrics.consumer_lag_records, set(consumer.assignment())
        for partition in self._lagging - assigned:
            gauge.remove(partition.topic, str(partition.partition))
        self._lagging = assigned
        for partition in assigned:
            gauge.labels(partition.topic, str(partition.partition)).set(consumer.lag(partition))


def _seek_back(consumer: LogConsumer, partition: TopicPartition, records: Sequence[LogRecord]) -> None:
    """Have the records polled again, but for those that the log no longer holds.

    They were applied, by this worker in a part of the slice or by another, and trimmed since. Where all of them were,
    the consumer stands behind them already.
    """
    for record in records:
        try:
            consumer.seek(partition, record.offset)
        except CorruptedError:
            continue
        return
