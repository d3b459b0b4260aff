"""A log that goes away takes no record with it: everything is kept, in order, and forwarded when it is back."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from matyan.clock import ManualClock
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.forwarding import ADOPT_SECONDS
from matyan.engines.log.protocol import Appended, LogEntry
from matyan.engines.log.spill import Spill, SpillRoom
from matyan.engines.log.spilling import HELD_BYTES_MAX, HOLD_RECORDS_MAX, SpillingProducer, open_spilling_producer
from matyan.errors import TooLargeError, UnavailableError
from matyan.observe.metrics import Metrics
from matyan.settings import SpillSettings
from tests.support.logs import ONLY, SECONDS, TOPIC, FailingDisk, read_all, values_of
from tests.support.wayward import WaywardProducer

AFTER = 1.0
LARGE = b"x" * 1000


class World:
    """A spilling producer over a wayward log; its thread's work is done when told."""

    def __init__(self, path: Path, *, bytes_max: int = 10_000_000) -> None:
        self.path = path / "spill"
        self.bytes_max = bytes_max
        self.log = open_embedded_log(path / "log", partitions=1)
        self.far = WaywardProducer(self.log.producer())
        self.clock = ManualClock()
        self.metrics = Metrics()
        self.disk = FailingDisk()
        self.opened: list[SpillingProducer] = []
        self.open()

    def open(self) -> None:
        room = SpillRoom(self.path, topic=TOPIC, bytes_max=self.bytes_max, clock=self.clock, disk=self.disk)
        self.spill = room.open_own()
        self.producer = SpillingProducer(
            self.far,
            topic=TOPIC,
            spill=self.spill,
            room=room,
            after_seconds=AFTER,
            metrics=self.metrics,
            clock=self.clock,
        )
        self.opened.append(self.producer)

    def append(self, *values: bytes) -> list[Future[list[Appended]]]:
        return [self.producer.append_many(TOPIC, [LogEntry(b"run", value)]) for value in values]

    def lose_the_log(self) -> None:
        self.far.hang()
        pending = self.append(b"lost")
        self.clock.advance(AFTER + 0.1)
        self.producer.tend()
        self.far.lose_limbo()
        assert results(pending) == [Appended(0, None)]

    def settle(self, until: Callable[[], bool] | None = None) -> None:
        """Let the thread's work be done until the log has everything."""
        deadline = time.monotonic() + SECONDS
        while not (until() if until else self.producer.is_direct):
            assert time.monotonic() < deadline
            self.producer.tend()
            time.sleep(0.001)

    def values(self) -> list[bytes]:
        return values_of(read_all(self.log))

    def sample(self, name: str) -> float | None:
        self.metrics.exposition()
        return self.metrics.registry.get_sample_value(name)

    def close(self) -> None:
        for producer in self.opened:
            producer.close()
        self.log.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def results(futures: list[Future[list[Appended]]]) -> list[Appended]:
    return [future.result(SECONDS)[0] for future in futures]


# ---- direct


def test_while_the_log_is_there_everything_goes_there(world: World) -> None:
    appended = results(world.append(b"1", b"2"))
    world.producer.tend()

    assert appended == [Appended(0, 0), Appended(0, 1)]
    assert world.spill.load == (0, 0)
    assert (world.producer.is_direct, world.producer.is_ready, world.producer.may_repeat) == (True, True, True)
    assert world.producer.end_offset(ONLY) == 2


def test_a_slow_confirmation_in_time_is_no_outage(world: World) -> None:
    world.far.hang()
    futures = world.append(b"1")
    world.clock.advance(AFTER - 0.1)
    world.producer.tend()
    world.far.come_back()

    assert results(futures) == [Appended(0, 0)]
    assert world.producer.is_direct
    assert world.far.abandoned == 0


def test_what_is_too_large_is_refused_and_changes_nothing(world: World) -> None:
    world.far.refuses = lambda entry: entry.value == LARGE

    with pytest.raises(TooLargeError):
        results(world.append(LARGE))
    assert world.producer.is_direct


def test_other_topics_are_none_of_its_business(world: World) -> None:
    world.far.go_down()

    with pytest.raises(UnavailableError, match="no broker answers"):
        world.producer.append_many("other", [LogEntry(b"run", b"1")]).result(SECONDS)
    assert world.producer.is_direct


def test_a_cancelled_append_harms_nobody(world: World) -> None:
    world.far.hang()
    cancelled, other = world.append(b"1", b"2")
    assert cancelled.cancel()
    world.far.go_down()

    assert results([other]) == [Appended(0, None)]


