"""EmbeddedConsumer: reads the partitions that its group leaves to it, from memory where it can."""

from __future__ import annotations

import time
from collections.abc import Sequence

from matyan.engines.log.partition import Partition
from matyan.engines.log.protocol import LogRecord, OnAssigned, TopicPartition
from matyan.engines.log.topic import Topic
from matyan.errors import CorruptedError, InvalidArgumentError, UnavailableError


class Cursor:
    """A place in a partition, with what was read ahead of it from a file."""

    def __init__(self, partition: Partition, offset: int | None) -> None:
        self._partition = partition
        self._ahead: list[LogRecord] = []
        self._offset = partition.start_offset
        if offset is not None:
            self.seek(offset)

    @property
    def lag(self) -> int:
        """How many durable records follow."""
        return self._partition.end_offset - self._offset

    def seek(self, offset: int) -> None:
        """Move.

        Raises:
            CorruptedError: the partition does not hold that place.
        """
        start, end = self._partition.start_offset, self._partition.end_offset
        if not start <= offset <= end:
            raise CorruptedError(
                f"{self._partition.directory.name} holds offsets {start} to {end}, {offset} is outside"
            )
        self._offset = offset
        self._ahead = []

    def read(self, records_max: int) -> list[LogRecord]:
        """Return the records that follow, at most so many, and move behind them."""
        if not self._ahead:
            if self._offset == self._partition.end_offset:
                return []
            self._ahead = self._partition.read(self._offset, records_max)
        found, self._ahead = self._ahead[:records_max], self._ahead[records_max:]
        self._offset += len(found)
        return found


class EmbeddedConsumer:
    """A LogConsumer. Partitions are taken and given up in `poll`."""

    def __init__(self, topic: Topic, group: str, on_assigned: OnAssigned) -> None:
        self._topic = topic
        self._group = topic.group(group)
        self._on_assigned = on_assigned
        self._cursors: dict[TopicPartition, Cursor] = {}
        self._generation = -1
        self._is_closed = False
        self._group.join(self)
        topic.announce()

    def assignment(self) -> Sequence[TopicPartition]:
        """Return the partitions assigned now; none before the first `poll`."""
        return sorted(self._cursors)

    def poll(self, *, records_max: int, timeout_seconds: float) -> dict[TopicPartition, list[LogRecord]]:
        """Return the next records of every assigned partition; see LogConsumer.

        Raises:
            UnavailableError: the log or the consumer is closed.
            CorruptedError: a file is damaged, or records at the position were deleted.
        """
        # Not the clock that is handed around: a wait ends by the machine's time whatever a test's clock says.
        deadline = time.monotonic() + timeout_seconds
        while True:
            if self._topic.is_closed or self._is_closed:
                raise UnavailableError("the log is closed")
            self._settle()
            found = {name: records for name, cursor in self._cursors.items() if (records := cursor.read(records_max))}
            remaining_seconds = deadline - time.monotonic()
            if found or remaining_seconds <= 0:
                return found
            self._topic.wait(self._has_news, remaining_seconds)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Continue at `offset`; see LogConsumer."""
        self._cursor(partition).seek(offset)

    def report(self, partition: TopicPartition, next_offset: int) -> None:
        """Do nothing: no tool reads the embedded log's lag from outside; `lag` knows it."""

    def lag(self, partition: TopicPartition) -> int:
        """Return how many durable records lie beyond the position."""
        return self._cursor(partition).lag

    def close(self) -> None:
        """Leave the group."""
        if not self._is_closed:
            self._is_closed = True
            self._cursors = {}
            self._group.leave(self)
            self._topic.announce()

    def _cursor(self, partition: TopicPartition) -> Cursor:
        try:
            return self._cursors[partition]
        except KeyError:
            raise InvalidArgumentError(f"partition {partition} is not assigned to this consumer") from None

    def _has_news(self) -> bool:
        return (
            self._topic.is_closed
            or self._generation != self._group.generation
            or any(cursor.lag for cursor in self._cursors.values())
        )

    def _settle(self) -> None:
        if self._generation == self._group.generation:
            return
        generation = self._group.generation
        held = [TopicPartition(self._topic.name, number) for number in self._group.settle(self)]
        if self._group.generation != generation:  # partitions were let go: others wait for them
            self._topic.announce()
        self._cursors = {name: cursor for name, cursor in self._cursors.items() if name in held}
        for name in held:
            if name not in self._cursors:
                start = self._on_assigned(name)
                self._cursors[name] = Cursor(self._topic.partitions[name.partition], start)
        # Last: when the callback fails, the next poll asks again.
        self._generation = generation
