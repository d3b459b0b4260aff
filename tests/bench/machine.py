"""Facts about the machine that every figure depends on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from pathlib import Path
from typing import Final

_READ_BYTES: Final = 8 * 1024 * 1024


def fsync_seconds(folder: Path, count: int = 50) -> float:
    """Return the median time that the disk under `folder` needs to make a 4 kB append durable."""
    durations = []
    path = folder / "fsync-probe"
    with path.open("wb", buffering=0) as file:
        for _ in range(count):
            file.write(bytes(4096))
            begin = time.perf_counter()
            os.fsync(file.fileno())
            durations.append(time.perf_counter() - begin)
    path.unlink()
    return statistics.median(durations)


def disk_bytes(folder: Path) -> int:
    """Return the bytes that the files under a folder take up on the disk; holes of sparse files take none."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def read_file(path: Path) -> None:
    """Read a file, so that the system has it in memory."""
    with path.open("rb", buffering=0) as file:
        while file.read(_READ_BYTES):
            pass


def forget_file(path: Path) -> None:
    """Let the system forget what it has in memory of a file (Linux); what nobody maps has to be read again."""
    with path.open("rb") as file:
        os.fsync(file.fileno())  # what is not written yet stays
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def description() -> str:
    """Return the processor count, system and Python in one line."""
    return f"{os.cpu_count()} processors, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
