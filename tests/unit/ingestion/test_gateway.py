"""Frames and replies on a real log: one reply each, in order, when durable; nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from matyan import threads
from matyan.clock import ManualClock
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import LogEngine
from matyan.ingestion import conversation
from matyan.ingestion.backlog import SECONDS_NEAR, SECONDS_STUCK, Backlog
from matyan.ingestion.gateway import Gateway
from matyan.ingestion.intake import REPEAT_SECONDS_MAX
from matyan.limits import FRAME_INLINE_BYTES_MAX, SEQUENCE_NAME_BYTES_MAX
from matyan.observe.metrics import Metrics
from matyan.wire.codec import decode_envelope
from matyan.wire.frames import decode_payload
from matyan.wire.messages import AddTag, Command, Envelope, LogMetric, LogTerminalLine
from tests.support.logs import ONLY, TOPIC, FailingDisk, read_all
from tests.support.sockets import AsgiSocket, settle

PATH = "/api/v1/ws/runs/run-1"
OK = {"status": "ok", "error": None}


def tag(name: str) -> str:
    return json.dumps({"type": "add_tag", "run_id": "ignored", "tag_name": name})


def large(name: str) -> str:
    """A frame that is decoded in a thread."""
    return json.dumps({"type": "log_terminal_line", "line": name + "x" * FRAME_INLINE_BYTES_MAX, "step": 0})


class SlowDisk(FailingDisk):
    """A disk whose syncs wait until they may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_sync = threading.Event()
        self.may_sync.set()
        self.before_sync = lambda: None if self.may_sync.wait(20) else pytest.fail("nobody let the disk sync")


class World:
    """A gateway with everything around it."""

    def __init__(self, path: Path) -> None:
        self.disk = SlowDisk()
        self.clock = ManualClock()
        self.log: LogEngine = open_embedded_log(path, partitions=1, disk=self.disk)
        self.backlog = Backlog(self.clock)
        self.metrics = Metrics()
        self.is_ready = True
        self.gateway = Gateway(
            producer=self.log.producer(),
            topic=TOPIC,
            backlog=self.backlog,
            metrics=self.metrics,
            clock=self.clock,
            is_ready=lambda: self.is_ready,
        )

    def socket(self, path: str = PATH, *, extensions: bool = True) -> AsgiSocket:
        return AsgiSocket(self.gateway.serve, path, extensions=extensions)

    def envelopes(self) -> list[Envelope]:
        return [decode_envelope(record.value) for record in read_all(self.log)]

    def commands(self) -> list[Command]:
        """Return what a worker would get, in order."""
        found: list[Command] = []
        for envelope in self.envelopes():
            commands, bad = decode_payload(envelope.encoding, envelope.payload)
            assert bad == []
            found += commands
        return found

    def counted(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("matyan_ws_frames_total", {"outcome": outcome}) or 0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "log")
    yield made
    made.disk.may_sync.set()
    made.log.close()
    threads.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


# ---- what a frame becomes


def test_a_frame_is_one_record_with_the_run_of_the_path(world: World) -> None:
    async def talk() -> None:
        async with world.socket() as socket:
            assert await socket.ask(f"[{tag('a')}, {tag('b')}]") == OK
            assert await socket.ask(tag("c")) == OK

    run(talk)

    first, second = world.envelopes()
    assert (first.project, first.run_id, first.sequence, second.sequence) == ("default", "run-1", 1, 2)
    assert first.writer == second.writer != ""
    assert first.received_ms == 1_700_000_000_000
    assert world.commands() == [AddTag("a"), AddTag("b"), AddTag("c")]
    (record, _) = read_all(world.log)
    assert record.key == b"default/run-1"


def test_every_connection_is_a_writer_of_its_own(world: World) -> None:
    async def talk() -> None:
        async with world.socket() as one, world.socket() as other:
            assert await one.ask(tag("a")) == OK
            assert await other.ask(tag("a")) == OK

    run(talk)

    assert len({envelope.writer for envelope in world.envelopes()}) == 2


