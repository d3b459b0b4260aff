"""Slices reach the store once each, whatever is repeated, cut, spoilt or too large."""

import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from matyan.catalog import repository as catalog
from matyan.engines.blob.filesystem import open_filesystem_blobs
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.log.protocol import LogRecord
from matyan.errors import OffsetMovedError, UnavailableError
from matyan.ids import DEFAULT_PROJECT
from matyan.ingestion.apply import Applier
from matyan.runs import repository as runs
from matyan.runs.model import EditMark
from matyan.sequences import items
from matyan.sequences.model import Bucket, SequenceKey
from matyan.store import deadletters, offsets
from matyan.wire import frames
from matyan.wire.messages import (
    AddTag,
    BlobRef,
    CreateRun,
    FinishRun,
    LogCustomObject,
    LogHparams,
    LogRecordMessage,
    LogTerminalLine,
    Refusal,
    RemoveTag,
    SetRunProperty,
)
from tests.support.applier import PARTITION, RUN, Bench, metric
from tests.support.kv import RunTwiceKv

TRAIN = msgspec.Raw(b'{"subset": "train"}')


@pytest.fixture(params=["embedded", "embedded-twice"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    engine = open_embedded_kv(tmp_path / "kv", map_bytes=2**32)
    kv = engine if request.param == "embedded" else RunTwiceKv(engine)
    blobs = open_filesystem_blobs(tmp_path / "blobs", keys=[b"s" * 32])
    yield Bench(kv, blobs)
    engine.close()
    blobs.close()


def test_a_run_is_opened_filled_and_finished(bench: Bench) -> None:
    opened = datetime(2026, 11, 21, 3, 40, 42, 225_000, tzinfo=UTC)
    bench.apply(CreateRun(opened), SetRunProperty(experiment="baseline", name="first"))
    bench.apply(LogHparams({"hparams": {"lr": 0.1, "big": 2**70}}), AddTag("good"), AddTag("good"), RemoveTag("never"))
    bench.apply(metric(0, 0.5, context=TRAIN, epoch=0.25, client_datetime=opened), metric(1, math.nan, context=TRAIN))
    bench.apply(FinishRun(1_800_000_000.5))

    run = bench.run()
    assert (run.name, run.document.created_at_seconds) == ("first", opened.timestamp())
    assert run.experiment is not None
    assert run.experiment.name == "baseline"
    assert [tag.name for tag in run.tags] == ["good"]
    assert run.params == {"hparams": {"lr": 0.1, "big": 2**70}}
    assert (run.document.active, run.document.end_time_seconds) == (False, 1_800_000_000.5)
    points = bench.points("loss", '{"subset":"train"}')
    assert points.steps.tolist() == [0, 1]
    assert points.values[0] == 0.5
    assert math.isnan(points.values[1])
    assert points.epochs[0] == 0.25
    assert points.times.tolist() == [round(opened.timestamp() * 1000), 1_000_002]


def test_any_command_opens_an_unknown_run(bench: Bench) -> None:
    bench.apply(metric(3, 1.0))

    run = bench.run()
    assert run.name == "Run: a1"
    assert run.document.active
    assert run.experiment is not None
    assert run.experiment.name == "default"


def test_opening_a_known_run_again_keeps_everything(bench: Bench) -> None:
    bench.apply(CreateRun(1000.0), SetRunProperty(name="n", experiment="e"), AddTag("t"), FinishRun())

    bench.apply(CreateRun(2000.0, force_resume=False))

    run = bench.run()
    assert (run.name, run.document.created_at_seconds) == ("n", 1000.0)
    assert (run.document.active, run.document.end_time_seconds) == (True, None)
    assert [tag.name for tag in run.tags] == ["t"]


def test_steps_of_none_count_on_from_the_greatest(bench: Bench) -> None:
    bench.apply(metric(None, 0.0), metric(None, 1.0), metric(10, 2.0), metric(None, 3.0))
    bench.apply(metric(None, 4.0))

    assert bench.points("loss").steps.tolist() == [0, 1, 10, 11, 12]


def test_two_spellings_of_a_context_are_one_sequence(bench: Bench) -> None:
    bench.apply(
        metric(0, 0.0, context=msgspec.Raw(b'{"a": 1, "b": 2}')),
        metric(1, 1.0, context=msgspec.Raw(b'{"b":2,"a":1}')),
        metric(2, 2.0, name="x", context=msgspec.Raw(b"{}")),
        metric(3, 3.0, name="x", context=msgspec.Raw(b"null")),
    )

    assert {(one.name, one.context, one.count) for one in bench.summaries()} == {
        ("loss", '{"a":1,"b":2}', 2),
        ("x", "{}", 2),
    }


def test_records_offered_again_change_nothing(bench: Bench) -> None:
    records = [bench.record(CreateRun()), bench.record(metric(None, 1.0)), bench.record(LogRecordMessage("m", 20, 5.0))]
    bench.applier.handle(PARTITION, records)

    bench.applier.handle(PARTITION, records)
    bench.restart().handle(PARTITION, records)

    assert bench.points("loss").steps.tolist() == [0]
    assert list(bench.items(SequenceKey(Bucket.LOG_RECORDS, "log_records"))) == [0]


def test_params_set_in_one_slice_build_on_each_other(bench: Bench) -> None:
    first = LogHparams({"h": {"a": 1, "b": 2}})
    bench.apply(first, LogHparams({"h": {"c": {"d": 3}}}), LogHparams({"h": {"a": {"x": 1}}}))

    assert bench.run().params == {"h": {"a": {"x": 1}, "b": 2, "c": {"d": 3}}}


def test_a_worker_that_was_overtaken_applies_nothing(bench: Bench) -> None:
    zombie = Applier(kv=bench.kv, log_id="log", blobs=bench.blobs)
    zombie.start_offset(PARTITION)
    record = bench.record(metric(None, 1.0))
    bench.applier.handle(PARTITION, [record])

    with pytest.raises(OffsetMovedError) as moved:
        zombie.handle(PARTITION, [record])

    assert moved.value.applied_offset == 1
    assert bench.points("loss").steps.tolist() == [0]


def test_params_that_no_transaction_can_hold_cost_themselves_alone(bench: Bench) -> None:
    huge = random.Random(1).randbytes(5_500_000).hex()
    bench.apply(metric(0, 0.0), LogHparams({"huge": huge}), LogHparams({"k": 1}), metric(1, 1.0))

    assert bench.points("loss").values.tolist() == [0.0, 1.0]
    assert bench.run().params == {"k": 1}
    (letter,) = bench.kv.read(deadletters.read)
    assert (letter.offset, letter.index, letter.run_id) == (0, 1, RUN)
    assert "TooLargeError" in letter.reason
    assert letter.blob_key is not None
    whole = bench.blobs.get(letter.blob_key)
    assert whole is not None
    assert frames.decode_payload(frames.MSGPACK, whole)[0] == [LogHparams({"huge": huge})]
    (warning,) = bench.items(SequenceKey(Bucket.LOG_RECORDS, "log_records")).values()
    assert "log_hparams 1" in warning.value["message"]


def test_what_the_gateway_refused_is_told_once_however_many_items_fail_later(bench: Bench) -> None:
    huge = LogHparams({"huge": "x" * 5_500_000})
    bench.apply(huge, metric(0, 1.0), LogHparams({"more": "x" * 5_500_000}), refusals=[Refusal(9, "log_metric", "odd")])

    records = bench.items(SequenceKey(Bucket.LOG_RECORDS, "log_records")).values()
    assert [record.value["message"] for record in records].count("not stored: log_metric 9 of a frame: odd") == 1
    assert bench.points("loss").steps.tolist() == [0]


@pytest.mark.parametrize("fault", [MemoryError(), OSError(24, "too many open files")])
def test_a_passing_fault_of_the_machine_gives_nothing_up(bench: Bench, fault: Exception) -> None:
    real = bench.kv.write
    record = bench.record(metric(0, 1.0))

    def failing(fn: Any, *, durable: bool = True) -> Any:
        raise fault

    bench.kv.write = failing  # type: ignore[method-assign] # the machine is short of something
    with pytest.raises(UnavailableError):
        bench.applier.handle(PARTITION, [record])
    bench.kv.write = real  # type: ignore[method-assign]
    bench.applier.handle(PARTITION, [record])

    assert bench.points("loss").steps.tolist() == [0]
    assert bench.kv.read(deadletters.read) == []


def test_an_unknown_fault_is_tried_again_before_an_item_is_given_up(bench: Bench) -> None:
    real, calls = bench.kv.write, []

    def failing_once(fn: Any, *, durable: bool = True) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError
        return real(fn, durable=durable)

    bench.kv.write = failing_once  # type: ignore[method-assign] # a fault of ours that does not come again
    bench.apply(metric(0, 1.0))

    assert bench.points("loss").steps.tolist() == [0]
    assert bench.kv.read(deadletters.read) == []


def test_an_edit_of_one_property_leaves_the_queued_others_alone(bench: Bench) -> None:
    bench.apply(CreateRun(), SetRunProperty(name="old"))

    def edit(tx: Any) -> None:
        run = runs.find(tx, DEFAULT_PROJECT, RUN)
        assert run is not None
        run.document.name = "edited"
        run.document.edits = {"name": EditMark("log", 2)}
        runs.put(tx, DEFAULT_PROJECT, run.number, run.document)

    bench.kv.write(edit)
    bench.apply(SetRunProperty(name="queued before the edit", description="d"))
    assert (bench.run().name, bench.run().document.description) == ("edited", "d")
    bench.apply(SetRunProperty(name="younger"))
    assert bench.run().name == "younger"


def test_an_edit_in_another_log_is_older_than_everything_in_this_one(bench: Bench) -> None:
    bench.apply(CreateRun())

    def edit(tx: Any) -> None:
        run = runs.find(tx, DEFAULT_PROJECT, RUN)
        assert run is not None
        run.document.edits = {"name": EditMark("the log before", 1_000_000)}
        runs.put(tx, DEFAULT_PROJECT, run.number, run.document)

    bench.kv.write(edit)
    bench.apply(SetRunProperty(name="new"))

    assert bench.run().name == "new"


def test_frames_that_unpack_to_much_are_not_unpacked_all_at_once(bench: Bench) -> None:
    records = [bench.record(LogTerminalLine("x" * 3_000_000, number)) for number in range(3)]
    slices: list[int] = []
    real = bench.kv.write

    def counting(fn: Any, *, durable: bool = True) -> Any:
        slices.append(1)
        return real(fn, durable=durable)

    bench.kv.write = counting  # type: ignore[method-assign] # only counts
    bench.applier.handle(PARTITION, records)

    assert len(slices) == 3


def test_what_one_item_spoils_is_that_item(bench: Bench) -> None:
    bench.apply(
        metric(0, 0.0),
        metric(1, 1.0, context=msgspec.Raw(b"[1]")),
        SetRunProperty(name="x" * 5000),
        LogHparams({"k": 1}),
        metric(2, 2.0),
    )

    assert bench.points("loss").values.tolist() == [0.0, 2.0]
    assert bench.run().params == {"k": 1}
    letters = bench.kv.read(deadletters.read)
    assert [letter.index for letter in letters] == [1, 2]
    assert "context" in letters[0].reason
    assert "5000 bytes" in letters[1].reason
    position = bench.kv.read(lambda reader: offsets.get(reader, "log", PARTITION))
    assert position == offsets.Applied(1, 0)


def test_an_unreadable_record_becomes_a_dead_letter_and_the_rest_goes_on(bench: Bench) -> None:
    spoilt = LogRecord(0, 1, b"k", b"\xff\x00garbage")
    bench.log.append(spoilt)
    bench.applier.handle(PARTITION, [spoilt, bench.record(metric(0, 1.0))])

    assert bench.points("loss").steps.tolist() == [0]
    (letter,) = bench.kv.read(deadletters.read)
    assert (letter.offset, letter.index, letter.excerpt) == (0, -1, b"\xff\x00garbage")


def test_a_record_too_large_for_one_transaction_is_applied_in_parts(bench: Bench) -> None:
    lines = [LogTerminalLine(f"{number}:" + "x" * 6_000, number) for number in range(2_500)]

    bench.apply(*lines)

    found = bench.items(SequenceKey(Bucket.LOGS, "logs"))
    assert [found[number].value[:6].split(":")[0] for number in range(2_500)] == [str(n) for n in range(2_500)]
    assert bench.kv.read(deadletters.read) == []


def test_a_worker_that_dies_inside_a_record_resumes_inside_it(bench: Bench) -> None:
    record = bench.record(*[LogRecordMessage("x" * 8_000 + str(number), 20, 1.0) for number in range(1_500)])
    applier = bench.applier
    real, calls = bench.kv.write, []

    def dying(fn: Any, *, durable: bool = True) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(fn, durable=durable)

    bench.kv.write = dying  # type: ignore[method-assign] # the process ends here
    with pytest.raises(KeyboardInterrupt):
        applier.handle(PARTITION, [record])
    bench.kv.write = real  # type: ignore[method-assign]
    bench.restart().handle(PARTITION, [record])

    records = bench.items(SequenceKey(Bucket.LOG_RECORDS, "log_records"))
    whole = [bench.blobs.get(item.blob_key) if item.blob_key else None for item in records.values()]
    messages = [
        (items.decode(blob).value if blob else item.value)["message"]
        for item, blob in zip(records.values(), whole, strict=True)
    ]
    assert [message[8_000:] for message in messages] == [str(number) for number in range(1_500)]


def test_a_huge_object_lies_in_a_blob_and_its_item_names_it(bench: Bench) -> None:
    text = "é" * 400_000
    bench.apply(LogCustomObject("t", {"type": "text", "data": text}, 0))

    (item,) = bench.items(SequenceKey(Bucket.TEXTS, "t")).values()
    assert item.value is None
    assert item.blob_key is not None
    stored = bench.blobs.get(item.blob_key)
    assert stored is not None
    assert items.decode(stored).value == [{"type": "text", "data": text}]


def test_objects_lists_and_unknown_kinds_find_their_place(bench: Bench) -> None:
    image = {"type": "image", "format": "PNG", "s3_key": "k"}
    bench.apply(
        LogCustomObject("i", image, 3, context=TRAIN),
        LogCustomObject("i", [image, image], 4, context=TRAIN),
        LogCustomObject("mine", {"weird": 1}, None, dtype="Custom"),
    )

    (summary,) = bench.summaries(Bucket.IMAGES)
    assert (summary.dtype, summary.record_length_max, summary.count, summary.last_step) == ("list(image)", 2, 2, 4)
    (text,) = bench.items(SequenceKey(Bucket.TEXTS, "mine")).values()
    assert text.value == [{"type": "text", "data": '{"weird": 1}'}]


def test_refused_items_are_shown_as_warnings_of_the_run(bench: Bench) -> None:
    bench.apply(metric(0, 1.0), refusals=[Refusal(n, "log_metric", "step must be an integer") for n in range(30)])

    records = bench.items(SequenceKey(Bucket.LOG_RECORDS, "log_records"))
    assert len(records) == 21
    assert records[0].value["log_level"] == 30
    assert "step must be an integer" in records[0].value["message"]
    assert "10 more" in records[20].value["message"]


def test_system_params_lie_apart_and_artifacts_are_listed(bench: Bench) -> None:
    bench.apply(
        LogHparams({"__system_params": {"executable": "python", "packages": {"a": "1"}}}),
        LogHparams({"mine": 1}),
        BlobRef("a1/model.bin", "model.bin"),
        BlobRef("a1/seq/x/0.png", "seq/x/0.png", "image/png"),
        BlobRef("a1/model.bin", "model.bin", "application/zip"),
    )

    run = bench.run()
    assert run.params == {"mine": 1, "__system_params": {"executable": "python", "packages": {"a": "1"}}}
    assert [(one.path, one.content_type) for one in run.document.artifacts] == [("model.bin", "application/zip")]


def test_moving_between_experiments_moves_the_association(bench: Bench) -> None:
    bench.apply(CreateRun(), SetRunProperty(experiment="one"))
    bench.apply(SetRunProperty(experiment="two"))

    counts = bench.kv.read(
        lambda reader: {
            one.name: catalog.experiments.count_runs(reader, DEFAULT_PROJECT, one.id)
            for one in catalog.experiments.list(reader, DEFAULT_PROJECT)
        }
    )
    assert counts == {"one": 0, "two": 1}
