"""What the gateway hands over is what the worker would decode; what is not handed over is decoded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from matyan import threads
from matyan.clock import ManualClock
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import LogEngine, LogProducer, LogRecord
from matyan.ingestion.backlog import Backlog
from matyan.ingestion.batches import decode_records
from matyan.ingestion.gateway import Gateway
from matyan.ingestion.handover import Decoded, Handover
from matyan.observe.metrics import Metrics
from matyan.wire.messages import AddTag, Envelope
from tests.support.logs import TOPIC, read_all
from tests.support.sockets import AsgiSocket

METRIC = {"type": "log_metric", "run_id": "r", "name": "loss", "value": 0.5, "step": 1, "context": {"subset": "train"}}
FRAMES = {
    "one": METRIC,
    "many": [METRIC | {"step": step, "client_datetime": "2026-11-21T10:00:00+00:00"} for step in range(100)],
    "other commands": [{"type": "log_hparams", "run_id": "r", "value": {"a": {"b": [1, None, 2.5]}}}, METRIC],
    "an item refused": [METRIC, {"type": "unheard of"}],
    "mended": METRIC | {"value": "1.5"},
    "an integer beyond 64 bit": {"type": "log_hparams", "run_id": "r", "value": {"big": 2**70}},
    "a lone surrogate": {"type": "add_tag", "run_id": "r", "tag_name": "\ud800"},
}


def decoded(size_bytes: int) -> Decoded:
    return Decoded(Envelope(1, "default", "r", 0, "json", b""), [AddTag("a")], size_bytes)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogEngine]:
    engine = open_embedded_log(tmp_path / "log", partitions=1)
    yield engine
    engine.close()
    threads.close()


def send(log: LogEngine, handover: Handover, frame: object) -> None:
    gateway_send(log.producer(), handover, frame)


def gateway_send(producer: LogProducer, handover: Handover, frame: object) -> None:
    gateway = Gateway(
        producer=producer,
        topic=TOPIC,
        backlog=Backlog(ManualClock()),
        metrics=Metrics(),
        clock=ManualClock(),
        handover=handover,
    )

    async def talk() -> None:
        async with AsgiSocket(gateway.serve, "/api/v1/ws/runs/run-1") as socket:
            await socket.ask(json.dumps(frame))

    asyncio.run(talk())


def said(records: Sequence[LogRecord], handover: Handover) -> object:
    """Return what records say, commands one by one."""
    pieces, spoilt = decode_records(records, handover)
    return [piece._replace(commands=list(piece.commands)) for piece in pieces], spoilt


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_a_frame_handed_over_says_what_its_record_says(log: LogEngine, frame: object) -> None:
    handover = Handover()
    handover.join()

    send(log, handover, frame)

    records = read_all(log)
    assert len(records) == 1
    assert said(records, handover) == said(records, Handover())


def test_a_frame_taken_whole_is_not_decoded_again(log: LogEngine) -> None:
    handover = Handover()
    handover.join()
    send(log, handover, FRAMES["many"])
    (record,) = read_all(log)

    found = handover.take(record.value)

    assert found is not None
    assert len(found.commands) == 100
    assert handover.take(record.value) is None


@pytest.mark.parametrize("frame", ["other commands", "an integer beyond 64 bit", "a lone surrogate"])
def test_what_may_be_far_larger_than_its_text_is_not_kept(log: LogEngine, frame: str) -> None:
    handover = Handover()
    handover.join()

    send(log, handover, FRAMES[frame])

    assert [handover.take(record.value) for record in read_all(log)] == [None]


class NotingHandover(Handover):
    """Knows what was ever put into it."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[bytes] = []

    def put(self, value: bytes, decoded: Decoded) -> None:
        self.values.append(value)
        super().put(value, decoded)


def test_a_frame_that_the_log_refuses_is_not_kept(log: LogEngine) -> None:
    handover = NotingHandover()
    handover.join()
    producer = log.producer()
    gateway_send(producer, handover, METRIC)
    log.close()

    gateway_send(producer, handover, METRIC | {"step": 2})

    kept, refused = handover.values
    assert handover.take(refused) is None
    assert handover.take(kept) is not None


def test_nothing_is_kept_where_no_worker_takes_it() -> None:
    handover = Handover()

    handover.put(b"a", decoded(1))

    assert handover.take(b"a") is None


def test_the_oldest_frames_are_dropped_beyond_the_limit() -> None:
    handover = Handover(bytes_max=10)
    handover.join()

    for name in (b"a", b"b", b"c"):
        handover.put(name, decoded(4))

    assert [handover.take(name) is None for name in (b"a", b"b", b"c")] == [True, False, False]


def test_a_frame_beyond_the_limit_drops_no_other() -> None:
    handover = Handover(bytes_max=10)
    handover.join()
    handover.put(b"a", decoded(4))

    handover.put(b"b", decoded(11))

    assert handover.take(b"b") is None
    assert handover.take(b"a") == decoded(4)
