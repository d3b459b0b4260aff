"""Time limits of replies by the real clock: whoever hears nothing is told so, whatever else happens or does not."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.engines.log.embedded import open_embedded_log
from matyan.ingestion import conversation
from matyan.ingestion.backlog import BYTES_HIGH, Backlog
from matyan.ingestion.gateway import Gateway
from matyan.observe.metrics import Metrics
from tests.support.logs import SECONDS, TOPIC, FailingDisk
from tests.support.sockets import AsgiSocket

PATH = "/api/v1/ws/runs/run-1"
OK = {"status": "ok", "error": None}


def tag(name: str) -> str:
    return json.dumps({"type": "add_tag", "run_id": "run-1", "tag_name": name})


class World:
    """A gateway on a log whose disk syncs when it may."""

    def __init__(self, path: Path) -> None:
        self.may_sync = threading.Event()
        self.may_sync.set()
        disk = FailingDisk()
        self.log = open_embedded_log(path, partitions=1, disk=disk)
        disk.before_sync = lambda: None if self.may_sync.wait(SECONDS) else pytest.fail("nobody let the disk sync")
        self.backlog = Backlog()
        self.gateway = Gateway(producer=self.log.producer(), topic=TOPIC, backlog=self.backlog, metrics=Metrics())

    def socket(self) -> AsgiSocket:
        return AsgiSocket(self.gateway.serve, PATH)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "log")
    yield made
    made.may_sync.set()
    made.log.close()


def test_each_frame_that_is_not_durable_in_time_is_told_so_and_later_ones_are_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "DURABLE_SECONDS_MAX", 0.05)

    async def talk() -> None:
        async with world.socket() as socket:
            world.may_sync.clear()
            socket.send(tag("a"))
            await asyncio.sleep(0.02)
            socket.send(tag("b"))
            assert "in time" in (await socket.reply())["error"]
            assert "in time" in (await socket.reply())["error"]

            world.may_sync.set()
            monkeypatch.setattr(conversation, "DURABLE_SECONDS_MAX", SECONDS)
            assert await socket.ask(tag("c")) == OK

    asyncio.run(talk())


def test_a_reply_is_held_until_its_time_and_the_next_one_likewise(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "HOLD_SECONDS_MAX", 0.05)

    async def talk() -> None:
        async with world.socket() as socket:
            world.backlog.appended(0, 1_000, BYTES_HIGH + 1)
            for name in ("a", "b"):
                begin = asyncio.get_running_loop().time()
                assert await socket.ask(tag(name)) == OK
                assert asyncio.get_running_loop().time() - begin > 0.04

    asyncio.run(talk())


def test_a_connection_that_ends_leaves_no_timer_behind(world: World) -> None:
    async def talk() -> int:
        async with world.socket() as socket:
            assert await socket.ask(tag("a")) == OK
        loop = asyncio.get_running_loop()
        return sum(not timer.cancelled() for timer in loop._scheduled)  # type: ignore[attr-defined]

    assert asyncio.run(talk()) == 0