def test_a_bad_item_is_named_in_the_reply_and_in_the_record_and_the_others_are_kept(world: World) -> None:
    bad = json.dumps({"type": "log_metric", "name": "x" * (SEQUENCE_NAME_BYTES_MAX + 1), "value": 1})

    async def talk() -> None:
        async with world.socket() as socket:
            reply = await socket.ask(f"[{tag('a')}, {bad}, {tag('b')}]")
            assert reply["status"] == "error"
            assert "item 1 (log_metric)" in reply["error"]
            assert str(SEQUENCE_NAME_BYTES_MAX) in reply["error"]
            assert len(json.dumps(await socket.ask("[" + ",".join([bad] * 50) + "]"))) < 5000
            assert await socket.ask(tag("c")) == OK

    run(talk)

    assert world.commands() == [AddTag("a"), AddTag("b"), AddTag("c")]
    assert [len(envelope.refusals) for envelope in world.envelopes()] == [1, 50, 0]
    assert (
        world.metrics.registry.get_sample_value("matyan_ingest_refused_items_total", {"reason": "out_of_bounds"}) == 51
    )


def test_nan_is_kept(world: World) -> None:
    async def talk() -> None:
        async with world.socket() as socket:
            assert await socket.ask('{"type": "log_metric", "name": "a", "value": NaN, "step": 1.0}') == OK

    run(talk)

    (command,) = world.commands()
    assert isinstance(command, LogMetric)
    assert math.isnan(command.value)


@pytest.mark.parametrize("frame", ["not json", "5", "null", "", '"text"', b"[]", b"\x00\xff", "[" * 5000])
def test_what_is_no_frame_gets_an_error_and_the_connection_goes_on(world: World, frame: str | bytes) -> None:
    async def talk() -> None:
        async with world.socket() as socket:
            reply = await socket.ask(frame)
            assert (reply["status"], bool(reply["error"])) == ("error", True)
            assert await socket.ask(tag("a")) == OK

    run(talk)

    assert world.commands() == [AddTag("a")]


def test_an_empty_array_is_ok_and_leaves_no_record(world: World) -> None:
    async def talk() -> None:
        async with world.socket() as socket:
            assert await socket.ask("[]") == OK

    run(talk)

    assert world.envelopes() == []


# ---- order and durability


def test_no_reply_before_the_record_is_durable_and_reading_goes_on_meanwhile(world: World) -> None:
    async def talk() -> None:
        async with world.socket() as socket:
            world.disk.may_sync.clear()
            for number in range(5):
                socket.send(tag(str(number)))
            await settle()
            assert socket.replies_waiting == 0
            assert socket.is_receiving

            world.disk.may_sync.set()
            assert [await socket.reply() for _ in range(5)] == [OK] * 5

    run(talk)

    assert world.commands() == [AddTag(str(number)) for number in range(5)]


def test_replies_keep_the_order_of_frames_when_an_error_is_known_sooner(world: World) -> None:
    async def talk() -> None:
        async with world.socket() as socket:
            world.disk.may_sync.clear()
            for frame in (tag("a"), "not json", tag("b")):
                socket.send(frame)
            await settle()
            assert socket.replies_waiting == 0

            world.disk.may_sync.set()
            assert [(await socket.reply())["status"] for _ in range(3)] == ["ok", "error", "ok"]

    run(talk)


def test_large_frames_keep_their_place_among_small_ones(world: World) -> None:
    frames = [tag("a"), large("b"), tag("c"), large("d"), "not json", tag("e")]

    async def talk() -> None:
        async with world.socket() as socket:
            for frame in frames:
                socket.send(frame)
            assert [(await socket.reply())["status"] for _ in frames] == ["ok", "ok", "ok", "ok", "error", "ok"]
            assert await socket.ask(tag("f")) == OK

    run(talk)

    names = [
        c.tag_name if isinstance(c, AddTag) else c.line[:1]
        for c in world.commands()
        if isinstance(c, AddTag | LogTerminalLine)
    ]
    assert names == list("abcdef")