# ---- the log goes away


def test_what_is_not_confirmed_in_time_is_spilled_in_order_and_given_up(world: World) -> None:
    world.far.hang()
    pending = world.append(b"1", b"2", b"3")
    assert not any(future.done() for future in pending)
    world.clock.advance(AFTER + 0.1)
    world.producer.tend()
    later = world.append(b"4")

    assert results(pending + later) == [Appended(0, None)] * 4
    assert world.far.abandoned == 1
    assert not world.producer.is_direct
    assert world.spill.load.records == 4
    world.far.lose_limbo()
    world.far.come_back()
    world.settle()
    assert world.values() == [b"1", b"2", b"3", b"4"]


def test_a_refusal_takes_what_is_pending_along(world: World) -> None:
    world.far.hang()
    pending = world.append(b"1", b"2")
    world.far.state = "down"
    refused = world.append(b"3")

    assert results(pending + refused) == [Appended(0, None)] * 3
    world.far.lose_limbo()
    world.far.come_back()
    world.settle()
    assert world.values() == [b"1", b"2", b"3"]


def test_what_the_log_wrote_unconfirmed_comes_again_behind_it(world: World) -> None:
    world.far.hang()
    world.append(b"1", b"2", b"3")
    world.far.go_down()
    world.far.drip(2)
    world.far.lose_limbo()
    world.far.come_back()
    world.settle()

    assert world.values() == [b"1", b"2", b"1", b"2", b"3"]


def test_nothing_is_forwarded_while_the_log_is_away_and_the_clock_may_run(world: World) -> None:
    world.lose_the_log()
    for _ in range(20):
        pause = world.producer.tend()
        world.clock.advance(pause)

    assert world.values() == []
    assert pause == 1.0
    assert world.spill.load.records == 1


def test_an_outage_in_the_middle_of_forwarding_repeats_and_loses_nothing(world: World) -> None:
    world.lose_the_log()
    results(world.append(b"1", b"2"))
    world.far.come_back()

    def hang_at_2(entry: LogEntry) -> bool:
        if entry.value == b"2":
            world.far.hang()
        return False

    world.far.refuses = hang_at_2
    world.producer.tend()  # gives up after AFTER seconds of the machine's time
    assert world.far.state == "down"
    world.far.refuses = lambda _: False
    world.far.come_back()
    world.settle()

    assert list(dict.fromkeys(world.values())) == [b"lost", b"1", b"2"]


def test_several_outages_leave_one_order(world: World) -> None:
    expected = []
    for turn in range(3):
        values = [b"%d/%d" % (turn, number) for number in range(5)]
        world.append(*values[:2])
        world.far.go_down()
        world.append(*values[2:])
        world.far.lose_limbo()
        world.far.come_back()
        world.settle()
        expected += values

    assert list(dict.fromkeys(world.values())) == expected


def test_an_error_that_nobody_foresaw_while_forwarding_skips_no_record(world: World) -> None:
    world.lose_the_log()
    results(world.append(b"1", b"2"))
    world.far.come_back()
    world.far.refuses = fail_once_at(b"1")
    with pytest.raises(RuntimeError, match="can't start new thread"):
        world.producer.tend()
    results(world.append(b"3"))
    world.settle()

    assert list(dict.fromkeys(world.values())) == [b"lost", b"1", b"2", b"3"]


def test_an_error_that_nobody_foresaw_while_settling_skips_no_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.lose_the_log()
    results(world.append(b"1", b"2"))
    world.far.come_back()
    with monkeypatch.context() as patch:
        patch.setattr(world.metrics.spill_forwarded, "inc", fail_with(MemoryError()))
        with pytest.raises(MemoryError):
            world.producer.tend()
    results(world.append(b"3"))
    world.settle()

    assert list(dict.fromkeys(world.values())) == [b"lost", b"1", b"2", b"3"]


def test_what_is_held_is_spilled_at_an_error_that_nobody_foresaw(world: World) -> None:
    world.lose_the_log()
    results(world.append(*(b"%d" % number for number in range(2 * HOLD_RECORDS_MAX))))
    world.far.come_back()
    world.settle(lambda: world.spill.load.records <= HOLD_RECORDS_MAX)
    held = world.append(b"held")
    world.far.refuses = fail_once_at(b"%d" % (2 * HOLD_RECORDS_MAX - 1))
    with pytest.raises(RuntimeError):
        world.producer.tend()

    assert results(held) == [Appended(0, None)]


