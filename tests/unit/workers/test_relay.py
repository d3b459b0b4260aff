"""The relay on a real store and a real log: every entry is told, in order, whatever fails on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import Appended, LogEngine, LogEntry, LogProducer, TopicPartition
from matyan.errors import TooLargeError, UnavailableError
from matyan.observe.metrics import Metrics
from matyan.store import outbox
from matyan.store.outbox import OutboxEntry
from matyan.workers.leases import ProcessLeases, StoreLeases
from matyan.workers.lifecycle import State
from matyan.workers.relay import ENTRIES_MAX, OutboxRelay
from tests.support.kv_faults import ROUGH, FaultyKv
from tests.support.wayward import WaywardProducer

TOPIC, OTHER = "events", "dead"


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[EmbeddedKv]:
    engine = open_embedded_kv(tmp_path / "kv", map_bytes=2**28)
    yield engine
    engine.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogEngine]:
    engine = open_embedded_log(tmp_path / "log", partitions=1)
    yield engine
    engine.close()


class FailingProducer:
    """A producer that fails the first appends, before or after the log took them, or never answers."""

    def __init__(self, producer: LogProducer, *, failures: int, takes_them: bool = False, topic: str = TOPIC) -> None:
        self._producer = producer
        self._failures_left = failures
        self._takes_them = takes_them
        self._topic = topic

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def append_many(self, topic: str, entries: Sequence[LogEntry]) -> Future[list[Appended]]:
        if topic != self._topic or not self._failures_left:
            return self._producer.append_many(topic, entries)
        self._failures_left -= 1
        if self._takes_them:
            self._producer.append_many(topic, entries).result(5)
        failed: Future[list[Appended]] = Future()
        failed.set_exception(UnavailableError("broker down"))
        return failed


class FussyProducer:
    """A producer that refuses some entries for good, and then for a while everything, as Kafka's client does."""

    def __init__(self, producer: LogProducer, poison: Sequence[bytes]) -> None:
        self._producer = producer
        self._poison = set(poison)
        self._is_renewed = False

    def append_many(self, topic: str, entries: Sequence[LogEntry]) -> Future[list[Appended]]:
        failed: Future[list[Appended]] = Future()
        if self._is_renewed:
            self._is_renewed = False
            failed.set_exception(UnavailableError("the client is opened anew"))
        elif self._poison.intersection(entry.value for entry in entries):
            self._is_renewed = True
            failed.set_exception(TooLargeError("the record is too large for its topic"))
        else:
            return self._producer.append_many(topic, entries)
        return failed


class SilentProducer:
    """A producer whose broker never answers."""

    def __init__(self) -> None:
        self.asked = 0

    def append_many(self, topic: str, entries: Sequence[LogEntry]) -> Future[list[Appended]]:
        del topic, entries
        self.asked += 1
        return Future()


def put(kv: KvEngine, *values: bytes, topic: str = TOPIC) -> None:
    """Commit entries, each in a transaction of its own."""

    def write(tx: KvTransaction, value: bytes) -> None:
        outbox.put(tx, topic, OutboxEntry(time_ms=1, key=b"k", value=value), name=b"")

    for value in values:
        kv.write(partial(write, value=value), durable=False)


def waiting(kv: KvEngine, topic: str = TOPIC) -> int:
    return kv.read(lambda reader: outbox.read_backlog(reader, topic)).entries


def told(log: LogEngine, topic: str = TOPIC) -> list[bytes]:
    """Return everything that a topic holds."""
    partition = TopicPartition(topic, 0)
    end, found = log.producer().end_offset(partition), list[bytes]()
    consumer = log.consumer(topic, "test", lambda _: None)
    while len(found) < end:
        found += [one.value for one in consumer.poll(records_max=10_000, timeout_seconds=5).get(partition, [])]
    consumer.close()
    return found


def make_relay(kv: KvEngine, producer: object, *, metrics: Metrics | None = None, leases: Any = None) -> OutboxRelay:
    return OutboxRelay(
        kv=kv,
        producer=cast("LogProducer", producer),
        leases=leases or ProcessLeases(),
        topics=(TOPIC, OTHER),
        metrics=metrics or Metrics(),
    )


def run_until(relays: Sequence[OutboxRelay], done: Callable[[], bool]) -> None:
    async def scenario() -> None:
        for relay in relays:
            await relay.start()
        async with asyncio.timeout(30):
            while not done() and all(relay.state is State.RUNNING for relay in relays):  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.005)
        for relay in relays:
            await relay.stop()
            await relay.ended()

    asyncio.run(scenario())


def without_repeats(values: Sequence[bytes]) -> list[bytes]:
    return list(dict.fromkeys(values))


def test_entries_are_told_once_and_in_order_and_forgotten(kv: EmbeddedKv, log: LogEngine) -> None:
    values = [b"%d" % number for number in range(2 * ENTRIES_MAX + 7)]
    put(kv, *values)
    put(kv, b"letter", topic=OTHER)

    run_until([make_relay(kv, log.producer())], lambda: waiting(kv) + waiting(kv, OTHER) == 0)

    assert told(log) == values
    assert told(log, OTHER) == [b"letter"]


def test_an_entry_is_told_soon_after_its_commit(kv: EmbeddedKv, log: LogEngine) -> None:
    began: list[float] = []
    ended: list[float] = []

    def is_told() -> bool:
        if not began:
            put(kv, b"a")
            began.append(time.monotonic())
        if not waiting(kv):
            ended.append(time.monotonic())
        return bool(ended)

    run_until([make_relay(kv, log.producer())], is_told)

    assert ended[0] - began[0] < 1.0


