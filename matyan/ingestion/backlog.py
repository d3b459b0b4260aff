"""What is durable but not yet applied: the gateway holds replies back rather than outrun the workers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from matyan.clock import Clock, SystemClock

BYTES_HIGH: Final = 8 * 1024 * 1024
"""Of frames as clients sent them, uncompressed: what the worker's time depends on."""
BYTES_LOW: Final = BYTES_HIGH // 2
SECONDS_NEAR: Final = 0.25
"""Age of the oldest record that is not applied. A healthy worker begins a slice every 50 to 100 ms, the longer the more
of that time it works: by that alone a record gets up to 0.2 s old."""
SECONDS_FAR: Final = 0.5
"""Likewise where a broker stands in between and what workers did is seen a moment later."""
SECONDS_STUCK: Final = 10.0
"""From this age on new connections are refused: the workers have stopped, not slowed down."""
RECORDS_MAX: Final = 10_000
"""Records kept apart, per partition; when the worker stands still, later ones are counted with the newest of these."""


class _Waiting(NamedTuple):
    offset: int
    size_bytes: int
    since_seconds: float


class Backlog:
    """Records on their way from the log to the store. Any thread may call it; waiting is done on an event loop."""

    def __init__(self, clock: Clock | None = None, *, seconds_high: float = SECONDS_NEAR) -> None:
        """Make it; replies are held back from an age of `seconds_high` on, and go out again from half of it on."""
        self._clock = clock or SystemClock()
        self._seconds_high = seconds_high
        self._lock = threading.Lock()
        self._waiting: dict[int, deque[_Waiting]] = {}
        """Partition -> its records by offset; no empty ones."""
        self._applied: dict[int, int] = {}
        self._bytes = 0
        self._watchers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    @property
    def size_bytes(self) -> int:
        """Bytes appended and not applied."""
        return self._bytes

    @property
    def is_empty(self) -> bool:
        """Whether everything appended is applied."""
        return not self._waiting

    def age_seconds(self) -> float:
        """Return how long the oldest record has been waiting; 0 when none is."""
        with self._lock:
            return self._age_seconds()

    def is_high(self) -> bool:
        """Return whether replies are to be held back from now on."""
        return self._bytes > BYTES_HIGH or self.age_seconds() > self._seconds_high

    def is_low(self) -> bool:
        """Return whether held replies may go out again; between high and low, neither begins nor ends it."""
        with self._lock:
            return self._is_low()

    def is_stuck(self) -> bool:
        """Return whether the workers do not move at all."""
        return self.age_seconds() > SECONDS_STUCK

    def appended(self, partition: int, offset: int, size_bytes: int) -> None:
        """Note that a record is durable. It may have been applied before this is called."""
        now = self._clock.monotonic_seconds()
        with self._lock:
            if offset < self._applied.get(partition, 0):
                return
            records = self._waiting.setdefault(partition, deque())
            if len(records) >= RECORDS_MAX:
                newest = records.pop()
                records.append(newest._replace(offset=offset, size_bytes=newest.size_bytes + size_bytes))
            else:
                records.append(_Waiting(offset, size_bytes, now))
            self._bytes += size_bytes

    def applied(self, partition: int, next_offset: int) -> None:
        """Note that everything of a partition below `next_offset` is visible."""
        with self._lock:
            self._applied[partition] = max(next_offset, self._applied.get(partition, 0))
            records = self._waiting.get(partition)
            while records and records[0].offset < next_offset:
                self._bytes -= records.popleft().size_bytes
            if records is not None and not records:
                del self._waiting[partition]
            watchers = tuple(self._watchers) if self._watchers and self._is_low() else ()
        for loop, event in watchers:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(event.set)

    @contextlib.contextmanager
    def watching(self, event: asyncio.Event) -> Iterator[None]:
        """Set `event`, on the running loop, whenever the backlog is found low, until the block is left."""
        watcher = (asyncio.get_running_loop(), event)
        with self._lock:
            self._watchers.add(watcher)
        try:
            yield
        finally:
            with self._lock:
                self._watchers.discard(watcher)

    def _age_seconds(self) -> float:
        oldest = min((records[0].since_seconds for records in self._waiting.values()), default=None)
        return 0.0 if oldest is None else self._clock.monotonic_seconds() - oldest

    def _is_low(self) -> bool:
        return self._bytes <= BYTES_LOW and self._age_seconds() <= self._seconds_high / 2
