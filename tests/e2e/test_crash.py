"""Whatever was acknowledged must be there exactly once after the process was killed at any moment.

Writers send numbered frames to a real server that is killed with SIGKILL after a random (seeded) number of them and
started again, several times over; afterwards every frame that was answered `ok` is looked for. Steps given by the
tracker and log records would show a frame that was applied twice.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx
import pytest
from websockets.exceptions import WebSocketException

from tests.support import loopback
from tests.support.counting import CountingWriter, check_writer
from tests.support.rest import Rest, canonical, eventually
from tests.support.server import MatyanServer
from tests.support.writer import RawWriter, create, metric

ROUNDS: Final = 5
WRITERS: Final = 4
NO_CONTEXT: Final = canonical(None)


def acknowledged(writers: Sequence[CountingWriter]) -> int:
    return sum(len(writer.acknowledged) for writer in writers)


@pytest.mark.slow
def test_acknowledged_frames_survive_kill_9_exactly_once(tmp_path: Path) -> None:
    moments = random.Random(20261121)
    server = MatyanServer(tmp_path / "home")
    writers = [CountingWriter(lambda: server.websocket_url, f"crash-{number}") for number in range(WRITERS)]
    for number in range(ROUNDS):
        server.start()
        wanted = acknowledged(writers) + 20 * number + moments.randrange(20)
        for writer in writers:
            writer.begin()
        eventually(lambda: acknowledged(writers), lambda found, wanted=wanted: found >= wanted, seconds=60)  # type: ignore[misc]
        time.sleep(moments.uniform(0, 0.05))
        server.kill()
        for writer in writers:
            writer.wait()

    assert acknowledged(writers) > 100, "the server was hardly ever killed in mid-stream"
    with server, Rest(server.url) as rest:
        for writer in writers:
            check_writer(rest, writer)


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
        loopback.get(server.url, timeout=2)
