"""A dead letter can be read, tried again and dropped; trying again applies it once or keeps it, and loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from matyan.engines.log.protocol import LogEntry
from matyan.errors import InvalidArgumentError
from matyan.ids import DEFAULT_PROJECT
from matyan.maintenance.letters import LetterReport, LetterRetries, ask_all, drop, find, read_all, read_content
from matyan.observe.metrics import Metrics
from matyan.runs.changes import RunEdit
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket
from matyan.store import deadletters, outbox
from matyan.store.deadletters import DeadLetter, Notice
from matyan.wire.codec import decode_envelope, encode_envelope
from matyan.wire.frames import MSGPACK, decode_payload, encode_commands
from matyan.wire.messages import AddTag, Command, CreateRun, Envelope, LogHparams, LogMetric, SetRunProperty
from matyan.wire.topics import DEAD_LETTERS
from tests.support.pipeline import KINDS, ROUGH, RUN, TOPIC, Pipeline, pipeline
from tests.support.wayward import WaywardProducer

pytestmark = pytest.mark.one_python

LONG = "x" * 5000
"""No name that this release takes."""


@pytest.fixture(params=[*KINDS, ROUGH])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pipeline]:
    with pipeline(request.param, tmp_path) as made:
        yield made


def letters(world: Pipeline) -> list[DeadLetter]:
    return list(read_all(world.kv))


def retries(world: Pipeline) -> LetterRetries:
    return LetterRetries(kv=world.kv, blobs=world.blobs, producer=world.log.producer(), topic=TOPIC)


def ask(world: Pipeline) -> None:
    ask_all(world.kv, [letter.origin for letter in letters(world)], world.now_ms)


def allow_long_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a newer release, which takes what this one refuses."""
    monkeypatch.setattr("matyan.ids.LABEL_BYTES_MAX", 10_000)


def steps(world: Pipeline) -> list[int]:
    number = world.run().number
    ((summary,),) = world.kv.read(
        lambda reader: sequences.list_summaries(reader, DEFAULT_PROJECT, [number], Bucket.METRIC)
    )
    points = world.kv.read(lambda reader: sequences.read_all(reader, DEFAULT_PROJECT, number, summary))
    return [int(step) for step in points.steps]


def test_a_letter_tells_its_reason_its_origin_and_its_content(world: Pipeline) -> None:
    world.apply(CreateRun(), SetRunProperty(name=LONG))

    (letter,) = letters(world)
    content = read_content(letter, world.blobs)

    assert (letter.topic, letter.partition, letter.offset, letter.index) == (TOPIC, 0, 0, 1)
    assert (letter.run_id, letter.received_ms, letter.refused_ms) == (RUN, world.now_ms, world.now_ms)
    assert "5000 bytes" in letter.reason
    assert (content.commands, content.fault) == ([SetRunProperty(name=LONG)], "")
    assert find(world.kv, [letter.id]) == [letter]


def test_an_id_is_short_and_each_letter_has_its_own(world: Pipeline) -> None:
    world.apply(*[SetRunProperty(name=LONG + str(number)) for number in range(50)])

    ids = [letter.id for letter in letters(world)]

    assert len(set(ids)) == 50
    assert all(one.isalnum() and len(one) == 16 for one in ids)


def test_an_unknown_id_is_named(world: Pipeline) -> None:
    with pytest.raises(InvalidArgumentError, match="no dead letter nosuchid"):
        find(world.kv, ["nosuchid"])


def test_a_new_letter_is_told_to_other_systems(world: Pipeline) -> None:
    world.apply(CreateRun(), SetRunProperty(name=LONG))

    (letter,) = letters(world)
    (waiting,) = world.kv.read(lambda reader: outbox.read(reader, DEAD_LETTERS, rows_max=10))

    notice = msgspec.json.decode(waiting.entry.value, type=Notice)
    assert (notice.id, notice.reason, notice.offset, notice.index) == (letter.id, letter.reason, 0, 1)
    assert notice.payload is not None
    assert notice.payload_blob is None


