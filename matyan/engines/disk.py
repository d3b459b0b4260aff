"""What embedded engines ask of a file system: whole writes, real syncs, one wording for a disk that is full."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from matyan.errors import UnavailableError

_FULL: Final = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the limit on file sizes is reached",
}


class Disk:
    """The calls whose failure the engines must survive; tests hand in one that fails on demand."""

    def write(self, fd: int, data: bytes, position: int) -> None:
        """Write all of `data` at `position`.

        Raises:
            OSError: some of it may have been written.
        """
        rest = memoryview(data)
        while rest:
            # A disk that fills up makes a short write first and says why only at the next one.
            written = os.pwrite(fd, rest, position)
            rest = rest[written:]
            position += written

    def sync(self, fd: int) -> None:
        """Return when the file's content and size survive the loss of power."""
        if sys.platform == "darwin":
            import fcntl  # noqa: PLC0415 (F_FULLFSYNC exists on macOS only)

            # macOS's fsync leaves data in the drive's cache; this flushes that too (man 2 fsync).
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(fd)

    def truncate(self, fd: int, size_bytes: int) -> None:
        """Cut the file."""
        os.ftruncate(fd, size_bytes)

    def sync_directory(self, path: Path) -> None:
        """Return when the names made, renamed and deleted in a directory survive the loss of power."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def make_directory(disk: Disk, path: Path) -> None:
    """Create a directory and its missing parents, durably; fine when it exists."""
    if path.is_dir():
        return
    make_directory(disk, path.parent)
    path.mkdir(exist_ok=True)
    try:
        disk.sync_directory(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            path.rmdir()  # or the next caller would take it for durable
        raise


def unavailable(error: OSError, what: str, path: Path) -> UnavailableError:
    """Say for a user what failed, where, and what to do."""
    if error.errno in _FULL:
        return UnavailableError(
            f"{what} cannot write under {path}: {_FULL[error.errno]}; free space there and try again"
        )
    reason = os.strerror(error.errno) if error.errno else str(error)
    return UnavailableError(f"{what} fails under {path}: {reason.lower()}; check that disk")


@contextlib.contextmanager
def reporting(what: str, path: Path) -> Iterator[None]:
    """Turn an OSError inside into the UnavailableError that users see."""
    try:
        yield
    except OSError as error:
        raise unavailable(error, what, path) from error


def replace_file(disk: Disk, path: Path, data: bytes) -> None:
    """Write a small file so that whoever opens it, now or after a loss of power, finds the old content or the new.

    Raises:
        OSError: nothing changed, except that `<name>.new` may lie beside it.
    """
    fresh = path.with_name(f"{path.name}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        disk.write(fd, data, 0)
        disk.sync(fd)
    finally:
        os.close(fd)
    fresh.replace(path)
    disk.sync_directory(path.parent)
