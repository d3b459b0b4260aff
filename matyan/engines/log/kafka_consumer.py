"""KafkaLogConsumer: a member of a consumer group that starts each partition where the store says, not the broker."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from kafka import ConsumerRebalanceListener, KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError, OffsetOutOfRangeError
from kafka.structs import OffsetAndMetadata
from kafka.structs import TopicPartition as KafkaPartition

from matyan.engines.log.kafka_client import milliseconds, translate, translate_at_start
from matyan.engines.log.kafka_cluster import KafkaCluster
from matyan.engines.log.kafka_topics import KafkaTopics
from matyan.engines.log.protocol import LogRecord, OnAssigned, TopicPartition
from matyan.errors import CorruptedError, InvalidArgumentError, UnavailableError
from matyan.settings import KafkaSettings

SETTLE_SECONDS: Final = 2.0
"""A poll may outlast its timeout by this when the consumer is new to a group, a partition or a place: joining a group
takes several round trips, and a poll that came back before them would say "nothing there" of records that are."""
SLICE_SECONDS: Final = 0.1
"""How long a closing of the log may go unnoticed by a poll."""
OUTAGE_SECONDS: Final = 10.0
COMMIT_SECONDS: Final = 1.0
CLOSE_SECONDS: Final = 2.0
HEARTBEAT_SECONDS_MAX: Final = 3.0
FETCH_SECONDS: Final = 0.1
"""How long a broker may hold back an answer for want of records. What is asked for next, such as a partition just
assigned, waits for that answer."""
_ALL: Final = 1_000_000
"""More than what the client has fetched, which is bounded in bytes; taken in whole, no partition hides another."""


def open_consumer(
    options: Mapping[str, Any], settings: KafkaSettings, group: str, listener: ConsumerRebalanceListener, topic: str
) -> KafkaConsumer:
    """Open kafka-python's consumer as a member of a group; `group` and `topic` as the cluster calls them.

    Raises:
        ConfigurationError: the brokers refuse us.
        UnavailableError: they do not answer.
    """
    heartbeat_seconds = min(HEARTBEAT_SECONDS_MAX, settings.session_seconds / 3)
    try:
        client = KafkaConsumer(
            **options,
            group_id=group,
            group_instance_id=settings.instance or None,
            partition_assignment_strategy=(CooperativeStickyAssignor,),
            session_timeout_ms=milliseconds(settings.session_seconds),
            heartbeat_interval_ms=milliseconds(heartbeat_seconds),
            fetch_max_wait_ms=milliseconds(FETCH_SECONDS),
            max_poll_interval_ms=milliseconds(settings.handling_seconds),
            enable_auto_commit=False,
            auto_offset_reset="none",
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )
        client.subscribe([topic], listener=listener)
        # Whoever divides the partitions must have heard of them before it joins.
        client.bootstrap(timeout_ms=milliseconds(settings.connect_seconds), refresh=True)
    except KafkaError as error:
        raise translate_at_start(error, "opening a consumer") from error
    return client


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # kafka-python ships no types
    """Notes what the group gives and takes. Called in the client's own thread, where nothing may block."""

    def __init__(self) -> None:
        self.client: KafkaConsumer | None = None
        self.changes: deque[tuple[Callable[[_Cursors, KafkaPartition], None], KafkaPartition]] = deque()
        self.has_joined = False

    def on_partitions_assigned(self, assigned: Collection[KafkaPartition]) -> None:
        """Hold the new partitions until the consumer's thread knows where to start."""
        assert self.client is not None, "set before the group is joined"
        for partition in sorted(assigned):
            self.client.pause(partition)
            # Any place will do: without one the client would ask the broker for its own.
            self.client.seek(partition, 0)
            self.changes.append((_Cursors.gain, partition))
        self.has_joined = True

    def on_partitions_revoked(self, revoked: Collection[KafkaPartition]) -> None:
        """Forget partitions that go to another consumer."""
        self.changes.extend((_Cursors.lose, partition) for partition in revoked)

    def on_partitions_lost(self, lost: Collection[KafkaPartition]) -> None:
        """Forget partitions that another consumer may have already."""
        self.on_partitions_revoked(lost)


class _Cursor:
    """A place in a partition, with what was fetched ahead of it."""

    def __init__(self) -> None:
        self.offset = -1
        """Of the next record to hand out; -1 until that is known."""
        self.ahead: deque[LogRecord] = deque()
        self.start_known = self.end_known = 0
        """The newest known bounds of the partition."""

    def move(self, offset: int) -> None:
        """Continue there."""
        self.offset = offset
        self.ahead.clear()

    def put(self, records: Iterable[LogRecord]) -> None:
        """Add what was fetched next."""
        self.ahead.extend(records)
        if self.ahead:
            self.end_known = max(self.end_known, self.ahead[-1].offset + 1)

    def take(self, records_max: int) -> list[LogRecord]:
        """Return the records that follow, at most so many, and move behind them."""
        found = [self.ahead.popleft() for _ in range(min(records_max, len(self.ahead)))]
        if found:
            self.offset = found[-1].offset + 1
        return found


