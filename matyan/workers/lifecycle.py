"""Service protocol: new, starting, running, stopping, stopped, failed."""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from enum import StrEnum
from typing import Final, Protocol

logger = logging.getLogger(__name__)

JOIN_SECONDS: Final = 10.0


class State(StrEnum):
    """Where a service stands; STOPPED and FAILED are final."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class Service(Protocol):
    """Something that runs beside others until it is told to stop. Driven by the runner, on the event loop."""

    @property
    def name(self) -> str:
        """What logs and metrics call it."""

    @property
    def state(self) -> State:
        """Where it stands."""

    async def start(self) -> None:
        """Return when it runs; raise when it cannot."""

    async def ended(self) -> None:
        """Return when it has stopped; raise the error it failed with. Waits while it runs."""

    async def stop(self) -> None:
        """Make it stop and return when it has. Never raises for how it ended: `ended` tells."""


class ThreadService(ABC):
    """A service with one thread of its own, for code that blocks."""

    def __init__(self, name: str, *, join_seconds: float = JOIN_SECONDS) -> None:
        self._name = name
        self._join_seconds = join_seconds
        self._state = State.NEW
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._outcome: asyncio.Future[None] | None = None

    @property
    def name(self) -> str:
        """What logs and metrics call it."""
        return self._name

    @property
    def state(self) -> State:
        """Where it stands."""
        return self._state

    @abstractmethod
    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; look at it often. Called in the service's thread."""

    async def start(self) -> None:
        """Start the thread."""
        assert self._state is State.NEW, f"{self._name} starts once"
        loop = asyncio.get_running_loop()
        self._state = State.STARTING
        self._outcome = loop.create_future()
        self._thread = threading.Thread(target=self._main, args=(loop,), name=f"matyan-{self._name}", daemon=True)
        self._thread.start()
        self._state = State.RUNNING

    async def ended(self) -> None:
        """Return when the thread has ended; raise what it raised."""
        assert self._outcome is not None, f"{self._name} has not started"
        await asyncio.shield(self._outcome)

    async def stop(self) -> None:
        """Ask the thread to end and wait for it, for a bounded time."""
        if self._outcome is None:
            self._state = State.STOPPED
            return
        if not self._outcome.done():
            self._state = State.STOPPING
            self._stop.set()
        done, _ = await asyncio.wait({self._outcome}, timeout=self._join_seconds)
        if not done:
            logger.error("service does not stop", extra={"service": self._name, "seconds": self._join_seconds})

    def _main(self, loop: asyncio.AbstractEventLoop) -> None:
        error: BaseException | None = None
        try:
            self.run(self._stop)
            if not self._stop.is_set():
                error = RuntimeError(f"{self._name} ended though nobody told it to")
        except BaseException as caught:  # noqa: BLE001 - carried to the runner, which stops the process with it
            error = caught
        loop.call_soon_threadsafe(self._finish, error)

    def _finish(self, error: BaseException | None) -> None:
        assert self._outcome is not None
        if error is None:
            self._state = State.STOPPED
            self._outcome.set_result(None)
        else:
            self._state = State.FAILED
            self._outcome.set_exception(error)
            self._outcome.exception()  # seen: whoever awaits `ended` gets it, nobody needs to
