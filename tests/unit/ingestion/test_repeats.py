"""What a gateway's spill brings a second time is applied once, wherever slices and transactions are cut."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matyan.engines.blob.filesystem import open_filesystem_blobs
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.log.protocol import LogRecord
from matyan.errors import OffsetMovedError, UnavailableError
from matyan.ingestion.apply import Applier, Outcome
from matyan.ingestion.repeats import SOURCES_MAX
from matyan.sequences.model import Bucket, SequenceKey
from matyan.store import deadletters, gateways, offsets
from matyan.wire.codec import decode_envelope, encode_envelope
from matyan.wire.messages import Command, LogHparams, LogRecordMessage, Origin, Refusal
from tests.support.applier import PARTITION, Bench, metric
from tests.support.kv import RunTwiceKv

RECORDS = SequenceKey(Bucket.LOG_RECORDS, "log_records")


def say(text: str) -> LogRecordMessage:
    return LogRecordMessage(text, 20, 1.0)


class World(Bench):
    """A worker whose records come from a gateway that may repeat them."""

    def sent(self, number: int, *commands: Command, gateway: str = "g", **options: Any) -> LogRecord:
        """Append a record that was given this number; its one message is the number when nothing else is said."""
        record = self.record(*(commands or [say(str(number))]), **options)
        envelope = msgspec.structs.replace(decode_envelope(record.value), gateway=gateway, number=number)
        self.log[-1] = record._replace(value=encode_envelope(envelope))
        return self.log[-1]

    def handle(self, *records: LogRecord) -> Outcome:
        return self.applier.handle(PARTITION, records)

    def messages(self) -> list[str]:
        return [item.value["message"] for item in self.items(RECORDS).values()]

    def position(self) -> offsets.Applied | None:
        return self.kv.read(lambda reader: offsets.get(reader, "log", PARTITION))


@pytest.fixture(params=["embedded", "embedded-twice"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    engine = open_embedded_kv(tmp_path / "kv", map_bytes=2**32)
    blobs = open_filesystem_blobs(tmp_path / "blobs", keys=[b"s" * 32])
    yield World(engine if request.param == "embedded" else RunTwiceKv(engine), blobs)
    engine.close()
    blobs.close()


def test_a_record_that_comes_again_in_a_later_slice_is_left_out(world: World) -> None:
    world.handle(world.sent(1), world.sent(2))
    outcome = world.handle(world.sent(1), world.sent(2), world.sent(3))

    assert world.messages() == ["1", "2", "3"]
    assert (outcome.records, outcome.commands, outcome.dead_letters) == (1, 1, 0)
    assert world.position() == offsets.Applied(5)


def test_a_record_that_comes_again_in_its_slice_is_left_out(world: World) -> None:
    outcome = world.handle(world.sent(1), world.sent(2), world.sent(1), world.sent(2), world.sent(3))

    assert world.messages() == ["1", "2", "3"]
    assert outcome.records == 3


def test_a_slice_of_nothing_but_repeats_moves_the_position(world: World) -> None:
    world.handle(world.sent(1))
    outcome = world.handle(world.sent(1), world.sent(1))

    assert (outcome.records, outcome.commands) == (0, 0)
    assert world.position() == offsets.Applied(3)


def test_another_worker_knows_what_was_applied(world: World) -> None:
    world.handle(world.sent(1))
    world.restart()
    world.handle(world.sent(1))

    assert world.messages() == ["1"]


def test_a_worker_that_was_overtaken_believes_nothing_it_remembers(world: World) -> None:
    zombie = Applier(kv=world.kv, log_id="log", blobs=world.blobs)
    zombie.start_offset(PARTITION)
    first = world.sent(1)
    zombie.handle(PARTITION, [first])
    world.restart()
    second, again = world.sent(2), world.sent(2)
    world.handle(second)
    with pytest.raises(OffsetMovedError):
        zombie.handle(PARTITION, [second, again])
    zombie.handle(PARTITION, [again])

    assert world.messages() == ["1", "2"]


def test_gateways_and_partitions_count_for_themselves(world: World) -> None:
    world.handle(world.sent(1, say("a"), gateway="a"), world.sent(1, say("b"), gateway="b"), world.sent(1, gateway=""))

    assert world.messages() == ["a", "b", "1"]


def test_records_without_a_number_are_never_left_out(world: World) -> None:
    world.handle(world.sent(0, say("x")), world.sent(0, say("x")), world.record(say("x")), world.record(say("x")))

    assert world.messages() == ["x"] * 4


def test_what_overtook_its_predecessor_hides_it_not(world: World) -> None:
    world.handle(world.sent(1), world.sent(4))
    world.handle(world.sent(2), world.sent(4), world.sent(3), world.sent(2))

    assert world.messages() == ["1", "4", "2", "3"]


def test_a_record_cut_into_several_transactions_counts_when_its_last_command_is_applied(world: World) -> None:
    texts = [f"{number}:" + "x" * 6_000 for number in range(1_800)]
    world.handle(world.sent(1, *map(say, texts)), world.sent(2), world.sent(1, *map(say, texts)), world.sent(2))

    assert [text.split(":")[0] for text in world.messages()] == [*(str(number) for number in range(1_800)), "2"]


def test_a_worker_that_dies_inside_a_record_applies_the_rest_of_it_and_no_copy(world: World) -> None:
    texts = [f"{number}:" + "x" * 6_000 for number in range(1_800)]
    record, copy = world.sent(1, *map(say, texts)), world.sent(1, *map(say, texts))
    real, calls = world.kv.write, []

    def dying(fn: Any, *, durable: bool = True) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(fn, durable=durable)

    world.kv.write = dying  # type: ignore[method-assign] # the process ends here
    with pytest.raises(KeyboardInterrupt):
        world.handle(record, copy)
    world.kv.write = real  # type: ignore[method-assign]
    position = world.position()
    assert position is not None
    assert (position.offset, position.items > 0) == (record.offset, True)
    world.restart()
    world.handle(record, copy)

    assert [text.split(":")[0] for text in world.messages()] == [str(number) for number in range(1_800)]
    assert world.position() == offsets.Applied(2)


def test_a_failed_slice_comes_again_and_is_applied(world: World) -> None:
    records = [world.sent(1), world.sent(2)]
    real = world.kv.write

    def failing(fn: Any, *, durable: bool = True) -> Any:
        raise UnavailableError("the store is away")

    world.kv.write = failing  # type: ignore[method-assign] # the store is away for a moment
    with pytest.raises(UnavailableError):
        world.handle(*records)
    world.kv.write = real  # type: ignore[method-assign]
    world.handle(*records)

    assert world.messages() == ["1", "2"]


def test_an_item_given_up_is_one_letter_however_often_its_record_comes(world: World) -> None:
    huge = LogHparams({"huge": "x" * 11_000_000})
    for _ in range(2):
        world.handle(world.sent(1, say("before"), huge, say("after")))

    assert len(world.kv.read(deadletters.read)) == 1
    assert [text for text in world.messages() if text in ("before", "after")] == ["before", "after"]


def unreadable(record: LogRecord, **changes: Any) -> LogRecord:
    """Return the record as a release would write it whose payloads this one cannot read."""
    envelope = msgspec.structs.replace(decode_envelope(record.value), encoding="cbor", **changes)
    return record._replace(value=encode_envelope(envelope))


def test_an_unreadable_record_is_one_letter_however_often_it_comes(world: World) -> None:
    world.handle(unreadable(world.sent(1)), unreadable(world.sent(1)))
    world.handle(unreadable(world.sent(1)), world.sent(2))

    assert [letter.offset for letter in world.kv.read(deadletters.read)] == [0]
    assert world.messages() == ["2"]


def test_a_letter_of_an_unreadable_record_names_its_run_and_who_sent_it(world: World) -> None:
    refusal = Refusal(1, "log_metric", "odd")
    record = unreadable(world.sent(1, run="other", writer="w7", refusals=[refusal]))
    world.handle(record)

    (letter,) = world.kv.read(deadletters.read)
    assert (letter.project, letter.run_id, letter.writer, letter.index) == ("default", "other", "w7", -1)
    assert letter.excerpt == record.value
    assert world.find("other") is None


def test_a_retry_of_an_unreadable_record_that_is_still_unreadable_keeps_its_letter(world: World) -> None:
    world.handle(unreadable(world.sent(1)))
    (letter,) = world.kv.read(deadletters.read)
    world.handle(unreadable(world.sent(1), retried=letter.origin))

    (again,) = world.kv.read(deadletters.read)
    assert (again.origin, again.retries) == (letter.origin, 1)


def test_refusals_are_told_once(world: World) -> None:
    for _ in range(2):
        world.handle(world.sent(1, metric(0, 1.0), refusals=[Refusal(1, "log_metric", "odd")]))

    assert len(world.messages()) == 1


def test_a_letter_tried_again_goes_by_its_own_name(world: World) -> None:
    world.handle(world.sent(1))
    letter = deadletters.DeadLetter(
        log_id="log",
        topic=PARTITION.topic,
        partition=PARTITION.partition,
        offset=0,
        index=0,
        project="default",
        run_id="a1",
        reason="odd",
        excerpt=b"",
        blob_key=None,
        received_ms=0,
    )
    world.kv.write(lambda tx: deadletters.put(tx, letter))
    record = world.sent(1, say("again"))
    retried = Origin("log", PARTITION.topic, PARTITION.partition, 0, 0)
    envelope = msgspec.structs.replace(decode_envelope(record.value), retried=retried)
    world.handle(record._replace(value=encode_envelope(envelope)))

    assert world.messages() == ["1", "again"]


def test_more_gateways_than_are_remembered_are_still_known(world: World) -> None:
    count = SOURCES_MAX + 100
    for _ in range(2):
        for begin in range(0, count, 200):
            world.handle(*[world.sent(1, gateway=f"g{number}") for number in range(begin, min(begin + 200, count))])

    assert len(world.messages()) == count


def test_forgotten_gateways_are_new_ones(world: World) -> None:
    world.handle(world.sent(1))
    gateways.forget_gateways(world.kv, 2**50)
    world.restart()
    world.handle(world.sent(1))

    assert world.messages() == ["1", "1"]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_streams_of_one_order_apply_each_record_once_in_that_order(data: st.DataObject) -> None:
    """Goal: the argument of ADR 0020. Method: originals that stop somewhere, copies of all with any restarts, mixed."""
    count = data.draw(st.integers(1, 12))
    originals = list(range(1, data.draw(st.integers(0, count)) + 1))
    copies: list[int] = []
    for restart in data.draw(st.lists(st.integers(1, count), max_size=4)):
        copies += range(1, restart + 1) if not copies else range(min(restart, max(copies)), max(copies) + 1)
    copies += range(min(max(copies, default=0) + 1, data.draw(st.integers(1, count))), count + 1)
    turns = data.draw(st.permutations([True] * len(originals) + [False] * len(copies)), label="an original is next")
    stream = [(originals if is_original else copies).pop(0) for is_original in turns]
    with fresh_world() as world:
        records = [world.sent(number) for number in stream]
        while records:
            size = data.draw(st.integers(1, len(records)))
            world.handle(*records[:size])
            if data.draw(st.booleans()):
                world.restart()
            records = records[size:]

        assert world.messages() == [str(number) for number in range(1, count + 1)]


@contextmanager
def fresh_world() -> Iterator[World]:
    """Make a world in a directory of its own, for each example."""
    with tempfile.TemporaryDirectory() as home:
        kv = open_embedded_kv(Path(home) / "kv", map_bytes=2**28)
        blobs = open_filesystem_blobs(Path(home) / "blobs", keys=[b"s" * 32])
        yield World(kv, blobs)
        kv.close()
        blobs.close()
