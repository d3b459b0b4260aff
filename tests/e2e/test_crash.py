"""Whatever was acknowledged must be there exactly once after the process was killed at any moment.

Writers send numbered frames to a real server that is killed with SIGKILL at a random (seeded) moment and started again,
several times over; afterwards every frame that was answered `ok` is looked for. Steps given by the tracker and log
records would show a frame that was applied twice.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from websockets.exceptions import WebSocketException

from tests.support.rest import Rest, canonical, eventually
from tests.support.server import MatyanServer
from tests.support.writer import RawWriter, create, message, metric

ROUNDS: Final = 5
WRITERS: Final = 4
POINTS_PER_FRAME: Final = 25
NO_CONTEXT: Final = canonical(None)


class CountingWriter:
    """One writer of one run over all lives of the server; it never sends a frame twice."""

    def __init__(self, server: MatyanServer, number: int) -> None:
        self.run = f"crash-{number}"
        self.sent = 0
        self.acknowledged: set[int] = set()
        self._server = server
        self._thread = threading.Thread(target=self._write, daemon=True)

    def begin(self) -> None:
        """Write until the server dies."""
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until the connection broke."""
        self._thread.join(timeout=30)
        assert not self._thread.is_alive(), "the writer hangs on a dead server"

    def _write(self) -> None:
        try:
            with RawWriter(self._server.websocket_url, self.run) as socket:
                while True:
                    number, self.sent = self.sent, self.sent + 1
                    reply = socket.send(*self._frame(number))
                    assert reply["status"] == "ok", reply
                    self.acknowledged.add(number)
        except (WebSocketException, OSError, TimeoutError):
            return

    def _frame(self, number: int) -> Iterator[dict[str, Any]]:
        if number == 0:
            yield create(self.run)
        for offset in range(POINTS_PER_FRAME):
            step = number * POINTS_PER_FRAME + offset
            yield metric(self.run, "given step", value_at(step), step)
            yield metric(self.run, "counted step", value_at(step), None)
        yield message("log_record", self.run, message=f"frame {number}", level=20, timestamp=float(number))


def value_at(step: int) -> float:
    return step + 1 / 3


def points_of(frames: set[int]) -> dict[int, float]:
    steps = [number * POINTS_PER_FRAME + offset for number in sorted(frames) for offset in range(POINTS_PER_FRAME)]
    return {step: value_at(step) for step in steps}


@pytest.mark.slow
def test_acknowledged_frames_survive_kill_9_exactly_once(tmp_path: Path) -> None:
    moments = random.Random(20261121)
    server = MatyanServer(tmp_path / "home")
    writers = [CountingWriter(server, number) for number in range(WRITERS)]
    for _ in range(ROUNDS):
        server.start()
        for writer in writers:
            writer.begin()
        threading.Event().wait(moments.uniform(0.05, 1.2))
        server.kill()
        for writer in writers:
            writer.wait()

    assert sum(len(writer.acknowledged) for writer in writers) > 100, "the server was hardly ever killed in mid-stream"
    with server, Rest(server.url) as rest:
        for writer in writers:
            check_writer(rest, writer)


def check_writer(rest: Rest, writer: CountingWriter) -> None:
    assert writer.acknowledged, "the writer was never answered"
    last = f"frame {max(writer.acknowledged)}"
    records = eventually(
        lambda: [record["message"] for record in rest.records(writer.run)] if rest.exists(writer.run) else [],
        lambda found: last in found,
    )

    stored = [int(text.removeprefix("frame ")) for text in records]
    assert stored == sorted(set(stored)), "a frame was applied twice or out of order"
    assert set(stored) >= writer.acknowledged
    assert set(stored) <= set(range(writer.sent))
    metrics = rest.metrics(writer.run)
    given = {step: point.value for step, point in metrics[("given step", NO_CONTEXT)].items()}
    assert given == points_of(set(stored))
    counted = {step: point.value for step, point in metrics[("counted step", NO_CONTEXT)].items()}
    assert counted == dict(enumerate(given.values()))


def test_a_stop_keeps_everything_and_ends_cleanly(tmp_path: Path) -> None:
    with MatyanServer(tmp_path / "home") as server:
        with RawWriter(server.websocket_url, "stopped") as socket:
            assert socket.send(create("stopped"), metric("stopped", "loss", 0.5, 3))["status"] == "ok"

        code = server.stop()
        server.start()

        with Rest(server.url) as rest:
            metrics = eventually(lambda: rest.metrics("stopped"), len)
    assert code == 0
    assert metrics[("loss", NO_CONTEXT)][3].value == 0.5


def test_a_stop_closes_open_connections_as_going_away(tmp_path: Path) -> None:
    with MatyanServer(tmp_path / "home") as server, RawWriter(server.websocket_url, "open") as socket:
        socket.send(create("open"))

        code = server.stop()

        with pytest.raises(WebSocketException) as raised:
            socket.send(metric("open", "late", 1.0, 0))
    assert code == 0
    assert getattr(raised.value, "rcvd", None) is not None, "the connection was cut without a close frame"
    with pytest.raises(httpx.HTTPError):
        httpx.get(server.url, timeout=2, trust_env=False)
