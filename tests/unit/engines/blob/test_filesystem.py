"""Blobs on the file system beyond the port's contract: full disks, damage, leftovers, the layout."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.engines.blob.filesystem import FilesystemBlobs, open_filesystem_blobs
from matyan.engines.blob.layout import directories_under, group_of, object_path
from matyan.engines.blob.objects import KEY_BYTES_MAX
from matyan.errors import CorruptedError, InvalidArgumentError, UnavailableError
from tests.support.logs import FailingDisk

SECRET = bytes(range(32))


@pytest.fixture
def disk() -> FailingDisk:
    return FailingDisk()


@pytest.fixture
def blobs(tmp_path: Path, disk: FailingDisk) -> FilesystemBlobs:
    return open_filesystem_blobs(tmp_path, keys=[SECRET], disk=disk)


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("method", ["write", "sync", "sync_directory"])
def test_a_full_disk_refuses_a_put_and_leaves_nothing_behind(
    blobs: FilesystemBlobs, disk: FailingDisk, tmp_path: Path, method: str
) -> None:
    disk.fail(method, errno.ENOSPC)
    with pytest.raises(UnavailableError, match=r"the blob store cannot write under .*: the disk is full; free space"):
        blobs.put("p/r/a", [b"x" * 1000], content_type="a/b")

    assert files(tmp_path) == []
    assert blobs.put("p/r/a", [b"x"], content_type="a/b").size_bytes == 1


def test_a_full_disk_keeps_the_object_that_was_to_be_replaced(blobs: FilesystemBlobs, disk: FailingDisk) -> None:
    blobs.put("p/r/a", [b"old"], content_type="a/b")
    disk.fail("sync", errno.ENOSPC)
    with pytest.raises(UnavailableError):
        blobs.put("p/r/a", [b"new"], content_type="a/b")

    assert blobs.get("p/r/a") == b"old"


def test_files_that_a_crash_left_are_removed_at_the_next_opening(tmp_path: Path) -> None:
    open_filesystem_blobs(tmp_path, keys=[SECRET]).close()
    (tmp_path / "tmp" / "left").write_bytes(b"half")

    open_filesystem_blobs(tmp_path, keys=[SECRET])

    assert files(tmp_path) == []


def test_an_upload_under_way_survives_the_opening_by_another_process(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"one"
        open_filesystem_blobs(tmp_path, keys=[SECRET])
        yield b"two"

    blobs.put("p/r/a", chunks(), content_type="a/b")

    assert blobs.get("p/r/a") == b"onetwo"


def test_deleting_a_run_leaves_no_file_and_no_directory(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    for key in ("p/r/a", "p/r/b", "p/s/c"):
        blobs.put(key, [b"x"], content_type="a/b")
    blobs.delete_prefix("p/r/")
    blobs.delete("p/s/c")

    assert list((tmp_path / "objects").iterdir()) == []


def test_a_damaged_object_is_found_when_it_is_read(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    blobs.put("p/r/a", [b"content"], content_type="a/b")
    path = object_path(tmp_path / "objects", "p/r/a")
    whole = path.read_bytes()

    for damaged in (whole[:-1], whole + b"x", b"X" + whole[1:], whole[:-1] + b"X", b"", whole[:20]):
        path.write_bytes(damaged)
        with pytest.raises(CorruptedError, match="is damaged"):
            blobs.get("p/r/a")
    assert blobs.delete_prefix("p/r/") == 1  # deleting needs no whole file


def test_a_key_has_a_bound(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=f"limit {KEY_BYTES_MAX}"):
        blobs.put("k" * (KEY_BYTES_MAX + 1), [b"x"], content_type="a/b")

    assert files(tmp_path) == []


def test_a_lone_surrogate_is_a_character_like_others(blobs: FilesystemBlobs) -> None:
    blobs.put("p/r/\ud800", [b"x"], content_type="\udfff")

    assert [(info.key, info.content_type) for info in blobs.list("p/r/")] == [("p/r/\ud800", "\udfff")]


def test_a_run_is_found_without_looking_at_other_runs(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    for number in range(5):
        blobs.put(f"p/run{number}/a", [b"x"], content_type="a/b")
        blobs.put(f"q/run{number}/a", [b"x"], content_type="a/b")

    objects = tmp_path / "objects"
    assert [len(directories_under(objects, prefix)) for prefix in ("p/run1/", "p/run9/", "p/", "")] == [1, 0, 5, 10]


@pytest.mark.parametrize(
    ("key", "group"), [("", ""), ("a", "a"), ("a/b", "a/b"), ("a/b/", "a/b/"), ("a/b/c/d", "a/b/"), ("//x", "//")]
)
def test_the_group_of_a_key(key: str, group: str) -> None:
    assert group_of(key) == group


def test_a_closed_stream_ends_and_frees_its_descriptor(blobs: FilesystemBlobs) -> None:
    blobs.put("p/r/a", [b"x" * 1_000_000], content_type="a/b")
    before = len(list(Path("/dev/fd").iterdir()))
    stream = blobs.open("p/r/a")
    assert stream is not None
    next(stream.chunks)
    stream.chunks.close()  # type: ignore[attr-defined]  # this engine's iterator has it, the port's need not

    assert len(list(Path("/dev/fd").iterdir())) == before
