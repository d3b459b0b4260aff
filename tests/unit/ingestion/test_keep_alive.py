"""A client that is connected and says nothing is told of in the log: no step for half an hour is not its end.

What passes between two signs is told by a clock of the test's own; real time only has to let the gateway look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from matyan.clock import ManualClock
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import LogEngine
from matyan.ingestion.backlog import Backlog
from matyan.ingestion.gateway import Gateway
from matyan.observe.metrics import Metrics
from matyan.wire.codec import decode_envelope
from matyan.wire.frames import decode_payload
from matyan.wire.messages import Envelope
from tests.support.logs import SECONDS, TOPIC, FailingDisk, read_all
from tests.support.sockets import AsgiSocket

PATH = "/api/v1/ws/runs/run-1"
EVERY = 0.05
"""How often the gateway looks, in real seconds, and how much may pass on the clock before it tells."""
FRAME = '{"type": "add_tag", "tag_name": "t"}'


@pytest.fixture
def disk() -> FailingDisk:
    return FailingDisk()


@pytest.fixture
def log(tmp_path: Path, disk: FailingDisk) -> Iterator[LogEngine]:
    opened = open_embedded_log(tmp_path / "log", partitions=1, disk=disk)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def make_gateway(log: LogEngine, clock: ManualClock, *, every: float = EVERY) -> Gateway:
    backlog = Backlog()
    backlog.applied(0, 10**9)  # workers that are never behind
    return Gateway(
        producer=log.producer(),
        topic=TOPIC,
        backlog=backlog,
        metrics=Metrics(),
        clock=clock,
        keep_alive_seconds=every,
    )


def envelopes(log: LogEngine) -> list[Envelope]:
    return [decode_envelope(record.value) for record in read_all(log)]


def is_sign(envelope: Envelope) -> bool:
    return decode_payload(envelope.encoding, envelope.payload) == ([], []) and not envelope.refusals


async def until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not check():
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(EVERY / 10)


async def look() -> None:
    """Let the gateway look, several times."""
    await asyncio.sleep(3 * EVERY)


def test_a_silent_client_is_told_of_while_it_is_connected(log: LogEngine, clock: ManualClock) -> None:
    async def talk() -> None:
        async with AsgiSocket(make_gateway(log, clock).serve, PATH):
            for number in range(1, 4):
                clock.advance(EVERY)
                await until(lambda number=number: len(envelopes(log)) >= number)  # type: ignore[misc]
                await look()
                assert len(envelopes(log)) == number, "told of more often than asked for"
        clock.advance(EVERY)
        await look()

    asyncio.run(talk())

    signs = envelopes(log)
    assert len(signs) == 3, "something is told of a client that has gone"
    assert all(map(is_sign, signs))
    assert {(sign.project, sign.run_id) for sign in signs} == {("default", "run-1")}


def test_a_client_that_sends_tells_of_itself(log: LogEngine, clock: ManualClock) -> None:
    async def talk() -> None:
        async with AsgiSocket(make_gateway(log, clock).serve, PATH) as socket:
            for number in range(5):
                await socket.ask(FRAME.replace('"t"', f'"t{number}"'))
                clock.advance(0.4 * EVERY)
                await look()

    asyncio.run(talk())

    assert len(envelopes(log)) == 5
    assert not any(map(is_sign, envelopes(log)))


def test_nothing_is_told_where_nobody_listens(log: LogEngine, clock: ManualClock) -> None:
    async def talk() -> None:
        async with AsgiSocket(make_gateway(log, clock, every=0.0).serve, PATH):
            clock.advance(EVERY)
            await look()

    asyncio.run(talk())

    assert envelopes(log) == []


def test_a_sign_that_cannot_be_kept_costs_nothing(log: LogEngine, disk: FailingDisk, clock: ManualClock) -> None:
    async def talk() -> dict[str, object]:
        async with AsgiSocket(make_gateway(log, clock).serve, PATH) as socket:
            disk.fail("sync")
            clock.advance(EVERY)
            await until(lambda: not disk.failures["sync"])
            for _ in range(100):
                reply: dict[str, object] = await socket.ask(FRAME)
                if reply["status"] == "ok":
                    break
                await asyncio.sleep(0.1)
            return reply

    assert asyncio.run(talk())["status"] == "ok"
