"""The distributed log: Apache Kafka, by kafka-python. See docs/decisions/0016-kafka-log.md."""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Mapping

from matyan.clock import Clock, SystemClock
from matyan.engines.log.kafka_client import servers_of
from matyan.engines.log.kafka_cluster import KafkaCluster
from matyan.engines.log.kafka_consumer import KafkaLogConsumer
from matyan.engines.log.kafka_producer import QUEUE_BYTES_MAX, KafkaLogProducer
from matyan.engines.log.kafka_topics import KafkaTopics
from matyan.engines.log.kafka_writer import KafkaWriter
from matyan.engines.log.protocol import LogConsumer, LogEngine, LogProducer, OnAssigned, TopicPartition
from matyan.settings import KafkaSettings

logger = logging.getLogger(__name__)


def open_kafka_log(
    uri: str,
    *,
    partitions: Mapping[str, int] | int,
    settings: KafkaSettings | None = None,
    queue_bytes_max: int = QUEUE_BYTES_MAX,
    clock: Clock | None = None,
) -> LogEngine:
    """Connect to the log in a Kafka cluster, making it when there is none.

    Args:
        uri: kafka://host:port[,host:port].
        partitions: of each topic that we make, or one number for every topic that is ever named; an existing one may
            have more. Fixed for a log id.
        settings: how to talk with the cluster.
        queue_bytes_max: of records that are not acknowledged; what comes on top is refused.
        clock: for the records' timestamps.

    Raises:
        ConfigurationError: the URI is none, the brokers refuse us, or are too old.
        UnavailableError: no broker answers within kafka.connect_seconds.
    """
    settings = settings or KafkaSettings()
    if importlib.util.find_spec("crc32c") is None:
        logger.warning("the package crc32c is not installed: checksums of records take twenty times as long")
    cluster = KafkaCluster(servers_of(uri), settings)
    try:
        writer = KafkaWriter(cluster, settings)
        try:
            topics = KafkaTopics(cluster, writer, settings.topic_prefix, partitions)
        except BaseException:
            writer.close()
            raise
    except BaseException:
        cluster.close()
        raise
    producer = KafkaLogProducer(writer, cluster, topics, queue_bytes_max, clock or SystemClock())
    return _KafkaLog(cluster, topics, producer, settings)


class _KafkaLog:
    """A LogEngine."""

    def __init__(
        self, cluster: KafkaCluster, topics: KafkaTopics, producer: KafkaLogProducer, settings: KafkaSettings
    ) -> None:
        self._cluster = cluster
        self._topics = topics
        self._producer = producer
        self._settings = settings
        self._lock = threading.Lock()
        self._consumers: list[KafkaLogConsumer] = []

    @property
    def log_id(self) -> str:
        return self._topics.log_id

    def partitions(self, topic: str) -> int:
        return self._topics.partitions(topic)

    def producer(self) -> LogProducer:
        return self._producer

    def consumer(self, topic: str, group: str, on_assigned: OnAssigned) -> LogConsumer:
        opened = KafkaLogConsumer(self._cluster, self._topics, self._settings, topic, group, on_assigned)
        with self._lock:
            self._consumers = [one for one in self._consumers if not one.is_closed]
            self._consumers.append(opened)
        return opened

    def start_offset(self, partition: TopicPartition) -> int:
        return self._cluster.start_offset(self._topics.full(partition))

    def trim(self, partition: TopicPartition, before_offset: int) -> int:
        """Delete what lies before `before_offset`, exactly; return 0, since Kafka tells nothing of bytes."""
        name = self._topics.full(partition)
        if before_offset > self._cluster.start_offset(name):
            self._cluster.delete_before(name, min(before_offset, self._cluster.end_offset(name)))
        return 0

    def close(self) -> None:
        """Make durable what is queued, end the polls at work, and disconnect."""
        self._producer.close()
        self._cluster.close()
        with self._lock:
            for consumer in self._consumers:
                consumer.close()
