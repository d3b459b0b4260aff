"""The log's only writer: takes everything that waits, makes it durable with one sync, resolves the futures."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final, NamedTuple

from matyan.clock import Clock
from matyan.engines.disk import unavailable
from matyan.engines.log.partition import Batch, Partition
from matyan.engines.log.protocol import Appended, LogEntry
from matyan.engines.log.topic import Topic
from matyan.errors import MatyanError, UnavailableError

logger = logging.getLogger(__name__)

GROUP_BYTES_MAX: Final = 8 * 1024 * 1024
"""A group takes requests until it passes this; bounds memory and how far a segment outgrows its size."""
GATHER_SECONDS_MAX: Final = 0.02
"""A group waits no longer for requests that are expected."""
_ENTRY_OVERHEAD_BYTES: Final = 100


class Request(NamedTuple):
    """One call of `append_many`."""

    topic: Topic
    entries: Sequence[LogEntry]
    size_bytes: int
    future: Future[list[Appended]]


def request_bytes(entries: Sequence[LogEntry]) -> int:
    """Return how much of the queue's bound the entries use."""
    return sum([len(key) + len(value) + _ENTRY_OVERHEAD_BYTES for key, value in entries])


class AppendQueue:
    """What waits for the writer, bounded by bytes; what the writer works on counts too."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._waiting: deque[Request] = deque()
        self._wake = threading.Condition(threading.Lock())
        self._enough = 0
        """How many waiting requests wake the writer; 0 while it is awake."""
        self._is_closed = False

    def put(self, request: Request) -> None:
        """Queue a request; microseconds, since event loops call it.

        Raises:
            UnavailableError: the queue is full or closed.
        """
        with self._wake:
            if self._is_closed:
                raise UnavailableError("the log is closed")
            if self._bytes + request.size_bytes > self._bytes_max:
                raise UnavailableError(
                    f"the log's queue is full: {self._bytes} of {self._bytes_max} bytes wait for the disk; "
                    "try again later"
                )
            self._bytes += request.size_bytes
            self._waiting.append(request)
            if self._enough and self._is_due(self._enough):
                self._enough = 0
                self._wake.notify()

    @property
    def size_bytes(self) -> int:
        """What waits and what the writer works on."""
        return self._bytes

    def take(self, expected: int = 1, until_seconds: float = 0.0) -> list[Request]:
        """Return the next group, waiting for it; empty when the queue is closed and used up.

        Args:
            expected: how many requests are worth waiting for.
            until_seconds: from when on one is enough, by `time.monotonic`.
        """
        with self._wake:
            if expected > 1 and (seconds := until_seconds - time.monotonic()) > 0:
                self._wait_for(expected, seconds)
            self._wait_for(1, None)
            group: list[Request] = []
            group_bytes = 0
            while self._waiting and group_bytes < GROUP_BYTES_MAX:
                group.append(self._waiting.popleft())
                group_bytes += group[-1].size_bytes
            return group

    def _wait_for(self, count: int, seconds_max: float | None) -> None:
        self._enough = count
        self._wake.wait_for(lambda: self._is_due(count), seconds_max)
        self._enough = 0

    def _is_due(self, count: int) -> bool:
        """Tell whether so many requests wait, or a whole group of bytes: the queue must not fill up meanwhile."""
        return self._is_closed or len(self._waiting) >= count or self._bytes >= GROUP_BYTES_MAX

    def release(self, group: Sequence[Request]) -> None:
        """Free the room of requests that are settled."""
        with self._wake:
            self._bytes -= sum(request.size_bytes for request in group)

    def close(self) -> None:
        """Accept nothing more."""
        with self._wake:
            self._is_closed = True
            self._wake.notify()


class Pace:
    """Decides how long the next group gathers requests, by the groups before.

    Clients wait for their replies, so a run that has appended lately will soon append again, and a sync costs the same
    for one record and for many. A run that is alone is never kept waiting, nor is the first after a pause.
    """

    def __init__(self) -> None:
        self.expected = 1
        """How many requests are likely to come: one of each run in the last two groups."""
        self.until_seconds = 0.0
        """How long they are waited for, by `time.monotonic`: once more as long as the last group took."""
        self._keys: set[bytes] = set()

    def note(self, group: Sequence[Request], begin_seconds: float, end_seconds: float) -> None:
        """Take note of a group that was committed or refused in this time."""
        keys = {entry.key for request in group for entry in request.entries}
        self.expected = len(keys | self._keys)
        self.until_seconds = end_seconds + min(end_seconds - begin_seconds, GATHER_SECONDS_MAX)
        self._keys = keys


class Writer:
    """Runs in a thread of its own until the queue is closed and empty."""

    def __init__(self, queue: AppendQueue, files: threading.Lock, clock: Clock) -> None:
        self._queue = queue
        self._files = files
        self._clock = clock
        self._pace = Pace()
        self._is_failing = False

    def run(self) -> None:
        """Commit group after group."""
        while group := self._queue.take(self._pace.expected, self._pace.until_seconds):
            begin_seconds = time.monotonic()
            # Somebody may have cancelled the future while it waited; from here on nobody can.
            live = [request for request in group if request.future.set_running_or_notify_cancel()]
            try:
                with self._files:
                    results = self._commit(live)
            except Exception as error:  # noqa: BLE001 (a dead writer would leave every later append waiting for ever)
                self._queue.release(group)
                self._fail(live, error)
            else:
                self._queue.release(group)
                self._is_failing = False
                for request, appended in zip(live, results, strict=True):
                    request.future.set_result(appended)
            self._pace.note(group, begin_seconds, time.monotonic())

    def _commit(self, group: Sequence[Request]) -> list[list[Appended]]:
        batches: dict[Partition, Batch] = {}
        results = self._assign(group, batches)
        try:
            for partition, batch in batches.items():
                partition.write(batch)
            for partition in batches:
                partition.sync()
        except BaseException as error:
            # All or nothing: a request may span partitions, and a refused one must never be read.
            for partition in batches:
                partition.roll_back()
            if isinstance(error, OSError):
                raise unavailable(error, "the log", partition.directory.parent) from error
            raise
        for partition, batch in batches.items():
            partition.publish(batch)
        for topic in {request.topic for request in group}:
            topic.announce()
        return results

    def _assign(self, group: Sequence[Request], batches: dict[Partition, Batch]) -> list[list[Appended]]:
        now_ms = int(self._clock.now_seconds() * 1000)
        results = []
        for request in group:
            appended = []
            for key, value in request.entries:
                number = request.topic.partition_of(key)
                partition = request.topic.partitions[number]
                batch = batches.get(partition)
                if batch is None:
                    batch = batches[partition] = partition.begin(now_ms)
                appended.append(Appended(number, batch.add(key, value)))
            results.append(appended)
        return results

    def _fail(self, group: Sequence[Request], error: Exception) -> None:
        if not self._is_failing:  # said once, or the log file of a full disk would fill it further
            logger.error("appends to the log fail", exc_info=error)
        self._is_failing = True
        if not isinstance(error, MatyanError):
            error = UnavailableError(f"the log cannot take records: {error}")
        for request in group:
            request.future.set_exception(error)