# ---- the log is back


def test_when_all_is_forwarded_everything_goes_to_the_log_again(world: World) -> None:
    world.lose_the_log()
    world.far.come_back()
    world.settle()

    assert results(world.append(b"new")) == [Appended(0, 1)]
    assert world.values() == [b"lost", b"new"]
    assert world.spill.load == (0, 0)


def test_what_comes_while_the_last_is_forwarded_waits_for_it(world: World) -> None:
    world.lose_the_log()
    results(world.append(*(b"%d" % number for number in range(2 * HOLD_RECORDS_MAX))))
    world.far.come_back()
    world.settle(lambda: world.spill.load.records <= HOLD_RECORDS_MAX)
    held = world.append(b"held")
    assert not held[0].done()
    world.settle()

    assert results(held) == [Appended(0, 2 * HOLD_RECORDS_MAX + 1)]
    assert world.values()[-1] == b"held"


def test_what_is_held_is_spilled_when_the_log_goes_again(world: World) -> None:
    world.lose_the_log()
    results(world.append(*(b"%d" % number for number in range(2 * HOLD_RECORDS_MAX))))
    world.far.come_back()
    world.settle(lambda: world.spill.load.records <= HOLD_RECORDS_MAX)
    held = world.append(b"held")
    world.far.go_down()
    world.producer.tend()

    assert results(held) == [Appended(0, None)]
    world.far.come_back()
    world.settle()
    assert world.values()[-1] == b"held"


