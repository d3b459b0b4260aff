"""KafkaCluster: what is asked of the brokers besides records: topics, their bounds, and deletion up to an offset."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from kafka import KafkaAdminClient
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError, KafkaTimeoutError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code
from kafka.net.compat import KafkaNetClient
from kafka.structs import TopicPartition as KafkaPartition

from matyan.engines.log.kafka_client import client_options, is_refusal, milliseconds, translate, translate_at_start
from matyan.errors import ConfigurationError, MatyanError, UnavailableError
from matyan.settings import KafkaSettings

ASK_SECONDS: Final = 5.0
"""How long a question is put again while the brokers cannot answer it."""
RETRY_SECONDS: Final = 0.1
ATTEMPT_SECONDS: Final = 2.0
"""After so long without an answer at the start, it is looked whether a broker refused us."""
_NO_TOPIC_ID: Final = UUID(int=0)

Answer = TypeVar("Answer")


class TopicFacts(NamedTuple):
    """What a broker says of a topic."""

    topic_id: str
    """Made by the cluster together with the topic, 32 hexadecimal digits; one of the same name made later differs."""
    partitions: int


class KafkaCluster:
    """One connection for questions, shared by all threads. Names are the cluster's, our prefix included."""

    def __init__(self, servers: list[str], settings: KafkaSettings) -> None:
        self._servers = servers
        self._settings = settings
        self._closing = threading.Event()
        self.options: Mapping[str, Any] = client_options(servers, settings)
        self._admin = _connect(servers, settings, self.options)

    @property
    def is_closed(self) -> bool:
        """Whether the log was closed."""
        return self._closing.is_set()

    def check_open(self) -> None:
        """Refuse once the log is closed.

        Raises:
            UnavailableError: it is.
        """
        if self._closing.is_set():
            raise UnavailableError("the log is closed")

    def check_answers(self) -> None:
        """Ask something.

        Raises:
            UnavailableError: there was no answer within ASK_SECONDS.
        """
        self._ask("asking for the brokers", self._admin.describe_cluster)

    def find_topic(self, name: str) -> TopicFacts | None:
        """Return what the cluster knows of a topic, or None when there is none.

        Raises:
            ConfigurationError: we may not see it, or the brokers are too old.
            UnavailableError: they do not answer.
        """
        (found,) = self._ask(f"looking for topic {name}", lambda: self._admin.describe_topics([name]))
        if found["error_code"] == UnknownTopicOrPartitionError.errno:
            return None
        if found["error_code"]:
            raise translate_at_start(for_code(found["error_code"])(), f"looking for topic {name}")
        topic_id = UUID(str(found["topic_id"])) if found["topic_id"] else _NO_TOPIC_ID
        if topic_id == _NO_TOPIC_ID:
            raise ConfigurationError("the brokers give topics no ids: Apache Kafka 2.8 or newer is needed")
        return TopicFacts(topic_id.hex, len(found["partitions"]))

    def make_topic(self, name: str, partitions: int, configs: Mapping[str, str]) -> None:
        """Make a topic and wait until it can be used; nothing happens when there is one.

        Raises:
            ConfigurationError: the cluster refuses it.
            UnavailableError: it does not answer.
        """
        replicas = self._settings.replicas
        if replicas > 1:
            # Acknowledged means: on at least this many brokers. One may fail without stopping writers.
            configs = {**configs, "min.insync.replicas": str(replicas - 1)}
        wanted = {"num_partitions": partitions, "replication_factor": replicas or -1, "configs": dict(configs)}

        def make() -> None:
            try:
                self._admin.create_topics({name: wanted}, wait_for_metadata=True)
            except TopicAlreadyExistsError:  # another process was faster
                self._admin.wait_for_topics([name])

        self._ask(f"making topic {name}", make, refused=ConfigurationError)

    def start_offset(self, partition: KafkaPartition) -> int:
        """Return the offset of the oldest record kept."""
        return self._offset(partition, OffsetSpec.EARLIEST)

    def end_offset(self, partition: KafkaPartition) -> int:
        """Return the offset that the next record will get that all in-sync replicas have."""
        return self._offset(partition, OffsetSpec.LATEST)

    def delete_before(self, partition: KafkaPartition, offset: int) -> None:
        """Make `offset` the start; the brokers free the disk in their own time."""
        self._ask(f"trimming {_text(partition)}", lambda: self._admin.delete_records({partition: offset}))

    def close(self) -> None:
        """Refuse what comes, and disconnect."""
        if not self._closing.is_set():
            self._closing.set()
            self._admin.close()

    def _offset(self, partition: KafkaPartition, spec: OffsetSpec) -> int:
        question = {partition: spec}
        timeout_ms = milliseconds(ASK_SECONDS)
        found = self._ask(
            f"asking for the offsets of {_text(partition)}",
            lambda: self._admin.list_partition_offsets(question, timeout_ms=timeout_ms),
        )
        return int(found[partition].offset)

    def _ask(self, doing: str, question: Callable[[], Answer], *, refused: type[MatyanError] | None = None) -> Answer:
        deadline = time.monotonic() + ASK_SECONDS
        while True:
            self.check_open()
            try:
                return question()
            except KafkaError as error:
                if not error.retriable and refused is not None:
                    raise refused(f"{doing} failed: {error}") from error
                if not error.retriable or time.monotonic() > deadline:
                    raise translate(error, doing) from error
            self._closing.wait(RETRY_SECONDS)


