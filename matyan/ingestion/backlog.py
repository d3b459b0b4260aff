"""What is durable but not yet applied: the gateway holds replies back rather than outrun the workers."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Final, NamedTuple

from matyan.clock import Clock, SystemClock

BYTES_HIGH: Final = 4 * 1024 * 1024
SECONDS_HIGH: Final = 0.15
"""Age of the oldest record that is not applied; a healthy worker commits every 50 ms."""
SECONDS_STUCK: Final = 10.0
"""From this age on new connections are refused: the workers have stopped, not slowed down."""


class _Waiting(NamedTuple):
    partition: int
    offset: int
    size_bytes: int
    since_seconds: float


class Backlog:
    """Records on their way from the log to the store. Any thread may call it; waiting is done on an event loop."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._records: deque[_Waiting] = deque()
        self._applied: dict[int, int] = {}
        self._bytes = 0
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    @property
    def size_bytes(self) -> int:
        """Bytes appended and not applied."""
        return self._bytes

    def age_seconds(self) -> float:
        """Return how long the oldest record has been waiting; 0 when none is."""
        with self._lock:
            return self._clock.monotonic_seconds() - self._records[0].since_seconds if self._records else 0.0

    def is_high(self) -> bool:
        """Return whether replies are to be held back."""
        return self._bytes > BYTES_HIGH or self.age_seconds() > SECONDS_HIGH

    def is_stuck(self) -> bool:
        """Return whether the workers do not move at all."""
        return self.age_seconds() > SECONDS_STUCK

    def appended(self, partition: int, offset: int, size_bytes: int) -> None:
        """Note that a record is durable. It may have been applied before this is called."""
        with self._lock:
            if offset < self._applied.get(partition, 0):
                return
            self._records.append(_Waiting(partition, offset, size_bytes, self._clock.monotonic_seconds()))
            self._bytes += size_bytes

    def applied(self, partition: int, next_offset: int) -> None:
        """Note that everything of a partition below `next_offset` is visible."""
        with self._lock:
            self._applied[partition] = next_offset
            left = deque(
                record for record in self._records if record.partition != partition or record.offset >= next_offset
            )
            self._records, self._bytes = left, sum(record.size_bytes for record in left)
            waiters = tuple(self._waiters)
        for loop, event in waiters:
            loop.call_soon_threadsafe(event.set)

    async def until_low(self, timeout_seconds: float) -> None:
        """Return when replies may go out again, or when the time is up."""
        event = asyncio.Event()
        waiter = (asyncio.get_running_loop(), event)
        with self._lock:
            self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.is_high():
                    await event.wait()
                    event.clear()
        except TimeoutError:
            pass
        finally:
            with self._lock:
                self._waiters.discard(waiter)
