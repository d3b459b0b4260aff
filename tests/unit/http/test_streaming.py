"""Iterator -> chunked body: batches, errors, stopping."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from matyan.errors import InvalidArgumentError, UnavailableError
from matyan.http import streaming
from matyan.http.streaming import BATCH_BYTES, BUFFER_BYTES_MAX, PIECE_BYTES_MAX, stream
from matyan.threads import Pool


class Socket:
    """The ASGI side of a response: what was sent, and when the client leaves."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.left = asyncio.Event()
        self.has_body = asyncio.Event()
        self.may_send = asyncio.Event()
        self.may_send.set()

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.may_send.wait()
        self.messages.append(message)
        if message.get("body"):
            self.has_body.set()

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.messages if message["type"] == "http.response.body"]


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool("test", threads=2)
    yield pool
    assert pool.close(timeout_seconds=5)


async def deliver(response: Any, socket: Socket) -> None:
    await response.to_asgi_response()({}, socket.receive, socket.send)


def run(scenario: Callable[[], Any]) -> Any:
    return asyncio.run(asyncio.wait_for(scenario(), 10))


def test_many_small_chunks_make_few_messages(pool: Pool) -> None:
    async def scenario() -> list[bytes]:
        socket = Socket()
        response = stream(lambda: (b"%05d" % number for number in range(10_000)), pool=pool)
        await deliver(response, socket)
        return socket.bodies

    bodies = run(scenario)
    assert b"".join(bodies) == b"".join(b"%05d" % number for number in range(10_000))
    assert len(bodies) <= 10


@pytest.mark.parametrize("size", [1, PIECE_BYTES_MAX - 1, PIECE_BYTES_MAX, PIECE_BYTES_MAX + 1, 5 * PIECE_BYTES_MAX])
def test_no_message_is_too_large_and_a_chunk_that_fits_is_not_copied(pool: Pool, size: int) -> None:
    chunks = [b"small", bytes(size), b"x" * PIECE_BYTES_MAX, bytes(size), b"end"]

    async def scenario() -> list[bytes]:
        socket = Socket()
        await deliver(stream(lambda: iter(chunks), pool=pool), socket)
        return socket.bodies

    bodies = run(scenario)
    assert b"".join(bodies) == b"".join(chunks)
    assert max(map(len, bodies)) <= PIECE_BYTES_MAX
    assert any(body is chunks[2] for body in bodies)


def test_an_empty_iterator_is_an_empty_body(pool: Pool) -> None:
    async def scenario() -> Socket:
        socket = Socket()
        response = stream(lambda: iter(()), pool=pool)
        await deliver(response, socket)
        return socket

    socket = run(scenario)
    assert socket.messages[0]["status"] == 200
    assert socket.messages[1:] == [{"type": "http.response.body", "body": b"", "more_body": False}]


def test_an_error_before_the_first_byte_is_raised_with_nothing_sent(pool: Pool) -> None:
    def failing() -> Iterator[bytes]:
        yield b""
        raise InvalidArgumentError("bad")

    sent = Socket()

    async def scenario() -> None:
        await deliver(stream(failing, pool=pool), sent)

    with pytest.raises(InvalidArgumentError):
        run(scenario)
    assert sent.messages == []


def test_an_error_after_the_first_byte_aborts_the_body(pool: Pool) -> None:
    sent = Socket()

    def failing() -> Iterator[bytes]:
        yield b"x"
        raise InvalidArgumentError("bad")

    async def scenario() -> None:
        response = stream(failing, pool=pool)
        await deliver(response, sent)

    with pytest.raises(InvalidArgumentError):
        run(scenario)
    assert all(message.get("more_body", True) for message in sent.messages)


def test_what_is_there_is_sent_though_the_iterator_goes_on_working(pool: Pool) -> None:
    go_on = threading.Event()

    def slow() -> Iterator[bytes]:
        yield b"first"
        go_on.wait()
        yield b"second"

    async def scenario() -> list[bytes]:
        socket = Socket()
        response = stream(slow, pool=pool)
        sending = asyncio.ensure_future(deliver(response, socket))
        await socket.has_body.wait()
        before = list(socket.bodies)
        go_on.set()
        await sending
        return before

    assert run(scenario) == [b"first"]


def test_a_slow_client_holds_the_iterator_back(pool: Pool) -> None:
    made = 0

    def eager() -> Iterator[bytes]:
        nonlocal made
        for _ in range(1000):
            made += BATCH_BYTES
            yield b"x" * BATCH_BYTES

    async def scenario() -> int:
        socket = Socket()
        socket.may_send.clear()
        response = stream(eager, pool=pool)
        sending = asyncio.ensure_future(deliver(response, socket))
        seen = -1
        while seen != made:  # until it stands still
            seen = made
            await asyncio.sleep(0.1)
        socket.left.set()
        socket.may_send.set()
        await sending
        return seen

    assert run(scenario) <= BUFFER_BYTES_MAX + 2 * BATCH_BYTES


