"""The gateway behind the real server, spoken to over the network by recorded frames and by the real matyan-client."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import matyan_client
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.connection import Connection

from matyan.engines.log.embedded import open_embedded_log
from matyan.http.app import make_app
from matyan.http.connections import Connections
from matyan.http.health import Health
from matyan.http.server import HttpServer
from matyan.ingestion.backlog import Backlog
from matyan.ingestion.gateway import Gateway, make_route
from matyan.limits import FRAME_BYTES_MAX
from matyan.observe.metrics import Metrics
from matyan.wire.codec import decode_envelope
from matyan.wire.frames import decode_frame, decode_payload, encode_commands
from matyan.wire.messages import AddTag, Command, CreateRun, FinishRun, LogHparams, LogMetric, LogTerminalLine
from tests.support import loopback
from tests.support.logs import TOPIC, FailingDisk, read_all

INGEST = Path(__file__).parents[1] / "golden" / "ingest"
CAPTURES = [
    "01-run-basics",
    "02-scalar-types",
    "03-objects",
    "04-artifacts",
    "05-logs-system",
    "06-resume",
    "07-batching",
]
CAPTURES += ["10-backup-restore", "11-adapters"]
SECONDS = 20


class SwiftWorker(Backlog):
    """A backlog whose worker applies everything at once: nothing is held back here."""

    def is_high(self) -> bool:
        return False


class Server:
    """The HTTP server with nothing but the gateway, in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self.disk = FailingDisk()
        self.log = open_embedded_log(path, partitions=1, disk=self.disk)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.call(self._start())

    async def _start(self) -> None:
        metrics, connections = Metrics(), Connections()
        self.gateway = Gateway(producer=self.log.producer(), topic=TOPIC, backlog=SwiftWorker(), metrics=metrics)
        app = make_app([], root_routes=[make_route(self.gateway)], metrics=metrics, connections=connections)
        self._http = HttpServer(
            app,
            host="127.0.0.1",
            ports=[0],
            connections=connections,
            health=Health(),
            drains=[self.gateway.drain],
        )
        await self._http.start()
        self.url = f"http://127.0.0.1:{self._http.ports[0]}"

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(SECONDS)

    def connect(self, run: str) -> ClientConnection:
        url = f"{self.url.replace('http', 'ws')}/api/v1/ws/runs/{run}"
        return connect(url, proxy=None, max_size=None, compression=None)

    def commands(self) -> dict[str, list[Command]]:
        """Return what a worker would get, by run, in order."""
        found: dict[str, list[Command]] = {}
        for record in read_all(self.log):
            envelope = decode_envelope(record.value)
            commands, bad = decode_payload(envelope.encoding, envelope.payload)
            assert bad == []
            found.setdefault(envelope.run_id, []).extend(commands)
        return found

    def stop(self) -> None:
        self.call(self._http.stop())

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()
        self.log.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "log")
    yield made
    made.close()


def ask(socket: Connection, frame: str | bytes) -> Any:
    socket.send(frame)
    return json.loads(socket.recv(timeout=SECONDS))


OK = {"status": "ok", "error": None}


@pytest.mark.parametrize("capture", CAPTURES)
def test_captured_frames_get_one_reply_each_and_every_good_item_is_in_the_log(server: Server, capture: str) -> None:
    records = [json.loads(line) for line in (INGEST / f"{capture}.jsonl").read_text().splitlines()]
    expected: dict[str, list[Command]] = {}
    sockets: dict[int, tuple[str, ClientConnection]] = {}
    for record in (record for record in records if record["ch"] == "ws"):
        number = record["conn"]
        if record["ev"] == "handshake":
            run = unquote(urlsplit(record["target"]).path.removeprefix("/api/v1/ws/runs/"))
            if "/" not in run:  # such a run cannot be read back
                sockets[number] = (run, server.connect(urlsplit(record["target"]).path.rpartition("/")[2]))
        elif record["ev"] == "c2s" and number in sockets:
            run, socket = sockets[number]
            frame = decode_frame(record["raw"])
            expected.setdefault(run, []).extend(frame.commands)
            assert ask(socket, record["raw"])["status"] == ("error" if frame.refusals else "ok")
    for _, socket in sockets.values():
        with pytest.raises(TimeoutError):
            socket.recv(timeout=0.01)  # nothing unasked for
        socket.close()

    found = server.commands()
    assert found.keys() == expected.keys()
    for run, commands in expected.items():
        assert encode_commands(found[run]) == encode_commands(commands)


