"""KafkaTopics: which topics there are, that they are still the ones we know, and the identity of the log they make up.

The topic `matyan-log-id` is the log's catalogue. Its own id, made by the cluster and never used again, is the log's;
its records, kept for ever by compaction, say for each topic which id and how many partitions it had when the log took
it in. See docs/decisions/0016-kafka-log.md.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from kafka import KafkaConsumer
from kafka.errors import KafkaError
from kafka.structs import TopicPartition as KafkaPartition

from matyan.engines.log.kafka_client import REQUEST_BYTES_MAX, milliseconds, translate, translate_at_start
from matyan.engines.log.kafka_cluster import ASK_SECONDS, KafkaCluster
from matyan.engines.log.kafka_writer import KafkaWriter
from matyan.engines.log.protocol import TopicPartition
from matyan.errors import ConfigurationError, CorruptedError, InvalidArgumentError, UnavailableError

logger = logging.getLogger(__name__)

CATALOGUE: Final = "matyan-log-id"
_CATALOGUE_CONFIGS: Final = {"cleanup.policy": "compact"}
_TOPIC_CONFIGS: Final = {
    "max.message.bytes": str(REQUEST_BYTES_MAX),
    "message.timestamp.type": "CreateTime",
    # Records go when they are applied (`trim`), never by age: a worker may be away for longer than any age.
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
}


class _Entry(msgspec.Struct, frozen=True):
    """What the catalogue says of a topic. New fields go last, with a default."""

    topic_id: str
    partitions: int


class KafkaTopics:
    """The topics of a log, made at their first naming. Shared by all threads."""

    def __init__(
        self, cluster: KafkaCluster, writer: KafkaWriter, prefix: str, partitions: Mapping[str, int] | int
    ) -> None:
        self._cluster = cluster
        self._writer = writer
        self._prefix = prefix
        self._wanted = partitions
        self._catalogue = prefix + CATALOGUE
        self._lock = threading.Lock()
        """Held while a topic is looked up or made."""
        self._counts: dict[str, int] = {}
        facts = cluster.find_topic(self._catalogue)
        if facts is None:
            cluster.make_topic(self._catalogue, 1, _CATALOGUE_CONFIGS)
            facts = cluster.find_topic(self._catalogue)
        if facts is None:
            raise UnavailableError(f"topic {self._catalogue} was made and is not there yet")
        self.log_id = facts.topic_id
        self._known = _read_catalogue(cluster, self._catalogue)

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has, making it when there is none.

        Raises:
            ConfigurationError: it is not the topic that the log knows, or has too few partitions.
            InvalidArgumentError: the settings name no such topic.
            UnavailableError: the cluster does not answer.
        """
        found = self._counts.get(topic)
        if found is None:
            with self._lock:
                found = self._counts.get(topic) or self._open(topic)
                self._counts[topic] = found
        return found

    def full_name(self, topic: str) -> str:
        """Return what the cluster calls a topic or a group."""
        return self._prefix + topic

    def full(self, partition: TopicPartition) -> KafkaPartition:
        """Return what the cluster calls a partition.

        Raises:
            InvalidArgumentError: there is no such partition. And what `partitions` raises.
        """
        count = self.partitions(partition.topic)
        if not 0 <= partition.partition < count:
            raise InvalidArgumentError(
                f"topic {partition.topic!r} has partitions 0 to {count - 1}, not {partition.partition}"
            )
        return KafkaPartition(self.full_name(partition.topic), partition.partition)

    def own(self, partition: KafkaPartition) -> TopicPartition:
        """Return what we call a partition of the cluster."""
        return TopicPartition(partition.topic.removeprefix(self._prefix), partition.partition)

    def _open(self, topic: str) -> int:
        wanted = self._wanted if isinstance(self._wanted, int) else self._wanted.get(topic)
        if wanted is None:
            raise InvalidArgumentError(f"the log has no topic {topic!r}")
        name = self.full_name(topic)
        facts = self._cluster.find_topic(name)
        known = self._known.get(name)
        if facts is None and known is None:
            self._cluster.make_topic(name, wanted, _TOPIC_CONFIGS)
            facts = self._cluster.find_topic(name)
        if facts is None:
            raise self._stranger(name, "is gone") if known else UnavailableError(f"topic {name} is not there yet")
        if known is None:
            known = _Entry(facts.topic_id, facts.partitions)
            self._check_count(name, known, wanted)
            self._record(name, known)
        if known.topic_id != facts.topic_id:
            raise self._stranger(name, "was deleted and made anew")
        self._check_count(name, known, wanted)
        if facts.partitions > known.partitions:
            # The new ones stay empty: a key keeps its partition for the life of the log.
            extra = {"topic": name, "partitions": facts.partitions, "used": known.partitions}
            logger.warning("topic has more partitions than the log uses", extra=extra)
        return known.partitions

    def _stranger(self, name: str, fate: str) -> ConfigurationError:
        return ConfigurationError(
            f"topic {name} {fate} since the log {self.log_id} took it in: its offsets mean nothing any more. "
            f"If its records are given up, delete topic {self._catalogue} as well, which starts a fresh log"
        )

    def _check_count(self, name: str, known: _Entry, wanted: int) -> None:
        if known.partitions < wanted:
            raise ConfigurationError(
                f"topic {name} has {known.partitions} partitions, the settings want {wanted}: the number is fixed when "
                f"a log is made, since it decides where a run's records go. Set log.partitions to {known.partitions}"
            )

    def _record(self, name: str, entry: _Entry) -> None:
        """Write an entry; processes that take a topic in at once write the same."""
        client = self._writer.client()
        try:
            sent = client.send(self._catalogue, key=name.encode(), value=msgspec.json.encode(entry), partition=0)
            sent.get(timeout=ASK_SECONDS)
        except KafkaError as error:
            self._writer.observe(client, error)
            raise translate_at_start(error, f"writing to topic {self._catalogue}") from error
        self._known[name] = entry


def _read_catalogue(cluster: KafkaCluster, name: str) -> dict[str, _Entry]:
    """Return the newest entry of every topic."""
    partition = KafkaPartition(name, 0)
    end = cluster.end_offset(partition)
    options: dict[str, Any] = dict(cluster.options) | {"enable_auto_commit": False, "metrics_enabled": False}
    found: dict[str, _Entry] = {}
    try:
        reader = KafkaConsumer(**options)
        try:
            reader.assign([partition])
            reader.seek_to_beginning(partition)
            while (reader.position(partition, timeout_ms=milliseconds(ASK_SECONDS)) or 0) < end:
                for record in reader.poll(timeout_ms=milliseconds(ASK_SECONDS)).get(partition, []):
                    found[record.key.decode()] = msgspec.json.decode(record.value, type=_Entry)
        finally:
            reader.close()
    except KafkaError as error:
        raise translate(error, f"reading topic {name}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, AttributeError) as error:
        raise CorruptedError(f"topic {name} holds what matyan did not write: {error}") from error
    return found
