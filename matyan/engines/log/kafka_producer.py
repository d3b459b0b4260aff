"""KafkaLogProducer: hands records to kafka-python's producer and tells when all in-sync replicas have them."""

from __future__ import annotations

import functools
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final

from kafka import KafkaProducer
from kafka.errors import KafkaError

from matyan.clock import Clock
from matyan.engines.log.kafka_client import milliseconds, translate
from matyan.engines.log.kafka_cluster import KafkaCluster
from matyan.engines.log.kafka_topics import KafkaTopics
from matyan.engines.log.kafka_writer import KafkaWriter
from matyan.engines.log.protocol import Appended, LogEntry, TopicPartition
from matyan.errors import MatyanError, TooLargeError, UnavailableError
from matyan.limits import RECORD_BYTES_MAX

QUEUE_BYTES_MAX: Final = 64 * 1024 * 1024
CLOSE_SECONDS: Final = 5.0
"""How long a close waits for acknowledgements."""
_ENTRY_BYTES: Final = 100
"""What an entry takes in memory besides its key and value; so a flood of empty ones is bounded as well."""


class KafkaLogProducer:
    """A LogProducer."""

    def __init__(
        self, writer: KafkaWriter, cluster: KafkaCluster, topics: KafkaTopics, queue_bytes_max: int, clock: Clock
    ) -> None:
        self._writer = writer
        self._cluster = cluster
        self._topics = topics
        self._clock = clock
        self._queue = _Queue(queue_bytes_max)

    @property
    def may_repeat(self) -> bool:
        """False: the producer is idempotent."""
        return False

    def append_many(self, topic: str, entries: Sequence[LogEntry]) -> Future[list[Appended]]:
        """Queue the entries; see LogProducer.

        A refusal for a full queue or a closed log is certain: nothing of it will ever be read. An append that was
        taken and is not acknowledged within kafka.delivery_seconds fails too, and then may have been written.
        """
        future: Future[list[Appended]] = Future()
        try:
            size_bytes = self._check(entries)
            count = self._topics.partitions(topic)
            client = self._writer.client()
            self._queue.take(size_bytes)
        except MatyanError as error:
            future.set_exception(error)
            return future
        append = _Append(topic, len(entries), future, release=functools.partial(self._queue.give, size_bytes))
        self._send(client, append, count, entries)
        return future

    def end_offset(self, partition: TopicPartition) -> int:
        """Return the offset that the next durable record will get.

        Raises:
            UnavailableError: the brokers do not answer within ASK_SECONDS.
        """
        return self._cluster.end_offset(self._topics.full(partition))

    def partition_of(self, topic: str, key: bytes) -> int:
        """Return the partition that records of this key go to."""
        return partition_of(key, self._topics.partitions(topic))

    @property
    def queued_bytes(self) -> int:
        """What was taken and is not acknowledged yet."""
        return self._queue.size_bytes

    def abandon(self) -> None:
        """Fail what is not acknowledged, by going on with another client; see LogProducer.

        A client sends the records of a partition in order, and its end cuts that stream at one place. Its own time
        limit would not: what expires unsent may be followed by younger records that are sent.
        """
        self._writer.renew()

    def close(self) -> None:
        """Wait for what is queued, for CLOSE_SECONDS at most, then fail the rest."""
        if not self._queue.close():
            return
        self._queue.wait_until_empty(CLOSE_SECONDS)
        self._writer.close()
        self._queue.wait_until_empty(CLOSE_SECONDS)

    def _check(self, entries: Sequence[LogEntry]) -> int:
        for key, value in entries:
            if len(key) + len(value) > RECORD_BYTES_MAX:
                raise TooLargeError(f"a record has {len(key) + len(value)} bytes, limit {RECORD_BYTES_MAX}")
        return sum(len(key) + len(value) + _ENTRY_BYTES for key, value in entries)

    def _send(self, client: KafkaProducer, append: _Append, count: int, entries: Sequence[LogEntry]) -> None:
        name = self._topics.full_name(append.topic)
        now_ms = milliseconds(self._clock.now_seconds())

        def failed(error: Exception) -> None:
            is_first = self._writer.observe(client, error)
            append.failed(error if is_first else ConnectionAbortedError(f"the producer was given up: {error}"))

        for place, (key, value) in enumerate(entries):
            number = partition_of(key, count)
            try:
                sent = client.send(name, key=key, value=value, partition=number, timestamp_ms=now_ms)
            except (KafkaError, ValueError) as error:  # ValueError: the client lost sight of the topic
                failed(error)
            else:
                sent.add_callback(functools.partial(append.written, place))
                sent.add_errback(failed)


def partition_of(key: bytes, partitions: int) -> int:
    """Return the number of the key's partition; the same for ever, since stored records rest on it.

    Not the hash of Kafka's own partitioner: the embedded log's, so that a run stays where it was when it moves there.
    """
    return zlib.crc32(key) % partitions


class _Append:
    """One call of `append_many`, on its way. Records are acknowledged batch by batch, in any order."""

    def __init__(self, topic: str, count: int, future: Future[list[Appended]], *, release: Callable[[], None]) -> None:
        self.topic = topic
        self._future = future
        self._release = release
        self._lock = threading.Lock()
        self._missing = count
        self._written: list[Appended] = [Appended(-1, -1)] * count
        self._error: MatyanError | None = None
        if not count:
            self._finish()

    def written(self, place: int, record: Any) -> None:
        """Note where a record came to stand."""
        self._written[place] = Appended(record.partition, record.offset)
        self._arrived()

    def failed(self, error: Exception) -> None:
        """Note that a record is not acknowledged and will not be."""
        doing = f"appending to {self.topic}"
        ours = (
            translate(error, doing) if isinstance(error, KafkaError) else UnavailableError(f"{doing} failed: {error}")
        )
        self._error = self._error or ours
        self._arrived()

    def _arrived(self) -> None:
        with self._lock:
            self._missing -= 1
            is_last = self._missing == 0
        if is_last:
            self._finish()

    def _finish(self) -> None:
        self._release()
        if not self._future.set_running_or_notify_cancel():
            return
        if self._error is not None:
            self._future.set_exception(self._error)
        else:
            self._future.set_result(self._written)


class _Queue:
    """Counts the bytes on their way: kafka-python itself would take any number."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._changed = threading.Condition()
        self._bytes = 0
        self._is_closed = False

    @property
    def size_bytes(self) -> int:
        """What is reserved now."""
        return self._bytes

    def take(self, size_bytes: int) -> None:
        """Reserve room.

        Raises:
            TooLargeError: there will never be so much.
            UnavailableError: there is not so much now, or the log is closed.
        """
        if size_bytes > self._bytes_max:
            raise TooLargeError(f"one append has {size_bytes} bytes, the log's queue takes {self._bytes_max}")
        with self._changed:
            if self._is_closed:
                raise UnavailableError("the log is closed")
            if self._bytes + size_bytes > self._bytes_max:
                raise UnavailableError(f"{self._bytes} bytes wait for Kafka already, the queue takes {self._bytes_max}")
            self._bytes += size_bytes

    def give(self, size_bytes: int) -> None:
        """Free room."""
        with self._changed:
            self._bytes -= size_bytes
            self._changed.notify_all()

    def close(self) -> bool:
        """Refuse what comes; return False when it did so before."""
        with self._changed:
            was_open = not self._is_closed
            self._is_closed = True
            return was_open

    def wait_until_empty(self, seconds: float) -> bool:
        """Wait until everything is settled; return False when that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: self._bytes == 0, seconds)
