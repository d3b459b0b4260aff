"""Uploads as matyan-client makes them, and batches of blobs by URI."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from matyan.blobs import receiving
from matyan.blobs.service import PRESIGNED_SECONDS
from matyan.limits import BODY_BYTES_MAX
from matyan.threads import UPLOAD_THREADS, upload_pool
from tests.support import treestream
from tests.support.runs_app import RunsApp, runs_app

PRESIGN = "/api/v1/rest/artifacts/presign"
WHERE = {"run_id": "a", "artifact_path": "dir/file"}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[RunsApp]:
    with runs_app(tmp_path) as opened:
        yield opened


def presign(app: RunsApp, **changes: str) -> dict[str, Any]:
    response = app.client.post(PRESIGN, content=json.dumps({**WHERE, **changes}))
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def serve(app: RunsApp, url: str, receive: Callable[[], Awaitable[Any]], sent: list[Any]) -> None:
    """Send one PUT, whose body is what `receive` says, straight into the app."""

    async def send(message: Any) -> None:
        sent.append(message)

    path = urlsplit(url).path
    scope: Any = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "PUT",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:53800")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 53800),
    }
    await app.client.app(scope, receive, send)


def put_raw(app: RunsApp, url: str, receive: Callable[[], Awaitable[Any]]) -> int:
    """Send one PUT and return the status of its answer."""
    sent: list[Any] = []
    asyncio.run(serve(app, url, receive, sent))
    status: int = sent[0]["status"]
    return status


def batch(app: RunsApp, uris: list[str], kind: str = "images") -> list[tuple[Any, Any]]:
    response = app.client.post(f"/api/runs/{kind}/get-batch/", content=json.dumps(uris))
    assert response.status_code == 200, response.text
    return treestream.trees(response.content)


# ---- presign


@pytest.mark.parametrize("path", [PRESIGN, f"{PRESIGN}/", "/api/artifacts/presign", "/api/artifacts/presign/"])
def test_presign_answers_as_the_client_expects(app: RunsApp, path: str) -> None:
    answer = app.client.post(path, json=WHERE).json()

    assert answer["upload_url"].startswith("http://127.0.0.1:53800/api/v1/uploads/")
    assert answer["s3_key"] == "a/dir/file"
    assert answer["headers"] is None


def test_presign_names_the_scheme_that_a_proxy_names(app: RunsApp) -> None:
    response = app.client.post(PRESIGN, json=WHERE, headers={"X-Forwarded-Proto": "https"})

    assert response.json()["upload_url"].startswith("https://127.0.0.1:53800/")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"run_id": "a"}, 422),
        ({"artifact_path": "x"}, 422),
        ({"run_id": "a/b", "artifact_path": "x"}, 400),
        ({"run_id": "", "artifact_path": "x"}, 400),
        ({"run_id": "a", "artifact_path": ""}, 400),
        ({"run_id": "a", "artifact_path": "x" * 4097}, 400),
        ({"run_id": "a", "artifact_path": "\ud800"}, 400),
    ],
)
def test_presign_refuses_what_names_no_file(app: RunsApp, body: object, status: int) -> None:
    assert app.client.post(PRESIGN, content=json.dumps(body)).status_code == status


# ---- upload


@pytest.mark.parametrize("name", ["../../x", "a?b#c%20d", "é 日本 😀", "dir/sub/f"])
def test_upload_is_stored_under_project_run_and_path(app: RunsApp, name: str) -> None:
    url = presign(app, artifact_path=name, content_type="image/png")["upload_url"]

    response = app.client.put(url, content=b"bytes", headers={"Content-Type": "text/other"})
    assert response.status_code == 200
    assert response.json() == {"size_bytes": 5}
    assert app.blobs.get(f"default/a/{name}") == b"bytes"
    stored = app.blobs.info(f"default/a/{name}")
    assert stored is not None
    assert stored.content_type == "image/png"


UPLOADS = (
    'matyan_uploads_total{outcome="stored"}',
    'matyan_uploads_total{outcome="failed"}',
    "matyan_upload_bytes_total",
)


def uploads_counted(app: RunsApp) -> list[float]:
    lines = dict(line.rsplit(" ", 1) for line in app.client.get("/metrics/").text.splitlines() if line[0] != "#")
    return [float(lines.get(name, 0)) for name in UPLOADS]


def test_uploads_are_counted_by_what_became_of_them(app: RunsApp) -> None:
    before = uploads_counted(app)

    app.client.put(presign(app)["upload_url"], content=b"bytes")
    app.client.put("/api/v1/uploads/no-token", content=b"bytes")

    grown = [after - before for after, before in zip(uploads_counted(app), before, strict=True)]
    assert grown == [1, 1, 5]


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/json"}, {"Content-Type": "nonsense"}])
def test_upload_takes_any_content_type(app: RunsApp, headers: dict[str, str]) -> None:
    url = presign(app)["upload_url"]

    assert app.client.put(url, content=b"{not json", headers=headers).status_code == 200
    assert app.blobs.get("default/a/dir/file") == b"{not json"


def test_upload_of_an_empty_file_comes_without_length(app: RunsApp) -> None:
    request = app.client.build_request("PUT", presign(app)["upload_url"])
    request.headers.pop("content-length", None)

    assert app.client.send(request).status_code == 200
    assert app.blobs.get("default/a/dir/file") == b""


def test_upload_may_be_larger_than_any_body_and_replaces_the_file(app: RunsApp) -> None:
    size = BODY_BYTES_MAX + 1
    app.client.put(presign(app)["upload_url"], content=b"old")

    response = app.client.put(presign(app)["upload_url"], content=bytes(size))
    assert response.json() == {"size_bytes": size}
    stored = app.blobs.info("default/a/dir/file")
    assert stored is not None
    assert stored.size_bytes == size


@pytest.mark.parametrize("token", ["nonsense", "gAAAAA", "a" * 5000])
def test_upload_with_a_wrong_token_is_refused(app: RunsApp, token: str) -> None:
    assert app.client.put(f"/api/v1/uploads/{token}", content=b"x").status_code == 400


def test_upload_that_comes_too_late_is_refused(app: RunsApp) -> None:
    url = presign(app)["upload_url"]
    app.clock.advance(PRESIGNED_SECONDS)

    assert app.client.put(url, content=b"x").status_code == 400
    assert app.blobs.get("default/a/dir/file") is None


def test_upload_is_pulled_part_by_part(app: RunsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next part is received only when the engine has dealt with the last one: nothing piles up in memory."""
    monkeypatch.setattr(receiving, "PART_BYTES_MIN", 200)
    events: list[str] = []
    pieces = iter([b"a" * 100, b"a" * 100, b"b" * 100, b""])

    def write(fd: int, data: bytes, position: int) -> int:
        if set(data) <= {*b"ab"}:
            events.append("written")
        return pwrite(fd, data, position)

    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", write)

    async def receive() -> Any:
        piece = next(pieces)
        events.append("received")
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}

    assert put_raw(app, presign(app)["upload_url"], receive) == 200
    assert events == ["received", "received", "written", "received", "received", "written"]
    assert app.blobs.get("default/a/dir/file") == b"a" * 200 + b"b" * 100


