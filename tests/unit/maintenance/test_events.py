"""Control events are acted on, once or more, in the way of nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest

from matyan.engines.blob.filesystem import FilesystemBlobs
from matyan.engines.blob.protocol import always
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.engines.log.protocol import LogRecord, TopicPartition
from matyan.errors import OffsetMovedError, UnavailableError
from matyan.ids import DEFAULT_PROJECT, RunId
from matyan.maintenance.events import EFFECTS, RETRY_SECONDS, Effects, EventHandler
from matyan.store import offsets
from matyan.store.offsets import Applied
from matyan.wire.events import PAYLOADS, Payload, RunDeleted, encode_event
from tests.support.control_world import ONLY, World, opened_world
from tests.support.kv import read_all
from tests.support.kv_faults import ROUGH, FaultyKv
from tests.support.store import make_run


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with opened_world(tmp_path) as found:
        yield found


class BrokenBlobs:
    """An object store that fails so many deletions."""

    def __init__(self, blobs: FilesystemBlobs, failures: int) -> None:
        self._blobs = blobs
        self.failures_left = failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def delete_prefix(self, prefix: str, *, may_go_on: Callable[[], bool] = always) -> int:
        if self.failures_left:
            self.failures_left -= 1
            raise UnavailableError(f"no way to {prefix}")
        return self._blobs.delete_prefix(prefix, may_go_on=may_go_on)


def test_every_type_has_its_effect() -> None:
    assert set(EFFECTS) == set(get_args(Payload)) == set(PAYLOADS.values())


def test_the_event_of_a_deletion_frees_the_run(world: World) -> None:
    make_run(world.engine, "other", experiment="default")
    empty = world.stored_bytes()
    world.fill("a")
    before = world.stored_bytes() - empty
    world.changes.delete(RunId("a"))

    handled = world.handler().handle(ONLY, world.relayed())

    assert handled == 1
    assert world.stored_bytes() - empty < 0.05 * before
    assert list(world.blobs.list("")) == []
    assert world.deletions.free_due(DEFAULT_PROJECT, seconds_max=60) == 0, "the job finds nothing left to do"
    assert world.count('matyan_control_events_processed_total{event_type="run_deleted"}') == 1
    assert world.count("matyan_control_events_consumed_total") == 1
    assert world.count("matyan_control_processing_duration_seconds_count") == 1


def test_a_repeated_event_does_nothing(world: World) -> None:
    world.fill("a")
    world.changes.delete(RunId("a"))
    records = world.relayed()
    handler = world.handler()
    handler.handle(ONLY, records)
    world.changes.clear_tombstone(RunId("a"))
    world.fill("a")
    before = read_all(world.engine)

    again = world.append(records[0].value)
    handler.handle(ONLY, again)

    assert world.blobs.get("default/a/model.bin") == b"data"
    changed = {key for key, value in read_all(world.engine).items() if before.get(key) != value}
    assert len(changed) == 1, "the applied offset"


def test_an_event_of_a_writer_that_knows_no_numbers_frees_the_run_too(world: World) -> None:
    world.fill("a")
    world.changes.delete(RunId("a"))
    told = b'{"type":"run_deleted","timestamp":"2026-11-21T03:23:32Z","payload":{"run_id":"a"}}'

    world.handler().handle(ONLY, world.append(told))

    assert list(world.blobs.list("")) == []


def test_nobody_can_have_a_run_freed_that_lives(world: World) -> None:
    world.fill("a")
    before = read_all(world.engine)
    lies = [
        encode_event(RunDeleted(run_id="a", number=number, deleted_at_seconds=1.0), event_id="x", time_seconds=1.0)
        for number in (None, 0, 1)
    ]

    world.handler().handle(ONLY, world.append(*lies))

    assert len(set(read_all(world.engine).items()) - set(before.items())) == 1, "the applied offset"
    assert world.blobs.get("default/a/model.bin") == b"data"


def test_what_is_no_event_or_unknown_is_skipped_and_counted(world: World) -> None:
    world.fill("a")
    world.changes.delete(RunId("a"))
    (good,) = [record.value for record in world.relayed()]
    odd = [
        b"",
        b"\xff",
        b"{}",
        b'{"type":"run_deleted","timestamp":"2026-11-21T03:23:32Z","payload":{}}',
        b'{"type":"project_deleted","timestamp":"2026-11-21T03:23:32Z","payload":{"project_id":"p"}}',
    ]

    world.handler().handle(ONLY, world.append(*odd, good))

    assert list(world.blobs.list("")) == []
    assert world.count('matyan_control_processing_errors_total{error_type="validation"}') == 4


def test_an_object_store_that_fails_for_a_moment_is_asked_again(world: World) -> None:
    world.fill("a")
    world.blobs = BrokenBlobs(world.blobs, len(RETRY_SECONDS))
    world.changes.delete(RunId("a"))

    world.handler().handle(ONLY, world.relayed())

    assert list(world.blobs.list("")) == []
    assert world.pauses == [0.0, *RETRY_SECONDS]
    assert world.count('matyan_control_processing_errors_total{error_type="blob_storage"}') == len(RETRY_SECONDS)
    assert world.count('matyan_control_events_processed_total{event_type="run_deleted"}') == 1


def test_what_fails_for_long_is_left_to_the_job_and_holds_up_no_other_event(world: World) -> None:
    for run in ("a", "b", "c"):
        world.fill(run)
    world.blobs = BrokenBlobs(world.blobs, 1_000)
    world.changes.delete_many([RunId("a"), RunId("b"), RunId("c")])

    records = world.relayed()
    handler = world.handler()
    handled = handler.handle(ONLY, records[:2]) + handler.handle(ONLY, records[2:])

    assert handled == 3
    assert world.pauses == [0.0, *RETRY_SECONDS, 0.0], "one of a slice tries, and only the first tries again"
    assert world.count('matyan_control_events_processed_total{event_type="run_deleted"}') == 0
    world.blobs.failures_left = 0
    assert world.deletions.free_due(DEFAULT_PROJECT, seconds_max=60) == 3
    assert list(world.blobs.list("")) == []


def test_a_run_that_cannot_be_freed_costs_no_other_its_tries(world: World) -> None:
    for run in ("a", "b"):
        world.fill(run)
    files = world.blobs

    class Odd:
        """An object store in which the files of one run are not as they should be."""

        def __getattr__(self, name: str) -> Any:
            return getattr(files, name)

        def delete_prefix(self, prefix: str, *, may_go_on: Callable[[], bool] = always) -> Any:
            if prefix == "default/a/":
                raise ValueError(prefix)
            return files.delete_prefix(prefix, may_go_on=may_go_on)

    world.blobs = Odd()
    for run in ("a", "b"):
        world.changes.delete(RunId(run))

    world.handler().handle(ONLY, world.relayed())

    assert [info.key for info in files.list("")] == ["default/a/model.bin"]
    assert world.pauses == [0.0, *RETRY_SECONDS, 0.0]
    assert world.count('matyan_control_processing_errors_total{error_type="unknown"}') == 3


def test_the_job_leaves_what_is_fresh_to_the_events(world: World) -> None:
    world.fill("a")
    world.changes.delete(RunId("a"))

    early = world.deletions.free_due(DEFAULT_PROJECT, seconds_max=60, patience_seconds=10)
    world.clock.advance(10)
    late = world.deletions.free_due(DEFAULT_PROJECT, seconds_max=60, patience_seconds=10)

    assert (early, late) == (0, 1)


# ---- the applied offset


def applied(world: World) -> Applied | None:
    return world.engine.read(lambda reader: offsets.get(reader, world.log.log_id, ONLY))


def test_a_second_worker_on_the_partition_is_told_where_to_go_on(world: World) -> None:
    records = world.append(*[b"{}"] * 4)
    zombie, other = world.handler(), world.handler()
    other.handle(ONLY, records[:3])

    with pytest.raises(OffsetMovedError) as moved:
        zombie.handle(ONLY, records[:2])

    assert moved.value.applied_offset == 3
    assert zombie.handle(ONLY, records) == 1
    assert applied(world) == Applied(4)


def test_records_that_leave_out_some_are_refused(world: World) -> None:
    records = world.append(*[b"{}"] * 3)

    with pytest.raises(OffsetMovedError) as moved:
        world.handler().handle(ONLY, records[1:])

    assert moved.value.applied_offset == 0


def test_a_log_that_ends_before_the_store_is_read_from_its_end(world: World) -> None:
    world.append(*[b"{}"] * 3)
    world.engine.write(lambda tx: offsets.advance(tx, world.log.log_id, ONLY, expected=offsets.START, to=Applied(7)))
    handler = world.handler()

    records = world.append(b"{}")

    assert handler.handle(ONLY, records[3:]) == 1
    assert applied(world) == Applied(4)


def test_a_log_that_begins_behind_the_store_is_read_from_its_beginning(world: World) -> None:
    records = world.append(*[b"{}"] * 3)

    class Trimmed:
        """A log that holds nothing before offset 2."""

        def __getattr__(self, name: str) -> Any:
            return getattr(world.log, name)

        def start_offset(self, partition: TopicPartition) -> int:
            del partition
            return 2

    handler = EventHandler(
        kv=world.kv,
        log=Trimmed(),
        effects=Effects(kv=world.kv, deletions=world.deletions),
        metrics=world.metrics,
    )

    assert handler.start_offset(ONLY) == 2
    assert handler.handle(ONLY, records[2:]) == 1
    assert applied(world) == Applied(3)


class Mortal:
    """A store whose process dies just after so many commits."""

    def __init__(self, engine: KvEngine, writes: int) -> None:
        self._engine = engine
        self._writes_left = writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def write(self, fn: Callable[[KvTransaction], Any], *, durable: bool = True) -> Any:
        if not self._writes_left:
            raise KeyboardInterrupt
        self._writes_left -= 1
        return self._engine.write(fn, durable=durable)


def test_a_worker_that_dies_anywhere_leaves_nothing_behind_for_good(world: World) -> None:
    for run in ("a", "b"):
        world.fill(run)
    world.changes.delete_many([RunId("a"), RunId("b")])
    records = world.relayed()
    engine = world.kv

    deaths = 0
    while True:
        world.kv = Mortal(engine, deaths)
        try:
            world.handler().handle(ONLY, records)
            break
        except KeyboardInterrupt:
            deaths += 1

    assert deaths >= 3
    assert list(world.blobs.list("")) == []
    assert applied(world) == Applied(2)


def test_a_store_that_fails_as_foundationdb_does_changes_nothing_of_the_end(world: World) -> None:
    runs = [RunId(f"r{number}") for number in range(10)]
    for run in runs:
        world.fill(run)
    world.changes.delete_many(runs)
    records = world.relayed()
    world.kv = FaultyKv(world.engine, seed=11, rates=ROUGH)

    handler, offered = world.handler(), 0
    while handle_all(handler, records) and offered < 100:
        offered += 1

    assert list(world.blobs.list("")) == [], world.kv
    assert applied(world) == Applied(10)


def handle_all(handler: EventHandler, records: Sequence[LogRecord]) -> bool:
    """Offer everything, as the loop does after an error; return whether there is more to do."""
    try:
        handler.handle(ONLY, records)
    except (UnavailableError, OffsetMovedError):
        return True
    return False