def test_a_client_far_ahead_is_read_more_slowly_and_answered_completely(world: World) -> None:
    count = conversation.FRAMES_AHEAD_MAX * 3

    async def talk() -> None:
        async with world.socket() as socket:
            world.disk.may_sync.clear()
            for number in range(count):
                socket.send(tag(str(number)))
            await settle(2 * count)
            assert not socket.is_receiving

            world.disk.may_sync.set()
            assert [await socket.reply() for _ in range(count)] == [OK] * count

    run(talk)

    assert world.commands() == [AddTag(str(number)) for number in range(count)]


@pytest.mark.parametrize("last", [tag("z"), large("z")])
def test_what_was_read_is_kept_when_the_client_has_gone(world: World, last: str) -> None:
    async def talk() -> None:
        socket = world.socket()
        await socket.open()
        socket.send(tag("a"))
        socket.send(last)
        socket.disconnect()
        await socket.until_ended()

    run(talk)
    world.log.producer().append_many(TOPIC, []).result(20)

    assert len(world.commands()) == 2


def test_a_send_that_fails_does_not_end_reading(world: World) -> None:
    async def talk() -> None:
        incoming: asyncio.Queue[Any] = asyncio.Queue()

        async def send(message: Any) -> None:
            if message["type"] == "websocket.send":
                raise ConnectionError("gone")

        for message in ({"type": "websocket.connect"}, {"type": "websocket.receive", "text": tag("a")}):
            incoming.put_nowait(message)
        scope: Any = {"type": "websocket", "path": PATH}
        serving = asyncio.ensure_future(world.gateway.serve(scope, incoming.get, send))
        await settle()
        incoming.put_nowait({"type": "websocket.receive", "text": tag("b")})
        incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
        await serving

    run(talk)
    world.log.producer().append_many(TOPIC, []).result(20)

    assert world.commands() == [AddTag("a"), AddTag("b")]


# ---- repeats


@pytest.mark.parametrize("make", [tag, large])
def test_a_frame_like_the_one_before_is_answered_like_it_and_not_kept_again(
    world: World, make: Callable[[str], str]
) -> None:
    async def talk() -> None:
        async with world.socket() as socket:
            for name in "aabaa":
                assert await socket.ask(make(name)) == OK

    run(talk)

    assert len(world.envelopes()) == 3
    assert world.counted("repeated") == 2


def test_an_equal_frame_after_a_minute_is_meant(world: World) -> None:
    async def talk() -> None:
        async with world.socket() as socket:
            assert await socket.ask(tag("a")) == OK
            world.backlog.applied(0, 1)  # or the next reply would be held for a worker that is a minute behind
            world.clock.advance(REPEAT_SECONDS_MAX)
            assert await socket.ask(tag("a")) == OK

    run(talk)

    assert world.commands() == [AddTag("a"), AddTag("a")]
    assert world.counted("repeated") == 0


def test_repeats_of_a_frame_that_is_not_durable_yet_get_a_reply_each(world: World) -> None:
    async def talk() -> None:
        async with world.socket() as socket:
            world.disk.may_sync.clear()
            for _ in range(3):
                socket.send(tag("a"))
            await settle()
            world.disk.may_sync.set()
            assert [await socket.reply() for _ in range(3)] == [OK] * 3

    run(talk)

    assert world.commands() == [AddTag("a")]


def test_a_repeated_frame_with_bad_items_gets_the_same_error(world: World) -> None:
    frame = f"[{tag('a')}, 5]"

    async def talk() -> None:
        async with world.socket() as socket:
            assert await socket.ask(frame) == await socket.ask(frame)

    run(talk)

    assert len(world.envelopes()) == 1


def test_a_frame_between_two_equal_ones_makes_them_two_also_when_it_is_none(world: World) -> None:
    async def talk() -> None:
        async with world.socket() as socket:
            for frame in (tag("a"), "not json", tag("a")):
                await socket.ask(frame)

    run(talk)

    assert world.commands() == [AddTag("a"), AddTag("a")]


# ---- the log fails


