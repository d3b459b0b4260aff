"""States of a service with a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from matyan.workers.lifecycle import State, ThreadService


class Service(ThreadService):
    def __init__(self, body: Callable[[threading.Event], object], join_seconds: float = 5.0) -> None:
        super().__init__("test", join_seconds=join_seconds)
        self._body = body

    def run(self, stop: threading.Event) -> None:
        self._body(stop)


def test_a_service_runs_until_it_is_told_to_stop() -> None:
    service = Service(lambda stop: stop.wait())
    seen = [service.state]

    async def scenario() -> None:
        await service.start()
        seen.append(service.state)
        await service.stop()
        await service.ended()

    asyncio.run(scenario())
    assert [*seen, service.state] == [State.NEW, State.RUNNING, State.STOPPED]


def test_an_error_in_the_thread_is_what_the_service_ends_with() -> None:
    def fail(_: threading.Event) -> None:
        raise KeyError("x")

    service = Service(fail)

    async def scenario() -> None:
        await service.start()
        await service.ended()

    with pytest.raises(KeyError):
        asyncio.run(scenario())
    assert service.state is State.FAILED


def test_ending_without_being_told_is_a_failure() -> None:
    async def scenario() -> None:
        service = Service(lambda _: None)
        await service.start()
        await service.ended()

    with pytest.raises(RuntimeError, match="nobody told it to"):
        asyncio.run(scenario())


def test_a_thread_that_does_not_stop_is_not_waited_for_for_ever() -> None:
    release = threading.Event()
    service = Service(lambda _: release.wait(), join_seconds=0.01)

    async def scenario() -> State:
        await service.start()
        await service.stop()
        before = service.state
        release.set()
        await service.ended()
        return before

    assert asyncio.run(scenario()) is State.STOPPING


def test_stopping_what_never_started_is_fine() -> None:
    service = Service(lambda _: None)
    asyncio.run(service.stop())

    assert service.state is State.STOPPED
