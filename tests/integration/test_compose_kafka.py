"""The broker of config/compose.yaml: its properties are ones that Apache Kafka takes, and our log works on it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.engines.log.kafka import open_kafka_log
from matyan.engines.log.protocol import LogEntry, TopicPartition
from tests.support.compose import kafka_properties, raw_compose
from tests.support.kafka import Broker, jars

pytestmark = pytest.mark.kafka
ENVIRONMENT = raw_compose()["services"]["kafka"]["environment"]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker with the properties of the compose file; only addresses and directory are of this machine."""
    try:
        made = Broker(tmp_path / "kafka", jars())
    except LookupError as error:
        pytest.skip(f"needs a Kafka broker: {error}")
    here = kafka_properties(ENVIRONMENT) | {
        "listeners": f"PLAINTEXT://127.0.0.1:{made.port},CONTROLLER://127.0.0.1:{made.controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{made.port}",
        "controller.quorum.voters": f"1@127.0.0.1:{made.controller_port}",
        "log.dirs": str(tmp_path / "kafka" / "data"),
    }
    (tmp_path / "kafka" / "server.properties").write_text("".join(f"{key}={value}\n" for key, value in here.items()))
    made.start()
    yield made
    made.stop()


def test_the_log_is_made_written_and_read_on_it(broker: Broker) -> None:
    log = open_kafka_log(broker.uri, partitions=2)

    (appended,) = log.producer().append_many("data-ingestion", [LogEntry(b"run", b"frame")]).result(30)

    assert log.producer().end_offset(TopicPartition("data-ingestion", appended.partition)) == 1
    log.close()


def test_its_cluster_has_an_id_as_kafka_wants_it() -> None:
    assert len(base64.urlsafe_b64decode(ENVIRONMENT["CLUSTER_ID"] + "==")) == 16