def test_the_notice_of_a_large_letter_says_where_it_lies(world: Pipeline) -> None:
    huge = LogHparams({str(number): "y" * 90_000 + str(number) for number in range(60)})
    world.apply(CreateRun(), huge, LogHparams({"huge": bytes(range(256)).hex() * 12_000}))

    for letter in letters(world):
        (waiting,) = world.kv.read(lambda reader: outbox.read(reader, DEAD_LETTERS, rows_max=10))
        notice = msgspec.json.decode(waiting.entry.value, type=Notice)
        assert (notice.payload is None) == (letter.blob_key is not None)
        assert notice.payload_blob == letter.blob_key
    assert letters(world)


def test_a_retry_that_is_applied_leaves_no_letter(world: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    world.apply(CreateRun(), SetRunProperty(name=LONG))
    allow_long_names(monkeypatch)
    ask(world)

    sent = retries(world).send_asked()
    world.work()

    assert sent == 1
    assert world.run().name == LONG
    assert letters(world) == []
    assert world.kv.read(lambda reader: deadletters.read_asked(reader, None, rows_max=10)) == []


def test_a_letter_that_is_appended_twice_is_applied_once(world: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    world.apply(CreateRun(), LogMetric("loss", 1.0, 0), SetRunProperty(name=LONG))
    (letter,) = letters(world)
    # A point without a step is counted on: applied twice, it is seen.
    whole = msgspec.structs.replace(letter, excerpt=_payload(LogMetric("loss", 2.0)))
    world.kv.write(lambda tx: deadletters.replace(tx, whole))
    for _ in range(2):
        ask(world)
        retries(world).send_asked()
    world.append(LogMetric("loss", 3.0))

    world.work()

    assert steps(world) == [0, 1, 2]
    assert letters(world) == []


def test_a_letter_applied_already_is_left_out_when_it_comes_once_more(world: Pipeline) -> None:
    world.apply(CreateRun(), LogMetric("loss", 1.0, 0), SetRunProperty(name=LONG))
    (letter,) = letters(world)
    whole = msgspec.structs.replace(letter, excerpt=_payload(LogMetric("loss", 2.0)))
    world.kv.write(lambda tx: deadletters.replace(tx, whole))
    ask(world)
    retries(world).send_asked()
    world.work()
    world.kv.write(lambda tx: deadletters.replace(tx, whole))  # a second letter, so that it is sent again
    ask(world)
    retries(world).send_asked()
    world.kv.write(lambda tx: deadletters.clear(tx, whole.origin))  # applied elsewhere, or dropped

    world.work()

    assert steps(world) == [0, 1]


def test_a_retry_that_is_refused_again_keeps_its_letter_and_its_id(world: Pipeline) -> None:
    world.apply(CreateRun(), SetRunProperty(name=LONG))
    (before,) = letters(world)
    world.clock.advance(60)
    ask(world)

    retries(world).send_asked()
    world.work()

    (after,) = letters(world)
    assert (after.id, after.retries, after.offset, after.index) == (before.id, 1, 0, 1)
    assert after.refused_ms > before.refused_ms
    assert retries(world).send_asked() == 0


def test_a_large_letter_takes_its_blob_with_it(world: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    unlike = "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(4000))
    world.apply(CreateRun(), SetRunProperty(name=unlike))
    (letter,) = letters(world)
    assert letter.blob_key is not None
    assert [info.key for info in world.blobs.list("deadletters/")] == [letter.blob_key]
    monkeypatch.setattr("matyan.ids.LABEL_BYTES_MAX", 20_000)
    ask(world)

    retries(world).send_asked()
    world.work()

    assert world.run().name == unlike
    assert list(world.blobs.list("deadletters/")) == []


def test_a_letter_whose_blob_is_gone_says_so_and_stays(world: Pipeline) -> None:
    world.apply(SetRunProperty(name="".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(4000))))
    (letter,) = letters(world)
    assert letter.blob_key is not None
    world.blobs.delete(letter.blob_key)
    ask(world)

    sent = retries(world).send_asked()

    assert sent == 0
    (after,) = letters(world)
    assert "is gone" in after.retry_fault


def test_a_retried_property_is_as_old_as_it_was(world: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    world.apply(CreateRun(), SetRunProperty(name=LONG))
    world.changes.edit(RUN, RunEdit(name="edited by a person"))
    allow_long_names(monkeypatch)
    ask(world)

    retries(world).send_asked()
    world.work()

    assert world.run().name == "edited by a person"
    assert letters(world) == []


def test_a_letter_of_a_deleted_run_does_not_revive_it(world: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    world.apply(CreateRun(), SetRunProperty(name=LONG))
    allow_long_names(monkeypatch)
    ask(world)
    retries(world).send_asked()
    world.changes.delete(RUN)
    world.changes.clear_tombstone(RUN)

    world.work()

    assert world.find() is None
    assert letters(world) == [], "the worker is done with it"


def test_a_retry_of_a_deleted_run_is_refused_ahead(world: Pipeline) -> None:
    world.apply(CreateRun(), SetRunProperty(name=LONG))
    world.changes.delete(RUN)
    ask(world)

    sent = retries(world).send_asked()

    assert sent == 0
    assert "deleted" in letters(world)[0].retry_fault


def test_a_letter_that_the_log_refuses_holds_up_no_other(world: Pipeline) -> None:
    def is_second(entry: LogEntry) -> bool:
        return SetRunProperty(name=LONG + "2") in decode_payload(MSGPACK, decode_envelope(entry.value).payload)[0]

    world.apply(CreateRun(), *[SetRunProperty(name=LONG + one) for one in "123"])
    ask(world)
    producer = WaywardProducer(world.log.producer())
    producer.refuses = is_second

    job = LetterRetries(kv=world.kv, blobs=world.blobs, producer=producer, topic=TOPIC)
    sent = [job.send_asked(), job.send_asked()]

    assert sent == [2, 0]
    assert [letter.retry_fault for letter in letters(world)] == ["", "the record is too large for its topic", ""]


def test_an_unreadable_record_is_tried_again_when_it_can_be_read(world: Pipeline) -> None:
    world.append_value(b"\xff\x00garbage")
    world.work()
    (letter,) = letters(world)
    ask(world)
    assert retries(world).send_asked() == 0
    assert "cannot read" in letters(world)[0].retry_fault
    readable = encode_envelope(
        Envelope(
            1,
            DEFAULT_PROJECT,
            RUN,
            world.now_ms,
            "msgpack",
            _payload(CreateRun(), SetRunProperty(name=LONG), AddTag("t")),
        )
    )
    world.kv.write(lambda tx: deadletters.replace(tx, msgspec.structs.replace(letter, excerpt=readable, blob_key=None)))
    ask(world)

    assert retries(world).send_asked() == 1
    world.work()

    assert [tag.name for tag in world.run().tags] == ["t"]
    (left,) = letters(world)
    assert (left.offset, left.index, left.run_id) == (letter.offset, 1, RUN), "one of its commands cannot be applied"


def test_dropping_takes_letter_and_blob(world: Pipeline) -> None:
    world.apply(SetRunProperty(name="".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(4000))))
    world.apply(SetRunProperty(name=LONG))
    large, small = letters(world)

    drop(world.kv, world.blobs, [large])

    assert letters(world) == [small]
    assert list(world.blobs.list("deadletters/")) == []


def test_the_report_counts_all_and_tells_new_ones_once(world: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    report = LetterReport(kv=world.kv, metrics=metrics)
    world.apply(SetRunProperty(name=LONG), SetRunProperty(name=LONG))

    fresh = [report.run(), report.run()]
    world.apply(SetRunProperty(name=LONG))
    fresh.append(report.run())

    assert fresh == [2, 0, 1]
    assert b"matyan_dead_letters 3.0" in metrics.exposition()
    assert [record.levelname for record in caplog.records if "could not be stored" in record.message] == ["WARNING"] * 2


def _payload(*commands: Command) -> bytes:
    return encode_commands(list(commands))
