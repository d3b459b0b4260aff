"""The embedded log beyond the port's contract: one holder, fixed partitions, bounded queue, shared syncs, bad disks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.clock import ManualClock
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.partition import ROLL_AGE_SECONDS
from matyan.engines.log.protocol import Appended, LogEngine, LogEntry, TopicPartition
from matyan.errors import (
    ConfigurationError,
    ConflictError,
    CorruptedError,
    InvalidArgumentError,
    TooLargeError,
    UnavailableError,
)
from tests.support.logs import ONLY, SECONDS, TOPIC, FailingDisk, append, read_all, values_of


@pytest.fixture
def disk() -> FailingDisk:
    return FailingDisk()


@pytest.fixture
def log(tmp_path: Path, disk: FailingDisk) -> Iterator[LogEngine]:
    log = open_embedded_log(tmp_path, partitions={TOPIC: 1, "wide": 4}, disk=disk)
    yield log
    disk.failures.clear()
    log.close()


def reopened(log: LogEngine, path: Path) -> list[bytes]:
    """Close the log and return what a fresh process would find."""
    log.close()
    again = open_embedded_log(path, partitions={TOPIC: 1, "wide": 4})
    found = values_of(read_all(again))
    again.close()
    return found


# ---- one holder


def test_a_second_opener_is_refused_by_the_pid_of_the_first(log: LogEngine, tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match=f"in use by process {os.getpid()}"):
        open_embedded_log(tmp_path, partitions=1)


def test_the_lock_ends_with_a_process_that_does_not_close(tmp_path: Path) -> None:
    script = "import sys, pathlib; from matyan.engines.log.embedded import open_embedded_log as o; "
    script += "log = o(pathlib.Path(sys.argv[1]), partitions=1)"
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)

    open_embedded_log(tmp_path, partitions=1).close()


def test_close_twice_is_fine(tmp_path: Path) -> None:
    log = open_embedded_log(tmp_path, partitions=1)
    log.close()
    log.close()


# ---- topics


def test_the_number_of_partitions_is_fixed(log: LogEngine, tmp_path: Path) -> None:
    log.close()

    with pytest.raises(
        ConfigurationError, match=r"topic data has 1 partitions, 2 asked.*topic wide has 4 partitions, 5"
    ):
        open_embedded_log(tmp_path, partitions={TOPIC: 2, "wide": 5})
    with pytest.raises(ConfigurationError, match="topic wide has 4 partitions, 1 asked"):
        open_embedded_log(tmp_path, partitions=1)


def test_a_number_for_all_makes_topics_when_they_are_named(tmp_path: Path) -> None:
    log = open_embedded_log(tmp_path, partitions=3)
    append(log, b"1", topic="first")
    log.close()
    log = open_embedded_log(tmp_path, partitions={"second": 2})

    assert (log.partitions("first"), log.partitions("second")) == (3, 2)
    log.close()


def test_a_topic_without_a_number_is_a_fault_of_the_settings(log: LogEngine) -> None:
    with pytest.raises(ConfigurationError, match="topic other has no number"):
        append(log, b"1", topic="other")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "x" * 201, ".hidden"])
def test_a_topic_has_a_name_that_a_directory_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="no topic name"):
        open_embedded_log(tmp_path, partitions={name: 1})


def test_without_a_number_a_topic_keeps_its_own_and_a_new_one_gets_one(tmp_path: Path) -> None:
    log = open_embedded_log(tmp_path, partitions=3)
    append(log, b"1", topic="old")
    log.close()

    log = open_embedded_log(tmp_path, partitions=0)

    append(log, b"1", topic="new")
    assert (log.partitions("old"), log.partitions("new")) == (3, 1)
    log.close()


@pytest.mark.parametrize("count", [-1, 1025])
def test_the_number_of_partitions_has_bounds(tmp_path: Path, count: int) -> None:
    with pytest.raises(ConfigurationError, match=f"1 to 1024 partitions, not {count}"):
        open_embedded_log(tmp_path, partitions=count)


def test_the_partition_of_a_key_never_changes(log: LogEngine) -> None:
    # Stored records rest on these numbers: a change loses the order of a run's records.
    found = [log.producer().partition_of("wide", key) for key in (b"", b"a", b"run-1", b"run-2", "ü".encode())]

    assert found == [0, 3, 3, 1, 1]


def test_a_log_without_its_catalog_is_not_taken_for_a_fresh_one(log: LogEngine, tmp_path: Path) -> None:
    log.close()
    (tmp_path / "log.json").unlink()

    with pytest.raises(CorruptedError, match="missing beside records"):
        open_embedded_log(tmp_path, partitions=1)


@pytest.mark.parametrize("content", [b"", b"{", b'{"format":1}', b'{"format":2,"log_id":"00","topics":{}}'])
def test_a_bad_catalog_is_refused(log: LogEngine, tmp_path: Path, content: bytes) -> None:
    log.close()
    (tmp_path / "log.json").write_bytes(content)

    with pytest.raises(CorruptedError, match=r"log\.json"):
        open_embedded_log(tmp_path, partitions=1)


# ---- the queue and the shared sync


class Gate:
    """Holds the disk's sync until opened."""

    def __init__(self, disk: FailingDisk) -> None:
        self.entered, self._open = threading.Event(), threading.Event()
        disk.before_sync = self._wait

    def _wait(self) -> None:
        self.entered.set()
        assert self._open.wait(SECONDS)

    def open(self) -> None:
        self._open.set()


