"""Start in order, watch, stop in reverse; one failed service stops the process with its error."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from matyan import threads
from matyan.errors import UnavailableError
from matyan.observe.metrics import Metrics
from matyan.workers.lifecycle import Service, State

logger = logging.getLogger(__name__)

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
POOLS_SECONDS_MAX: Final = 5.0
"""How long calls that still run in threads are waited for."""
AGAIN_SECONDS: Final = 0.5
COLLECTION_THRESHOLDS: Final = (20_000, 10, 10)
"""Objects made and not freed before the youngest are looked through; collections of one age before the next age's."""
SWITCH_SECONDS: Final = 0.0005
"""How long a thread may keep the interpreter from others. At Python's default of 5 ms a thread that works beside a busy
worker waits that long after every call into LMDB (ADR 0003) and every wake-up of the event loop."""


class Built(NamedTuple):
    """What building a part gave: something that runs, something to close, both or neither."""

    service: Service | None = None
    close: Callable[[], None] | None = None


Build = Callable[[], Built]


def run(
    builds: Sequence[Build],
    *,
    metrics: Metrics,
    announce: Callable[[], None] = lambda: None,
    patience_seconds: float = 0.0,
) -> None:
    """Build and start every part in order, run until a signal or a failure, stop in reverse.

    While an engine is not there, building is tried again for `patience_seconds`: processes that start together need
    not start in order. A build function that raises has changed nothing.

    Raises:
        What building or starting a part raised, or the error of the first service that failed.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_Process(metrics, patience_seconds).run(builds, announce))


class _Process:
    """The parts that are up."""

    def __init__(self, metrics: Metrics, patience_seconds: float) -> None:
        self._metrics = metrics
        self._patience_seconds = patience_seconds
        self._services: list[Service] = []
        self._closes: list[Callable[[], None]] = []

    async def run(self, builds: Sequence[Build], announce: Callable[[], None]) -> None:
        with _stop_signals() as stop:
            try:
                for build in builds:
                    built = await self._build(build, stop)
                    if built is None:
                        return
                    await self._start(built)
                with _few_collections():
                    announce()
                    await self._watch(stop)
            finally:
                await self._stop()

    async def _build(self, build: Build, stop: asyncio.Event) -> Built | None:
        """Build a part, again while what it needs is not there; return None when told to stop meanwhile."""
        deadline = time.monotonic() + self._patience_seconds
        while not stop.is_set():
            try:
                return build()
            except UnavailableError as error:
                if time.monotonic() >= deadline:
                    raise
                logger.warning("an engine is not there yet", extra={"reason": error.message})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), AGAIN_SECONDS)
        return None

    async def _start(self, built: Built) -> None:
        if built.close is not None:
            self._closes.append(built.close)
        if built.service is not None:
            self._services.append(built.service)
            await built.service.start()
            self._metrics.service_running.labels(built.service.name).set(1)
            logger.debug("service runs", extra={"service": built.service.name})

    async def _watch(self, stop: asyncio.Event) -> None:
        """Return when told to stop; raise the error of a service that ended before."""
        asked: asyncio.Task[Any] = asyncio.create_task(stop.wait())
        ended: dict[asyncio.Task[Any], Service] = {
            asyncio.create_task(service.ended()): service for service in self._services
        }
        try:
            await asyncio.wait({asked, *ended}, return_when=asyncio.FIRST_COMPLETED)
            for task, service in ended.items():
                if task.done() and (error := task.exception()) is not None:
                    logger.error("service failed", extra={"service": service.name}, exc_info=error)
                    raise error
        finally:
            for task in (asked, *ended):
                task.cancel()
            await asyncio.gather(asked, *ended, return_exceptions=True)

    async def _stop(self) -> None:
        """Stop services, then let calls in threads end, then close engines: nothing is closed under a user of it."""
        for service in reversed(self._services):
            try:
                await service.stop()
            except Exception:
                logger.exception("service does not stop cleanly", extra={"service": service.name})
            self._metrics.service_running.labels(service.name).set(0)
        pools_ended = await asyncio.to_thread(threads.close, timeout_seconds=POOLS_SECONDS_MAX)
        if not pools_ended or any(service.state is State.STOPPING for service in self._services):
            # Engines cannot be closed under a running call; they are made to survive a crash, so this is one.
            logger.error("calls do not end; leaving without closing the engines")
            os._exit(1)
        for close in reversed(self._closes):
            try:
                close()
            except Exception:
                logger.exception("a part does not close cleanly")


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """Take what stands after the start out of garbage collections, and have fewer of them, also where there were none.

    A frame makes a hundred objects that live until it is applied and are in no cycle. At Python's defaults, looking
    for cycles among them and among all that the process has loaded is a tenth of the work of ingestion.
    """
    before = gc.get_threshold()
    if gc.isenabled():  # a start without collections is short, and leaves no garbage worth the time
        gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTION_THRESHOLDS)
    gc.enable()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@contextlib.contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """Turn the first SIGTERM or SIGINT into an event and the second into the end of the process."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        logger.info("stopping", extra={"signal": signal.Signals(number).name})
        stop.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def _loop_factory() -> Callable[[], Any]:
    """Return uvloop's maker where uvloop is there."""
    try:
        import uvloop  # noqa: PLC0415 - optional: it exists for some platforms only
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
