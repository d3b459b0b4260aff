"""A spill in front of a real Kafka: what the brokers refuse for good holds up nothing else."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from matyan.engines.log.kafka import open_kafka_log
from matyan.engines.log.protocol import LogEntry
from matyan.engines.log.spilling import open_spilling_producer
from matyan.errors import TooLargeError
from matyan.observe.metrics import Metrics
from matyan.settings import SpillSettings
from tests.support.kafka import Broker, fresh_settings, shared_broker
from tests.support.logs import TOPIC, read_all, values_of

pytestmark = [pytest.mark.kafka]

OUTAGE_SECONDS = 60.0


@pytest.fixture(scope="module")
def broker() -> Broker:
    return shared_broker()


def test_records_over_a_lowered_limit_are_set_aside_and_the_others_pass_in_order(
    broker: Broker, tmp_path: Path
) -> None:
    settings, metrics = fresh_settings(), Metrics()
    log = open_kafka_log(broker.uri, partitions=1, settings=settings)
    producer = open_spilling_producer(
        log.producer(), root=tmp_path, topic=TOPIC, settings=SpillSettings(after_seconds=3.0), metrics=metrics
    )

    def append(*values: bytes) -> list[BaseException | None]:
        futures = [producer.append_many(TOPIC, [LogEntry(b"run", value)]) for value in values]
        return [future.exception(OUTAGE_SECONDS) for future in futures]

    def settle() -> None:
        deadline = time.monotonic() + OUTAGE_SECONDS
        while not producer.is_direct:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    assert append(b"before") == [None]
    with KafkaAdminClient(bootstrap_servers=broker.uri.removeprefix("kafka://")) as admin:
        limit = {"max.message.bytes": "20000"}
        topic = ConfigResource(ConfigResourceType.TOPIC, settings.topic_prefix + TOPIC, configs=limit)
        admin.alter_configs([topic])
    large = [secrets.token_bytes(50_000) for _ in range(3)]
    small = [b"%d" % number + secrets.token_bytes(5_000) for number in range(20)]
    assert [type(error) for error in append(large[0])] == [TooLargeError]
    broker.kill()
    try:
        assert append(*small[:10], large[1], *small[10:], large[2]) == [None] * 22
    finally:
        broker.start()
    settle()
    assert append(b"after") == [None]  # by the spill perhaps: the last refusal has cost a client
    settle()
    producer.close()

    found = list(dict.fromkeys(values_of(read_all(log))))
    assert found == [b"before", *small, b"after"]
    aside = [path.read_bytes() for path in sorted((tmp_path / "spill-0" / "aside").iterdir())]
    assert [value in kept for value, kept in zip(large[1:], aside, strict=True)] == [True, True]
    assert metrics.registry.get_sample_value("matyan_spill_set_aside_total") == 2
    log.close()
