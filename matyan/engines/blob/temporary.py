"""Files on their way into the store: each locked by its writer, so that what a crash left can be told and removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def temporary_file(directory: Path) -> Iterator[tuple[int, Path]]:
    """Make an empty file; it is gone at the end unless it was renamed.

    Raises:
        OSError: it cannot be made.
    """
    path = directory / uuid.uuid4().hex
    fd = _create_locked(path)
    try:
        yield fd, path
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


def remove_leftovers(directory: Path) -> int:
    """Delete the files whose writers are dead; return how many."""
    removed = 0
    for path in directory.iterdir():
        try:
            fd = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A file renamed since its name was read is no leftover; its old name is gone, so nothing is deleted.
            path.unlink(missing_ok=True)
            removed += 1
        except BlockingIOError:
            continue
        finally:
            os.close(fd)
    return removed


def _create_locked(path: Path) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)  # another process, opening the store, took it for a leftover before it was locked
