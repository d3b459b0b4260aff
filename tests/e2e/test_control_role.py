"""Several control processes free what is deleted and tell about it, whatever becomes of each of them.

Real roles on Kafka, S3 and a shared store are told to delete runs with data and files while control processes are
killed, stand still and come back; then the store, the bucket and the topic are looked into.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import pytest

from matyan.engines.log.kafka import open_kafka_log
from matyan.engines.open import partitions_of_new
from matyan.ids import DEFAULT_PROJECT, RunId, RunNumber
from matyan.runs.repository import get_numbers
from matyan.settings import KafkaSettings
from matyan.store import keyspace
from matyan.store.scans import scan_all
from matyan.wire.events import RunDeleted, decode_event, decode_payload
from matyan.wire.topics import CONTROL_EVENTS
from matyan.workers.leases import LEASE_SECONDS
from tests.support.kafka import shared_broker
from tests.support.rest import Rest, eventually
from tests.support.roles import Installation, installed
from tests.support.s3 import S3Server
from tests.support.stores import open_server_store
from tests.support.writer import RawWriter, create, message, metric, upload

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.slow]

RUNS: Final = 24
FILES: Final = 5
PER_DELETION: Final = 6
SECONDS_MAX: Final = 60.0


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Installation]:
    environment = {"MATYAN_KAFKA_SESSION_SECONDS": "3"}
    home = tmp_path_factory.mktemp("control") / "home"
    with installed(home, shared_broker(), s3_server, environment=environment) as running:
        yield running


def fill(roles: Installation, runs: Sequence[str]) -> None:
    """Log points, texts and files of runs, and wait until they can be read."""
    frontier = roles["frontier"]
    for run in runs:
        with RawWriter(frontier.websocket_url, run) as socket:
            points = [metric(run, f"m{number % 5}", 0.5, number // 5) for number in range(100)]
            texts = [
                message("log_custom_object", run, name="t", value={"type": "text", "data": "x" * 100}, step=step)
                for step in range(50)
            ]
            assert socket.send(create(run), *points, *texts)["status"] == "ok"
            for number in range(FILES):
                upload(frontier.url, run, f"{number}.bin", b"x" * 1000)
            socket.send(message("finish_run", run))
    with Rest(roles["serve"].url) as rest:
        for run in runs:
            eventually(lambda run=run: rest.info(run), lambda info: not info["props"]["active"])  # type: ignore[misc]


def numbers_of(roles: Installation, runs: Sequence[str]) -> list[RunNumber]:
    """Return the numbers that the store has given to runs."""
    kv = open_server_store(roles.home)
    found = kv.read(lambda reader: get_numbers(reader, DEFAULT_PROJECT, [RunId(run) for run in runs]))
    kv.close()
    return [number for number in found if number is not None]


def stored_bytes(roles: Installation, numbers: Sequence[RunNumber]) -> int:
    """Return how many bytes the store keeps for the contents of these runs."""
    kv = open_server_store(roles.home)
    contents = [where for number in numbers for where in keyspace.run_contents(DEFAULT_PROJECT, number)]
    rows = kv.read(lambda reader: [row for where in contents for row in scan_all(reader, *where)])
    kv.close()
    return sum(len(key) + len(value) for key, value in rows)


def told(roles: Installation) -> Counter[tuple[str, str]]:
    """Return how often each event (its id, its run) stands in the topic."""
    settings = KafkaSettings(topic_prefix=roles.environment["MATYAN_KAFKA_TOPIC_PREFIX"])
    log = open_kafka_log(roles.broker.uri, partitions=partitions_of_new(roles.broker.uri), settings=settings)
    found: Counter[tuple[str, str]] = Counter()
    consumer = log.consumer(CONTROL_EVENTS, "test", lambda _: None)
    ends = time.monotonic() + SECONDS_MAX
    while time.monotonic() < ends:
        slices = consumer.poll(records_max=1000, timeout_seconds=1)
        for record in (record for records in slices.values() for record in records):
            event = decode_event(record.value)
            payload = decode_payload(event)
            assert isinstance(payload, RunDeleted)
            found[event.id, payload.run_id] += 1
        partitions = consumer.assignment()
        if partitions and not any(consumer.lag(partition) for partition in partitions):
            break
    consumer.close()
    log.close()
    return found


def test_deletions_are_freed_and_told_while_control_processes_die_and_stand_still(
    roles: Installation, s3_server: S3Server
) -> None:
    runs = [f"doomed-{number}" for number in range(RUNS)]
    fill(roles, [*runs, "kept"])
    numbers = numbers_of(roles, runs)
    full = stored_bytes(roles, numbers)
    assert len(s3_server.names(roles.bucket)) >= FILES * (RUNS + 1)
    second = roles.start("control-2")

    with Rest(roles["serve"].url) as rest:
        for at in range(0, RUNS, PER_DELETION):
            rest.send("POST", "/runs/delete-batch/", runs[at : at + PER_DELETION])
            if at == 0:
                roles["control"].kill()
            if at == PER_DELETION:
                os.kill(second.pid, signal.SIGSTOP)
                roles["control"].start()
            time.sleep(0.3)
        time.sleep(LEASE_SECONDS + 1)
        os.kill(second.pid, signal.SIGCONT)

        files = eventually(lambda: s3_server.names(roles.bucket), lambda found: len(found) == FILES, SECONDS_MAX)
        left = eventually(lambda: stored_bytes(roles, numbers), lambda found: found <= 0.05 * full, SECONDS_MAX)
        assert rest.exists("kept")
        assert not any(rest.exists(run) for run in runs)

    assert all("kept" in name for name in files)
    assert left <= 0.05 * full
    assert sorted(run for _, run in told(roles)) == sorted(runs), "every deletion is told, under one id"
    assert second.stop() == 0
    assert roles["control"].stop() == 0
