"""What tests of the log have in common: appending, reading all, and a disk that fails on demand."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from matyan.engines.disk import Disk
from matyan.engines.log.protocol import Appended, LogEngine, LogEntry, LogRecord, TopicPartition

TOPIC = "data"
ONLY = TopicPartition(TOPIC, 0)
SECONDS = 20.0
"""How long a test waits for what must come."""


def append(log: LogEngine, *values: bytes, key: bytes = b"run", topic: str = TOPIC) -> list[Appended]:
    """Append values under one key and wait until they are durable."""
    entries = [LogEntry(key, value) for value in values]
    return log.producer().append_many(topic, entries).result(SECONDS)


def read_all(log: LogEngine, partition: TopicPartition = ONLY, *, begin: int | None = None) -> list[LogRecord]:
    """Return every durable record of a partition, by a consumer of its own group."""
    consumer = log.consumer(partition.topic, f"reader-{time.monotonic_ns()}", lambda _: None)
    found: list[LogRecord] = []
    try:
        first = consumer.poll(records_max=1, timeout_seconds=0)
        start = log.start_offset(partition) if begin is None else begin
        if first or partition in consumer.assignment():
            consumer.seek(partition, start)
        while consumer.lag(partition):
            found += consumer.poll(records_max=500, timeout_seconds=0).get(partition, [])
        return found
    finally:
        consumer.close()


def values_of(records: Sequence[LogRecord]) -> list[bytes]:
    """Return the records' values."""
    return [record.value for record in records]


class FailingDisk(Disk):
    """A disk whose next calls fail as told; everything else is real."""

    def __init__(self) -> None:
        self.failures: dict[str, list[int]] = {}
        """Name of a method to the error numbers that its next calls fail with."""
        self.before_sync: Callable[[], None] = lambda: None
        self.syncs = 0

    def fail(self, method: str, error: int = errno.ENOSPC, *, times: int = 1) -> None:
        """Let the next calls of a method fail."""
        self.failures.setdefault(method, []).extend([error] * times)

    def write(self, fd: int, data: bytes, position: int) -> None:
        """Write; a failing one leaves half of the data behind, as a disk does that fills up."""
        if self.failures.get("write"):
            super().write(fd, data[: len(data) // 2], position)
        self._maybe_fail("write")
        super().write(fd, data, position)

    def sync(self, fd: int) -> None:
        """Sync."""
        self.syncs += 1
        self.before_sync()
        self._maybe_fail("sync")
        super().sync(fd)

    def truncate(self, fd: int, size_bytes: int) -> None:
        """Cut."""
        self._maybe_fail("truncate")
        super().truncate(fd, size_bytes)

    def sync_directory(self, path: Path) -> None:
        """Sync a directory."""
        self._maybe_fail("sync_directory")
        super().sync_directory(path)

    def _maybe_fail(self, method: str) -> None:
        if self.failures.get(method):
            number = self.failures[method].pop(0)
            raise OSError(number, errno.errorcode[number])
