"""How appends are gathered into groups: for whom a group waits, for how long, and for whom it does not."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import LogEntry
from matyan.engines.log.topic import Topic
from matyan.engines.log.writer import GATHER_SECONDS_MAX, GROUP_BYTES_MAX, AppendQueue, Pace, Request
from tests.support.logs import ONLY, SECONDS, TOPIC, FailingDisk, append, read_all, values_of

FAR_SECONDS = 1e9


def request(key: bytes = b"run", size_bytes: int = 10) -> Request:
    return Request(Topic(TOPIC, []), [LogEntry(key, b"value")], size_bytes, Future())


class Taker(threading.Thread):
    """Takes one group, as the writer does."""

    def __init__(self, queue: AppendQueue, expected: int, until_seconds: float) -> None:
        super().__init__(daemon=True)
        self._queue = queue
        self._asked = expected, until_seconds
        self.group: list[Request] | None = None
        self.start()

    def run(self) -> None:
        self.group = self._queue.take(*self._asked)

    def taken(self) -> list[Request]:
        self.join(SECONDS)
        assert self.group is not None
        return self.group


# ---- how many, how long


def test_a_run_that_is_alone_is_never_kept_waiting() -> None:
    pace = Pace()
    for number in range(3):
        pace.note([request()], number, number + 0.001)

        assert pace.expected == 1


def test_one_request_is_expected_of_each_run_in_the_last_two_groups() -> None:
    pace = Pace()
    pace.note([request(b"a"), request(b"b"), request(b"b")], 0, 0.001)
    pace.note([request(b"b"), request(b"c")], 0.001, 0.002)
    expected_at_work = pace.expected
    pace.note([request(b"c")], 0.002, 0.003)
    pace.note([request(b"c")], 0.003, 0.004)

    assert expected_at_work == 3
    assert pace.expected == 1


@pytest.mark.parametrize(("took_seconds", "waits_seconds"), [(0.005, 0.005), (3.0, GATHER_SECONDS_MAX)])
def test_a_group_waits_as_long_as_the_last_one_took_within_bounds(took_seconds: float, waits_seconds: float) -> None:
    pace = Pace()
    pace.note([request(b"a"), request(b"b")], 100.0, 100.0 + took_seconds)

    assert pace.until_seconds == pytest.approx(100.0 + took_seconds + waits_seconds)


# ---- waiting


def test_a_group_is_taken_when_what_is_expected_has_come() -> None:
    queue = AppendQueue(1_000)
    taker = Taker(queue, 3, time.monotonic() + FAR_SECONDS)
    requests = [request(b"a"), request(b"b"), request(b"c")]
    queue.put(requests[0])
    queue.put(requests[1])
    taker.join(0.05)
    group_before = taker.group
    queue.put(requests[2])

    assert group_before is None
    assert taker.taken() == requests


def test_a_group_is_taken_with_what_is_there_when_the_time_is_up() -> None:
    queue = AppendQueue(1_000)
    queue.put(request())

    assert len(Taker(queue, 3, time.monotonic() + 0.01).taken()) == 1


def test_a_group_is_taken_when_as_many_bytes_wait_as_it_may_have() -> None:
    queue = AppendQueue(2 * GROUP_BYTES_MAX)
    taker = Taker(queue, 3, time.monotonic() + FAR_SECONDS)
    queue.put(request(size_bytes=GROUP_BYTES_MAX - 10))
    queue.put(request())

    assert len(taker.taken()) == 2


def test_the_first_request_after_a_pause_is_taken_at_once() -> None:
    queue = AppendQueue(1_000)
    taker = Taker(queue, 3, time.monotonic() + 0.01)
    taker.join(0.05)
    group_before = taker.group
    queue.put(request())

    assert group_before is None
    assert len(taker.taken()) == 1


def test_a_close_ends_the_wait_and_loses_nothing() -> None:
    queue = AppendQueue(1_000)
    taker = Taker(queue, 3, time.monotonic() + FAR_SECONDS)
    queue.put(request())
    queue.close()

    assert len(taker.taken()) == 1
    assert queue.take(3, time.monotonic() + FAR_SECONDS) == []


def test_runs_that_wait_for_their_replies_share_syncs_and_keep_their_order(tmp_path: Path) -> None:
    disk = FailingDisk()
    disk.before_sync = lambda: time.sleep(0.005)
    log = open_embedded_log(tmp_path, partitions=1, disk=disk)
    syncs = disk.syncs

    def talk(key: bytes) -> None:
        for number in range(20):
            append(log, b"%s%d" % (key, number), key=key, topic=TOPIC)

    runs = [threading.Thread(target=talk, args=(key,)) for key in (b"a", b"b", b"c", b"d")]
    for run in runs:
        run.start()
    for run in runs:
        run.join(SECONDS)
    syncs = disk.syncs - syncs
    found = values_of(read_all(log, ONLY))
    log.close()

    for key in (b"a", b"b", b"c", b"d"):
        assert [value for value in found if value.startswith(key)] == [b"%s%d" % (key, n) for n in range(20)]
    assert syncs < 4 * 20
