"""What every log engine promises: a test per sentence of matyan/engines/log/protocol.py."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from matyan.clock import ManualClock
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.kafka import open_kafka_log
from matyan.engines.log.protocol import Appended, LogEngine, LogEntry, TopicPartition
from matyan.errors import CorruptedError, InvalidArgumentError, TooLargeError, UnavailableError
from matyan.limits import RECORD_BYTES_MAX
from tests.support.kafka import fresh_settings, shared_broker
from tests.support.logs import ONLY, SECONDS, TOPIC, append, read_all, values_of

WIDE = "wide"
"""A topic of four partitions; TOPIC has one."""
WIDE_PARTITIONS = [TopicPartition(WIDE, number) for number in range(4)]
CLOCK = ManualClock(1_700_000_000.125)

OpenLog = Callable[[], LogEngine]


PARTITIONS = {TOPIC: 1, WIDE: 4}
KAFKA_CANNOT = {
    "test_consumers_of_a_group_share_the_partitions_and_take_over": "Kafka's members learn of each other at heartbeats",
    "test_trim_deletes_whole_segments_and_keeps_what_is_not_below": "Kafka does not tell how many bytes it deletes",
    "test_trim_of_nothing_frees_nothing": "Kafka deletes up to the offset exactly",
}


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenLog]:
    """Open the log; opened again after a close, it is the same one."""
    opened: list[LogEngine] = []

    def embedded() -> LogEngine:
        return open_embedded_log(
            tmp_path / "log", partitions=PARTITIONS, segment_bytes=20_000, tail_bytes_max=5_000, clock=CLOCK
        )

    def kafka() -> LogEngine:
        return open_kafka_log(broker.uri, partitions=PARTITIONS, settings=settings, clock=CLOCK)

    if request.param == "kafka":
        broker = shared_broker()
        settings = fresh_settings()
        if reason := KAFKA_CANNOT.get(request.function.__name__):
            request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    open_one = {"embedded": embedded, "kafka": kafka}[request.param]

    def open_again() -> LogEngine:
        opened.append(open_one())
        return opened[-1]

    yield open_again
    for log in opened:
        log.close()


@pytest.fixture
def log(open_log: OpenLog) -> LogEngine:
    return open_log()


# ---- producing


def test_appended_records_come_back_with_key_value_offset_and_time(log: LogEngine) -> None:
    future = log.producer().append_many(TOPIC, [LogEntry(b"a", b"1"), LogEntry(b"", b""), LogEntry(b"c", b"\x00\xff")])

    assert future.result(SECONDS) == [Appended(0, 0), Appended(0, 1), Appended(0, 2)]
    assert read_all(log) == [
        (0, 1_700_000_000_125, b"a", b"1"),
        (1, 1_700_000_000_125, b"", b""),
        (2, 1_700_000_000_125, b"c", b"\x00\xff"),
    ]


def test_offsets_continue_over_calls_and_openings(open_log: OpenLog) -> None:
    log = open_log()
    first = append(log, b"1", b"2")
    log.close()
    log = open_log()
    second = append(log, b"3")

    assert [one.offset for one in first + second] == [0, 1, 2]
    assert values_of(read_all(log)) == [b"1", b"2", b"3"]


def test_an_empty_append_is_done_and_adds_nothing(log: LogEngine) -> None:
    assert log.producer().append_many(TOPIC, []).result(SECONDS) == []
    assert log.producer().end_offset(ONLY) == 0


def test_the_entries_are_taken_as_they_were_at_the_call(log: LogEngine) -> None:
    entries = [LogEntry(b"k", b"before")]
    future = log.producer().append_many(TOPIC, entries)
    entries[0] = LogEntry(b"k", b"after")
    future.result(SECONDS)

    assert values_of(read_all(log)) == [b"before"]


def test_the_largest_record_passes_and_a_larger_one_spoils_its_whole_call_only(log: LogEngine) -> None:
    producer = log.producer()
    largest = b"x" * (RECORD_BYTES_MAX - 1)
    refused = producer.append_many(TOPIC, [LogEntry(b"k", b"never"), LogEntry(b"kk", largest)])
    accepted = producer.append_many(TOPIC, [LogEntry(b"k", largest)])

    with pytest.raises(TooLargeError, match=str(RECORD_BYTES_MAX)):
        refused.result(SECONDS)
    assert accepted.result(SECONDS) == [Appended(0, 0)]
    assert values_of(read_all(log)) == [largest]


def test_a_key_has_one_partition_in_the_order_of_appending(log: LogEngine) -> None:
    producer = log.producer()
    keys = [b"run-%d" % number for number in range(40)]
    futures = [producer.append_many(WIDE, [LogEntry(key, b"%d" % turn)]) for turn in range(5) for key in keys]
    appended = [future.result(SECONDS)[0] for future in futures]

    assert {one.partition for one in appended} == {0, 1, 2, 3}
    assert [one.partition for one in appended] == [producer.partition_of(WIDE, key) for key in keys] * 5
    by_key: dict[bytes, list[bytes]] = {key: [] for key in keys}
    for partition in WIDE_PARTITIONS:
        for record in read_all(log, partition):
            by_key[record.key].append(record.value)
    assert all(values == [b"0", b"1", b"2", b"3", b"4"] for values in by_key.values())


def test_the_partition_of_a_key_is_the_same_after_opening_again(open_log: OpenLog) -> None:
    keys = [b"run-%d" % number for number in range(40)]
    log = open_log()
    before = [log.producer().partition_of(WIDE, key) for key in keys]
    log.close()
    log = open_log()

    assert [log.producer().partition_of(WIDE, key) for key in keys] == before


def test_many_threads_append_and_every_future_tells_the_truth(log: LogEngine) -> None:
    appended: dict[int | None, bytes] = {}

    def work(worker: int) -> None:
        for number in range(100):
            value = b"%d/%d" % (worker, number)
            appended[append(log, value)[0].offset] = value

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert values_of(read_all(log)) == [appended[offset] for offset in range(800)]


def test_a_cancelled_future_does_not_stop_the_log(log: LogEngine) -> None:
    producer = log.producer()
    for number in range(50):
        producer.append_many(TOPIC, [LogEntry(b"k", b"%d" % number)]).cancel()

    append(log, b"last")
    assert values_of(read_all(log))[-1] == b"last"


def test_close_makes_durable_what_is_queued(open_log: OpenLog) -> None:
    log = open_log()
    futures = [log.producer().append_many(TOPIC, [LogEntry(b"k", b"%d" % number)]) for number in range(200)]
    log.close()

    assert [future.result(0)[0].offset for future in futures] == list(range(200))
    assert len(read_all(open_log())) == 200


def test_a_closed_log_refuses(log: LogEngine) -> None:
    producer = log.producer()
    consumer = log.consumer(TOPIC, "g", lambda _: None)
    log.close()

    with pytest.raises(UnavailableError, match="closed"):
        producer.append_many(TOPIC, [LogEntry(b"k", b"v")]).result(SECONDS)
    with pytest.raises(UnavailableError, match="closed"):
        consumer.poll(records_max=1, timeout_seconds=0)


# ---- identity and bounds


def test_the_log_id_is_kept_and_random(open_log: OpenLog, tmp_path: Path) -> None:
    log = open_log()
    first = log.log_id
    log.close()
    other = open_embedded_log(tmp_path / "other", partitions=1)
    other.close()

    assert open_log().log_id == first
    assert other.log_id != first


def test_partitions_tells_the_number(log: LogEngine) -> None:
    assert (log.partitions(TOPIC), log.partitions(WIDE)) == (1, 4)


def test_start_and_end_of_an_empty_partition_are_equal(log: LogEngine) -> None:
    assert log.start_offset(ONLY) == log.producer().end_offset(ONLY) == 0


def test_the_end_offset_counts_what_is_durable(log: LogEngine) -> None:
    append(log, b"1", b"2", b"3")

    assert log.producer().end_offset(ONLY) == 3


def test_a_partition_that_does_not_exist_is_refused(log: LogEngine) -> None:
    with pytest.raises(InvalidArgumentError, match="partitions 0 to 0, not 1"):
        log.start_offset(TopicPartition(TOPIC, 1))


# ---- consuming


def test_poll_hands_out_everything_in_order_and_no_more_than_asked(log: LogEngine) -> None:
    append(log, *(b"%d" % number for number in range(25)))
    consumer = log.consumer(TOPIC, "g", lambda _: None)
    polls = [consumer.poll(records_max=10, timeout_seconds=0).get(ONLY, []) for _ in range(4)]

    assert [len(records) for records in polls] == [10, 10, 5, 0]
    assert [record.offset for records in polls for record in records] == list(range(25))


def test_poll_reads_files_and_memory_alike(log: LogEngine) -> None:
    # 400 records of 1 kB: 20 segments, of which the newest five records are in memory.
    values = [bytes([number % 256]) * 1000 for number in range(400)]
    for begin in range(0, 400, 20):
        append(log, *values[begin : begin + 20])

    assert values_of(read_all(log)) == values
    assert values_of(read_all(log, begin=137)) == values[137:]


def test_poll_limits_each_partition_for_itself(log: LogEngine) -> None:
    for number in range(60):
        append(log, b"v", key=b"run-%d" % number, topic=WIDE)
    consumer = log.consumer(WIDE, "g", lambda _: None)

    found = consumer.poll(records_max=5, timeout_seconds=0)

    assert {name: len(records) for name, records in found.items()} == dict.fromkeys(WIDE_PARTITIONS, 5)


def test_poll_returns_empty_after_its_time(log: LogEngine) -> None:
    consumer = log.consumer(TOPIC, "g", lambda _: None)

    assert consumer.poll(records_max=1, timeout_seconds=0.02) == {}


def test_poll_wakes_up_for_the_first_record(log: LogEngine) -> None:
    consumer = log.consumer(TOPIC, "g", lambda _: None)
    consumer.poll(records_max=1, timeout_seconds=0)
    found: Future[list[bytes]] = Future()
    waiter = threading.Thread(
        target=lambda: found.set_result(values_of(consumer.poll(records_max=9, timeout_seconds=SECONDS)[ONLY]))
    )
    waiter.start()
    append(log, b"news")

    assert found.result(SECONDS / 2) == [b"news"]
    waiter.join()


def test_a_waiting_poll_ends_when_the_log_closes(log: LogEngine) -> None:
    consumer = log.consumer(TOPIC, "g", lambda _: None)
    consumer.poll(records_max=1, timeout_seconds=0)
    errors: list[Exception] = []

    def wait() -> None:
        try:
            consumer.poll(records_max=1, timeout_seconds=SECONDS)
        except UnavailableError as error:
            errors.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    log.close()
    waiter.join(SECONDS / 2)

    assert len(errors) == 1


def test_the_callback_says_where_each_partition_starts(log: LogEngine) -> None:
    for number in range(60):
        append(log, b"v", key=b"run-%d" % number, topic=WIDE)
    starts: dict[TopicPartition, int | None] = dict(zip(WIDE_PARTITIONS, (None, 0, 3, 4), strict=True))
    asked: list[TopicPartition] = []

    def on_assigned(partition: TopicPartition) -> int | None:
        asked.append(partition)
        return starts[partition]

    consumer = log.consumer(WIDE, "g", on_assigned)
    assert asked == []
    found = consumer.poll(records_max=100, timeout_seconds=0)
    consumer.poll(records_max=100, timeout_seconds=0)

    assert asked == WIDE_PARTITIONS
    assert {name: records[0].offset for name, records in found.items()} == dict(
        zip(WIDE_PARTITIONS, (0, 0, 3, 4), strict=True)
    )


def test_a_callback_that_fails_is_asked_again(log: LogEngine) -> None:
    append(log, b"1", b"2")
    answers: list[int | Exception] = [UnavailableError("the store is away"), 1]

    def on_assigned(partition: TopicPartition) -> int | None:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    consumer = log.consumer(TOPIC, "g", on_assigned)
    with pytest.raises(UnavailableError, match="the store is away"):
        consumer.poll(records_max=10, timeout_seconds=0)

    assert values_of(consumer.poll(records_max=10, timeout_seconds=0)[ONLY]) == [b"2"]


@pytest.mark.parametrize("offset", [-1, 4])
def test_a_start_outside_the_log_is_a_loud_refusal(log: LogEngine, offset: int) -> None:
    append(log, b"1", b"2", b"3")
    consumer = log.consumer(TOPIC, "g", lambda _: offset)

    with pytest.raises(CorruptedError, match=f"holds offsets 0 to 3, {offset} is outside"):
        consumer.poll(records_max=1, timeout_seconds=0)


def test_seek_moves_both_ways_and_up_to_the_end(log: LogEngine) -> None:
    append(log, b"1", b"2", b"3")
    consumer = log.consumer(TOPIC, "g", lambda _: None)
    consumer.poll(records_max=3, timeout_seconds=0)

    consumer.seek(ONLY, 1)
    assert values_of(consumer.poll(records_max=1, timeout_seconds=0)[ONLY]) == [b"2"]
    consumer.seek(ONLY, 3)
    assert consumer.poll(records_max=1, timeout_seconds=0) == {}
    with pytest.raises(CorruptedError):
        consumer.seek(ONLY, 4)


def test_lag_counts_from_the_position(log: LogEngine) -> None:
    append(log, *(b"%d" % number for number in range(10)))
    consumer = log.consumer(TOPIC, "g", lambda _: None)
    consumer.poll(records_max=4, timeout_seconds=0)
    before = consumer.lag(ONLY)
    append(log, b"more")
    consumer.report(ONLY, 4)

    assert (before, consumer.lag(ONLY)) == (6, 7)
    with pytest.raises(InvalidArgumentError, match="not assigned"):
        consumer.lag(WIDE_PARTITIONS[0])


def test_groups_and_topics_read_for_themselves(log: LogEngine) -> None:
    append(log, b"data")
    append(log, b"wide", topic=WIDE)
    consumers = [log.consumer(TOPIC, "a", lambda _: None), log.consumer(TOPIC, "b", lambda _: None)]
    consumers.append(log.consumer(WIDE, "a", lambda _: None))

    found = [values_of(next(iter(one.poll(records_max=9, timeout_seconds=0).values()))) for one in consumers]

    assert found == [[b"data"], [b"data"], [b"wide"]]


def test_consumers_of_a_group_share_the_partitions_and_take_over(log: LogEngine) -> None:
    first = log.consumer(WIDE, "g", lambda _: None)
    first.poll(records_max=1, timeout_seconds=0)
    assert list(first.assignment()) == WIDE_PARTITIONS
    second = log.consumer(WIDE, "g", lambda _: None)

    second.poll(records_max=1, timeout_seconds=0)
    assert list(second.assignment()) == []  # the first one still holds all of them
    first.poll(records_max=1, timeout_seconds=0)
    second.poll(records_max=1, timeout_seconds=0)
    assert [name.partition for name in first.assignment()] == [0, 2]
    assert [name.partition for name in second.assignment()] == [1, 3]
    first.close()
    second.poll(records_max=1, timeout_seconds=0)
    assert list(second.assignment()) == WIDE_PARTITIONS


def test_a_waiting_poll_takes_over_what_another_consumer_leaves(log: LogEngine) -> None:
    append(log, b"v")
    first = log.consumer(TOPIC, "g", lambda _: None)
    first.poll(records_max=1, timeout_seconds=0)
    second = log.consumer(TOPIC, "g", lambda _: None)
    found: Future[int] = Future()
    waiter = threading.Thread(
        target=lambda: found.set_result(len(second.poll(records_max=9, timeout_seconds=SECONDS)[ONLY]))
    )
    waiter.start()
    first.close()

    assert found.result(SECONDS / 2) == 1
    waiter.join()


def test_consumers_keep_up_with_producers_at_work(log: LogEngine) -> None:
    total = 4 * 150
    seen: list[list[int]] = [[], []]

    def consume(place: int) -> None:
        consumer = log.consumer(TOPIC, f"group-{place}", lambda _: None)
        while len(seen[place]) < total:
            for records in consumer.poll(records_max=7, timeout_seconds=SECONDS).values():
                seen[place] += [record.offset for record in records]

    def produce() -> None:
        for _ in range(150):
            append(log, b"v" * 500)

    threads = [threading.Thread(target=consume, args=(place,)) for place in (0, 1)]
    threads += [threading.Thread(target=produce) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)

    assert seen == [list(range(total))] * 2


# ---- retention


def fill(log: LogEngine, records: int) -> None:
    for _ in range(records):
        append(log, b"x" * 1000)


def test_trim_deletes_whole_segments_and_keeps_what_is_not_below(log: LogEngine) -> None:
    fill(log, 100)
    freed = log.trim(ONLY, 50)
    start = log.start_offset(ONLY)

    assert 30 <= start <= 50
    assert start * 1000 <= freed <= start * 1100
    assert [record.offset for record in read_all(log)] == list(range(start, 100))


def test_trim_of_nothing_frees_nothing(log: LogEngine) -> None:
    fill(log, 5)

    assert (log.trim(ONLY, 0), log.trim(ONLY, 3), log.start_offset(ONLY)) == (0, 0, 0)


def test_trim_to_the_end_leaves_an_empty_log_that_goes_on(open_log: OpenLog) -> None:
    log = open_log()
    fill(log, 30)
    CLOCK.advance(3600)
    log.trim(ONLY, 30)
    assert (log.start_offset(ONLY), log.producer().end_offset(ONLY)) == (30, 30)
    log.close()
    log = open_log()

    assert (log.start_offset(ONLY), append(log, b"next")) == (30, [Appended(0, 30)])


def test_what_was_trimmed_cannot_be_read_again(open_log: OpenLog) -> None:
    log = open_log()
    fill(log, 100)
    late = log.consumer(TOPIC, "late", lambda _: None)
    late.poll(records_max=1, timeout_seconds=0)
    log.trim(ONLY, 80)
    start = log.start_offset(ONLY)

    with pytest.raises(CorruptedError, match=f"holds offsets {start} to 100"):
        late.seek(ONLY, start - 1)
    log.close()
    assert open_log().start_offset(ONLY) == start