@pytest.mark.parametrize("takes_them", [False, True])
def test_a_log_that_fails_gets_everything_again_in_order(kv: EmbeddedKv, log: LogEngine, *, takes_them: bool) -> None:
    values = [b"%d" % number for number in range(20)]
    put(kv, *values)
    metrics = Metrics()
    producer = FailingProducer(log.producer(), failures=2, takes_them=takes_them)

    run_until([make_relay(kv, producer, metrics=metrics)], lambda: waiting(kv) == 0)

    assert without_repeats(told(log)) == values
    assert len(told(log)) == (60 if takes_them else 20)
    assert 'reason="unavailable",worker="relay"} 2.0' in metrics.exposition().decode()


def test_a_topic_that_fails_holds_up_no_other(kv: EmbeddedKv, log: LogEngine) -> None:
    put(kv, b"a")
    put(kv, b"letter", topic=OTHER)
    producer = FailingProducer(log.producer(), failures=1_000_000)

    run_until([make_relay(kv, producer)], lambda: waiting(kv, OTHER) == 0)

    assert told(log, OTHER) == [b"letter"]
    assert waiting(kv) == 1


def test_what_the_log_refuses_stays_and_holds_up_nobody(
    kv: EmbeddedKv, log: LogEngine, caplog: pytest.LogCaptureFixture
) -> None:
    values = [b"%d" % number for number in range(ENTRIES_MAX + 50)]
    poison = [values[0], values[7], values[8], values[-1]]
    put(kv, *values)
    put(kv, b"letter", topic=OTHER)
    metrics = Metrics()
    producer = WaywardProducer(log.producer())
    producer.refuses = lambda entry: entry.value in poison

    def is_done() -> bool:
        refused = metrics.registry.get_sample_value(
            "matyan_worker_retries_total", {"worker": "relay", "reason": "refused"}
        )
        return refused == len(poison) and waiting(kv) + waiting(kv, OTHER) == len(poison)

    run_until([make_relay(kv, producer, metrics=metrics)], is_done)

    assert told(log) == [value for value in values if value not in poison]
    assert told(log, OTHER) == [b"letter"]
    assert [record.levelname for record in caplog.records if "log refuses" in record.message] == ["ERROR"] * 4


def test_more_refusals_than_are_read_at_a_time_hold_up_nobody(kv: EmbeddedKv, log: LogEngine) -> None:
    poison = [b"%d" % number for number in range(ENTRIES_MAX + 1)]
    put(kv, *poison, b"good")
    producer = WaywardProducer(log.producer())
    producer.refuses = lambda entry: entry.value in poison

    run_until([make_relay(kv, producer)], lambda: bool(told(log)))

    assert told(log) == [b"good"]
    left = kv.read(lambda reader: outbox.read(reader, TOPIC, rows_max=2 * ENTRIES_MAX))
    assert [one.entry.value for one in left] == poison


def test_a_log_that_needs_a_while_after_a_refusal_is_waited_for(kv: EmbeddedKv, log: LogEngine) -> None:
    values = [b"%d" % number for number in range(20)]
    put(kv, *values)

    run_until([make_relay(kv, FussyProducer(log.producer(), [values[3]]))], lambda: waiting(kv) == 1)

    assert told(log) == [value for value in values if value != values[3]]


def test_what_was_refused_is_offered_again_by_the_next_relay(kv: EmbeddedKv, log: LogEngine) -> None:
    put(kv, b"1", b"2", b"3")
    producer = WaywardProducer(log.producer())
    producer.refuses = lambda entry: entry.value == b"2"
    run_until([make_relay(kv, producer)], lambda: waiting(kv) == 1)
    producer.refuses = lambda _: False

    run_until([make_relay(kv, producer)], lambda: waiting(kv) == 0)

    assert told(log) == [b"1", b"3", b"2"]


def test_a_broker_that_never_answers_does_not_hold_up_a_stop(kv: EmbeddedKv) -> None:
    put(kv, b"a")
    producer, leases = SilentProducer(), ProcessLeases()

    began = time.monotonic()
    run_until([make_relay(kv, producer, leases=leases)], lambda: producer.asked > 0)

    assert time.monotonic() - began < 3.0
    assert waiting(kv) == 1
    assert leases.acquire("relay") is not None, "the lease was given back"


def test_of_two_relays_one_works_and_the_other_follows_when_it_stops(kv: EmbeddedKv, log: LogEngine) -> None:
    first, second = StoreLeases(kv=kv, seconds=5), StoreLeases(kv=kv, seconds=5)
    values = [b"%d" % number for number in range(200)]

    put(kv, *values[:100])
    run_until(
        [make_relay(kv, log.producer(), leases=first), make_relay(kv, log.producer(), leases=second)],
        lambda: waiting(kv) == 0,
    )
    put(kv, *values[100:])
    run_until([make_relay(kv, log.producer(), leases=second)], lambda: waiting(kv) == 0)

    assert told(log) == values
    first.close()
    second.close()


def test_a_store_that_fails_as_foundationdb_does_loses_nothing(kv: EmbeddedKv, log: LogEngine) -> None:
    faulty = FaultyKv(kv, seed=3, rates=ROUGH)
    values = [b"%d" % number for number in range(300)]
    relay = make_relay(faulty, log.producer(), leases=StoreLeases(kv=faulty, seconds=1))
    for at in range(0, 300, 50):
        put(kv, *values[at : at + 50])

    run_until([relay], lambda: waiting(kv) == 0)

    assert without_repeats(told(log)) == values, faulty
