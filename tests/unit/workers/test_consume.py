"""The consumer loop on a real log: order, repeats, outages, pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import LogConsumer, LogEngine, LogEntry, LogRecord, TopicPartition
from matyan.errors import OffsetMovedError, UnavailableError
from matyan.observe.metrics import Metrics
from matyan.workers.consume import ConsumerService, Pace
from matyan.workers.lifecycle import State

TOPIC = "t"
ONLY = TopicPartition(TOPIC, 0)
Handle = Callable[[TopicPartition, Sequence[LogRecord]], Any]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogEngine]:
    engine = open_embedded_log(tmp_path / "log", partitions=1)
    yield engine
    engine.close()


class Worker:
    """Keeps what a handler that stores its applied offset would keep."""

    def __init__(self) -> None:
        self.applied: list[bytes] = []
        self.slices: list[int] = []
        self.times: list[float] = []
        self.offset = 0

    def __call__(self, partition: TopicPartition, records: Sequence[LogRecord]) -> int:
        del partition
        if records[0].offset != self.offset:
            raise OffsetMovedError(self.offset)
        self.applied += [record.value for record in records]
        self.slices.append(len(records))
        self.times.append(time.monotonic())
        self.offset = records[-1].offset + 1
        return len(records)


def append(log: LogEngine, *values: bytes) -> None:
    log.producer().append_many(TOPIC, [LogEntry(b"k", value) for value in values]).result(5)


def make_service(
    log: LogEngine,
    handle: Handle,
    *,
    metrics: Metrics | None = None,
    pace: Pace | None = None,
    start: int | None = None,
) -> ConsumerService:
    return ConsumerService(
        "test",
        open_consumer=lambda: log.consumer(TOPIC, "g", lambda _: start),
        handle=handle,
        observe=lambda partition, records, outcome: None,
        metrics=metrics or Metrics(),
        pace=pace,
    )


def run_until(service: ConsumerService, done: Callable[[], bool], feed: Callable[[], None] = lambda: None) -> None:
    async def scenario() -> None:
        await service.start()
        feeding = asyncio.create_task(asyncio.to_thread(feed))
        async with asyncio.timeout(10):
            while not done() and service.state is State.RUNNING:  # noqa: ASYNC110 - `done` knows of no event
                await asyncio.sleep(0.002)
        await feeding
        await service.stop()
        await service.ended()

    asyncio.run(scenario())


def test_records_are_handled_in_order_and_once(log: LogEngine) -> None:
    append(log, *(b"%d" % number for number in range(50)))
    worker = Worker()

    run_until(make_service(log, worker, pace=Pace(records_max=7)), lambda: len(worker.applied) == 50)

    assert worker.applied == [b"%d" % number for number in range(50)]
    assert max(worker.slices) <= 7


class Shrinking:
    """A real consumer that has given partitions up to others."""

    def __init__(self, consumer: LogConsumer) -> None:
        self._consumer = consumer
        self.given_up: set[TopicPartition] = set()

    def assignment(self) -> Sequence[TopicPartition]:
        return [partition for partition in self._consumer.assignment() if partition not in self.given_up]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


def test_the_lag_of_a_partition_that_another_worker_took_over_is_forgotten(tmp_path: Path) -> None:
    log, metrics = open_embedded_log(tmp_path / "log", partitions=2), Metrics()
    service = make_service(log, Worker(), metrics=metrics)
    consumer = Shrinking(log.consumer(TOPIC, "g", lambda _: None))
    consumer.poll(records_max=1, timeout_seconds=0.0)  # which assigns

    service._report_lag(cast("LogConsumer", consumer))
    before = [lag_of(metrics, number) for number in (0, 1)]
    consumer.given_up.add(ONLY)
    service._report_lag(cast("LogConsumer", consumer))

    assert before == [0, 0]
    assert [lag_of(metrics, number) for number in (0, 1)] == [None, 0]
    log.close()


def lag_of(metrics: Metrics, number: int) -> float | None:
    labels = {"topic": TOPIC, "partition": str(number)}
    return metrics.registry.get_sample_value("matyan_consumer_lag_records", labels)


def test_a_moved_offset_is_where_the_loop_goes_on(log: LogEngine) -> None:
    append(log, b"0", b"1", b"2", b"3")
    worker, metrics = Worker(), Metrics()
    worker.offset = 2  # somebody else has applied the first two

    run_until(make_service(log, worker, metrics=metrics), lambda: len(worker.applied) == 2)

    assert worker.applied == [b"2", b"3"]
    assert 'reason="offset_moved",worker="test"} 1.0' in metrics.exposition().decode()


def test_an_unavailable_engine_gets_the_same_slice_again(log: LogEngine) -> None:
    append(log, b"0", b"1")
    worker, metrics, refusals = Worker(), Metrics(), iter(range(2))

    def handle(partition: TopicPartition, records: Sequence[LogRecord]) -> int:
        if next(refusals, None) is not None:
            raise UnavailableError("disk full")
        return worker(partition, records)

    run_until(make_service(log, handle, metrics=metrics), lambda: len(worker.applied) == 2)

    assert worker.applied == [b"0", b"1"]
    assert 'reason="unavailable",worker="test"} 2.0' in metrics.exposition().decode()


def test_a_log_that_cannot_be_read_for_a_moment_is_read_later(log: LogEngine) -> None:
    append(log, b"0", b"1")
    worker, metrics, faults = Worker(), Metrics(), iter(range(2))

    class Faltering:
        """A consumer whose process is out of file descriptors for two polls."""

        def __init__(self, consumer: LogConsumer) -> None:
            self._consumer = consumer

        def __getattr__(self, name: str) -> Any:
            return getattr(self._consumer, name)

        def poll(self, *, records_max: int, timeout_seconds: float) -> dict[TopicPartition, list[LogRecord]]:
            if next(faults, None) is not None:
                raise UnavailableError("too many open files")
            return self._consumer.poll(records_max=records_max, timeout_seconds=timeout_seconds)

    service = ConsumerService(
        "test",
        open_consumer=lambda: cast("LogConsumer", Faltering(log.consumer(TOPIC, "g", lambda _: None))),
        handle=worker,
        observe=lambda partition, records, outcome: None,
        metrics=metrics,
    )

    run_until(service, lambda: len(worker.applied) == 2)

    assert worker.applied == [b"0", b"1"]
    assert 'reason="unavailable",worker="test"} 2.0' in metrics.exposition().decode()


def test_a_bug_in_the_handler_fails_the_service_with_its_error(log: LogEngine) -> None:
    append(log, b"0")

    def handle(partition: TopicPartition, records: Sequence[LogRecord]) -> int:
        raise KeyError("bug")

    service = make_service(log, handle)
    with pytest.raises(KeyError):
        run_until(service, lambda: False)
    assert service.state is State.FAILED


def test_a_lone_record_does_not_wait_for_the_linger(log: LogEngine) -> None:
    worker = Worker()
    appended: list[float] = []

    def feed() -> None:
        time.sleep(0.05)  # the loop is idle
        appended.append(time.monotonic())
        append(log, b"0")

    service = make_service(log, worker, pace=Pace(linger_seconds=1.0))
    run_until(service, lambda: len(worker.applied) == 1, feed)

    assert worker.times[0] - appended[0] < 0.5


def test_under_load_slices_begin_a_linger_apart(log: LogEngine) -> None:
    worker = Worker()

    def feed() -> None:
        for number in range(100):
            append(log, b"%d" % number)
            time.sleep(0.002)

    run_until(make_service(log, worker, pace=Pace(linger_seconds=0.05)), lambda: len(worker.applied) == 100, feed)

    gaps = [later - sooner for sooner, later in zip(worker.times, worker.times[1:], strict=False)]
    assert len(worker.slices) < 20  # instead of a hundred
    assert min(gaps) > 0.03


@pytest.mark.parametrize(
    ("lasted", "apart"),
    [(0.0, 0.05), (0.02, 0.05), (0.025, 0.05), (0.04, 0.08), (0.05, 0.1), (0.08, 0.1), (0.1, 0.1), (3.0, 3.0)],
)
def test_slices_that_take_long_begin_up_to_twice_as_far_apart(lasted: float, apart: float) -> None:
    rest = Pace(linger_seconds=0.05).rest_seconds(lasted)

    assert lasted + rest == pytest.approx(apart)


def test_a_service_that_is_told_to_stop_stops_soon(log: LogEngine) -> None:
    service = make_service(log, Worker(), pace=Pace(linger_seconds=1.0))
    began = time.monotonic()

    run_until(service, lambda: True)

    assert service.state is State.STOPPED
    assert time.monotonic() - began < 1.0


def test_a_slice_applied_in_part_and_trimmed_goes_on_with_what_the_log_still_holds(tmp_path: Path) -> None:
    log = open_embedded_log(tmp_path / "trimmed", partitions=1, segment_bytes=256)
    values = [bytes([number]) * 100 for number in range(8)]
    for value in values:  # one by one, so that they lie in several segments
        append(log, value)
    worker = Worker()
    outages = iter([True])

    def handle(partition: TopicPartition, records: Sequence[LogRecord]) -> int:
        if next(outages, False):
            worker(partition, records[: len(records) // 2])
            assert log.trim(ONLY, worker.offset) > 0
            raise UnavailableError("an engine went away in the middle")
        return worker(partition, [record for record in records if record.offset >= worker.offset])

    run_until(make_service(log, handle), lambda: len(worker.applied) == len(values))
    log.close()

    assert worker.applied == values
