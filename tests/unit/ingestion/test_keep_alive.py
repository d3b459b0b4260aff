"""A client that is connected and says nothing is told of in the log: no step for half an hour is not its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.clock import SystemClock
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import LogEngine
from matyan.ingestion.backlog import Backlog
from matyan.ingestion.gateway import Gateway
from matyan.observe.metrics import Metrics
from matyan.wire.codec import decode_envelope
from matyan.wire.frames import decode_payload
from matyan.wire.messages import Envelope
from tests.support.logs import TOPIC, FailingDisk, read_all
from tests.support.sockets import AsgiSocket

PATH = "/api/v1/ws/runs/run-1"
EVERY = 0.2
FRAME = '{"type": "add_tag", "tag_name": "t"}'


@pytest.fixture
def disk() -> FailingDisk:
    return FailingDisk()


@pytest.fixture
def log(tmp_path: Path, disk: FailingDisk) -> Iterator[LogEngine]:
    opened = open_embedded_log(tmp_path / "log", partitions=1, disk=disk)
    yield opened
    opened.close()


def make_gateway(log: LogEngine, *, every: float = EVERY) -> Gateway:
    backlog = Backlog()
    backlog.applied(0, 10**9)  # workers that are never behind
    return Gateway(
        producer=log.producer(),
        topic=TOPIC,
        backlog=backlog,
        metrics=Metrics(),
        clock=SystemClock(),
        keep_alive_seconds=every,
    )


def envelopes(log: LogEngine) -> list[Envelope]:
    return [decode_envelope(record.value) for record in read_all(log)]


def is_sign(envelope: Envelope) -> bool:
    return decode_payload(envelope.encoding, envelope.payload) == ([], []) and not envelope.refusals


def test_a_silent_client_is_told_of_while_it_is_connected(log: LogEngine) -> None:
    async def talk() -> None:
        async with AsgiSocket(make_gateway(log).serve, PATH):
            await asyncio.sleep(5.5 * EVERY)

    asyncio.run(talk())
    signs = envelopes(log)
    asyncio.run(asyncio.sleep(3 * EVERY))

    assert 4 <= len(signs) <= 7
    assert all(map(is_sign, signs))
    assert {(sign.project, sign.run_id) for sign in signs} == {("default", "run-1")}
    assert len(envelopes(log)) == len(signs), "nothing is told of a client that has gone"


def test_a_client_that_sends_tells_of_itself(log: LogEngine) -> None:
    async def talk() -> None:
        async with AsgiSocket(make_gateway(log).serve, PATH) as socket:
            for number in range(40):
                await socket.ask(FRAME.replace('"t"', f'"t{number}"'))
                await asyncio.sleep(EVERY / 10)

    asyncio.run(talk())

    assert not any(map(is_sign, envelopes(log)))


def test_nothing_is_told_where_nobody_listens(log: LogEngine) -> None:
    async def talk() -> None:
        async with AsgiSocket(make_gateway(log, every=0.0).serve, PATH):
            await asyncio.sleep(3 * EVERY)

    asyncio.run(talk())

    assert envelopes(log) == []


def test_a_sign_that_cannot_be_kept_costs_nothing(log: LogEngine, disk: FailingDisk) -> None:
    async def talk() -> dict[str, object]:
        async with AsgiSocket(make_gateway(log).serve, PATH) as socket:
            disk.fail("sync")
            await asyncio.sleep(3 * EVERY)
            for _ in range(100):
                reply: dict[str, object] = await socket.ask(FRAME)
                if reply["status"] == "ok":
                    break
                await asyncio.sleep(0.1)
            return reply

    assert asyncio.run(talk())["status"] == "ok"