def test_a_client_that_leaves_closes_the_iterator_in_a_thread_of_the_pool(pool: Pool) -> None:
    closed_in: list[str] = []
    closed = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            for _ in itertools.count():
                yield b"x"
        finally:
            closed_in.append(threading.current_thread().name)
            closed.set()

    async def scenario() -> bool:
        socket = Socket()
        response = stream(endless, pool=pool)
        sending = asyncio.ensure_future(deliver(response, socket))
        await socket.has_body.wait()
        socket.left.set()
        await sending
        return await asyncio.to_thread(closed.wait, 1.0)

    assert run(scenario)
    assert [name.startswith("matyan-test") for name in closed_in] == [True]


class Stalled:
    """A stream whose client takes nothing: it has filled its buffer."""

    def __init__(self, pool: Pool, *, chunks: int = 100) -> None:
        self.socket = Socket()
        self.socket.may_send.clear()
        self.made = 0
        self.closed = threading.Event()
        self._chunks = chunks
        self._pool = pool

    async def begin(self) -> asyncio.Future[None]:
        """Return when the iterator stands still; the result is the end of the stream."""
        sending = asyncio.ensure_future(deliver(stream(self._make, pool=self._pool), self.socket))
        seen = -1
        while seen != self.made:
            seen = self.made
            await asyncio.sleep(0.05)
        return sending

    def _make(self) -> Iterator[bytes]:
        try:
            for number in range(self._chunks):
                self.made += 1
                yield bytes([number]) * BATCH_BYTES
        finally:
            self.closed.set()


def test_stalled_clients_hold_no_thread(pool: Pool) -> None:
    streams = [Stalled(pool) for _ in range(10)]

    async def scenario() -> int:
        sending = [await each.begin() for each in streams]
        answer = await pool.run(lambda: 42)
        for each in streams:
            each.socket.left.set()
        await asyncio.gather(*sending)
        return answer

    assert run(scenario) == 42
    assert all(0 < each.made < 100 for each in streams)
    assert all(each.closed.wait(1) for each in streams)


def test_a_client_that_comes_back_gets_everything_in_order(pool: Pool) -> None:
    slow = Stalled(pool)

    async def scenario() -> None:
        sending = await slow.begin()
        slow.socket.may_send.set()
        await sending

    run(scenario)

    assert b"".join(slow.socket.bodies) == b"".join(bytes([number]) * BATCH_BYTES for number in range(100))
    assert slow.socket.messages[-1]["more_body"] is False
    assert max(map(len, slow.socket.bodies)) <= PIECE_BYTES_MAX


def test_a_begun_stream_goes_on_though_the_pool_takes_no_more_calls() -> None:
    narrow, release = Pool("narrow", threads=1, waiting_max=0), threading.Event()
    slow = Stalled(narrow)

    async def scenario() -> None:
        sending = await slow.begin()
        busy = narrow.submit(release.wait)
        with pytest.raises(UnavailableError):
            narrow.submit(int)
        slow.socket.may_send.set()
        await asyncio.sleep(0.1)
        release.set()
        await asyncio.wrap_future(busy)
        await sending

    run(scenario)

    assert len(b"".join(slow.socket.bodies)) == 100 * BATCH_BYTES
    assert narrow.close(timeout_seconds=5)


def test_a_client_that_takes_nothing_for_long_is_given_up(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streaming, "STALLED_SECONDS", 0.1)
    slow = Stalled(pool)

    async def scenario() -> None:
        sending = await slow.begin()
        slow.socket.messages.clear()
        await sending

    run(scenario)

    assert slow.closed.wait(1)
    assert "gave up a stream" in caplog.text
    assert slow.socket.messages == []