def test_all_that_waits_shares_one_sync_and_is_invisible_before(log: LogEngine, disk: FailingDisk) -> None:
    gate = Gate(disk)
    producer = log.producer()
    consumer = log.consumer(TOPIC, "g", lambda _: None)
    first = producer.append_many(TOPIC, [LogEntry(b"k", b"0")])
    assert gate.entered.wait(SECONDS)
    rest = [producer.append_many(TOPIC, [LogEntry(b"k", b"%d" % number)]) for number in range(1, 500)]
    syncs = disk.syncs
    seen_before = consumer.poll(records_max=1000, timeout_seconds=0)
    end_before = producer.end_offset(ONLY)
    gate.open()
    offsets = [future.result(SECONDS)[0].offset for future in [first, *rest]]

    assert (seen_before, end_before) == ({}, 0)
    assert offsets == list(range(500))
    assert disk.syncs == syncs + 1


def test_a_full_queue_refuses_at_once_and_takes_more_when_it_has_room(tmp_path: Path, disk: FailingDisk) -> None:
    log = open_embedded_log(tmp_path, partitions=1, queue_bytes_max=10_000, disk=disk)
    append(log, b"first")
    gate = Gate(disk)
    producer = log.producer()
    futures = [producer.append_many(TOPIC, [LogEntry(b"k", b"v" * 2000)]) for _ in range(8)]
    refused = [future for future in futures if future.done()]
    gate.open()
    for future in futures[:4]:
        future.result(SECONDS)

    assert len(refused) == 4
    with pytest.raises(UnavailableError, match="queue is full: 8404 of 10000 bytes"):
        refused[0].result(0)
    assert append(log, b"v" * 9000) == [Appended(0, 5)]
    with pytest.raises(TooLargeError, match="queue takes 10000"):
        append(log, b"v" * 10_000)
    log.close()


def test_a_callback_may_append(log: LogEngine) -> None:
    producer = log.producer()
    done = threading.Event()

    def again(_: object) -> None:
        producer.append_many(TOPIC, [LogEntry(b"k", b"2")]).add_done_callback(lambda _: done.set())

    producer.append_many(TOPIC, [LogEntry(b"k", b"1")]).add_done_callback(again)

    assert done.wait(SECONDS)
    assert values_of(read_all(log)) == [b"1", b"2"]


# ---- bad disks


@pytest.mark.parametrize(
    ("method", "number", "message"),
    [
        ("write", errno.ENOSPC, "the disk is full; free space"),
        ("write", errno.EDQUOT, "the disk quota is used up"),
        ("write", errno.EIO, "input/output error; check that disk"),
        ("sync", errno.EIO, "input/output error; check that disk"),
        ("sync", errno.ENOSPC, "the disk is full"),
    ],
)
def test_a_failed_group_is_refused_never_read_and_the_log_goes_on(
    log: LogEngine, disk: FailingDisk, tmp_path: Path, method: str, number: int, message: str
) -> None:
    append(log, b"before")
    disk.fail(method, number)
    with pytest.raises(UnavailableError, match=f"(?i){message}"):
        append(log, b"refused" * 1000, b"refused too")

    assert append(log, b"after") == [Appended(0, 1)]
    assert values_of(read_all(log)) == [b"before", b"after"]
    assert reopened(log, tmp_path) == [b"before", b"after"]


