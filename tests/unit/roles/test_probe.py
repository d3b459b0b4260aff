"""What a health check says of servers that are ready, not ready, silent, or none."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from matyan.configuration import load
from matyan.errors import UnavailableError
from matyan.roles.probe import check_ready, url_of


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Run a server that gives this answer to every request; yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/ready/" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def readiness(**checks: str) -> bytes:
    return json.dumps({"status": "ok", "checks": checks}).encode()


def test_a_ready_server_tells_of_its_parts() -> None:
    with answering(200, readiness(kv="ok", blob="the store is away")) as url:
        assert check_ready(f"{url}/") == {"kv": "ok", "blob": "the store is away"}


def test_a_server_that_is_not_ready_says_which_parts_do_not_work() -> None:
    with (
        answering(503, readiness(kv="ok", log="no broker answers", server="stopping")) as url,
        pytest.raises(UnavailableError, match=r"is not ready \(503\): log: no broker answers; server: stopping"),
    ):
        check_ready(url)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"checks": 3}', b'{"other": {}}'])
def test_an_answer_of_another_server_is_no_readiness(body: bytes) -> None:
    with (
        answering(502, body) as url,
        pytest.raises(UnavailableError, match=r"is not ready \(502\): it does not say why"),
    ):
        check_ready(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://[half"])
def test_where_nobody_answers_is_not_ready(url: str) -> None:
    with pytest.raises(UnavailableError, match="does not answer"):
        check_ready(url)


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # which is not asked
    held = threading.Event()

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            held.wait(10)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    with pytest.raises(UnavailableError, match="timed out"):
        check_ready(f"http://127.0.0.1:{server.server_port}", timeout_seconds=0.1)

    held.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("environment", "role", "url"),
    [
        ({}, None, "http://127.0.0.1:53800"),
        ({}, "frontier", "http://127.0.0.1:53801"),
        ({"MATYAN_HTTP_PORT": "9"}, "control", "http://127.0.0.1:9"),
        ({"MATYAN_HTTP_HOST": "0.0.0.0", "MATYAN_HTTP_ALLOW_REMOTE": "true"}, "ingest", "http://127.0.0.1:9101"),
        ({"MATYAN_HTTP_HOST": "::1", "MATYAN_HTTP_BASE_PATH": "/t"}, "serve", "http://[::1]:53800/t"),
    ],
)
def test_a_server_is_asked_where_its_settings_say_that_it_listens(
    environment: dict[str, str], role: str | None, url: str
) -> None:
    assert url_of(load(environ=environment, role=role)) == url
