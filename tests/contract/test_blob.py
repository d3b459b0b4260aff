"""What every blob engine promises: a test per sentence of matyan/engines/blob/protocol.py."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.clock import ManualClock
from matyan.engines.blob.filesystem import open_filesystem_blobs
from matyan.engines.blob.protocol import BlobEngine, BlobInfo
from tests.support.s3 import S3Server

pytestmark = pytest.mark.one_python

CLOCK = ManualClock()
CHUNK_BYTES_MAX = 1024 * 1024

ODD_KEYS = [
    "default/run/..",
    "default/run/../../../../etc/passwd",
    "default/../x",
    "../../x",
    "/absolute",
    "//",
    "default//x",
    "default/run/",
    "default/run",
    "default",
    ".",
    "default/run/%2e%2e%2f?a=b#c&d",
    "default/run/a b\tc\nd\\e\x00f",
    "default/run/\N{GRINNING FACE}/\u00fc/u\u0308",
    "default/run/" + "n" * 4096,
    "default/run/" + "d/" * 500,
    "CON",
    "default/run/A",
    "default/run/a",
]


RCLONE_DIFFERS = {
    "test_readers_see_the_old_or_the_new_never_a_part": (
        "rclone replaces an object step by step: one answer may have the length or the metadata of the old and bytes "
        "of the new; S3 and MinIO replace it at once"
    ),
    "test_puts_beside_deletes_of_the_same_run_arrive": (
        "rclone deletes a directory with its last object, and with it what is being put there; S3 has no directories"
    ),
}
"""Where the store of these tests is not what S3 promises. Skipped, since the outcome is a matter of luck."""


@pytest.fixture(
    params=["filesystem", pytest.param("s3", marks=pytest.mark.s3), pytest.param("s3-prefix", marks=pytest.mark.s3)]
)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobEngine]:
    blobs = _open(request, tmp_path)
    yield blobs
    blobs.close()


def _open(request: pytest.FixtureRequest, tmp_path: Path) -> BlobEngine:
    if request.param == "filesystem":
        return open_filesystem_blobs(tmp_path / "blobs", keys=[bytes(range(32))], clock=CLOCK)
    if reason := RCLONE_DIFFERS.get(request.node.originalname):
        pytest.skip(reason)
    server: S3Server = request.getfixturevalue("s3_server")
    bucket = f"contract-{uuid.uuid4()}"
    return server.open(bucket if request.param == "s3" else f"{bucket}/team/a", clock=CLOCK)


def put(blobs: BlobEngine, *keys: str) -> None:
    for key in keys:
        blobs.put(key, [key.encode()], content_type="text/plain")


def keys(blobs: BlobEngine, prefix: str = "") -> list[str]:
    return [info.key for info in blobs.list(prefix)]


# ---- storing and reading


def test_what_was_put_is_read_with_what_is_known_of_it(blobs: BlobEngine) -> None:
    stored = blobs.put("p/r/a.png", [b"one", b"", b"two"], content_type="image/png; x=\u00fc")

    assert stored == BlobInfo("p/r/a.png", 6, "image/png; x=\u00fc", CLOCK.now_seconds())
    assert blobs.get("p/r/a.png") == b"onetwo"
    assert blobs.info("p/r/a.png") == stored
    stream = blobs.open("p/r/a.png")
    assert stream is not None
    assert (stream.info, b"".join(stream.chunks)) == (stored, b"onetwo")
    assert list(blobs.list("p/r/")) == [stored]


def test_a_missing_object_is_none(blobs: BlobEngine) -> None:
    assert (blobs.get("p/r/x"), blobs.open("p/r/x"), blobs.info("p/r/x")) == (None, None, None)
    assert keys(blobs, "p/r/") == []


@pytest.mark.parametrize("chunks", [[], [b""], iter([b"", b""])])
def test_an_empty_object_is_an_object(blobs: BlobEngine, chunks: Iterator[bytes]) -> None:
    blobs.put("p/r/empty", chunks, content_type="")

    assert blobs.get("p/r/empty") == b""
    assert keys(blobs, "p/r/") == ["p/r/empty"]


def test_a_large_object_is_taken_and_given_in_bounded_chunks(blobs: BlobEngine) -> None:
    pattern = os.urandom(700_001)
    taken: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number in range(6):
            taken.append(number)
            yield pattern

    blobs.put("p/r/large", chunks(), content_type="a/b")
    stream = blobs.open("p/r/large")

    assert stream is not None
    found = list(stream.chunks)
    assert taken == list(range(6))
    assert b"".join(found) == pattern * 6
    assert 0 < max(map(len, found)) <= CHUNK_BYTES_MAX


def test_put_replaces_content_and_type(blobs: BlobEngine) -> None:
    blobs.put("p/r/a", [b"a longer first content"], content_type="text/plain")
    blobs.put("p/r/a", [b"second"], content_type="image/png")

    assert blobs.get("p/r/a") == b"second"
    assert [(info.size_bytes, info.content_type) for info in blobs.list("p/")] == [(6, "image/png")]


def test_an_upload_that_breaks_off_changes_nothing(blobs: BlobEngine) -> None:
    put(blobs, "p/r/a")

    def broken() -> Iterator[bytes]:
        yield b"part"
        raise ConnectionResetError("the client went away")

    for key in ("p/r/a", "p/r/new"):
        with pytest.raises(ConnectionResetError):
            blobs.put(key, broken(), content_type="a/b")

    assert blobs.get("p/r/a") == b"p/r/a"
    assert keys(blobs) == ["p/r/a"]


def test_a_reader_of_a_replaced_or_deleted_object_finishes_the_old_one(blobs: BlobEngine) -> None:
    old = b"old" * 500_000
    blobs.put("p/r/a", [old], content_type="a/b")
    first, second = blobs.open("p/r/a"), blobs.open("p/r/a")
    assert first is not None
    assert second is not None
    head = next(first.chunks)
    blobs.put("p/r/a", [b"new"], content_type="a/b")
    assert head + b"".join(first.chunks) == old
    blobs.delete("p/r/a")

    assert b"".join(second.chunks) == old


def test_readers_see_the_old_or_the_new_never_a_part(blobs: BlobEngine) -> None:
    versions = [bytes([number]) * (300_000 + number) for number in range(4)]
    blobs.put("p/r/a", [versions[0]], content_type="a/b")
    done = threading.Event()
    errors: list[object] = []

    def read() -> None:
        while not done.is_set():
            found = blobs.get("p/r/a")
            if found not in versions:
                errors.append(found and len(found))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(40):
        content = versions[turn % 4]
        blobs.put("p/r/a", [content[:1000], content[1000:]], content_type="a/b")
    done.set()
    for reader in readers:
        reader.join()

    assert errors == []


def test_a_stream_that_is_not_read_costs_nothing(blobs: BlobEngine) -> None:
    put(blobs, "p/r/a")
    for _ in range(2000):  # more than a process may have open
        assert blobs.open("p/r/a") is not None

    assert blobs.get("p/r/a") == b"p/r/a"


# ---- keys


@pytest.mark.parametrize("key", ODD_KEYS, ids=range(len(ODD_KEYS)))
def test_a_key_may_hold_anything(blobs: BlobEngine, tmp_path: Path, key: str) -> None:
    before = {path for path in tmp_path.parent.rglob("*") if not path.is_relative_to(tmp_path / "blobs")}
    blobs.put(key, [b"content"], content_type="a/b")

    assert blobs.get(key) == b"content"
    assert keys(blobs) == [key]
    assert keys(blobs, key) == [key]
    blobs.delete(key)
    assert (blobs.get(key), keys(blobs)) == (None, [])
    assert {path for path in tmp_path.parent.rglob("*") if not path.is_relative_to(tmp_path / "blobs")} == before


def test_odd_keys_are_all_different(blobs: BlobEngine) -> None:
    put(blobs, *ODD_KEYS)

    assert keys(blobs) == sorted(ODD_KEYS)
    assert [blobs.get(key) for key in ODD_KEYS] == [key.encode() for key in ODD_KEYS]


# ---- listing and deleting

TREE = [
    "a",
    "a/b",
    "a/b/",
    "a/b/1",
    "a/b/10",
    "a/b/2",
    "a/b/c/d",
    "a/bc/1",
    "a/c/1",
    "a-/b/1",
    "ab/c/1",
    "b/a/b/1",
    "\u00fc/x/1",
]


@pytest.mark.parametrize(
    "prefix",
    ["", "a", "a/", "a/b", "a/b/", "a/b/1", "a/b/c", "a/b/c/", "a/bc", "a/bc/", "a/x/", "b/a/b", "x", "/", "\u00fc"],
)
def test_list_and_delete_prefix_take_exactly_what_begins_with_it(blobs: BlobEngine, prefix: str) -> None:
    put(blobs, *TREE)
    meant = sorted(key for key in TREE if key.startswith(prefix))

    assert keys(blobs, prefix) == meant
    assert blobs.delete_prefix(prefix) == len(meant)
    assert keys(blobs) == sorted(set(TREE) - set(meant))
    assert blobs.delete_prefix(prefix) == 0


def test_delete_prefix_goes_on_only_while_it_may(blobs: BlobEngine) -> None:
    put(blobs, *TREE)
    answers = iter([False])

    deleted = blobs.delete_prefix("a/", may_go_on=lambda: next(answers))

    assert deleted == 0
    assert keys(blobs) == sorted(TREE)
    assert blobs.delete_prefix("a/", may_go_on=lambda: True) == len([key for key in TREE if key.startswith("a/")])


@pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "a/b/", "a/b/1", "x"])
def test_entries_are_what_begins_so_and_can_be_read_on_from_each_of_them(blobs: BlobEngine, prefix: str) -> None:
    put(blobs, *TREE)

    found = list(blobs.entries(prefix))

    assert sorted((entry.key, entry.size_bytes) for entry in found) == [
        (key, len(key.encode())) for key in sorted(TREE) if key.startswith(prefix)
    ]
    for position, entry in enumerate(found):
        assert list(blobs.entries(prefix, after=entry.key)) == found[position + 1 :]


def test_entries_of_odd_and_of_long_keys_can_be_read_on_from_each_of_them(blobs: BlobEngine) -> None:
    stored = {*ODD_KEYS, *(f"default/run/{'n' * 1000}{number}" for number in range(5))}
    put(blobs, *stored)

    found = [entry.key for entry in blobs.entries("")]

    assert sorted(found) == sorted(stored)
    for position, key in enumerate(found):
        assert [entry.key for entry in blobs.entries("", after=key)] == found[position + 1 :]


def test_entries_are_read_on_behind_one_that_is_gone(blobs: BlobEngine) -> None:
    put(blobs, *TREE)
    found = list(blobs.entries(""))
    middle = found[len(found) // 2]

    blobs.delete(middle.key)

    assert list(blobs.entries("", after=middle.key)) == found[len(found) // 2 + 1 :]


def test_the_entries_of_a_run_stand_together(blobs: BlobEngine) -> None:
    put(blobs, *(f"p/{run}/{name}" for run in range(20) for name in "ab"))

    runs = [entry.key.split("/")[1] for entry in blobs.entries("p/")]

    assert runs[::2] == runs[1::2]
    assert len(set(runs)) == 20


def test_an_entry_says_when_its_object_was_stored(blobs: BlobEngine) -> None:
    put(blobs, "p/r/a")

    (entry,) = blobs.entries("p/")

    assert min(abs(entry.modified_at_seconds - now) for now in (CLOCK.now_seconds(), time.time())) < 60


def test_delete_takes_one_object_and_a_missing_one_is_fine(blobs: BlobEngine) -> None:
    put(blobs, "p/r/a", "p/r/a/b", "p/r/ab")
    blobs.delete("p/r/a")
    blobs.delete("p/r/a")
    blobs.delete("q/none/x")

    assert keys(blobs) == ["p/r/a/b", "p/r/ab"]


def test_what_was_deleted_can_be_put_again(blobs: BlobEngine) -> None:
    put(blobs, "p/r/a")
    blobs.delete_prefix("p/r/")
    put(blobs, "p/r/a")

    assert keys(blobs) == ["p/r/a"]


def test_puts_beside_deletes_of_the_same_run_arrive(blobs: BlobEngine) -> None:
    done = threading.Event()

    def delete() -> None:
        while not done.is_set():
            blobs.delete_prefix("p/r/other")
            blobs.delete("p/r/gone")

    deleter = threading.Thread(target=delete)
    deleter.start()
    try:
        for number in range(60):
            put(blobs, "p/r/gone", f"p/r/{number}")
            assert blobs.get(f"p/r/{number}") is not None
            blobs.delete(f"p/r/{number}")
    finally:
        done.set()
        deleter.join()


# ---- uploads


def test_presign_put_gives_a_url_and_headers(blobs: BlobEngine) -> None:
    url, headers = blobs.presign_put(
        "p/r/../%?\u00fc", content_type="image/png", expires_seconds=60, base_url="http://host:1/p/x"
    )

    assert url.isascii()
    assert url.startswith("http")
    address = url.partition("?X-Amz-")[0]  # what S3 signs stands after a question mark
    assert not {"..", "?", "#", " "} & {address[i : i + n] for n in (1, 2) for i in range(len(address))}
    assert all(isinstance(text, str) for item in headers.items() for text in item)
