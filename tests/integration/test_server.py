"""Granian in our event loop: serving, ports, and the drain on SIGTERM, in a process of its own.

Run as a module, this file is that process: `python -m tests.integration.test_server PORT...`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from typing import Any

import pytest
from litestar import Response, WebSocket, asgi, get, websocket
from litestar.types import Receive, Scope, Send
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect

from matyan.errors import ConfigurationError, InvalidArgumentError
from matyan.http.answers import json_response
from matyan.http.app import make_app
from matyan.http.connections import Connections
from matyan.http.health import Health
from matyan.http.server import HttpServer, probe_ports
from matyan.http.streaming import stream
from matyan.observe.metrics import Metrics
from matyan.roles.runner import Built, run

ROOT = Path(__file__).resolve().parents[2]
CHUNK = b"x" * 10_000
STOP_SECONDS_MAX = 8.0

# ---- the process


class Searches:
    """What became of the iterators: seen by the test at `/api/closed`."""

    opened = 0
    closed = 0


def endless() -> Iterator[bytes]:
    Searches.opened += 1
    try:
        for _ in itertools.count():
            time.sleep(0.02)  # work that takes its time
            yield CHUNK
    finally:
        Searches.closed += 1


def failing() -> Iterator[bytes]:
    raise InvalidArgumentError("bad from the start")
    yield b""


@get("/endless")
async def endless_stream() -> Response[Any]:
    return stream(endless)


@get("/failing")
async def failing_stream() -> Response[Any]:
    return stream(failing)


@get("/big")
async def big_stream() -> Response[Any]:
    return stream(lambda: itertools.repeat(CHUNK, 1000))


@get("/closed")
async def closed() -> Response[bytes]:
    return json_response([Searches.opened, Searches.closed])


@websocket("/api/v1/ws/echo")
async def echo(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    while True:
        message: Any = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        await socket.send_text(message["text"])


@asgi("/api/v1/ws/ahead", is_mount=True)
async def ahead(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer after a while, with the next `receive()` pending meanwhile, as the gateway does."""
    del scope
    await receive()
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    coming: asyncio.Future[Any] = asyncio.ensure_future(receive())
    while (message := await coming)["type"] == "websocket.receive":
        coming = asyncio.ensure_future(receive())
        await asyncio.sleep(0.3)
        await send({"type": "websocket.send", "bytes": None, "text": message["text"]})


def serve(ports: Sequence[int]) -> None:
    metrics = Metrics()
    health, connections = Health(), Connections(metrics)
    routes = [endless_stream, failing_stream, big_stream, closed]
    app = make_app(routes, root_routes=[echo, ahead], metrics=metrics, health=health, connections=connections)
    server = HttpServer(app, host="127.0.0.1", ports=ports, connections=connections, health=health, drain_seconds=1.0)
    run([lambda: Built(server)], metrics=metrics, announce=lambda: print("up", *server.ports, flush=True))


# ---- the tests


class Running:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.ports = [int(word) for word in process.stdout.readline().split()[1:]]

    def get(self, path: str, port: int = 0) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[port]}{path}", timeout=5) as answer:
            return json.load(answer)

    def ws(self, path: str = "/api/v1/ws/echo", port: int = 0) -> Any:
        return connect(f"ws://127.0.0.1:{self.ports[port]}{path}", proxy=None)

    def open_stream(self) -> Any:
        connection = HTTPConnection("127.0.0.1", self.ports[0], timeout=10)
        connection.request("GET", "/api/endless")
        return connection, connection.getresponse()

    def terminate(self) -> float:
        """Return how long the process took to exit by itself."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=STOP_SECONDS_MAX)
        assert code == 0, self.process.stderr.read() if self.process.stderr else ""
        return time.monotonic() - began


@pytest.fixture
def running() -> Iterator[Running]:
    command = [sys.executable, "-m", "tests.integration.test_server", "0", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def until(condition: Any, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_one_app_answers_on_every_port(running: Running) -> None:
    assert len(set(running.ports)) == 2
    for port in (0, 1):
        assert running.get("/health/ready/", port)["status"] == "ok"
        with running.ws(port=port) as socket:
            socket.send("hello")

            assert socket.recv() == "hello"


def test_a_stream_arrives_whole_and_an_early_error_is_an_ordinary_one(running: Running) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{running.ports[0]}/api/big", timeout=10) as answer:
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.read() == CHUNK * 1000
    with pytest.raises(urllib.error.HTTPError) as error:
        running.get("/api/failing")

    assert error.value.code == 400
    assert json.load(error.value)["message"] == "bad from the start"


def test_a_client_that_leaves_a_stream_ends_its_search_within_a_second(running: Running) -> None:
    connection, response = running.open_stream()
    response.read(50_000)
    response.close()
    connection.close()

    assert until(lambda: running.get("/api/closed") == [1, 1], seconds=1.0)


def test_an_idle_websocket_gets_1001_when_the_server_stops(running: Running) -> None:
    with running.ws() as socket:
        socket.send("x")
        socket.recv()
        took = running.terminate()
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
    assert took < 3.0


def test_a_frame_that_was_read_is_answered_before_the_connection_closes(running: Running) -> None:
    with running.ws("/api/v1/ws/ahead") as socket:
        socket.send("first")
        assert socket.recv() == "first"
        socket.send("last")
        time.sleep(0.1)  # it is read, and its answer not yet there
        running.process.send_signal(signal.SIGTERM)

        assert socket.recv() == "last"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001


def test_a_running_stream_is_cut_when_it_outlasts_the_drain(running: Running) -> None:
    connection, response = running.open_stream()
    response.read(1)
    took = running.terminate()

    with pytest.raises((IncompleteRead, ConnectionError)):
        response.read()
    connection.close()
    assert took < STOP_SECONDS_MAX


def test_a_stopping_server_takes_no_new_websocket_and_says_it_is_not_ready(running: Running) -> None:
    connection, response = running.open_stream()  # keeps the server in its drain for a second
    response.read(1)
    refused: list[int] = []

    def knock() -> None:
        while not refused:
            try:
                with running.ws():
                    pass
            except InvalidStatus as error:
                refused.append(error.response.status_code)
            except ConnectionClosed:
                continue  # taken in just before the drain, and closed by it
            except (OSError, EOFError, InvalidHandshake):
                refused.append(0)

    knocking = threading.Thread(target=knock)
    knocking.start()
    running.terminate()
    knocking.join(timeout=5)
    connection.close()

    # 503 while it drains, or no connection at all once the port is closed: never a status that stops the client.
    assert refused[0] in (503, 0)


def test_a_port_in_use_is_named_with_what_to_do(running: Running) -> None:
    with pytest.raises(ConfigurationError) as error:
        probe_ports("127.0.0.1", [running.ports[1]])

    assert f"port {running.ports[1]} on 127.0.0.1 is in use" in error.value.message
    assert "--port" in error.value.message


def test_a_port_can_be_taken_again_right_after_the_server_stopped(running: Running) -> None:
    with running.ws() as socket:
        socket.send("x")
        socket.recv()
    running.terminate()

    assert probe_ports("127.0.0.1", running.ports) == tuple(running.ports)


def test_free_ports_are_found_for_0() -> None:
    ports = probe_ports("127.0.0.1", [0, 0])

    assert len(set(ports)) == 2
    for port in ports:
        with socket.socket() as free:
            free.bind(("127.0.0.1", port))


if __name__ == "__main__":
    serve([int(text) for text in sys.argv[1:]])
