"""The log on a real Kafka: outages, rebalances, refusals, and what it leaves for others to see."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest
from kafka import KafkaAdminClient

from matyan.engines.log.kafka import open_kafka_log
from matyan.engines.log.kafka_topics import CATALOGUE
from matyan.engines.log.protocol import Appended, LogConsumer, LogEngine, LogEntry, TopicPartition
from matyan.errors import ConfigurationError, CorruptedError, UnavailableError
from matyan.settings import KafkaSettings, Secret
from tests.support.kafka import PASSWORD, USER, Broker, fresh_settings, shared_broker
from tests.support.logs import ONLY, SECONDS, TOPIC, append, read_all, values_of

pytestmark = [pytest.mark.kafka]

OUTAGE_SECONDS = 60.0
"""How long a test waits for what needs a broker to come back."""
OpenLog = Callable[..., LogEngine]


@pytest.fixture(scope="module")
def broker() -> Broker:
    return shared_broker()


@pytest.fixture
def settings() -> KafkaSettings:
    return fresh_settings(session_seconds=3.0)


@pytest.fixture
def open_log(broker: Broker, settings: KafkaSettings) -> Iterator[OpenLog]:
    """Open the log of one test; again and again it is the same one."""
    opened: list[LogEngine] = []

    def open_again(*, partitions: int = 1, settings: KafkaSettings = settings, queue: int = 64_000_000) -> LogEngine:
        log = open_kafka_log(broker.uri, partitions=partitions, settings=settings, queue_bytes_max=queue)
        opened.append(log)
        return log

    yield open_again
    for log in opened:
        log.close()


@pytest.fixture
def admin(broker: Broker) -> Iterator[KafkaAdminClient]:
    with KafkaAdminClient(bootstrap_servers=broker.uri.removeprefix("kafka://")) as client:
        yield client


def poll_until(consumer: LogConsumer, count: int, seconds: float = SECONDS) -> list[int]:
    """Return the offsets of the next `count` records of a topic with one partition."""
    deadline = time.monotonic() + seconds
    found: list[int] = []
    while len(found) < count and time.monotonic() < deadline:
        for records in consumer.poll(records_max=1000, timeout_seconds=0.2).values():
            found += [record.offset for record in records]
    return found


# ---- outages


def test_a_broker_killed_in_mid_append_loses_nothing_acknowledged_and_repeats_nothing(
    broker: Broker, open_log: OpenLog
) -> None:
    log = open_log()
    consumer = log.consumer(TOPIC, "g", lambda _: None)
    futures: list[Future[list[Appended]]] = []

    def work() -> None:
        for number in range(600):
            futures.append(log.producer().append_many(TOPIC, [LogEntry(b"run", b"%d" % number)]))
            time.sleep(0.002)

    worker = threading.Thread(target=work)
    worker.start()
    before = poll_until(consumer, 50)
    broker.kill()
    try:
        acknowledged = sum(future.done() for future in futures)
        worker.join()
        # An outage is no error for whoever has work at hand.
        while records := consumer.poll(records_max=1000, timeout_seconds=0.2).get(ONLY):
            before += [record.offset for record in records]
        consumer.seek(ONLY, len(before) - 10)
        lag = consumer.lag(ONLY)
    finally:
        broker.start()
    appended = [future.result(OUTAGE_SECONDS)[0].offset for future in futures]

    assert 50 <= acknowledged < 600
    assert lag >= 10
    assert appended == list(range(600))
    assert values_of(read_all(log)) == [b"%d" % number for number in range(600)]
    assert before == list(range(len(before)))
    assert poll_until(consumer, 610 - len(before), OUTAGE_SECONDS) == list(range(len(before) - 10, 600))


def test_an_append_to_a_broker_that_hangs_fails_in_time_and_the_next_ones_pass(
    broker: Broker, open_log: OpenLog, settings: KafkaSettings
) -> None:
    log = open_log(settings=KafkaSettings(topic_prefix=settings.topic_prefix, delivery_seconds=2.0), queue=1000)
    append(log, b"before")
    broker.freeze()
    try:
        began = time.monotonic()
        stuck = log.producer().append_many(TOPIC, [LogEntry(b"run", b"x" * 800)])
        refused = log.producer().append_many(TOPIC, [LogEntry(b"run", b"never")])
        with pytest.raises(UnavailableError, match="bytes wait for Kafka already"):
            refused.result(0)
        with pytest.raises(UnavailableError, match="appending to data failed"):
            stuck.result(SECONDS)
        assert time.monotonic() - began < 10
        with pytest.raises(UnavailableError, match="asking for the offsets"):
            log.producer().end_offset(ONLY)
    finally:
        broker.thaw()
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:  # the producer is opened anew
        if log.producer().append_many(TOPIC, [LogEntry(b"run", b"after")]).exception(SECONDS) is None:
            break
        time.sleep(0.1)

    values = values_of(read_all(log))
    assert (values[0], values[-1]) == (b"before", b"after")
    assert b"never" not in values


def test_what_is_abandoned_fails_at_once_and_stands_in_the_log_as_far_as_it_got(
    broker: Broker, open_log: OpenLog
) -> None:
    log = open_log()
    append(log, b"before")
    broker.freeze()
    try:
        stuck = [log.producer().append_many(TOPIC, [LogEntry(b"run", b"%d" % number)]) for number in range(50)]
        time.sleep(0.2)
        began = time.monotonic()
        log.producer().abandon()
        errors = [future.exception(SECONDS) for future in stuck]
        took_seconds = time.monotonic() - began
    finally:
        broker.thaw()
    deadline = time.monotonic() + SECONDS
    while log.producer().append_many(TOPIC, [LogEntry(b"run", b"after")]).exception(SECONDS) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.1)

    assert all(isinstance(error, UnavailableError) for error in errors)
    assert took_seconds < 5
    values = [value for value in values_of(read_all(log)) if value not in (b"before", b"after")]
    assert values == [b"%d" % number for number in range(len(values))]


def test_a_log_closes_in_time_while_its_broker_is_away(broker: Broker, open_log: OpenLog) -> None:
    log = open_log()
    append(log, b"1")
    consumer = log.consumer(TOPIC, "g", lambda _: None)
    assert poll_until(consumer, 1) == [0]
    broker.freeze()
    try:
        future = log.producer().append_many(TOPIC, [LogEntry(b"run", b"2")])
        began = time.monotonic()
        log.close()
        took_seconds = time.monotonic() - began
    finally:
        broker.thaw()

    assert took_seconds < 20
    with pytest.raises(UnavailableError):
        future.result(0)


# ---- groups


def test_a_second_consumer_takes_over_where_the_store_stands(open_log: OpenLog) -> None:
    log = open_log(partitions=4)
    applied: dict[int, int] = dict.fromkeys(range(4), 0)
    owners: dict[int, list[str]] = {number: [] for number in range(4)}
    seen: dict[int, list[int]] = {number: [] for number in range(4)}

    def start(name: str) -> LogConsumer:
        def on_assigned(partition: TopicPartition) -> int:
            owners[partition.partition].append(name)
            return applied[partition.partition]

        return log.consumer(TOPIC, "g", on_assigned)

    def work(consumer: LogConsumer) -> None:
        for partition, records in consumer.poll(records_max=10, timeout_seconds=0.1).items():
            if records[0].offset == applied[partition.partition]:  # or another one did it: the store would refuse
                seen[partition.partition] += [record.offset for record in records]
                applied[partition.partition] = records[-1].offset + 1

    log.producer().append_many(TOPIC, [LogEntry(b"%d" % number, b"v") for number in range(200)]).result(SECONDS)
    first = start("first")
    work(first)
    second = start("second")
    deadline = time.monotonic() + SECONDS
    while len(second.assignment()) < 2 and time.monotonic() < deadline:
        work(first)
        work(second)
    shares = [len(consumer.assignment()) for consumer in (first, second)]
    log.producer().append_many(TOPIC, [LogEntry(b"%d" % number, b"v") for number in range(200)]).result(SECONDS)
    first.close()
    while sum(applied.values()) < 400 and time.monotonic() < deadline:
        work(second)

    assert shares == [2, 2]
    assert all(names == ["first", "second"] for names in owners.values())
    assert len(second.assignment()) == 4
    assert all(offsets == list(range(len(offsets))) for offsets in seen.values())
    assert sum(applied.values()) == 400


def test_a_worker_that_wakes_behind_the_start_of_the_log_asks_where_the_work_stands(open_log: OpenLog) -> None:
    log = open_log()
    append(log, *(b"%d" % number for number in range(20)))
    stands = 0
    consumer = log.consumer(TOPIC, "g", lambda _: stands)
    assert poll_until(consumer, 20) == list(range(20))
    consumer.seek(ONLY, 5)

    # Meanwhile another worker did the work, and what it did was deleted.
    stands = 15
    log.trim(ONLY, 10)

    assert poll_until(consumer, 5) == list(range(15, 20))


def test_a_worker_follows_the_store_past_what_it_heard_of_before_an_outage(broker: Broker, open_log: OpenLog) -> None:
    log, other = open_log(), open_log()
    append(log, *(b"%d" % number for number in range(10)))
    consumer = log.consumer(TOPIC, "g", lambda _: None)
    assert poll_until(consumer, 10) == list(range(10))
    append(other, *(b"%d" % number for number in range(10, 20)))
    broker.kill()
    try:
        consumer.seek(ONLY, 19)
    finally:
        broker.start()

    assert poll_until(consumer, 1, OUTAGE_SECONDS) == [19]


def test_a_worker_whose_work_was_deleted_undone_refuses_to_go_on(open_log: OpenLog) -> None:
    log = open_log()
    append(log, *(b"%d" % number for number in range(20)))
    consumer = log.consumer(TOPIC, "g", lambda _: 0)
    poll_until(consumer, 20)
    consumer.seek(ONLY, 5)
    log.trim(ONLY, 10)

    with pytest.raises(CorruptedError, match="holds offsets 10 to 20, 0 is outside"):
        poll_until(consumer, 5)


def test_a_consumer_with_a_lasting_name_is_replaced_without_waiting_for_its_session(
    open_log: OpenLog, settings: KafkaSettings
) -> None:
    named = KafkaSettings(topic_prefix=settings.topic_prefix, instance="worker-0", session_seconds=1000.0)
    log = open_log(settings=named)
    append(log, b"1")
    consumer = log.consumer(TOPIC, "g", lambda _: None)
    assert poll_until(consumer, 1) == [0]
    log.close()

    assert poll_until(open_log(settings=named).consumer(TOPIC, "g", lambda _: None), 1) == [0]


def test_the_start_is_asked_of_the_store_whatever_was_reported(
    open_log: OpenLog, admin: KafkaAdminClient, settings: KafkaSettings
) -> None:
    log = open_log()
    append(log, *(b"%d" % number for number in range(10)))
    consumer = log.consumer(TOPIC, "g", lambda _: None)
    poll_until(consumer, 10)
    consumer.report(ONLY, 10)
    consumer.close()
    group = f"{settings.topic_prefix}g.{TOPIC}"
    (committed,) = admin.list_group_offsets({group: None})[group].values()

    assert committed.offset == 10
    assert poll_until(log.consumer(TOPIC, "g", lambda _: 4), 6) == [4, 5, 6, 7, 8, 9]


# ---- identity


def test_a_topic_keeps_its_partitions(open_log: OpenLog) -> None:
    open_log(partitions=3).partitions(TOPIC)

    assert open_log(partitions=2).partitions(TOPIC) == 3
    with pytest.raises(ConfigurationError, match=r"has 3 partitions, the settings want 4.*log\.partitions to 3"):
        open_log(partitions=4).partitions(TOPIC)


def test_partitions_added_by_others_are_not_used(
    open_log: OpenLog, admin: KafkaAdminClient, settings: KafkaSettings
) -> None:
    keys = [b"%d" % number for number in range(50)]
    log = open_log(partitions=2)
    before = [log.producer().partition_of(TOPIC, key) for key in keys]
    admin.create_partitions({settings.topic_prefix + TOPIC: 5})
    log = open_log(partitions=2)

    assert log.partitions(TOPIC) == 2
    assert [log.producer().partition_of(TOPIC, key) for key in keys] == before


def test_a_topic_made_anew_is_refused_until_the_log_is(
    open_log: OpenLog, admin: KafkaAdminClient, settings: KafkaSettings
) -> None:
    log = open_log()
    append(log, b"1")
    first_id = log.log_id
    log.close()
    data, catalogue = settings.topic_prefix + TOPIC, settings.topic_prefix + CATALOGUE
    admin.delete_topics([data])
    with pytest.raises(ConfigurationError, match=f"topic {data} is gone .* delete topic {catalogue}"):
        open_log().partitions(TOPIC)
    admin.create_topics({data: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
    with pytest.raises(ConfigurationError, match=f"topic {data} was deleted and made anew"):
        open_log().partitions(TOPIC)
    admin.delete_topics([catalogue])
    log = open_log()

    assert log.log_id != first_id
    assert append(log, b"fresh") == [Appended(0, 0)]


# ---- refusals at the start


def test_no_broker_is_said_in_time() -> None:
    began = time.monotonic()

    with pytest.raises(UnavailableError, match=r"no broker of 127\.0\.0\.1:9 answered within 0\.5 s"):
        open_kafka_log("kafka://127.0.0.1:9", partitions=1, settings=KafkaSettings(connect_seconds=0.5))
    assert time.monotonic() - began < 5


def test_an_unknown_host_is_said_in_time() -> None:
    with pytest.raises(UnavailableError, match=r"no broker of no-such-host\.invalid:9092 answered"):
        open_kafka_log("kafka://no-such-host.invalid", partitions=1, settings=KafkaSettings(connect_seconds=0.5))


def test_a_password_opens_and_a_wrong_one_is_said(broker: Broker) -> None:
    def settings(password: str) -> KafkaSettings:
        return fresh_settings(security_protocol="SASL_PLAINTEXT", user=USER, password=Secret(password))

    log = open_kafka_log(broker.sasl_uri, partitions=1, settings=settings(PASSWORD))
    append(log, b"1")
    assert values_of(read_all(log)) == [b"1"]
    log.close()
    with pytest.raises(ConfigurationError, match=r"kafka\.password in the settings") as caught:
        open_kafka_log(broker.sasl_uri, partitions=1, settings=settings("wrong-password"))

    assert "wrong-password" not in str(caught.value)
