"""Headers of objects, and uploads that are read as they come."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.engines.blob import s3_objects
from matyan.engines.blob.protocol import BlobInfo
from matyan.engines.blob.s3_objects import ContentReader, crc_of, header_type, info_of, metadata_of
from matyan.errors import TooLargeError

LAST_MODIFIED = "Sun, 06 Nov 1994 08:49:37 GMT"


@given(st.text(st.characters(exclude_categories=()), max_size=80), st.floats(0, 1e11), st.integers(0, 2**32 - 1))
def test_what_is_known_of_an_object_comes_back_from_headers_that_can_be_sent(
    content_type: str, modified_at_seconds: float, crc: int
) -> None:
    headers = {
        "content-length": "7",
        "content-type": header_type(content_type),
        "last-modified": LAST_MODIFIED,
        **{name: str(text) for name, text in metadata_of(content_type, modified_at_seconds, crc).items()},
    }

    assert info_of("k", headers) == BlobInfo("k", 7, content_type, modified_at_seconds)
    assert crc_of(headers) == crc
    assert all(text.isascii() and text.isprintable() and text == text.strip() for text in headers.values())


def test_an_upload_of_a_client_is_known_by_what_the_store_says() -> None:
    headers = {"content-length": "7", "content-type": "image/png", "last-modified": LAST_MODIFIED}

    assert info_of("k", headers) == BlobInfo("k", 7, "image/png", 784111777.0)
    assert crc_of(headers) is None


@given(st.lists(st.binary(max_size=20), max_size=10), st.integers(1, 30))
def test_content_is_read_in_pieces_of_any_size(chunks: list[bytes], size: int) -> None:
    reader = ContentReader(chunks)
    whole = b"".join(chunks)

    assert reader.is_within(size) == (len(whole) <= size)
    pieces = list(iter(lambda: reader.read(size), b""))
    assert b"".join(pieces) == whole
    assert all(len(piece) == size for piece in pieces[:-1])
    assert reader.size_bytes == len(whole)


def test_no_more_is_taken_than_is_asked_for() -> None:
    taken: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number in range(10):
            taken.append(number)
            yield b"four"

    reader = ContentReader(chunks())

    assert not reader.is_within(7)
    assert taken == [0, 1]
    assert reader.read(5) == b"fourf"
    assert taken == [0, 1]


def test_the_senders_error_is_raised_and_kept() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"part"
        raise ConnectionResetError

    reader = ContentReader(chunks())
    with pytest.raises(ConnectionResetError):
        reader.read(5)

    assert isinstance(reader.error, ConnectionResetError)


def test_more_than_all_parts_hold_is_refused() -> None:
    reader = ContentReader(iter([b"x"]))
    reader.size_bytes = s3_objects.PART_BYTES * s3_objects.PARTS_MAX

    with pytest.raises(TooLargeError, match="the blob has more than 83886080000 bytes"):
        reader.read(1)