def test_little_is_held_in_memory(world: World) -> None:
    world.bytes_max = 10 * HELD_BYTES_MAX
    world.producer.close()
    world.open()
    world.lose_the_log()
    results(world.append(*(b"%d" % number for number in range(2 * HOLD_RECORDS_MAX))))
    world.far.come_back()
    world.settle(lambda: world.spill.load.records <= HOLD_RECORDS_MAX)
    held = world.append(b"x" * (HELD_BYTES_MAX // 2), b"y" * (HELD_BYTES_MAX // 2), b"z")

    assert results(held) == [Appended(0, None)] * 3


def test_a_spill_that_could_take_nothing_asks_the_log_itself(world: World) -> None:
    world.disk.fail("write", times=2)
    world.far.go_down()
    with pytest.raises(UnavailableError, match="the disk is full"):
        results(world.append(b"1"))
    world.producer.tend()
    assert not world.producer.is_direct
    world.far.come_back()
    world.producer.tend()

    assert world.producer.is_direct


# ---- bounds


def test_a_full_spill_refuses_and_keeps_what_it_took(tmp_path: Path) -> None:
    world = World(tmp_path, bytes_max=20_000)
    world.far.go_down()
    futures = world.append(*(b"%d" % number + LARGE for number in range(30)))
    kept = [number for number, future in enumerate(futures) if future.exception(SECONDS) is None]
    with pytest.raises(UnavailableError, match=r"spill is full: 1\d{4} of 20000 bytes \(spill\.bytes_max\) wait in"):
        futures[-1].result(SECONDS)

    assert kept == list(range(len(kept)))
    assert 15 <= len(kept) < 20
    assert not world.producer.is_ready
    world.far.come_back()
    world.settle()
    assert world.producer.is_ready
    assert world.values() == [b"%d" % number + LARGE for number in kept]
    world.close()


def test_a_full_disk_refuses_and_goes_on_when_there_is_room(world: World) -> None:
    world.lose_the_log()
    world.disk.fail("write", times=1)
    refused = world.append(b"refused")
    with pytest.raises(UnavailableError, match="the disk is full"):
        results(refused)
    results(world.append(b"kept"))
    world.far.come_back()
    world.settle()

    assert world.values() == [b"lost", b"kept"]


def test_what_is_forwarded_takes_no_disk(tmp_path: Path) -> None:
    world = World(tmp_path, bytes_max=100_000_000)
    world.lose_the_log()
    results(world.append(*[b"x" * 1_000_000] * 30))
    before = _bytes_in(world.path)
    world.far.come_back()
    world.settle()

    assert before > 30_000_000
    assert _bytes_in(world.path) < 10_000_000
    assert world.spill.load == (0, 0)
    world.close()


def test_a_disk_that_is_full_is_freed_by_forwarding(tmp_path: Path) -> None:
    world = World(tmp_path, bytes_max=100_000_000)
    world.lose_the_log()
    results(world.append(*[b"x" * 1_000_000] * 30))
    world.disk.fail("write", times=1000)
    world.far.come_back()
    world.settle()

    assert _bytes_in(world.path) < 10_000_000
    world.disk.failures.clear()
    world.lose_the_log()
    results(world.append(b"2"))
    world.producer.close()
    world.open()
    assert world.spill.load.records < 12, "what was deleted does not come again"
    world.far.come_back()
    world.settle()
    assert world.values()[-2:] == [b"lost", b"2"]
    world.close()


def test_metrics_tell_what_waits(world: World) -> None:
    world.lose_the_log()
    results(world.append(LARGE))
    assert world.sample("matyan_spill_active") == 1
    assert world.sample("matyan_spill_records") == 2
    assert (world.sample("matyan_spill_bytes") or 0) > len(LARGE)
    world.far.come_back()
    world.settle()

    assert world.sample("matyan_spill_active") == 0
    assert world.sample("matyan_spill_records") == world.sample("matyan_spill_bytes") == 0
    assert world.sample("matyan_spill_forwarded_total") == 2


# ---- what the log refuses for good


def test_a_record_that_is_refused_for_good_is_set_aside_and_holds_up_nobody(world: World) -> None:
    world.lose_the_log()
    results(world.append(b"1", LARGE, b"2"))
    world.far.refuses = lambda entry: entry.value == LARGE
    world.far.come_back()
    world.settle()

    assert world.values() == [b"lost", b"1", b"2"]
    assert world.sample("matyan_spill_set_aside_total") == 1
    (kept,) = (world.path / "spill-0" / "aside").iterdir()
    assert LARGE in kept.read_bytes()
    assert b"too large for its topic" in kept.read_bytes()


def test_what_was_set_aside_is_offered_again_at_the_next_start(world: World) -> None:
    world.lose_the_log()
    results(world.append(LARGE))
    world.far.refuses = lambda entry: entry.value == LARGE
    world.far.come_back()
    world.settle()
    world.producer.close()
    world.far.refuses = lambda _: False
    world.open()
    world.settle()

    assert world.values() == [b"lost", LARGE]
    assert list((world.path / "spill-0" / "aside").iterdir()) == []


def test_what_another_process_set_aside_is_offered_again_too(world: World) -> None:
    aside = leave_aside(world)
    look_for_spills(world)
    world.settle(lambda: world.values() == [LARGE])

    assert list(aside.iterdir()) == []


def test_what_is_refused_once_more_is_not_offered_at_every_look(world: World) -> None:
    aside = leave_aside(world)
    world.far.refuses = lambda entry: entry.value == LARGE
    for _ in range(4):
        look_for_spills(world)
        for _ in range(3):
            world.producer.tend()

    assert world.sample("matyan_spill_set_aside_total") == 1
    assert len(list(aside.iterdir())) == 1


def test_a_record_that_cannot_be_set_aside_is_not_dropped(world: World) -> None:
    world.lose_the_log()
    results(world.append(LARGE, b"2"))
    world.far.refuses = lambda entry: entry.value == LARGE
    world.far.come_back()
    world.disk.fail("sync_directory", times=3)
    world.producer.tend()
    assert world.values() == [b"lost", b"2"]  # the last was on its way before the refusal was known
    world.settle()

    assert list(dict.fromkeys(world.values())) == [b"lost", b"2"]
    assert len(list((world.path / "spill-0" / "aside").iterdir())) == 1


# ---- ends and starts


def test_what_is_spilled_is_forwarded_at_the_next_start_before_anything_new(world: World) -> None:
    world.lose_the_log()
    results(world.append(b"1"))
    world.producer.close()
    world.open()
    results(world.append(b"2"))
    assert not world.producer.is_direct
    world.far.come_back()
    world.settle()

    assert world.values() == [b"lost", b"1", b"2"]


def test_a_close_spills_what_the_log_does_not_confirm(world: World) -> None:
    world.far.hang()
    pending = world.append(b"1", b"2")
    began = time.monotonic()
    world.producer.close()

    assert time.monotonic() - began < 5 * AFTER
    assert results(pending) == [Appended(0, None)] * 2
    with pytest.raises(UnavailableError, match="closed"):
        results(world.append(b"3"))
    world.far.lose_limbo()
    world.far.come_back()
    world.open()
    world.settle()
    assert world.values() == [b"1", b"2"]


def test_a_lost_cursor_costs_repeats_and_no_record(world: World) -> None:
    world.lose_the_log()
    world.far.come_back()
    world.settle()
    world.far.go_down()
    results(world.append(b"1"))
    world.producer.close()
    (world.path / "spill-0" / "cursor.json").write_text("{")
    world.far.come_back()
    world.open()
    world.settle()

    assert world.values() == [b"lost", b"lost", b"1"]


def test_a_cursor_of_another_log_hides_no_record(world: World) -> None:
    world.lose_the_log()
    world.far.come_back()
    world.settle()
    world.producer.close()
    place = world.path / "spill-0"
    (place / "log.json").unlink()
    shutil.rmtree(place / f"{TOPIC}-0")
    world.far.go_down()
    world.open()
    results(world.append(b"1", b"2"))
    world.producer.close()
    world.far.come_back()
    world.open()
    world.settle()

    assert world.values() == [b"lost", b"1", b"2"]


def test_processes_have_spills_of_their_own_and_take_over_what_others_left(world: World, tmp_path: Path) -> None:
    room = SpillRoom(world.path, topic=TOPIC, bytes_max=1_000_000)
    second, third = room.open_own(), room.open_own()
    assert [second.path.name, third.path.name] == ["spill-1", "spill-2"]
    third.append([LogEntry(b"run", b"left")]).result(SECONDS)
    second.close()
    third.close()

    fourth = room.open_own()
    assert (fourth.path.name, fourth.load.records) == ("spill-2", 1)
    fourth.close()


def test_what_a_dead_process_left_is_forwarded_by_another(world: World) -> None:
    room = SpillRoom(world.path, topic=TOPIC, bytes_max=1_000_000)
    left = room.open_own()
    left.append([LogEntry(b"run", b"left")]).result(SECONDS)
    world.producer.tend()
    assert world.values() == []
    left.close()
    world.clock.advance(ADOPT_SECONDS + 1)
    world.producer.tend()
    world.producer.tend()
    assert world.values() == []  # its process may be starting again
    for file in left.path.rglob("*.log"):
        os.utime(file, (0, 0))
    world.clock.advance(ADOPT_SECONDS + 1)
    world.settle(lambda: world.values() == [b"left"])

    for _ in range(3):
        world.clock.advance(ADOPT_SECONDS + 1)
        world.producer.tend()
    assert world.values() == [b"left"]
    with Spilling(world.path / left.path.name) as again:
        assert again.load.records == 0


def test_an_error_that_nobody_foresaw_does_not_keep_what_a_dead_process_left(world: World) -> None:
    room = SpillRoom(world.path, topic=TOPIC, bytes_max=1_000_000)
    left = room.open_own()
    left.append([LogEntry(b"run", b"1"), LogEntry(b"run", b"2")]).result(SECONDS)
    left.close()
    world.far.refuses = fail_once_at(b"2")
    look_for_spills(world)
    with pytest.raises(RuntimeError):
        world.producer.tend()
    with Spilling(left.path) as free:
        assert free.load.records == 2
    look_for_spills(world)
    world.settle(lambda: world.values()[-1:] == [b"2"])

    assert world.values() == [b"1", b"1", b"2"]


def test_a_damaged_spill_is_left_alone_and_another_one_taken(world: World) -> None:
    world.producer.close()
    (world.path / "spill-0" / "log.json").write_text("{")
    world.open()

    assert world.spill.path.name == "spill-1"


class Spilling:
    """A spill opened for a look."""

    def __init__(self, path: Path) -> None:
        self._spill = Spill(path, topic=TOPIC, bytes_max=1_000_000)

    def __enter__(self) -> Spill:
        return self._spill

    def __exit__(self, *_: object) -> None:
        self._spill.close()


# ---- with its thread


def test_the_thread_notices_forwards_and_ends(tmp_path: Path) -> None:
    log = open_embedded_log(tmp_path / "log", partitions=1)
    far = WaywardProducer(log.producer())
    settings = SpillSettings(after_seconds=0.1)
    producer = open_spilling_producer(far, root=tmp_path / "spill", topic=TOPIC, settings=settings, metrics=Metrics())
    far.hang()
    futures = [producer.append_many(TOPIC, [LogEntry(b"run", b"%d" % number)]) for number in range(50)]
    assert [future.result(SECONDS)[0].offset for future in futures] == [None] * 50
    far.lose_limbo()
    far.come_back()
    deadline = time.monotonic() + SECONDS
    while not producer.is_direct and time.monotonic() < deadline:
        time.sleep(0.01)
    futures = [producer.append_many(TOPIC, [LogEntry(b"run", b"%d" % number)]) for number in range(50, 60)]
    producer.close()

    assert [future.result(SECONDS)[0].offset for future in futures] == list(range(50, 60))
    assert values_of(read_all(log)) == [b"%d" % number for number in range(60)]
    log.close()


def test_what_is_held_when_a_close_begins_is_taken(tmp_path: Path) -> None:
    log = open_embedded_log(tmp_path / "log", partitions=1)
    far = WaywardProducer(log.producer())
    settings = SpillSettings(after_seconds=SECONDS)
    producer = open_spilling_producer(far, root=tmp_path / "spill", topic=TOPIC, settings=settings, metrics=Metrics())
    closer = threading.Thread(target=producer.close)
    is_closing = threading.Event()
    held: list[Future[list[Appended]]] = []
    last = b"%d" % (3 * HOLD_RECORDS_MAX - 1)

    def close_meanwhile(entry: LogEntry) -> bool:
        if entry.value == last and not held:
            held.append(producer.append_many(TOPIC, [LogEntry(b"run", b"held")]))
            closer.start()
            wait_until_refused(producer)
            is_closing.set()
        return False

    far.go_down()
    entries = [LogEntry(b"run", b"%d" % number) for number in range(3 * HOLD_RECORDS_MAX)]
    for future in [producer.append_many(TOPIC, [entry]) for entry in entries]:
        future.result(SECONDS)
    far.refuses = close_meanwhile
    far.come_back()
    assert is_closing.wait(SECONDS)
    closer.join(SECONDS)

    (appended,) = held[0].result(SECONDS)
    assert appended.offset is not None
    assert read_all(log)[appended.offset].value == b"held"
    log.close()


def test_many_threads_append_through_outages_and_every_future_tells_the_truth(tmp_path: Path) -> None:
    log = open_embedded_log(tmp_path / "log", partitions=1)
    far = WaywardProducer(log.producer())
    settings = SpillSettings(after_seconds=0.1)
    producer = open_spilling_producer(far, root=tmp_path / "spill", topic=TOPIC, settings=settings, metrics=Metrics())

    def work(worker: int) -> None:
        for number in range(100):
            key = b"run-%d" % worker
            producer.append_many(TOPIC, [LogEntry(key, b"%d/%d" % (worker, number))]).result(SECONDS)
            time.sleep(0.002)

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for worker in workers:
        worker.start()
    for _ in range(4):
        time.sleep(0.05)
        far.go_down()
        time.sleep(0.1)
        far.come_back()
    for worker in workers:
        worker.join()
    producer.close()

    found = list(dict.fromkeys(values_of(read_all(log))))
    for name in range(8):
        mine = [value for value in found if value.startswith(b"%d/" % name)]
        assert mine == [b"%d/%d" % (name, number) for number in range(100)]
    log.close()


def fail_with(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def fail_once_at(value: bytes) -> Callable[[LogEntry], bool]:
    """Be a log that runs out of something of the machine's, at a record, once."""
    failures = [RuntimeError("can't start new thread")]

    def fail(entry: LogEntry) -> bool:
        if entry.value == value and failures:
            raise failures.pop()
        return False

    return fail


def leave_aside(world: World) -> Path:
    """Be a process that ends with nothing but a record set aside; return its directory of those."""
    room = SpillRoom(world.path, topic=TOPIC, bytes_max=1_000_000)
    left = room.open_own()
    left.append([LogEntry(b"run", LARGE)]).result(SECONDS)
    records = left.read()
    place = left.set_aside(records[0], "too large for its topic")
    left.forwarded(records)
    left.close()
    return place.parent


def look_for_spills(world: World) -> None:
    """Let the time pass after which spills that nobody uses are looked for."""
    for file in [*world.path.rglob("*.log"), *world.path.rglob("cursor.json")]:
        os.utime(file, (0, 0))
    world.clock.advance(ADOPT_SECONDS + 1)


def wait_until_refused(producer: SpillingProducer) -> None:
    """Return when a close has begun."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        probe = producer.append_many(TOPIC, [LogEntry(b"run", b"probe")])
        if probe.done() and isinstance(probe.exception(), UnavailableError):
            return
        time.sleep(0.001)


def _bytes_in(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*.log"))