def _connect(servers: list[str], settings: KafkaSettings, options: Mapping[str, Any]) -> KafkaAdminClient:
    """Open the client for questions. One attempt would go on with a wrong password until its time is over."""
    deadline = time.monotonic() + settings.connect_seconds
    while True:
        remaining_seconds = max(0.0, deadline - time.monotonic())
        attempt = _Attempt()
        timeout_ms = milliseconds(min(ATTEMPT_SECONDS, remaining_seconds))
        try:
            limits = {"bootstrap_timeout_ms": timeout_ms, "request_timeout_ms": milliseconds(ASK_SECONDS)}
            return KafkaAdminClient(**{**options, **limits}, kafka_client=attempt.open_net)
        except KafkaError as error:
            attempt.abandon()
            refusal = next(filter(is_refusal, attempt.errors), None)
            if refusal is not None or not isinstance(error, KafkaTimeoutError):
                raise translate_at_start(refusal or error, f"connecting to {', '.join(servers)}") from error
            if remaining_seconds <= ATTEMPT_SECONDS:
                raise UnavailableError(
                    f"no broker of {', '.join(servers)} answered within {settings.connect_seconds:g} s: is Kafka "
                    "running, is the name right, and does kafka.security_protocol fit?"
                ) from error


class _Attempt:
    """One opening of a client: what kafka-python keeps to itself when that fails."""

    def __init__(self) -> None:
        self.errors: list[KafkaError] = []
        """Why connections failed."""
        self._net: KafkaNetClient | None = None

    def open_net(self, **configs: Any) -> KafkaNetClient:
        """Make the client's network part."""
        self._net = KafkaNetClient(**configs)
        manager = self._net._manager  # noqa: SLF001 - it tells nobody why a bootstrap fails
        get_connection = manager.get_connection

        def watched(*arguments: Any, **options: Any) -> Any:
            connection = get_connection(*arguments, **options)
            connection.init_future.add_errback(self.errors.append)
            return connection

        manager.get_connection = watched
        return self._net

    def abandon(self) -> None:
        """Close what a failed opening left behind."""
        if self._net is not None:
            self._net.close()
            self._net._manager._net.stop()  # noqa: SLF001 - its thread would go on


def _text(partition: KafkaPartition) -> str:
    return f"{partition.topic}/{partition.partition}"
