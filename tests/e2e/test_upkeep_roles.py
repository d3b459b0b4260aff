"""An operator and roles apart: letters come again through Kafka, and one sweep leaves no orphan in the bucket."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from kafka import KafkaConsumer

from matyan.ids import DEFAULT_PROJECT
from matyan.store import deadletters
from matyan.store.deadletters import DeadLetter
from matyan.wire.frames import encode_commands
from matyan.wire.messages import LogMetric
from tests.support.kafka import shared_broker
from tests.support.rest import Rest, canonical, eventually
from tests.support.roles import Installation, installed
from tests.support.s3 import S3Server
from tests.support.server import matyan
from tests.support.stores import open_server_store
from tests.support.writer import RawWriter, create, message, metric, upload

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.slow]


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("roles") / "home", shared_broker(), s3_server) as running:
        yield running


def run(roles: Installation, *arguments: str) -> str:
    """Return the output of a command with the settings of the roles."""
    return matyan(*arguments, "--home", str(roles.home / "operator"), environment=roles.environment).stdout


def put_letter(roles: Installation, name: str) -> DeadLetter:
    """Store a letter of a point that can be applied, as if an older release had refused it."""
    letter = DeadLetter(
        log_id="another log",
        topic="data-ingestion",
        partition=0,
        offset=7,
        index=0,
        project=DEFAULT_PROJECT,
        run_id=name,
        reason="an older release knew no better",
        excerpt=encode_commands([LogMetric("late", 5.0)]),
        received_ms=int(time.time() * 1000),
    )
    kv = open_server_store(roles.home)
    try:
        kv.write(lambda tx: deadletters.put(tx, letter))
    finally:
        kv.close()
    return letter


def notices(roles: Installation) -> list[dict[str, object]]:
    """Return what other systems are told of letters."""
    consumer = KafkaConsumer(
        f"{roles.environment['MATYAN_KAFKA_TOPIC_PREFIX']}data-ingestion-dead",
        bootstrap_servers=roles.broker.uri.removeprefix("kafka://"),
        auto_offset_reset="earliest",
        consumer_timeout_ms=1000,
    )
    try:
        return [json.loads(record.value) for record in consumer]
    finally:
        consumer.close()


def test_a_letter_is_told_and_comes_again_through_the_log(roles: Installation) -> None:
    name = "again"
    with RawWriter(roles["frontier"].websocket_url, name) as socket, Rest(roles["serve"].url) as rest:
        socket.send(create(name), metric(name, "late", 1.0, 0))
        eventually(lambda: rest.exists(name), bool)
        letter = put_letter(roles, name)

        told = eventually(lambda: notices(roles), len)
        output = run(roles, "deadletters", "retry", "--all")

        assert [notice["id"] for notice in told] == [letter.id]
        assert output == f"{letter.id}  stored\n"
        found = eventually(lambda: rest.metrics(name)[("late", canonical(None))], lambda series: 1 in series)
        assert {step: point.value for step, point in found.items()} == {0: 1.0, 1: 5.0}


def test_one_sweep_leaves_no_orphan_and_touches_nothing_else(roles: Installation, s3_server: S3Server) -> None:
    frontier = roles["frontier"]
    with Rest(roles["serve"].url) as rest:
        for name in ("kept", "dead"):
            with RawWriter(frontier.websocket_url, name) as socket:
                key = upload(frontier.url, name, "model.bin", b"x" * 1000)
                socket.send(create(name), message("blob_ref", name, s3_key=key, artifact_path="model.bin"))
            eventually(lambda name=name: rest.exists(name), bool)  # type: ignore[misc]
        rest.send("DELETE", "/runs/dead/")
        eventually(lambda: [key for key in s3_server.names(roles.bucket) if "/dead/" in key], lambda left: not left)
        for name in ("dead", "ghost"):
            upload(frontier.url, name, "late.bin", b"x")
        time.sleep(2)  # S3 dates objects by the second

        output = run(roles, "sweep", "--now")

        (left,) = [key for key in s3_server.names(roles.bucket) if key.startswith("default/")]
        assert "/kept/" in left
        assert "2  files without a run deleted" in output
        assert rest.exists("kept")
