"""The embedded log: segment files under one directory, one writing process, many appenders sharing a sync.

log.json              format, log id, partitions of each topic
lock                  held with flock while open; the holder's pid
<topic>-<partition>/  segments, named by their first offset
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from matyan.clock import Clock, SystemClock
from matyan.engines.disk import Disk, make_directory, unavailable
from matyan.engines.log.catalog import check_partitions, hold_lock, load_catalog
from matyan.engines.log.consumer import EmbeddedConsumer
from matyan.engines.log.partition import PartitionSettings
from matyan.engines.log.protocol import (
    Appended,
    LogConsumer,
    LogEngine,
    LogEntry,
    LogProducer,
    OnAssigned,
    TopicPartition,
)
from matyan.engines.log.storage import Storage
from matyan.engines.log.writer import AppendQueue, Request, Writer, request_bytes
from matyan.errors import MatyanError, TooLargeError
from matyan.limits import RECORD_BYTES_MAX

SEGMENT_BYTES: Final = 64 * 1024 * 1024
QUEUE_BYTES_MAX: Final = 64 * 1024 * 1024
TAIL_BYTES_MAX: Final = 8 * 1024 * 1024
"""Newest records kept in memory, per partition."""


def open_embedded_log(
    path: Path,
    *,
    partitions: Mapping[str, int] | int,
    segment_bytes: int = SEGMENT_BYTES,
    queue_bytes_max: int = QUEUE_BYTES_MAX,
    tail_bytes_max: int = TAIL_BYTES_MAX,
    clock: Clock | None = None,
    disk: Disk | None = None,
) -> LogEngine:
    """Open the log in a directory, creating it when there is none.

    Args:
        path: on a local disk; network file systems do not keep what this promises.
        partitions: of each topic, or one number for every topic that is ever named. Fixed for a log id; 0 is what a
            topic has, and 1 for a new one.
        segment_bytes: from this size on, records go to a new file; whole files are what `trim` can delete.
        queue_bytes_max: of records that wait for the disk; what comes on top is refused.
        tail_bytes_max: of the newest records, kept in memory, per partition.
        clock: for the records' timestamps.
        disk: for tests that make it fail.

    Raises:
        ConflictError: a process has the log open; the message names it.
        ConfigurationError: another number of partitions than stored.
        CorruptedError: something that was durable is damaged.
        UnavailableError: the disk is full or fails.
    """
    disk = disk or Disk()
    try:
        make_directory(disk, path)
        lock = hold_lock(path)
        try:
            catalog = load_catalog(path, disk)
            check_partitions(catalog, partitions)
            settings = PartitionSettings(
                disk=disk,
                log_id=bytes.fromhex(catalog.log_id),
                segment_bytes=segment_bytes,
                tail_bytes_max=tail_bytes_max,
            )
            storage = Storage(path, catalog, partitions, settings)
            return _EmbeddedLog(storage, lock, queue_bytes_max, clock or SystemClock())
        except BaseException:
            os.close(lock)
            raise
    except OSError as error:
        raise unavailable(error, "the log", path) from error


class _EmbeddedLog:
    """A LogEngine."""

    def __init__(self, storage: Storage, lock: int, queue_bytes_max: int, clock: Clock) -> None:
        self._storage = storage
        self._lock = lock
        self._clock = clock
        self._files = threading.Lock()
        """Held by whoever changes segment files."""
        self._producer = _EmbeddedProducer(storage, self._files, queue_bytes_max, clock)

    @property
    def log_id(self) -> str:
        return self._storage.log_id

    def partitions(self, topic: str) -> int:
        return len(self._storage.topic(topic).partitions)

    def producer(self) -> LogProducer:
        return self._producer

    def consumer(self, topic: str, group: str, on_assigned: OnAssigned) -> LogConsumer:
        return EmbeddedConsumer(self._storage.topic(topic), group, on_assigned)

    def start_offset(self, partition: TopicPartition) -> int:
        return self._storage.partition(partition).start_offset

    def trim(self, partition: TopicPartition, before_offset: int) -> int:
        found = self._storage.partition(partition)
        try:
            with self._files:
                return found.trim(before_offset, self._clock.now_seconds())
        except OSError as error:
            raise unavailable(error, "the log", self._storage.root) from error

    def close(self) -> None:
        if self._lock >= 0:
            self._producer.close()
            self._storage.close()
            os.close(self._lock)  # frees the lock
            self._lock = -1


class _EmbeddedProducer:
    """A LogProducer: checks and queues in the caller's thread, everything else happens in the writer's."""

    def __init__(self, storage: Storage, files: threading.Lock, queue_bytes_max: int, clock: Clock) -> None:
        self._storage = storage
        self._queue = AppendQueue(queue_bytes_max)
        self._queue_bytes_max = queue_bytes_max
        writer = Writer(self._queue, files, clock)
        # A daemon: a process that forgets to close must still be able to end.
        self._thread = threading.Thread(target=writer.run, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def may_repeat(self) -> bool:
        return False

    def append_many(self, topic: str, entries: Sequence[LogEntry]) -> Future[list[Appended]]:
        future: Future[list[Appended]] = Future()
        try:
            size_bytes = self._check(entries)
            self._queue.put(Request(self._storage.topic(topic), tuple(entries), size_bytes, future))
        except MatyanError as error:
            future.set_exception(error)
        return future

    def _check(self, entries: Sequence[LogEntry]) -> int:
        for key, value in entries:
            if len(key) + len(value) > RECORD_BYTES_MAX:
                raise TooLargeError(f"a record has {len(key) + len(value)} bytes, limit {RECORD_BYTES_MAX}")
        size_bytes = request_bytes(entries)
        if size_bytes > self._queue_bytes_max:
            # Would never fit, so "try again later" would be a lie.
            raise TooLargeError(f"one append has {size_bytes} bytes, the log's queue takes {self._queue_bytes_max}")
        return size_bytes

    def end_offset(self, partition: TopicPartition) -> int:
        return self._storage.partition(partition).end_offset

    def partition_of(self, topic: str, key: bytes) -> int:
        return self._storage.topic(topic).partition_of(key)

    @property
    def queued_bytes(self) -> int:
        """What was taken and is not durable yet."""
        return self._queue.size_bytes

    def abandon(self) -> None:
        """Do nothing: a disk confirms or refuses."""

    def close(self) -> None:
        self._queue.close()
        self._thread.join()
