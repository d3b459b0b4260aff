"""The files of a run as one ZIP, made while it is sent, and the names that files have outside. Pure.

A client names its files as it likes; a ZIP is unpacked on somebody else's disk. So the paths of files are made harmless
here, and nowhere else: the store and the single download know any text.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import time
import zipfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote

from matyan.engines.blob.protocol import BlobInfo, BlobStream
from matyan.errors import NotFoundError

ZIP_TYPE: Final = "application/zip"
MISSING_NAME: Final = "MISSING-FILES.txt"
"""The entry that lists what could not be sent."""
PART_BYTES_MAX: Final = 240
"""Of the 255 that file systems take between two slashes, so that a number fits behind it."""
NAME_BYTES_MAX: Final = 2048
"""Of the 4,096 that Linux takes for a whole path, so that the directory to unpack into fits before it."""

_EARLIEST: Final = (1980, 1, 1, 0, 0, 0)
"""What a ZIP can say of time begins here."""
_LATEST: Final = (2107, 12, 31, 23, 59, 58)
_MODE: Final = 0o100644 << 16
_DRIVE: Final = re.compile(r"^(.):", re.DOTALL)
_NOT_QUOTABLE: Final = re.compile(r'[^\x20-\x7e]|["\\]')
_MISSING_TEXT: Final = """\
These files of the run are not in this archive, since the object store does not hold them:
their upload is still under way, failed, or they were deleted since.

"""


# ---- names


def attachment(path: str) -> str:
    """Return the Content-Disposition by which a browser saves a file under the last part of its path.

    What plain ASCII cannot say is added in the form of RFC 5987, which takes precedence where it is understood.
    """
    name = safe_name(path).rpartition("/")[2]
    plain = _NOT_QUOTABLE.sub("_", name)
    extended = "" if plain == name and "%" not in name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'attachment; filename="{plain}"{extended}'


def entry_names(paths: Sequence[str]) -> Mapping[str, str]:
    """Return path -> name in the archive, each name once and none a directory of another.

    A path that is harmless is its own name; a number goes behind any other that is taken by then.
    """
    wanted = [(path, safe_name(path)) for path in dict.fromkeys(paths)]
    taken = {parent for _, name in wanted for parent in _parents(name)}
    names: dict[str, str] = {}
    numbers: defaultdict[str, Iterator[int]] = defaultdict(_numbers)
    for path, name in sorted(wanted, key=lambda pair: pair[0] != pair[1]):
        names[path] = free = _free(name, taken, numbers[name])
        taken.add(free)
    return names


def safe_name(path: str) -> str:
    """Return a relative path without `..`, separators and drives of other systems, and parts too long for a disk."""
    text = path.encode("utf-8", "replace").decode().replace("\x00", "_").replace("\\", "_")
    parts = [_safe_part(part) for part in text.split("/") if part not in ("", ".")]
    name = _DRIVE.sub(r"\1_", "/".join(parts)) or "_"
    return name if len(name.encode()) <= NAME_BYTES_MAX else _shortened(name.replace("/", "_"))


def _safe_part(part: str) -> str:
    if part == "..":
        return "__"
    return part if len(part.encode()) <= PART_BYTES_MAX else _shortened(part)


def _shortened(part: str) -> str:
    """Return the beginning of a long part, a digest that tells it from others, and its extension."""
    extension = PurePosixPath(part).suffix
    if len(extension.encode()) > len(".safetensors"):
        extension = ""
    mark = f"~{hashlib.blake2b(part.encode(), digest_size=8).hexdigest()}{extension}".encode()
    return (part.encode()[: PART_BYTES_MAX - len(mark)].decode(errors="ignore")) + mark.decode()


def _numbers() -> Iterator[int]:
    return itertools.count(2)


def _free(name: str, taken: Collection[str], numbers: Iterator[int]) -> str:
    """Return the name, or what it is with the next of the numbers that makes it a free one."""
    path = PurePosixPath(name)
    numbered = (str(path.with_name(f"{path.stem}~{number}{path.suffix}")) for number in numbers)
    return next(candidate for candidate in itertools.chain([name], numbered) if candidate not in taken)


def _parents(name: str) -> Iterator[str]:
    parts = name.split("/")
    return ("/".join(parts[:length]) for length in range(1, len(parts)))


# ---- contents


def checked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield chunks one behind: the last leaves when the reader has vouched for all, which it does at the end.

    A client that was told the size takes a body of that size for the whole file.
    """
    held: bytes | None = None
    for chunk in chunks:
        if held is not None:
            yield held
        held = chunk
    if held is not None:
        yield held


def zip_pieces(files: Iterable[tuple[str, BlobStream | None]], names: Mapping[str, str]) -> Iterator[bytes]:
    """Yield a ZIP of files in their order, holding a chunk at a time.

    Args:
        files: (path, content or None when the store has none); each is read before the next is asked for.
        names: path -> name in the archive. Files without content are listed in an entry like MISSING_NAME.

    Raises:
        NotFoundError: no file has content; raised before any byte.
    """
    sink = _Sink()
    missing: list[str] = []
    with zipfile.ZipFile(sink, "w") as archive:
        for path, found in files:
            if found is None:
                missing.append(path)
                continue
            with archive.open(_entry(names[path], found.info), "w") as target:
                for chunk in found.chunks:
                    target.write(chunk)
                    yield sink.take()
        if not archive.namelist():
            raise NotFoundError(f"none of the {len(missing)} files of this run is in the object store")
        if missing:
            text = "".join(f"{path}\n" for path in missing)
            archive.writestr(_note_name(names), (_MISSING_TEXT + text).encode("utf-8", "replace"))
    yield sink.take()


def _note_name(names: Mapping[str, str]) -> str:
    taken = {*names.values(), *(parent for name in names.values() for parent in _parents(name))}
    return _free(MISSING_NAME, taken, _numbers())


def _entry(name: str, info: BlobInfo) -> zipfile.ZipInfo:
    moment = time.gmtime(max(0.0, info.modified_at_seconds))[:6]
    entry = zipfile.ZipInfo(name, max(_EARLIEST, min(moment, _LATEST)))
    # Level 0 of deflate costs as little as storing, and unlike a stored entry whose size follows it, programs that
    # unpack from a pipe can see where it ends. Weights do not shrink, and level 1 would cut the rate to 40 MB/s.
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry._compresslevel = 0  # type: ignore[attr-defined]  # noqa: SLF001 - public as `compress_level` from 3.13 on
    entry.external_attr = _MODE
    entry.file_size = info.size_bytes  # decides between the plain and the 64-bit form
    return entry


class _Sink:
    """Where the archive is written to: unseekable, emptied after each chunk."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        """Keep a piece."""
        self._pieces.append(piece)
        return len(piece)

    def flush(self) -> None:
        """Do nothing: `take` empties it."""

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def take(self) -> bytes:
        """Return what was written since."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken
