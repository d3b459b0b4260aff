"""Clients that stop reading, or send a byte now and then, stand in nobody's way.

Many more of them than the server has threads of any kind ask on plain sockets with small buffers, and the server has an
hour's patience with them; then everything else must answer although they are all still there.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support import loopback, treestream
from tests.support.rest import Rest, eventually
from tests.support.server import MatyanServer
from tests.support.writer import RawWriter, create, message, upload

STALLED: Final = 40
PATIENCE_SECONDS: Final = 3600.0
HANG_SECONDS: Final = 120.0
"""Who has no answer by then stands behind a stalled client: far less than the patience with one, and far more than an
answer takes on any machine."""
FILE_BYTES: Final = 16_000_000
TEXTS: Final = 80
TEXT_BYTES: Final = 250_000
LINES: Final = 10_000
LINE_BYTES: Final = 2_000
RUN: Final = "run"
BASE: Final = "/api/v1/rest"
HELD_BYTES_MAX: Final = 600_000_000
"""What the server may grow by for all stalled readers of one kind: ten megabytes each, and what it needs anyway. Whole
answers would be more."""


class Tempered(MatyanServer):
    """A server with another patience."""

    patience = ""
    """What is set before it starts."""

    def command(self) -> Sequence[str]:
        """Return the command line."""
        modules = "from matyan import cli; from matyan.blobs import receiving; from matyan.http import streaming"
        return [sys.executable, "-c", f"{modules}; {self.patience}; cli.main()", *super().command()[1:]]


class Impatient(Tempered):
    """A server that gives up a client after half a second instead of a minute."""

    patience = "streaming.STALLED_SECONDS = 0.5"


class Patient(Tempered):
    """A server that gives up nobody while a test lasts."""

    patience = f"streaming.STALLED_SECONDS = receiving.IDLE_SECONDS_MAX = {PATIENCE_SECONDS}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MatyanServer]:
    with Patient(tmp_path_factory.mktemp("tracker") / "home") as running:
        yield running


@pytest.fixture(scope="module")
def filled(server: MatyanServer) -> MatyanServer:
    """A run with a large image, many texts and a small file."""
    upload(server.url, RUN, "image", os.urandom(FILE_BYTES), "image/png")
    upload(server.url, RUN, "small", b"small")
    image = {"type": "image", "s3_key": f"{RUN}/image", "format": "png", "width": 1, "height": 1}
    with RawWriter(server.websocket_url, RUN) as writer:
        writer.send(create(RUN))
        for path in ("image", "small"):
            writer.send(message("blob_ref", RUN, s3_key=f"{RUN}/{path}", artifact_path=path))
        writer.send(message("log_custom_object", RUN, name="image", value=image, step=0))
        for step in range(TEXTS):
            text = {"type": "text", "data": os.urandom(TEXT_BYTES // 2).hex()}
            writer.send(message("log_custom_object", RUN, name="text", value=text, step=step))
        for begin in range(0, LINES, 100):
            lines = [{"line": "x" * LINE_BYTES, "step": begin + number} for number in range(100)]
            writer.send(*[message("log_terminal_line", RUN, **line) for line in lines])
    with Rest(server.url) as rest:
        found = eventually(
            lambda: (len(texts(rest)), len(rest.get(f"/runs/{RUN}/logs/", record_range=f"0:{LINES}").content)),
            lambda sizes: sizes[0] > TEXTS * TEXT_BYTES and sizes[1] > LINES * LINE_BYTES,
        )
    assert found[0] > TEXTS * TEXT_BYTES
    assert found[1] > LINES * LINE_BYTES
    return server


def texts(rest: Rest) -> bytes:
    return rest.get("/runs/search/texts/", record_density=1000).content


def image_uri(rest: Rest) -> str:
    answer = rest.send("POST", f"/runs/{RUN}/images/get-batch/", [{"name": "image", "context": {}}])
    uri: str = dict(treestream.trees(answer.content))["values"][0][0]["blob_uri"]
    return uri


def request(method: str, path: str, body: object = None, *, length: int | None = None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content) if length is None else length}\r\n\r\n".encode() + content


def connect(server: MatyanServer) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(10)
    connection.connect(("127.0.0.1", server.port))
    return connection


@contextmanager
def stalled(server: MatyanServer, asked: Callable[[int], bytes]) -> Iterator[list[socket.socket]]:
    """Clients that each sent what `asked` says of their number and do nothing more."""
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(server)) for _ in range(STALLED)]
        for number, connection in enumerate(connections):
            connection.sendall(asked(number))
        time.sleep(2)  # their buffers fill
        yield connections


def resident_bytes(server: MatyanServer) -> int:
    return int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def answers(server: MatyanServer) -> dict[str, int]:
    """Ask everything that clients ask; return the status of each answer."""
    asks: dict[str, Callable[[httpx.Client], httpx.Response]] = {
        "info": lambda client: client.get(f"{BASE}/runs/{RUN}/info/"),
        "experiments": lambda client: client.get(f"{BASE}/experiments/"),
        "search": lambda client: client.get(f"{BASE}/runs/search/run/"),
        "download": lambda client: client.get(f"{BASE}/runs/{RUN}/artifacts/download/", params={"path": "small"}),
        "ready": lambda client: client.get("/health/ready/"),
        "upload": upload_small,
    }
    with loopback.client(server.url, timeout=HANG_SECONDS) as client:
        return {name: ask(client).status_code for name, ask in asks.items()}


def has_ended(connection: socket.socket) -> bool:
    """Tell whether the server answered an upload, or gave it up."""
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable)


def presigned(client: httpx.Client, path: str) -> str:
    body = {"run_id": RUN, "artifact_path": path}
    answer: dict[str, Any] = client.post(f"{BASE}/artifacts/presign", json=body).raise_for_status().json()
    url: str = answer["upload_url"]
    return url


def upload_small(client: httpx.Client) -> httpx.Response:
    return client.put(presigned(client, "good"), content=b"good")


@pytest.fixture
def readers(filled: MatyanServer, rest: Rest) -> dict[str, bytes]:
    """The requests whose answers are long."""
    uri = image_uri(rest)
    assert len(rest.send("POST", "/runs/images/get-batch/", [uri]).content) > FILE_BYTES
    return {
        "media": request("POST", f"{BASE}/runs/images/get-batch/", [uri]),
        "search": request("GET", f"{BASE}/runs/search/texts/?record_density=1000"),
        "texts": request(
            "POST", f"{BASE}/runs/{RUN}/texts/get-batch/?record_density=1000", [{"name": "text", "context": {}}]
        ),
        "logs": request("GET", f"{BASE}/runs/{RUN}/logs/?record_range=0:{LINES}"),
        "download": request("GET", f"{BASE}/runs/{RUN}/artifacts/download/?path=image"),
        "zip": request("GET", f"{BASE}/runs/{RUN}/artifacts/download-all/"),
    }


@pytest.mark.parametrize("kind", ["media", "search", "texts", "logs", "download", "zip"])
def test_readers_that_stop_reading_hold_nothing_up(filled: MatyanServer, readers: dict[str, bytes], kind: str) -> None:
    before = resident_bytes(filled)

    with stalled(filled, lambda _: readers[kind]):
        answered = answers(filled)
        grown = resident_bytes(filled) - before
        given_up = filled.log.count("gave up a stream")
    print(f"{kind}: grown by {grown / 1e6:.0f} MB")

    assert set(answered.values()) == {httpx.codes.OK}, answered
    assert given_up == 0  # so all of them stood there while everything was answered
    assert grown < HELD_BYTES_MAX


def test_a_reader_that_comes_back_gets_all_of_it(filled: MatyanServer, readers: dict[str, bytes]) -> None:
    with stalled(filled, lambda _: readers["download"]) as connections:
        received = 0
        while received < FILE_BYTES and (piece := connections[-1].recv(1 << 20)):
            received += len(piece)

    assert received > FILE_BYTES


def test_a_body_that_was_given_up_does_not_look_whole(tmp_path: Path) -> None:
    with Impatient(tmp_path / "home") as server:
        upload(server.url, RUN, "file", os.urandom(FILE_BYTES))
        with RawWriter(server.websocket_url, RUN) as writer:
            writer.send(create(RUN), message("blob_ref", RUN, s3_key=f"{RUN}/file", artifact_path="file"))
        with Rest(server.url) as rest:
            assert eventually(lambda: rest.exists(RUN), bool)
        with connect(server) as connection:
            connection.sendall(request("GET", f"{BASE}/runs/{RUN}/artifacts/download-all/"))
            given_up = eventually(lambda: "gave up a stream" in server.log, bool)
            received = b"".join(iter(lambda: connection.recv(1 << 20), b""))

    assert given_up
    assert received.startswith(b"HTTP/1.1 200")
    assert not received.endswith(b"0\r\n\r\n")
    assert "Traceback" not in server.log


def test_uploads_that_send_a_byte_now_and_then_hold_nothing_up(filled: MatyanServer) -> None:
    with loopback.client(filled.url) as client:
        paths = [httpx.URL(presigned(client, f"slow{number}")).path for number in range(STALLED)]

    with stalled(filled, lambda number: request("PUT", paths[number], length=FILE_BYTES)) as connections:
        for _ in range(3):
            for connection in connections:
                connection.sendall(b"x")
            answered = answers(filled)
            assert set(answered.values()) == {httpx.codes.OK}, answered
            assert not any(map(has_ended, connections))


def test_an_upload_that_comes_in_drops_is_stored_whole(filled: MatyanServer) -> None:
    content = os.urandom(3_000_000)
    with loopback.client(filled.url) as client:
        path = httpx.URL(presigned(client, "drops")).path

    with connect(filled) as connection:
        connection.sendall(request("PUT", path, length=len(content)))
        for begin in range(0, len(content), 100_000):
            connection.sendall(content[begin : begin + 100_000])
            time.sleep(0.01)
        answer = connection.recv(4096)

    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b'{"size_bytes":3000000}')