class _Cursors(dict[KafkaPartition, _Cursor]):
    """The cursors of the partitions assigned."""

    def gain(self, partition: KafkaPartition) -> None:
        """Take a partition in; it has no place yet."""
        self[partition] = _Cursor()

    def lose(self, partition: KafkaPartition) -> None:
        """Let a partition go."""
        self.pop(partition, None)


class KafkaLogConsumer:
    """A LogConsumer. Its methods are called by one thread; only closing the log interferes, between two slices."""

    def __init__(
        self, cluster: KafkaCluster, topics: KafkaTopics, settings: KafkaSettings, topic: str, group: str,
        on_assigned: OnAssigned,
    ) -> None:  # fmt: skip
        topics.partitions(topic)  # opens it
        self._cluster = cluster
        self._topics = topics
        self._on_assigned = on_assigned
        self._listener = _Listener()
        self._client = open_consumer(
            cluster.options, settings, topics.full_name(f"{group}.{topic}"), self._listener, topics.full_name(topic)
        )
        self._listener.client = self._client
        self._cursors = _Cursors()
        self._turn = threading.Lock()
        """Held while the client works: it is closed between two calls only."""
        self._is_closed = False
        self._settles_until = -1.0
        self._asks_from = 0.0
        """Until then the brokers' bounds are not asked for, since they did not answer a moment ago."""
        self._reported: dict[KafkaPartition, int] = {}
        self._commit_due = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether it has left."""
        return self._is_closed

    def assignment(self) -> Sequence[TopicPartition]:
        """Return the partitions assigned now; none before the first `poll`."""
        return sorted(self._topics.own(name) for name, cursor in self._cursors.items() if cursor.offset >= 0)

    def poll(self, *, records_max: int, timeout_seconds: float) -> dict[TopicPartition, list[LogRecord]]:
        """Return the next records of every assigned partition; see LogConsumer.

        Raises:
            UnavailableError: the log or the consumer is closed, or the brokers refuse us. While they only do not
                answer, nothing is found.
            CorruptedError: records at the position were deleted or are damaged.
        """
        deadline = time.monotonic() + timeout_seconds
        if self._settles_until < 0:
            self._unsettle()
        while True:
            with self._turn:
                self._check_open()
                self._fetch(records_max, deadline)
                if self._is_enough(deadline):
                    taken = {self._topics.own(name): self._take(name, records_max) for name in sorted(self._cursors)}
                    return {name: records for name, records in taken.items() if records}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Continue at `offset`; see LogConsumer. While the brokers do not answer, any end is believed.

        The store may know of records that another worker has read and this one has not heard of.
        """
        name, cursor = self._cursor(partition)
        if not self._refresh_bounds(name, cursor):
            cursor.end_known = max(cursor.end_known, offset)
        self._move(name, cursor, offset)

    def report(self, partition: TopicPartition, next_offset: int) -> None:
        """Say how far the work is done; the group's offsets at the broker follow within a second or two."""
        name, _ = self._cursor(partition)
        self._reported[name] = next_offset

    def lag(self, partition: TopicPartition) -> int:
        """Return how many durable records lie beyond the position, by the newest known end."""
        name, cursor = self._cursor(partition)
        self._refresh_bounds(name, cursor)
        return max(0, cursor.end_known - cursor.offset)

    def close(self) -> None:
        """Leave the group. From another thread: when the call at work comes back."""
        with self._turn:
            if self._is_closed:
                return
            self._is_closed = True
            self._cursors.clear()
            with contextlib.suppress(KafkaError):
                self._commit()
                self._client.close(autocommit=False, timeout_ms=milliseconds(CLOSE_SECONDS))

    def _check_open(self) -> None:
        self._cluster.check_open()
        if self._is_closed:
            raise UnavailableError("the consumer is closed")

    def _cursor(self, partition: TopicPartition) -> tuple[KafkaPartition, _Cursor]:
        name = KafkaPartition(self._topics.full_name(partition.topic), partition.partition)
        cursor = self._cursors.get(name)
        if cursor is None or cursor.offset < 0:
            raise InvalidArgumentError(f"partition {partition} is not assigned to this consumer")
        return name, cursor

    def _unsettle(self) -> None:
        self._settles_until = time.monotonic() + SETTLE_SECONDS

    # ---- fetching

    def _fetch(self, records_max: int, deadline: float) -> None:
        """Take in what the client has, waiting a slice for it when nothing is there to be handed out."""
        self._hold_back(records_max)
        if self._has_records():
            wait_seconds = 0.0 if self._has_asked_all() else SLICE_SECONDS / 10
        else:
            until = deadline if self._is_settled() else max(deadline, self._settles_until)
            wait_seconds = min(SLICE_SECONDS, max(0.0, until - time.monotonic()))
        try:
            found = self._client.poll(timeout_ms=milliseconds(wait_seconds), max_records=_ALL)
            self._commit_when_due()
        except OffsetOutOfRangeError as error:
            found = self._forget_places(error)
        except KafkaError as error:
            raise translate(error, "reading") from error
        self._apply_changes()
        for name, records in found.items():
            if (cursor := self._cursors.get(name)) is not None and cursor.offset >= 0:
                cursor.put(
                    LogRecord(record.offset, record.timestamp, record.key or b"", record.value or b"")
                    for record in records
                )
        self._start_new()

    def _forget_places(self, error: OffsetOutOfRangeError) -> dict[KafkaPartition, list[Any]]:
        """Let `_start_new` ask anew where to read on; nothing was found.

        A worker that stood still wakes with a place whose records another one has applied and deleted since.
        """
        for name in error.args[0]:
            if (cursor := self._cursors.get(name)) is not None:
                cursor.move(-1)
        return {}

    def _hold_back(self, records_max: int) -> None:
        """Fetch no more of partitions of which there is enough, so that memory is bounded and others get through."""
        assigned = self._client.assignment()
        for name, cursor in self._cursors.items():
            if cursor.offset >= 0 and name in assigned:
                (self._client.pause if len(cursor.ahead) >= records_max else self._client.resume)(name)

    def _apply_changes(self) -> None:
        changes = self._listener.changes
        while changes:
            change, name = changes.popleft()
            change(self._cursors, name)
            self._unsettle()

    def _start_new(self) -> None:
        """Ask where the new partitions start. When that fails, the next poll asks again."""
        for name in sorted(name for name, cursor in self._cursors.items() if cursor.offset < 0):
            start = self._on_assigned(self._topics.own(name))
            cursor = self._cursors[name]
            cursor.start_known = self._cluster.start_offset(name)
            cursor.end_known = self._cluster.end_offset(name)
            self._move(name, cursor, cursor.start_known if start is None else start)

    def _move(self, name: KafkaPartition, cursor: _Cursor, offset: int) -> None:
        if not cursor.start_known <= offset <= cursor.end_known:
            raise CorruptedError(
                f"{name.topic}-{name.partition} holds offsets {cursor.start_known} to {cursor.end_known}, "
                f"{offset} is outside"
            )
        cursor.move(offset)
        # A partition that was taken away in this moment needs no place any more.
        with contextlib.suppress(ValueError, KeyError):
            self._client.seek(name, offset)
            self._client.resume(name)
        self._unsettle()

    def _refresh_bounds(self, name: KafkaPartition, cursor: _Cursor) -> bool:
        """Ask for the partition's bounds; return whether there was an answer."""
        # What is known will do during an outage: whoever has work at hand should neither stumble over it nor wait for
        # each partition anew.
        if time.monotonic() < self._asks_from:
            return False
        try:
            cursor.start_known = self._cluster.start_offset(name)
            cursor.end_known = self._cluster.end_offset(name)
        except UnavailableError:
            self._asks_from = time.monotonic() + OUTAGE_SECONDS
            return False
        return True

    # ---- handing out

    def _take(self, name: KafkaPartition, records_max: int) -> list[LogRecord]:
        return self._cursors[name].take(records_max)

    def _has_records(self) -> bool:
        return any(cursor.ahead for cursor in self._cursors.values())

    def _has_asked_all(self) -> bool:
        """Whether every partition has records or was found to have none."""
        return all(cursor.ahead or self._is_drained(name, cursor) for name, cursor in self._cursors.items())

    def _is_drained(self, name: KafkaPartition, cursor: _Cursor) -> bool:
        """Whether the last fetch came to the end."""
        try:
            end = self._client.highwater(name)
        except (KafkaError, AssertionError, KeyError):  # taken away in this moment
            return True
        return end is not None and cursor.offset >= end

    def _is_settled(self) -> bool:
        return self._listener.has_joined and self._has_asked_all()

    def _is_enough(self, deadline: float) -> bool:
        now = time.monotonic()
        is_settled = self._is_settled() or now >= self._settles_until
        return is_settled and (self._has_records() or now >= deadline)

    # ---- telling the broker

    def _commit_when_due(self) -> None:
        now = time.monotonic()
        if self._reported and now >= self._commit_due:
            self._commit_due = now + COMMIT_SECONDS
            self._commit()

    def _commit(self) -> None:
        assigned = self._client.assignment()
        offsets = {
            name: OffsetAndMetadata(offset, "", -1) for name, offset in self._reported.items() if name in assigned
        }
        self._reported.clear()
        if offsets:
            self._client.commit_async(offsets)