def test_a_failing_log_gives_errors_and_a_repeat_is_a_new_attempt(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="matyan.ingestion")

    async def talk() -> None:
        async with world.socket() as socket:
            world.disk.fail("write", times=2)
            for _ in range(2):
                reply = await socket.ask(tag("a"))
                assert (reply["status"], bool(reply["error"])) == ("error", True)
            assert await socket.ask(tag("a")) == OK
            assert await socket.ask(tag("b")) == OK

    run(talk)

    assert world.commands() == [AddTag("a"), AddTag("b")]
    messages = [record.message for record in caplog.records if record.name == "matyan.ingestion.intake"]
    assert messages == ["frames cannot be kept", "frames are kept again"]


def test_a_closed_log_gives_errors_and_the_connection_stays(world: World) -> None:
    async def talk() -> None:
        async with world.socket() as socket:
            world.log.producer().close()
            assert (await socket.ask(tag("a")))["status"] == "error"
            assert (await socket.ask(tag("b")))["status"] == "error"
            assert socket.is_receiving

    run(talk)


def test_a_log_that_does_not_answer_in_time_gives_an_error_before_the_client_gives_up(world: World) -> None:
    async def talk() -> None:
        async with world.socket() as socket:
            world.disk.may_sync.clear()
            socket.send(tag("a"))
            await settle()
            world.clock.advance(conversation.DURABLE_SECONDS_MAX + 1)
            socket.send(tag("a"))  # as the client does after 15 s
            assert "in time" in (await socket.reply())["error"]
            world.disk.may_sync.set()
            assert await socket.reply() == OK

    run(talk)


# ---- holding back


def hold(world: World) -> None:
    """Make the backlog high, by a record of another run that is not applied."""
    world.backlog.appended(0, 1_000, 1)
    world.clock.advance(SECONDS_NEAR + 0.01)


async def until_held(world: World) -> None:
    """Wait until a reply is held back, which follows the real sync of its record in another thread."""
    while world.counted("held") == 0:  # noqa: ASYNC110 (the product has no event for it)
        await asyncio.sleep(0.001)


def test_replies_wait_while_the_workers_are_behind_and_frames_are_still_read(world: World) -> None:
    async def talk() -> None:
        async with world.socket() as socket:
            hold(world)
            socket.send(tag("a"))
            await until_held(world)
            await settle()
            assert socket.replies_waiting == 0
            assert socket.is_receiving

            await asyncio.to_thread(world.backlog.applied, 0, 1_001)
            assert await socket.reply() == OK

    run(talk)


def test_a_held_reply_goes_out_in_time_for_the_client(world: World) -> None:
    async def talk() -> None:
        async with world.socket() as socket:
            world.disk.may_sync.clear()
            socket.send(tag("a"))
            await settle()
            hold(world)
            world.clock.advance(conversation.HOLD_SECONDS_MAX)
            world.disk.may_sync.set()
            assert await socket.reply() == OK
            assert world.backlog.is_high()

    run(talk)


def test_frames_are_weighed_as_they_came(world: World) -> None:
    frame = large("a")

    async def talk() -> None:
        async with world.socket() as socket:
            assert await socket.ask(frame) == OK

    run(talk)

    assert world.backlog.size_bytes == len(frame)


# ---- handshakes


@pytest.mark.parametrize("path", [PATH, "//api/v1/ws/runs/run-1", "/p/x/api/v1/ws/runs/run-1", "/run-1/", "/run-1"])
def test_the_run_id_is_found_in_whole_paths_and_in_what_a_mount_leaves(world: World, path: str) -> None:
    async def talk() -> None:
        async with world.socket(path) as socket:
            assert await socket.ask(tag("a")) == OK

    run(talk)

    assert world.envelopes()[0].run_id == "run-1"


def test_a_run_id_is_taken_as_the_server_decoded_it(world: World) -> None:
    async def talk() -> None:
        async with world.socket("/api/v1/ws/runs/my run%20ü") as socket:
            assert await socket.ask(tag("a")) == OK

    run(talk)

    assert world.envelopes()[0].run_id == "my run%20ü"


