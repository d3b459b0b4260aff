"""Bodies of uploads: parts, and what happens to slow ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from matyan import threads
from matyan.blobs import receiving
from matyan.blobs.receiving import PART_BYTES_MIN, Uploads
from matyan.engines.blob.filesystem import FilesystemBlobs, open_filesystem_blobs
from matyan.errors import UnavailableError


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[FilesystemBlobs]:
    yield open_filesystem_blobs(tmp_path, keys=[b"k" * 16])
    assert threads.close(timeout_seconds=5)


async def silent(*pieces: bytes) -> AsyncIterator[bytes]:
    """A client that sends a little and then nothing."""
    for piece in pieces:
        yield piece
    await asyncio.Event().wait()


async def whole(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def begin(blobs: FilesystemBlobs, key: str) -> Callable[[], Any]:
    return partial(blobs.begin_put, key, content_type="text/plain")


def left_behind(root: Path) -> list[Path]:
    return list((root / "tmp").iterdir())


def test_what_comes_in_drops_is_stored_whole(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    content = bytes(range(256)) * (PART_BYTES_MIN // 100)
    pieces = [content[at : at + 9999] for at in range(0, len(content), 9999)]

    stored = asyncio.run(Uploads().receive(begin(blobs, "default/a/file"), whole(*pieces)))

    assert stored.size_bytes == len(content) > 2 * PART_BYTES_MIN
    assert blobs.get("default/a/file") == content
    assert threads.close(timeout_seconds=5)
    assert left_behind(tmp_path) == []


def test_slow_uploads_hold_no_thread(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    async def scenario() -> None:
        uploads = Uploads()
        slow = [
            asyncio.ensure_future(uploads.receive(begin(blobs, f"default/a/{number}"), silent(b"x")))
            for number in range(3 * threads.UPLOAD_THREADS)
        ]
        await asyncio.sleep(0.2)
        async with asyncio.timeout(2):
            await uploads.receive(begin(blobs, "default/a/good"), whole(b"good"))
        for each in slow:
            each.cancel()
        await asyncio.gather(*slow, return_exceptions=True)

    asyncio.run(scenario())

    assert blobs.get("default/a/good") == b"good"
    assert threads.close(timeout_seconds=5)
    assert left_behind(tmp_path) == []


def test_of_too_many_uploads_the_slowest_is_given_up(blobs: FilesystemBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "UPLOADS_MAX", 2)
    monkeypatch.setattr(receiving, "_NEW_SECONDS", 0.0)

    async def scenario() -> list[object]:
        uploads = Uploads()
        fast = asyncio.ensure_future(uploads.receive(begin(blobs, "default/a/fast"), silent(b"x" * 1000)))
        slow = asyncio.ensure_future(uploads.receive(begin(blobs, "default/a/slow"), silent(b"x")))
        await asyncio.sleep(0.2)
        await uploads.receive(begin(blobs, "default/a/new"), whole(b"new"))
        is_fast_alive = not fast.done()
        fast.cancel()
        return [is_fast_alive, *await asyncio.gather(slow, return_exceptions=True)]

    is_fast_alive, error = asyncio.run(scenario())

    assert is_fast_alive
    assert isinstance(error, UnavailableError)
    assert "slowest of 2" in error.message
    assert blobs.get("default/a/new") == b"new"
    assert blobs.get("default/a/slow") is None
