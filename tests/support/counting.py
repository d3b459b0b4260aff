"""Writers whose frames are numbered, so that one that is lost, applied twice or out of order shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from websockets.exceptions import WebSocketException

from tests.support.rest import Rest, canonical, eventually
from tests.support.writer import RawWriter, create, message, metric

POINTS_PER_FRAME: Final = 25
RECONNECT_SECONDS: Final = 0.1
JOIN_SECONDS: Final = 60.0
NO_CONTEXT: Final = canonical(None)


class CountingWriter:
    """One writer of one run over all lives of a server; it never sends a frame twice."""

    def __init__(self, address: Callable[[], str], run: str, *, pause_seconds: float = 0.0) -> None:
        """Make it; `address` says where to connect to at each beginning.

        Args:
            pause_seconds: what it does between two frames, as a training would. Without it a backlog holds it back in
                an outage, and what it sends in a second takes several to read back.
        """
        self.run = run
        self._pause_seconds = pause_seconds
        self.sent = 0
        self.acknowledged: set[int] = set()
        self._address = address
        self._is_over = False
        self._thread = threading.Thread(target=self._write, daemon=True)

    def begin(self) -> None:
        """Write until the server dies, or `end`."""
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until the connection broke."""
        self._thread.join(timeout=JOIN_SECONDS)
        assert not self._thread.is_alive(), "the writer hangs on a dead server"

    def end(self) -> None:
        """Have the frame on its way answered, then write no more."""
        self._is_over = True
        self.wait()

    def write_on(self) -> None:
        """Write until `end`, connecting again whenever the connection breaks or is refused."""
        self._thread = threading.Thread(target=self._write_on, daemon=True)
        self._thread.start()

    def _write_on(self) -> None:
        while not self._is_over:
            self._write()
            time.sleep(RECONNECT_SECONDS)

    def _write(self) -> None:
        try:
            with RawWriter(self._address(), self.run) as socket:
                while not self._is_over:
                    number, self.sent = self.sent, self.sent + 1
                    reply = socket.send(*self._frame(number))
                    assert reply["status"] == "ok", reply
                    self.acknowledged.add(number)
                    time.sleep(self._pause_seconds)
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


def check_writer(rest: Rest, writer: CountingWriter) -> None:
    """Check that each acknowledged frame is there once, in order, and nothing that was never sent."""
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