def test_a_refused_group_is_gone_from_the_file_when_its_futures_fail(
    log: LogEngine, disk: FailingDisk, tmp_path: Path
) -> None:
    append(log, b"before")
    disk.fail("sync", errno.EIO)
    with pytest.raises(UnavailableError):
        append(log, b"refused")
    files = [path.read_bytes() for path in tmp_path.glob("data-0/*.log")]  # as a kill -9 at this moment leaves it

    assert b"before" in files[0]
    assert b"refused" not in files[0]


def test_a_file_that_cannot_be_restored_is_restored_before_the_next_write(
    log: LogEngine, disk: FailingDisk, tmp_path: Path
) -> None:
    append(log, b"before")
    disk.fail("sync", errno.EIO)
    disk.fail("truncate", errno.EIO, times=2)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            append(log, b"refused")

    assert append(log, b"after") == [Appended(0, 1)]
    assert reopened(log, tmp_path) == [b"before", b"after"]


def test_a_call_that_spans_partitions_is_refused_in_all_of_them(log: LogEngine, disk: FailingDisk) -> None:
    producer = log.producer()
    entries = [LogEntry(b"run-%d" % number, b"v") for number in range(40)]
    disk.before_sync = lambda: disk.fail("sync", errno.EIO) if disk.syncs == last_sync else None
    last_sync = disk.syncs + 4  # three partitions are synced already

    with pytest.raises(UnavailableError):
        producer.append_many("wide", entries).result(SECONDS)
    assert [producer.end_offset(TopicPartition("wide", number)) for number in range(4)] == [0, 0, 0, 0]
    assert len(producer.append_many("wide", entries).result(SECONDS)) == 40


@pytest.mark.parametrize("method", ["write", "sync", "sync_directory"])
def test_a_segment_that_cannot_be_made_is_made_later(tmp_path: Path, disk: FailingDisk, method: str) -> None:
    log = open_embedded_log(tmp_path, partitions=1, segment_bytes=1000, disk=disk)
    append(log, b"x" * 1000)
    disk.fail(method)
    with pytest.raises(UnavailableError, match="the disk is full"):
        append(log, b"refused")
    append(log, b"after")
    log.close()
    log = open_embedded_log(tmp_path, partitions=1)

    assert values_of(read_all(log)) == [b"x" * 1000, b"after"]
    log.close()


@pytest.mark.parametrize("method", ["write", "sync", "sync_directory"])
def test_a_log_that_cannot_be_made_says_so_and_is_made_later(tmp_path: Path, disk: FailingDisk, method: str) -> None:
    disk.fail(method)
    with pytest.raises(UnavailableError, match=r"the log cannot write under .*: the disk is full"):
        open_embedded_log(tmp_path / "log", partitions=1, disk=disk)

    open_embedded_log(tmp_path / "log", partitions=1, disk=disk).close()


# ---- retention


def test_the_active_segment_is_rolled_for_a_trim_when_it_is_old(tmp_path: Path) -> None:
    clock = ManualClock()
    log = open_embedded_log(tmp_path, partitions=1, clock=clock)
    append(log, b"1", b"2")
    too_young = log.trim(ONLY, 2)
    clock.advance(ROLL_AGE_SECONDS)
    still_needed = log.trim(ONLY, 1)
    freed = log.trim(ONLY, 2)

    assert (too_young, still_needed) == (0, 0)
    assert freed > 0
    assert [path.name for path in (tmp_path / "data-0").iterdir()] == [f"{2:020d}.log"]
    assert append(log, b"3") == [Appended(0, 2)]
    log.close()


def test_trim_while_others_append_and_read(tmp_path: Path) -> None:
    log = open_embedded_log(tmp_path, partitions=1, segment_bytes=5000, tail_bytes_max=2000)
    consumer = log.consumer(TOPIC, "g", lambda _: None)
    seen: list[int] = []

    def produce() -> None:
        for _ in range(100):
            append(log, b"v" * 300)

    threads = [threading.Thread(target=produce) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(seen) < 300:
        for records in consumer.poll(records_max=50, timeout_seconds=SECONDS).values():
            seen += [record.offset for record in records]
        log.trim(ONLY, seen[-1] + 1)
    for thread in threads:
        thread.join()

    assert seen == list(range(300))
    assert log.start_offset(ONLY) > 200
    log.close()
