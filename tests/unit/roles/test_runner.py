"""Start in order, watch, stop in reverse."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable

import pytest

from matyan.errors import ConfigurationError, UnavailableError
from matyan.observe.metrics import Metrics
from matyan.roles.runner import COLLECTION_THRESHOLDS, Built, run
from matyan.workers.lifecycle import ThreadService


class Recorder:
    """Parts that write down what happens to them."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def engine(self, name: str) -> Callable[[], Built]:
        def build() -> Built:
            self.events.append(f"open {name}")
            return Built(close=lambda: self.events.append(f"close {name}"))

        return build

    def service(self, name: str, error: Exception | None = None) -> Callable[[], Built]:
        return lambda: Built(_Service(name, self.events, error))


class _Service(ThreadService):
    def __init__(self, name: str, events: list[str], error: Exception | None) -> None:
        super().__init__(name)
        self._events = events
        self._error = error

    async def start(self) -> None:
        self._events.append(f"start {self.name}")
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        self._events.append(f"stop {self.name}")

    def run(self, stop: threading.Event) -> None:
        if self._error is not None:
            raise self._error
        stop.wait()


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_parts_start_in_order_and_stop_in_reverse_engines_after_all_services() -> None:
    found = Recorder()
    run(
        [found.engine("kv"), found.service("worker"), found.engine("late"), found.service("http")],
        metrics=Metrics(),
        announce=terminate,
    )

    assert found.events == [
        "open kv",
        "start worker",
        "open late",
        "start http",
        "stop http",
        "stop worker",
        "close late",
        "close kv",
    ]


def test_a_failed_service_stops_the_others_and_its_error_is_raised() -> None:
    found = Recorder()
    with pytest.raises(KeyError):
        run([found.engine("kv"), found.service("good"), found.service("bad", KeyError("x"))], metrics=Metrics())

    assert found.events[-3:] == ["stop bad", "stop good", "close kv"]


def test_a_part_that_cannot_be_built_closes_what_is_open() -> None:
    found = Recorder()

    def broken() -> Built:
        raise ConfigurationError("port in use")

    with pytest.raises(ConfigurationError, match="port in use"):
        run([found.engine("kv"), found.service("worker"), broken], metrics=Metrics())

    assert found.events[-2:] == ["stop worker", "close kv"]


def test_the_state_of_services_is_a_metric() -> None:
    found, metrics, seen = Recorder(), Metrics(), []

    def announce() -> None:
        seen.append(metrics.exposition().decode())
        terminate()

    run([found.service("worker")], metrics=metrics, announce=announce)

    assert 'matyan_service_running{service="worker"} 1.0' in seen[0]
    assert 'matyan_service_running{service="worker"} 0.0' in metrics.exposition().decode()


def test_an_engine_that_comes_late_is_waited_for_and_started_once() -> None:
    found, asked = Recorder(), iter((UnavailableError("no broker answers"), UnavailableError("still none"), None))

    def late() -> Built:
        if (error := next(asked)) is not None:
            raise error
        return found.engine("log")()

    run([late], metrics=Metrics(), announce=terminate, patience_seconds=30)

    assert found.events == ["open log", "close log"]


def test_an_engine_that_does_not_come_in_time_ends_the_start() -> None:
    def never() -> Built:
        raise UnavailableError("no broker answers")

    with pytest.raises(UnavailableError, match="no broker answers"):
        run([never], metrics=Metrics(), patience_seconds=0.1)


def test_a_signal_ends_the_wait_for_an_engine() -> None:
    found = Recorder()

    def never() -> Built:
        terminate()
        raise UnavailableError("no broker answers")

    run([found.engine("kv"), never], metrics=Metrics(), patience_seconds=60)

    assert found.events == ["open kv", "close kv"]


def test_what_stands_after_the_start_is_left_out_of_collections_while_the_process_runs() -> None:
    found, before, seen = Recorder(), gc.get_threshold(), []

    def announce() -> None:
        seen.append((gc.get_freeze_count() > 0, gc.get_threshold()))
        terminate()

    run([found.service("worker")], metrics=Metrics(), announce=announce)

    assert seen == [(True, COLLECTION_THRESHOLDS)]
    assert (gc.get_freeze_count(), gc.get_threshold()) == (0, before)


def test_collections_that_the_command_turned_off_for_the_start_are_on_while_the_process_runs() -> None:
    seen = []

    def announce() -> None:
        seen.append(gc.isenabled())
        terminate()

    gc.disable()
    try:
        run([Recorder().service("worker")], metrics=Metrics(), announce=announce)
    finally:
        gc.enable()

    assert seen == [True]
