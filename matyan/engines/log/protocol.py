"""LogProducer, LogConsumer, LogRecord: the contract of a partitioned, durable log, in words.

Terms are Kafka's: topic, partition, offset, key, record, lag. All records of one key go to one partition, in the
order in which they were appended by one producer.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final, NamedTuple, Protocol

from matyan.errors import InvalidArgumentError, TooLargeError

REFUSALS: Final = (TooLargeError, InvalidArgumentError)
"""What an append fails with for what is appended: it would again. Of several entries any one may be to blame."""


class TopicPartition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


class LogEntry(NamedTuple):
    """What a producer appends."""

    key: bytes
    value: bytes


class LogRecord(NamedTuple):
    """What a consumer reads."""

    offset: int
    timestamp_ms: int
    """When the log took it in: milliseconds since 1970-01-01 UTC."""
    key: bytes
    value: bytes


class Appended(NamedTuple):
    """Where a record came to stand."""

    partition: int
    offset: int | None
    """None when that is not known yet: the record is kept elsewhere until the log takes it."""


class LogProducer(Protocol):
    """Appends records. Shared by all threads."""

    @property
    def may_repeat(self) -> bool:
        """Whether consumers may read a record more than once that was appended once.

        Then whoever appends gives each record an identity, and whoever reads leaves out what it has read before.
        """

    def append_many(self, topic: str, entries: Sequence[LogEntry]) -> Future[list[Appended]]:
        """Queue the entries and return at once; the future is done when all of them are durable.

        Durable: they survive the loss of power (embedded) or are acknowledged by all in-sync replicas (Kafka).
        The future fails with UnavailableError when the log cannot take them now (disk full, broker down, the bounded
        queue is full): then none of them will ever be read, save that Kafka may have written what it did not
        acknowledge in time. It fails with TooLargeError, likewise, for an entry over
        RECORD_BYTES_MAX. Futures are resolved in a thread of the engine: callbacks must be short.
        """

    def end_offset(self, partition: TopicPartition) -> int:
        """Return the offset that the next durable record will get."""

    def partition_of(self, topic: str, key: bytes) -> int:
        """Return the partition that records of this key go to."""

    def abandon(self) -> None:
        """Make the appends fail soon that the log has not confirmed, and return at once; later ones are taken again.

        Of the abandoned records of a partition the log may write the first few or all of them, in their order, and no
        others. An engine whose appends end soon by themselves does nothing.
        """

    def close(self) -> None:
        """Make durable what is queued, then release everything."""


class LogConsumer(Protocol):
    """Reads durable records of its assigned partitions, in order. Belongs to one thread."""

    def assignment(self) -> Sequence[TopicPartition]:
        """Return the partitions assigned now."""

    def poll(self, *, records_max: int, timeout_seconds: float) -> dict[TopicPartition, list[LogRecord]]:
        """Return the next records of every assigned partition, at most `records_max` of each.

        Waits up to `timeout_seconds` for the first. A newly assigned partition is first handed to the
        `on_assigned` callback given at opening, which says where to start: `(partition) -> offset | None`
        (None: the log's start).
        """

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Continue at `offset`.

        Raises:
            CorruptedError: the log no longer holds that offset, or does not hold it yet beyond its end.
        """

    def report(self, partition: TopicPartition, next_offset: int) -> None:
        """Say how far the work is done. For lag tools only: positions are kept by the store."""

    def lag(self, partition: TopicPartition) -> int:
        """Return how many durable records lie beyond the position."""

    def close(self) -> None:
        """Leave; other consumers may take the partitions."""


class LogEngine(Protocol):
    """A log: opened once per process."""

    @property
    def log_id(self) -> str:
        """A random identity made when the log was created; a fresh log never has an old log's."""

    def partitions(self, topic: str) -> int:
        """Return how many partitions the topic has; fixed for a log id."""

    def producer(self) -> LogProducer:
        """Return the shared producer."""

    def consumer(self, topic: str, group: str, on_assigned: OnAssigned) -> LogConsumer:
        """Open a consumer of all partitions of `topic` that the group leaves to it."""

    def start_offset(self, partition: TopicPartition) -> int:
        """Return the offset of the oldest record kept (equals the end offset when there is none)."""

    def trim(self, partition: TopicPartition, before_offset: int) -> int:
        """Delete whole segments that lie before `before_offset`; return the bytes freed, 0 if the log cannot tell."""

    def close(self) -> None:
        """Release everything."""


def partitions_of(log: LogEngine, topic: str) -> list[TopicPartition]:
    """Return every partition of a topic."""
    return [TopicPartition(topic, number) for number in range(log.partitions(topic))]


class OnAssigned(Protocol):
    """Where to start reading a partition."""

    def __call__(self, partition: TopicPartition) -> int | None:
        """Return the offset to begin with, or None for the log's start."""
