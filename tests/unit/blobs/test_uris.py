"""Blob URIs: stable for clients' caches, opaque, bound to project and time, rotating keys."""

from __future__ import annotations

import base64

import pytest

from matyan.blobs.uris import WINDOW_SECONDS, BlobUris
from matyan.clock import ManualClock
from matyan.errors import ConfigurationError, InvalidArgumentError

OLD, NEW = b"old key, 16 byte", b"new key, 16 byte"
ADDRESS = ("default", "run-1", "seq/../pics/\u00fc \N{GRINNING FACE}%?.png")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(WINDOW_SECONDS * 1000.0)


@pytest.fixture
def uris(clock: ManualClock) -> BlobUris:
    return BlobUris([OLD], clock=clock)


def test_a_uri_opens_to_what_was_sealed(uris: BlobUris) -> None:
    assert uris.open(uris.seal(*ADDRESS)) == ADDRESS


def test_a_uri_is_the_same_for_a_week_and_in_every_process(uris: BlobUris, clock: ManualClock) -> None:
    first = uris.seal(*ADDRESS)
    clock.advance(WINDOW_SECONDS - 1)
    last = BlobUris([OLD], clock=clock).seal(*ADDRESS)
    clock.advance(1)

    assert first == last != uris.seal(*ADDRESS)


def test_a_uri_lives_through_the_week_after_its_own(uris: BlobUris, clock: ManualClock) -> None:
    uri = uris.seal(*ADDRESS)
    clock.advance(2 * WINDOW_SECONDS - 1)
    uris.open(uri)
    clock.advance(1)

    with pytest.raises(InvalidArgumentError, match="expired"):
        uris.open(uri)


def test_a_uri_from_the_future_is_refused(uris: BlobUris) -> None:
    later = BlobUris([OLD], clock=ManualClock(WINDOW_SECONDS * 1001.0))

    with pytest.raises(InvalidArgumentError, match="expired"):
        uris.open(later.seal(*ADDRESS))


def test_different_objects_have_different_uris(uris: BlobUris) -> None:
    addresses = [("p", "r", "x"), ("p", "r", "y"), ("p", "s", "x"), ("q", "r", "x"), ("p", "rx", ""), ("pr", "", "x")]

    assert len({uris.seal(*address) for address in addresses}) == len(addresses)


def test_keys_rotate(uris: BlobUris, clock: ManualClock) -> None:
    uri = uris.seal(*ADDRESS)
    rotated = BlobUris([NEW, OLD], clock=clock)

    assert rotated.open(uri) == ADDRESS
    assert rotated.seal(*ADDRESS) == BlobUris([NEW], clock=clock).seal(*ADDRESS) != uri
    with pytest.raises(InvalidArgumentError, match="not a blob URI"):
        BlobUris([NEW], clock=clock).open(uri)


def test_a_uri_shows_nothing_and_is_safe_in_urls_and_json(uris: BlobUris) -> None:
    uri = uris.seal("project", "run", "path")

    assert all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in uri)
    raw = base64.urlsafe_b64decode(uri + "==")
    assert not any(word in raw for word in (b"project", b"run", b"path"))


def test_a_changed_uri_is_refused(uris: BlobUris) -> None:
    uri = uris.seal(*ADDRESS)
    for at in range(len(uri) - 1):  # the last character holds bits that mean nothing
        with pytest.raises(InvalidArgumentError):
            uris.open(uri[:at] + ("A" if uri[at] != "A" else "B") + uri[at + 1 :])
    with pytest.raises(InvalidArgumentError):
        uris.open(uri[:-4])


@pytest.mark.parametrize(
    "uri",
    ["", "A", "AA", "A" * 22, "A" * 1000, "../../x", "s3://bucket/key", "\u00fc", "\ud800", "gAAAAA" * 20, "AAAA\n"],
)
def test_garbage_is_refused(uris: BlobUris, uri: str) -> None:
    with pytest.raises(InvalidArgumentError, match="not a blob URI"):
        uris.open(uri)


def test_a_name_that_is_no_unicode_is_refused(uris: BlobUris) -> None:
    with pytest.raises(InvalidArgumentError, match="not valid unicode"):
        uris.seal("p", "r", "\ud800")


@pytest.mark.parametrize("keys", [[], [b"short"], [OLD, b""]])
def test_keys_must_be_there_and_long(keys: list[bytes]) -> None:
    with pytest.raises(ConfigurationError, match="16 random bytes"):
        BlobUris(keys)
