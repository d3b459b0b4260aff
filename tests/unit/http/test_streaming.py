"""Iterator -> chunked body: batches, errors, stopping."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from matyan.errors import InvalidArgumentError, UnavailableError
from matyan.http.streaming import BATCH_BYTES, BUFFER_BYTES_MAX, stream
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


def test_a_client_that_leaves_closes_the_iterator_in_its_own_thread(pool: Pool) -> None:
    opened_in: list[str] = []
    closed_in: list[str] = []
    closed = threading.Event()

    def endless() -> Iterator[bytes]:
        opened_in.append(threading.current_thread().name)
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
    assert closed_in == opened_in


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
    go_on, closed, begun = threading.Event(), threading.Event(), threading.Event()

    def made() -> Iterator[bytes]:
        begun.set()
        return iter(())

    async def scenario() -> None:
        waiting = Socket()
        first = asyncio.ensure_future(deliver(stream(lambda: silent(go_on, closed), pool=narrow), Socket()))
        second = asyncio.ensure_future(deliver(stream(made, pool=narrow), waiting))
        await asyncio.sleep(0.05)
        waiting.left.set()
        await second
        go_on.set()
        await first

    narrow = Pool("narrow", threads=1)
    run(scenario)

    assert narrow.close(timeout_seconds=5)
    assert closed.is_set()
    assert not begun.is_set()


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