def test_of_too_many_stalled_clients_the_first_is_given_up(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "PARKED_MAX", 2)
    streams = [Stalled(pool) for _ in range(3)]

    async def scenario() -> list[bool]:
        sending = [await each.begin() for each in streams]
        await asyncio.wait(sending, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        ended = [each.done() for each in sending]
        for each in streams:
            each.socket.left.set()
        await asyncio.gather(*sending)
        return ended

    assert run(scenario) == [True, False, False]
    assert streams[0].closed.wait(1)


def test_what_a_stream_held_is_free_when_its_client_has_left(pool: Pool) -> None:
    """At once: files would stay open until the garbage collector comes by."""
    held = threading.Event()
    is_alive = weakref.ref(held)

    def made(held: threading.Event = held) -> Iterator[bytes]:
        while not held.is_set():
            yield b"x" * BATCH_BYTES

    async def scenario() -> None:
        socket = Socket()
        socket.may_send.clear()
        sending = asyncio.ensure_future(deliver(responses.pop(), socket))
        await asyncio.sleep(0.1)
        socket.left.set()
        await sending

    gc.disable()
    try:
        responses = [stream(made, pool=pool)]
        del held, made
        run(scenario)
        assert pool.close(timeout_seconds=5)
        assert is_alive() is None
    finally:
        gc.enable()


def test_a_time_out_of_the_iterator_is_its_own_error(pool: Pool) -> None:
    def failing() -> Iterator[bytes]:
        yield b"x" * BATCH_BYTES
        raise TimeoutError("the store")

    with pytest.raises(TimeoutError, match="the store"):
        run(lambda: deliver(stream(failing, pool=pool), Socket()))


def test_a_pool_that_is_closed_ends_a_stalled_stream() -> None:
    closing = Pool("closing", threads=1)
    slow = Stalled(closing)

    async def scenario() -> None:
        sending = await slow.begin()
        closing.close(timeout_seconds=5)
        slow.socket.may_send.set()
        await sending

    with pytest.raises(UnavailableError, match="closed"):
        run(scenario)
    assert slow.closed.is_set()
    assert all(message.get("more_body", True) for message in slow.socket.messages)


def silent(go_on: threading.Event, closed: threading.Event) -> Iterator[bytes]:
    """A long search that finds nothing."""
    try:
        while not go_on.wait(0.01):
            yield b""
    finally:
        closed.set()


def test_a_client_that_leaves_before_the_first_byte_ends_the_search(pool: Pool) -> None:
    closed = threading.Event()
    socket = Socket()

    async def scenario() -> bool:
        response = stream(lambda: silent(threading.Event(), closed), pool=pool)
        sending = asyncio.ensure_future(deliver(response, socket))
        await asyncio.sleep(0.05)
        socket.left.set()
        await sending
        return await asyncio.to_thread(closed.wait, 1.0)

    assert run(scenario)
    assert socket.messages == []


def test_a_search_whose_client_left_while_it_waited_for_a_thread_never_begins() -> None:
    go_on, begun = threading.Event(), threading.Event()

    def made() -> Iterator[bytes]:
        begun.set()
        return iter(())

    async def scenario() -> None:
        waiting = Socket()
        narrow.submit(go_on.wait)
        second = asyncio.ensure_future(deliver(stream(made, pool=narrow), waiting))
        await asyncio.sleep(0.05)
        waiting.left.set()
        await second
        go_on.set()

    narrow = Pool("narrow", threads=1)
    run(scenario)

    assert narrow.close(timeout_seconds=5)
    assert not begun.is_set()


def test_a_short_stream_ends_while_others_use_every_thread_without_end() -> None:
    go_on, answered = threading.Event(), Socket()
    endings = [threading.Event() for _ in range(6)]

    async def scenario() -> bool:
        endless = [
            asyncio.ensure_future(deliver(stream(lambda end=end: silent(go_on, end), pool=narrow), Socket()))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            for end in endings
        ]
        await asyncio.sleep(0.1)
        await asyncio.wait_for(deliver(stream(lambda: iter([b"a", b"b"]), pool=narrow), answered), timeout=10)
        were_running = not any(end.is_set() for end in endings)
        go_on.set()
        await asyncio.gather(*endless)
        return were_running

    narrow = Pool("narrow", threads=2)
    were_running = run(scenario)

    assert were_running
    assert b"".join(answered.bodies) == b"ab"
    assert all(end.is_set() for end in endings)
    assert narrow.close(timeout_seconds=5)


def test_a_response_that_is_never_sent_starts_nothing(pool: Pool) -> None:
    begun = threading.Event()

    def made() -> Iterator[bytes]:
        begun.set()
        return iter(())

    stream(made, pool=pool)

    assert pool.close(timeout_seconds=5)
    assert not begun.is_set()


def test_a_full_pool_is_an_ordinary_error_and_leaves_no_task() -> None:
    full = Pool("full", threads=1, waiting_max=-1)

    async def scenario() -> set[Any]:
        before = asyncio.all_tasks()
        with pytest.raises(UnavailableError):
            await deliver(stream(lambda: iter(()), pool=full), Socket())
        return asyncio.all_tasks() - before

    assert run(scenario) == set()
    assert full.close(timeout_seconds=5)
