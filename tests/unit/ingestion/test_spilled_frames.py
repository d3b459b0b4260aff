"""A gateway whose log goes away: frames are answered ok, not held back; when nothing can be kept any more, 503."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from matyan.clock import ManualClock
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import TopicPartition
from matyan.engines.log.spill import SpillRoom
from matyan.engines.log.spilling import SpillingProducer
from matyan.ingestion.backlog import SECONDS_STUCK, Backlog
from matyan.ingestion.gateway import Gateway
from matyan.ingestion.intake import OUTAGE_SECONDS
from matyan.observe.metrics import Metrics
from matyan.wire.codec import decode_envelope
from matyan.wire.messages import Envelope
from tests.support.logs import TOPIC, FailingDisk, read_all
from tests.support.sockets import AsgiSocket
from tests.support.wayward import WaywardProducer

OK = {"status": "ok", "error": None}
AFTER = 1.0


class World:
    """A gateway with a spill, over a log of two partitions."""

    def __init__(self, path: Path) -> None:
        self.clock = ManualClock()
        self.disk = FailingDisk()
        self.log = open_embedded_log(path / "log", partitions=2)
        self.far = WaywardProducer(self.log.producer())
        self.backlog = Backlog(self.clock)
        self.metrics = Metrics()
        room = SpillRoom(path / "spill", topic=TOPIC, bytes_max=30_000, clock=self.clock, disk=self.disk)
        self.spilling = SpillingProducer(
            self.far,
            topic=TOPIC,
            spill=room.open_own(),
            room=room,
            after_seconds=AFTER,
            metrics=self.metrics,
            clock=self.clock,
        )
        self.gateway = Gateway(
            producer=self.spilling,
            topic=TOPIC,
            backlog=self.backlog,
            metrics=self.metrics,
            clock=self.clock,
            is_ready=lambda: self.spilling.is_ready,
            is_log_away=lambda: not self.spilling.is_direct,
        )

    def socket(self, run: str = "run-1") -> AsgiSocket:
        return AsgiSocket(self.gateway.serve, f"/api/v1/ws/runs/{run}")

    def envelopes(self) -> list[list[Envelope]]:
        return [
            [decode_envelope(record.value) for record in read_all(self.log, TopicPartition(TOPIC, number))]
            for number in range(2)
        ]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.spilling.close()
    made.log.close()


def tag(name: str) -> str:
    return json.dumps({"type": "add_tag", "tag_name": name})


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def test_records_are_numbered_by_partition_in_the_order_of_appending(world: World) -> None:
    async def talk() -> None:
        for number in range(27):
            async with world.socket(f"run-{number % 9}") as socket:
                assert await socket.ask(tag(str(number))) == OK

    run(talk)

    for envelopes in world.envelopes():
        assert [envelope.number for envelope in envelopes] == list(range(1, len(envelopes) + 1)) != []
    assert len({envelope.gateway for envelopes in world.envelopes() for envelope in envelopes}) == 1


def test_a_log_that_repeats_nothing_needs_no_numbers(world: World) -> None:
    gateway = Gateway(
        producer=world.log.producer(), topic=TOPIC, backlog=world.backlog, metrics=world.metrics, clock=world.clock
    )

    async def talk() -> None:
        async with AsgiSocket(gateway.serve, "/api/v1/ws/runs/run-1") as socket:
            assert await socket.ask(tag("a")) == OK

    run(talk)

    assert [(one.gateway, one.number) for envelopes in world.envelopes() for one in envelopes] == [("", 0)]


def test_frames_are_answered_ok_while_the_log_is_away_and_none_is_held_back(world: World) -> None:
    async def talk() -> None:
        async with world.socket() as socket:
            assert await socket.ask(tag("before")) == OK
            world.clock.advance(SECONDS_STUCK + 1)  # nobody applies it: the workers have lost the log too
            world.far.go_down()
            world.spilling.append_many(TOPIC, [])  # the turn to the spill
            for number in range(20):
                assert await socket.ask(tag(str(number))) == OK
            async with world.socket("run-2") as other:
                assert await other.ask(tag("new")) == OK

    run(talk)

    assert world.backlog.age_seconds() > SECONDS_STUCK
    assert world.metrics.registry.get_sample_value("matyan_ws_frames_total", {"outcome": "ok"}) == 22


def test_a_full_spill_gives_errors_and_503_until_the_log_is_back(world: World) -> None:
    line = secrets.token_hex(4_000)  # about half of it when compressed
    replies: list[str] = []

    async def talk() -> None:
        async with world.socket() as socket:
            world.far.go_down()
            for number in range(10):
                reply = await socket.ask(json.dumps({"type": "log_terminal_line", "step": number, "line": line}))
                replies.append(reply["error"] or reply["status"])
            assert (await world.socket().open())["status"] == 503

    run(talk)

    assert replies[0] == "ok"
    assert "the spill is full" in replies[-1]
    world.far.come_back()
    while not world.spilling.is_direct:
        world.spilling.tend()

    async def talk_again() -> None:
        world.clock.advance(OUTAGE_SECONDS + 1)
        async with world.socket() as socket:
            assert await socket.ask(tag("a")) == OK

    run(talk_again)
    assert sum(map(len, world.envelopes())) == replies.count("ok") + 1


def test_a_log_that_fails_without_a_spill_lets_nobody_in_for_a_moment(world: World) -> None:
    gateway = Gateway(producer=world.far, topic=TOPIC, backlog=world.backlog, metrics=world.metrics, clock=world.clock)

    async def talk() -> None:
        async with AsgiSocket(gateway.serve, "/api/v1/ws/runs/run-1") as socket:
            world.far.go_down()
            assert "no broker answers" in (await socket.ask(tag("a")))["error"]
            assert (await AsgiSocket(gateway.serve, "/api/v1/ws/runs/run-2").open())["status"] == 503
            world.far.come_back()
            assert await socket.ask(tag("b")) == OK
            async with AsgiSocket(gateway.serve, "/api/v1/ws/runs/run-2") as other:
                assert await other.ask(tag("c")) == OK

    run(talk)