def test_a_frame_of_16_mib_is_kept_and_a_larger_one_costs_its_connection_only(server: Server) -> None:
    head, tail = '{"type":"log_terminal_line","step":0,"line":"', '"}'
    frame = head + "x" * (FRAME_BYTES_MAX - len(head) - len(tail)) + tail
    with server.connect("large") as socket:
        assert ask(socket, frame) == OK
        assert ask(socket, '{"type":"add_tag","tag_name":"a"}') == OK
        with pytest.raises((ConnectionClosed, ConnectionError)):
            ask(socket, frame.replace("x", "xy", 1))

    with server.connect("other") as socket:
        assert ask(socket, '{"type":"add_tag","tag_name":"a"}') == OK
    line, _ = server.commands()["large"]
    assert isinstance(line, LogTerminalLine)
    assert len(line.line) == FRAME_BYTES_MAX - len(head) - len(tail)


def test_a_ping_is_answered_while_the_disk_is_slow(server: Server) -> None:
    may_sync = threading.Event()

    def wait() -> None:
        may_sync.wait(SECONDS)

    server.disk.before_sync = wait
    with server.connect("slow") as socket:
        socket.send('{"type":"add_tag","tag_name":"a"}')
        assert socket.ping().wait(5)
        with pytest.raises(TimeoutError):
            socket.recv(timeout=0.05)
        may_sync.set()
        assert json.loads(socket.recv(timeout=SECONDS)) == OK


@pytest.mark.parametrize(("run", "name"), [("a%20b%2Bc", "a b+c"), ("%C3%BC?x=1", "\u00fc"), ("a%2520b", "a%20b")])
def test_run_ids_are_decoded_once(server: Server, run: str, name: str) -> None:
    with server.connect(run) as socket:
        assert ask(socket, '{"type":"add_tag","tag_name":"a"}') == OK

    assert list(server.commands()) == [name]


@pytest.mark.parametrize("run", ["progress_1", "x" * 300, "a%2Fb", "a/b", ""])
def test_a_bad_run_id_is_refused_with_400(server: Server, run: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        server.connect(run)
    assert refused.value.response.status_code == 400


def test_a_stopping_server_answers_closes_with_1001_and_takes_nobody_in(server: Server) -> None:
    syncing, may_sync = threading.Event(), threading.Event()

    def wait() -> None:
        syncing.set()
        may_sync.wait(SECONDS)

    server.disk.before_sync = wait
    with server.connect("busy") as busy, server.connect("idle") as idle:
        busy.send('{"type":"add_tag","tag_name":"a"}')
        assert syncing.wait(SECONDS)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        with pytest.raises(ConnectionClosed) as closed:
            idle.recv(timeout=SECONDS)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        with pytest.raises(InvalidStatus) as refused:
            server.connect("late")
        assert refused.value.response.status_code == 503

        may_sync.set()
        assert json.loads(busy.recv(timeout=SECONDS)) == OK
        with pytest.raises(ConnectionClosed) as closed:
            busy.recv(timeout=SECONDS)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
    stopping.join(SECONDS)
    assert server.commands() == {"busy": [AddTag("a")]}


def test_the_real_client_is_understood(server: Server) -> None:
    run = matyan_client.Run(repo=server.url, run_hash="client", capture_terminal_logs=False)
    run["hparams"] = {"lr": 0.1, "seed": 2**70, "nothing": math.nan}
    for step in range(250):
        run.track(step / 2 if step != 100 else math.nan, name="loss", step=step, epoch=step / 10, context={"a": 1})
    run.add_tag("good")
    run.close()

    deadline = time.monotonic() + SECONDS
    while not any(isinstance(command, FinishRun) for command in server.commands().get("client", ())):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    commands = server.commands()["client"]
    params = [command.value for command in commands if isinstance(command, LogHparams)]
    points = [command for command in commands if isinstance(command, LogMetric)]
    assert isinstance(commands[0], CreateRun)
    assert AddTag("good") in commands
    assert params[0]["hparams"]["seed"] == 2**70
    assert math.isnan(params[0]["hparams"]["nothing"])
    assert [point.step for point in points] == list(range(250))
    assert [point.step for point in points if math.isnan(point.value)] == [100]
    assert points[7].epoch == pytest.approx(0.7)


def test_a_request_that_is_no_handshake_is_told_that_there_is_nothing(server: Server) -> None:
    answer = loopback.get(f"{server.url}/api/v1/ws/runs/run-1", timeout=SECONDS)

    assert (answer.status_code, answer.json()["detail"]) == (404, "Not Found")
