"""Upload tokens: what they allow, for how long, and that nobody else can make one."""

from __future__ import annotations

from pathlib import Path

import pytest

from matyan.clock import ManualClock
from matyan.engines.blob.filesystem import FilesystemBlobs, open_filesystem_blobs
from matyan.engines.blob.uploads import UPLOAD_ROUTE, AllowedUpload, LocalUploads
from matyan.errors import ConfigurationError, InvalidArgumentError

SECRET = b"0123456789abcdef"
KEY = "p/r/../\u00fc%?#\ud800.png"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def blobs(tmp_path: Path, clock: ManualClock) -> FilesystemBlobs:
    return open_filesystem_blobs(tmp_path, keys=[SECRET], clock=clock)


def token_of(blobs: FilesystemBlobs, *, expires_seconds: int = 60) -> str:
    url = blobs.presign_put(KEY, content_type="image/png", expires_seconds=expires_seconds, base_url="http://h:1/x").url
    assert url.startswith(f"http://h:1/x{UPLOAD_ROUTE}/")
    return url.rsplit("/", 1)[1]


def test_the_engine_offers_local_uploads(blobs: FilesystemBlobs) -> None:
    assert isinstance(blobs, LocalUploads)


def test_a_token_allows_the_key_and_type_it_was_made_for(blobs: FilesystemBlobs) -> None:
    assert blobs.verify_put(token_of(blobs)) == AllowedUpload(KEY, "image/png")


def test_a_token_works_in_another_process_with_the_same_secret_only(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    token = token_of(blobs)

    assert open_filesystem_blobs(tmp_path, keys=[SECRET], clock=ManualClock()).verify_put(token).key == KEY
    with pytest.raises(InvalidArgumentError, match="not valid"):
        open_filesystem_blobs(tmp_path, keys=[b"x" * 16]).verify_put(token)


def test_a_token_outlives_the_rotation_of_its_key(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    token = token_of(blobs)

    rotated = open_filesystem_blobs(tmp_path, keys=[b"n" * 16, SECRET], clock=ManualClock())

    assert rotated.verify_put(token).key == KEY


def test_a_token_expires(blobs: FilesystemBlobs, clock: ManualClock) -> None:
    token = token_of(blobs, expires_seconds=60)
    clock.advance(59)
    blobs.verify_put(token)
    clock.advance(1)

    with pytest.raises(InvalidArgumentError, match="expired"):
        blobs.verify_put(token)


def test_a_changed_token_is_refused(blobs: FilesystemBlobs) -> None:
    token = token_of(blobs)
    for at in range(len(token) - 1):  # the last character holds bits that mean nothing
        changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        with pytest.raises(InvalidArgumentError, match="not valid"):
            blobs.verify_put(changed)


@pytest.mark.parametrize("token", ["", "x", "====", "\ud800", "\u00fc" * 100, "A" * 4000, "../../etc/passwd"])
def test_garbage_is_refused(blobs: FilesystemBlobs, token: str) -> None:
    with pytest.raises(InvalidArgumentError, match="not valid"):
        blobs.verify_put(token)


def test_a_token_is_opaque(blobs: FilesystemBlobs) -> None:
    token = token_of(blobs)

    assert "png" not in token
    assert all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in token)


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="at least 16 random bytes"):
        open_filesystem_blobs(tmp_path, keys=[SECRET, b"abc"])
