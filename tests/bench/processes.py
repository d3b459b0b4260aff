"""What a process and its children take: memory, processor time, open files (Linux's /proc)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc")


class Memory(NamedTuple):
    """Megabytes of a process tree."""

    resident: float
    """All that is mapped and in memory: also pages of the store's file, which the system takes back when it wants."""
    proportional: float
    """The same, what several processes share divided among them."""
    anonymous: float
    """What the processes made themselves, and nobody can take back."""

    def text(self) -> str:
        """Return the three for a table."""
        return f"{self.anonymous:.0f} / {self.proportional:.0f} / {self.resident:.0f} MB"


def memory_of(pid: int) -> Memory:
    """Return what a process and its children have in memory."""
    found = [_rollup(each) for each in tree_of(pid)]
    return Memory(*(sum(each.get(name, 0) for each in found) / 1024 for name in ("Rss", "Pss", "Anonymous")))


def cpu_seconds_of(pid: int) -> float:
    """Return the processor time that a process and its children have had so far; of threads that live."""
    return sum(_thread_seconds(task) for each in tree_of(pid) for task in _tasks(each))


def open_files_of(pid: int) -> int:
    """Return how many descriptors a process and its children have open."""
    return sum(1 for each in tree_of(pid) for _ in (_PROC / str(each) / "fd").iterdir())


def tree_of(pid: int) -> Iterator[int]:
    """Yield a process and all its descendants."""
    yield pid
    for task in _tasks(pid):
        for child in _read(task / "children").split():
            yield from tree_of(int(child))


def _tasks(pid: int) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from (_PROC / str(pid) / "task").iterdir()


def _read(path: Path) -> str:
    """Return what a file of a thread or process says; nothing when that has ended meanwhile."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _rollup(pid: int) -> dict[str, int]:
    lines = _read(_PROC / str(pid) / "smaps_rollup").splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def _thread_seconds(task: Path) -> float:
    words = _read(task / "schedstat").split()
    return int(words[0]) / 1e9 if words else 0.0
