"""A log that goes away on command, as Kafka does: it hangs, refuses, comes back, writes what it did not confirm."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from matyan.engines.log.protocol import Appended, LogEntry, LogProducer, TopicPartition
from matyan.errors import MatyanError, TooLargeError, UnavailableError

Pending = tuple[str, tuple[LogEntry, ...], Future[list[Appended]]]


class WaywardProducer:
    """A LogProducer in front of a real one.

    What is abandoned stays on its way like requests in the network: some of it, in order, is written at some later
    time by `drip`, and nobody is told.
    """

    def __init__(self, inner: LogProducer) -> None:
        self._inner = inner
        self.state = "up"
        self.abandoned = 0
        """How often `abandon` was called."""
        self.refuses: Callable[[LogEntry], bool] = lambda _: False
        """Which records are too large for the topic."""
        self._pending: deque[Pending] = deque()
        self._limbo: deque[tuple[str, tuple[LogEntry, ...]]] = deque()

    @property
    def may_repeat(self) -> bool:
        return False

    @property
    def limbo(self) -> int:
        """How much is on its way that nobody waits for."""
        return len(self._limbo)

    def append_many(self, topic: str, entries: Sequence[LogEntry]) -> Future[list[Appended]]:
        if self.state == "up" and any(map(self.refuses, entries)):
            return _failed(TooLargeError("the record is too large for its topic"))
        if self.state == "up":
            return self._inner.append_many(topic, entries)
        if self.state == "down":
            return _failed(UnavailableError("no broker answers"))
        future: Future[list[Appended]] = Future()
        self._pending.append((topic, tuple(entries), future))
        return future

    def hang(self) -> None:
        """Take what comes and confirm nothing."""
        self.state = "hung"

    def go_down(self) -> None:
        """Refuse what comes; nothing that was taken before is confirmed."""
        self.state = "down"
        self.abandon()

    def come_back(self) -> None:
        """Work; what hung and was not abandoned is written and confirmed late."""
        self.state = "up"
        while self._pending:
            topic, entries, future = self._pending.popleft()
            if any(map(self.refuses, entries)):
                future.set_exception(TooLargeError("the record is too large for its topic"))
            else:
                future.set_result(self._inner.append_many(topic, entries).result())

    def abandon(self) -> None:
        self.abandoned += 1
        if self.state == "hung":
            self.state = "down"
        pending, self._pending = self._pending, deque()
        self._limbo.extend((topic, entries) for topic, entries, _ in pending)
        for _, _, future in pending:
            future.set_exception(UnavailableError("the append was given up"))

    def drip(self, count: int) -> None:
        """Write some of what was abandoned."""
        for _ in range(min(count, len(self._limbo))):
            self._inner.append_many(*self._limbo.popleft()).result()

    def lose_limbo(self) -> None:
        """What was abandoned and is not written yet never is."""
        self._limbo.clear()

    def end_offset(self, partition: TopicPartition) -> int:
        if self.state != "up":
            raise UnavailableError("no broker answers")
        return self._inner.end_offset(partition)

    def partition_of(self, topic: str, key: bytes) -> int:
        return self._inner.partition_of(topic, key)

    def close(self) -> None:
        self._inner.close()


def _failed(error: MatyanError) -> Future[list[Appended]]:
    future: Future[list[Appended]] = Future()
    future.set_exception(error)
    return future
