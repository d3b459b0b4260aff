"""A topic of the embedded log: its partitions, its consumer groups, and the signal that something is new."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Sequence

from matyan.engines.log.partition import Partition


class Group:
    """Shares the partitions of one topic among the consumers of one group, as Kafka does.

    A partition changes hands only when its holder lets go of it in a call of its own, so two consumers of a group never
    hold one partition at the same time.
    """

    def __init__(self, partition_count: int) -> None:
        self._lock = threading.Lock()
        self._count = partition_count
        self._members: list[object] = []
        self._holders: dict[int, object] = {}
        self.generation = 0
        """Changes whenever `settle` may give another answer."""

    def join(self, member: object) -> None:
        """Take a consumer in."""
        with self._lock:
            self._members.append(member)
            self.generation += 1

    def leave(self, member: object) -> None:
        """Free everything that the consumer holds."""
        with self._lock:
            self._members.remove(member)
            self._holders = {number: holder for number, holder in self._holders.items() if holder is not member}
            self.generation += 1

    def settle(self, member: object) -> list[int]:
        """Return the partitions that the consumer holds from now on."""
        with self._lock:
            members = self._members
            share = {n for n in range(self._count) if members[n % len(members)] is member}
            surplus = [n for n, holder in self._holders.items() if holder is member and n not in share]
            for number in surplus:
                del self._holders[number]
            if surplus:
                self.generation += 1
            for number in share:
                self._holders.setdefault(number, member)
            return sorted(n for n in share if self._holders[n] is member)


class Topic:
    """What producer and consumers of a topic have in common."""

    def __init__(self, name: str, partitions: Sequence[Partition]) -> None:
        self.name = name
        self.partitions = partitions
        self.is_closed = False
        self._news = threading.Condition(threading.Lock())
        self._groups: dict[str, Group] = {}

    def partition_of(self, key: bytes) -> int:
        """Return the number of the key's partition; the same for ever, since stored records rest on it."""
        return zlib.crc32(key) % len(self.partitions)

    def group(self, name: str) -> Group:
        """Return the consumer group of this name."""
        with self._news:
            return self._groups.setdefault(name, Group(len(self.partitions)))

    def announce(self) -> None:
        """Wake whoever waits."""
        with self._news:
            self._news.notify_all()

    def wait(self, has_news: Callable[[], bool], timeout_seconds: float) -> None:
        """Return at an announcement, after the time, or at once when `has_news` says so."""
        with self._news:
            # Asked under the lock: news that come after this question wait for the lock, then wake us.
            if not has_news():
                self._news.wait(timeout_seconds)

    def close(self) -> None:
        """End every wait."""
        self.is_closed = True
        self.announce()
