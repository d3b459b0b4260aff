"""Names and bytes of the ZIP of a run's files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.engines.blob.protocol import BlobInfo, BlobStream
from matyan.errors import CorruptedError, NotFoundError
from matyan.runs.artifacts import (
    MISSING_NAME,
    NAME_BYTES_MAX,
    PART_BYTES_MAX,
    attachment,
    checked,
    entry_names,
    safe_name,
    zip_pieces,
)

PATHS = st.lists(
    st.one_of(
        st.text(st.characters(), max_size=40),
        st.lists(
            st.sampled_from(["..", ".", "", "a", "A", "b.txt", "C:", "\\", "\x00", "é", "x" * 300]), max_size=6
        ).map("/".join),
    ),
    max_size=12,
)


def content(*chunks: bytes, path: str = "f", modified_at_seconds: float = 1_717_243_200.0) -> BlobStream:
    info = BlobInfo(path, sum(map(len, chunks)), "application/octet-stream", modified_at_seconds)
    return BlobStream(info, iter(chunks))


def archive(files: Iterable[tuple[str, BlobStream | None]]) -> zipfile.ZipFile:
    files = list(files)
    names = entry_names([path for path, _ in files])
    return zipfile.ZipFile(io.BytesIO(b"".join(zip_pieces(files, names))))


# ---- names


@pytest.mark.parametrize(
    "path",
    ["model.pt", "ckpt/last/model.pt", "a b/ü ñ/日本 🚀.bin", ".hidden/..x/x..", "100%/#1?.txt", "a\nb", "~/x", "ab:c"],
)
def test_a_harmless_path_is_its_own_name(path: str) -> None:
    assert safe_name(path) == path


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/etc/passwd", "etc/passwd"),
        ("//server//share", "server/share"),
        ("../../x", "__/__/x"),
        ("a/../b/./c/", "a/__/b/c"),
        ("..", "__"),
        ("..\\..\\x", ".._.._x"),
        ("C:\\Windows", "C__Windows"),
        ("0:", "0_"),
        ("./c:/x", "c_/x"),
        ("a\x00b", "a_b"),
        ("\ud800", "?"),
        ("", "_"),
        ("/./", "_"),
    ],
)
def test_a_hostile_path_gets_a_harmless_name(path: str, name: str) -> None:
    assert safe_name(path) == name


def test_parts_too_long_for_a_disk_are_cut_and_stay_apart() -> None:
    names = entry_names([f"d/{'x' * 1000}{end}.txt" for end in "ab"])

    first, second = names.values()
    assert first != second
    assert all(name.startswith("d/xxx") and name.endswith(".txt") for name in (first, second))
    assert max(len(name) for name in (first, second)) == PART_BYTES_MAX + len("d/")


@given(PATHS)
def test_names_are_unique_and_stay_below_the_directory(paths: list[str]) -> None:
    names = entry_names(paths)

    assert names.keys() == set(paths)
    assert len(set(names.values())) == len(names)
    for name in names.values():
        parts = name.split("/")
        assert not {"", ".", ".."} & set(parts)
        assert "\\" not in name
        assert not PurePosixPath(name).is_absolute()
        assert not PureWindowsPath(name).drive
        assert not {"/".join(parts[:end]) for end in range(1, len(parts))} & set(names.values())
        assert max(len(part.encode()) for part in parts) <= PART_BYTES_MAX + 10
        assert len(name.encode()) <= NAME_BYTES_MAX + 10


def test_many_files_that_want_one_name_are_numbered() -> None:
    paths = [f"a{'/' * count}b" for count in range(1, 5001)]

    names = entry_names(paths)

    assert [names[path] for path in paths] == ["a/b", *(f"a/b~{number}" for number in range(2, 5001))]


def test_who_needs_no_change_keeps_its_name() -> None:
    assert entry_names(["/a.txt", "./a.txt", "a.txt"]) == {"a.txt": "a.txt", "/a.txt": "a~2.txt", "./a.txt": "a~3.txt"}


def test_a_file_that_is_a_directory_of_another_steps_aside() -> None:
    assert entry_names(["a", "a/b", "a/b/c"]) == {"a": "a~2", "a/b": "a/b~2", "a/b/c": "a/b/c"}


@pytest.mark.parametrize(
    ("path", "header"),
    [
        ("dir/model.pt", 'attachment; filename="model.pt"'),
        ("a b (1).txt", 'attachment; filename="a b (1).txt"'),
        ("é.csv", "attachment; filename=\"_.csv\"; filename*=UTF-8''%C3%A9.csv"),
        ('a"b\\c', "attachment; filename=\"a_b_c\"; filename*=UTF-8''a%22b_c"),
        ("100%.txt", "attachment; filename=\"100%.txt\"; filename*=UTF-8''100%25.txt"),
        ("a\r\nSet-Cookie: x", "attachment; filename=\"a__Set-Cookie: x\"; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20x"),
        ("..", 'attachment; filename="__"'),
        ("\ud800", 'attachment; filename="?"'),
    ],
)
def test_a_download_is_saved_under_the_last_part_of_its_path(path: str, header: str) -> None:
    assert attachment(path) == header


# ---- contents


def test_an_archive_holds_every_file_with_its_time_and_mode() -> None:
    opened = archive([("dir/a", content(b"x" * 1000, b"y")), ("empty", content()), ("日本 🚀", content(b"1"))])

    assert opened.testzip() is None
    assert {name: opened.read(name) for name in opened.namelist()} == {
        "dir/a": b"x" * 1000 + b"y",
        "empty": b"",
        "日本 🚀": b"1",
    }
    entry = opened.getinfo("dir/a")
    assert entry.date_time == (2024, 6, 1, 12, 0, 0)
    assert entry.external_attr >> 16 == 0o100644


@pytest.mark.parametrize(("seconds", "year"), [(-1.0, 1980), (0.0, 1980), (5e9, 2107)])
def test_a_time_that_a_zip_cannot_say_becomes_the_nearest(seconds: float, year: int) -> None:
    opened = archive([("a", content(b"x", modified_at_seconds=seconds))])

    assert opened.getinfo("a").date_time[0] == year


def test_what_is_missing_is_listed_in_an_entry_of_its_own() -> None:
    opened = archive([("gone/x", None), (MISSING_NAME, content(b"mine")), ("\ud800", None)])

    assert opened.read(MISSING_NAME) == b"mine"
    assert opened.read("MISSING-FILES~2.txt").decode().splitlines()[-2:] == ["gone/x", "?"]


def test_the_list_of_what_is_missing_is_no_directory_of_files() -> None:
    opened = archive([(f"{MISSING_NAME}/x", content(b"mine")), ("gone", None)])

    assert opened.namelist() == [f"{MISSING_NAME}/x", "MISSING-FILES~2.txt"]


def test_an_archive_without_any_content_is_not_begun() -> None:
    with pytest.raises(NotFoundError, match="none of the 2 files"):
        archive([("a", None), ("b", None)])


def test_an_archive_is_made_chunk_by_chunk() -> None:
    """No chunk is read before the one before it has left."""
    read: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number in range(5):
            read.append(number)
            yield bytes([number]) * 1000

    info = BlobInfo("a", 5000, "", 0.0)
    pieces = zip_pieces([("a", BlobStream(info, chunks()))], {"a": "a"})

    for expected in range(5):
        piece = next(pieces)
        assert len(piece) < 1200
        assert read == list(range(expected + 1))


def test_an_archive_of_a_damaged_file_breaks_off() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x"
        raise CorruptedError("damaged")

    with pytest.raises(CorruptedError):
        list(zip_pieces([("a", BlobStream(BlobInfo("a", 1, "", 0.0), chunks()))], {"a": "a"}))


def test_an_archive_of_large_files_has_64_bit_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)  # instead of 2 GiB

    opened = archive([("large", content(b"x" * 900, b"y" * 900)), ("after", content(b"z"))])

    assert opened.getinfo("large").extract_version == 45
    assert opened.read("large") == b"x" * 900 + b"y" * 900
    assert opened.read("after") == b"z"


# ---- one file


@given(st.lists(st.binary()))
def test_checking_changes_nothing(chunks: list[bytes]) -> None:
    assert list(checked(chunks)) == chunks


def test_the_last_chunk_of_a_damaged_file_is_held_back() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"1"
        yield b"2"
        raise CorruptedError("damaged")

    sent = checked(chunks())

    assert next(sent) == b"1"
    with pytest.raises(CorruptedError):
        next(sent)