def test_upload_that_breaks_off_leaves_the_old_file(app: RunsApp) -> None:
    app.blobs.put("default/a/dir/file", [b"old"], content_type="text/plain")
    messages = iter([{"type": "http.request", "body": b"new", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    assert put_raw(app, presign(app)["upload_url"], receive) >= 400
    assert app.blobs.get("default/a/dir/file") == b"old"


def test_upload_that_falls_silent_is_given_up(app: RunsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "IDLE_SECONDS_MAX", 0.05)

    async def receive() -> Any:
        await asyncio.Event().wait()

    assert put_raw(app, presign(app)["upload_url"], receive) == 503
    assert app.blobs.get("default/a/dir/file") is None


def test_upload_ends_with_the_server(app: RunsApp) -> None:
    """A handler that is cancelled, as when the server stops, frees its thread at once."""
    threads = upload_pool()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def serve_for_a_moment() -> None:
        handler = asyncio.ensure_future(serve(app, url, receive, []))
        await asyncio.sleep(0.05)
        handler.cancel()
        await asyncio.wait([handler])

    url = presign(app)["upload_url"]
    asyncio.run(serve_for_a_moment())
    began = time.monotonic()
    for _ in range(UPLOAD_THREADS):
        threads.submit(int).result(timeout=5)
    assert time.monotonic() - began < 1
    assert app.blobs.get("default/a/dir/file") is None


# ---- batches


def test_batch_leaves_out_what_is_missing_foreign_or_no_uri(app: RunsApp) -> None:
    app.blobs.put("default/a/seq/pics/0.png", [b"png"], content_type="image/png")
    app.blobs.put("other/a/seq/pics/0.png", [b"secret"], content_type="image/png")
    there = app.uris.seal("default", "a", "seq/pics/0.png")
    pending = app.uris.seal("default", "a", "seq/pics/1.png")
    foreign = app.uris.seal("other", "a", "seq/pics/0.png")

    assert batch(app, [pending, "not-a-uri", "\ud800", foreign, there, there]) == [(there, b"png")]


def test_batch_keeps_the_order_asked(app: RunsApp) -> None:
    uris = []
    for step in range(10):
        app.blobs.put(f"default/a/{step}", [bytes([step]) * 1000], content_type="audio/wav")
        uris.append(app.uris.seal("default", "a", f"{step}"))
    uris.reverse()

    assert [uri for uri, _ in batch(app, uris, "audios")] == uris
    assert batch(app, []) == []


def test_batch_body_that_is_no_list_is_422(app: RunsApp) -> None:
    assert app.client.post("/api/runs/images/get-batch", json={"a": 1}).status_code == 422