@pytest.mark.parametrize("run_id", ["", "a/b", "progress_1", "progress", "x" * 257, "a\x00b", "/", "a/"])
def test_a_bad_run_id_is_refused_for_good(world: World, run_id: str) -> None:
    async def talk() -> None:
        answer = await world.socket(f"/api/v1/ws/runs/{run_id}").open()
        assert (answer["type"], answer["status"]) == ("websocket.http.response.start", 400)

    run(talk)


def test_a_server_that_is_not_ready_answers_503(world: World) -> None:
    async def talk() -> None:
        world.is_ready = False
        assert (await world.socket().open())["status"] == 503
        world.is_ready = True
        async with world.socket() as socket:
            assert await socket.ask(tag("a")) == OK

    run(talk)


def test_a_server_whose_workers_stand_still_answers_503(world: World) -> None:
    async def talk() -> None:
        world.backlog.appended(0, 1_000, 1)
        world.clock.advance(SECONDS_STUCK + 1)
        assert (await world.socket().open())["status"] == 503

    run(talk)

    name = "matyan_ws_refused_handshakes_total"
    assert world.metrics.registry.get_sample_value(name, {"reason": "overloaded"}) == 1


def test_without_the_extension_a_refused_handshake_is_closed(world: World) -> None:
    async def talk() -> None:
        world.is_ready = False
        assert (await world.socket(extensions=False).open())["type"] == "websocket.close"

    run(talk)


# ---- stopping


def test_a_drain_answers_what_was_read_then_closes_with_1001_and_takes_nobody_in(world: World) -> None:
    async def talk() -> None:
        busy, idle = world.socket(), world.socket("/api/v1/ws/runs/idle")
        await busy.open()
        await idle.open()
        world.disk.may_sync.clear()
        busy.send(tag("a"))
        busy.send(large("b"))
        await settle()
        drain = asyncio.ensure_future(world.gateway.drain(10))
        assert (await idle.next_message())["code"] == 1001
        assert (await world.socket().open())["status"] == 503
        assert busy.replies_waiting == 0

        world.disk.may_sync.set()
        assert [await busy.reply(), await busy.reply()] == [OK, OK]
        assert (await busy.next_message())["code"] == 1001
        await drain
        await busy.until_ended()

    run(talk)

    assert len(world.commands()) == 2


def test_a_drain_does_not_wait_for_workers(world: World) -> None:
    async def talk() -> None:
        socket = world.socket()
        await socket.open()
        hold(world)
        socket.send(tag("a"))
        await until_held(world)
        await world.gateway.drain(10)
        assert await socket.reply() == OK
        assert (await socket.next_message())["code"] == 1001

    run(talk)


def test_a_drain_ends_in_time_when_the_log_does_not_answer(world: World) -> None:
    async def talk() -> None:
        socket = world.socket()
        await socket.open()
        world.disk.may_sync.clear()
        socket.send(tag("a"))
        await settle()
        await world.gateway.drain(0.05)
        assert socket.replies_waiting == 0
        world.disk.may_sync.set()
        assert await socket.reply() == OK
        await socket.until_ended()

    run(talk)


def test_a_client_that_leaves_during_a_drain_ends_its_connection(world: World) -> None:
    async def talk() -> None:
        socket = world.socket()
        await socket.open()
        world.disk.may_sync.clear()
        socket.send(tag("a"))
        await settle()
        drain = asyncio.ensure_future(world.gateway.drain(10))
        socket.disconnect()
        await drain
        world.disk.may_sync.set()

    run(talk)


# ---- counting


def test_frames_and_items_are_counted(world: World) -> None:
    async def talk() -> None:
        async with world.socket() as socket:
            for frame in (f"[{tag('a')}, {tag('b')}]", "not json", f"[{tag('c')}, 5]", "[]"):
                await socket.ask(frame)

    run(talk)

    value = world.metrics.registry.get_sample_value
    assert (world.counted("ok"), world.counted("error")) == (2, 2)
    assert value("matyan_ws_messages_total", {"message_type": "add_tag"}) == 3


def test_the_partition_of_this_log_is_the_only_one(world: World) -> None:
    assert world.log.producer().partition_of(TOPIC, b"default/run-1") == ONLY.partition
