"""What writers sent and what was answered, line by line in files that outlive their process.

Entries of a writer: `["open", connection, frontier]` for each connection, `["send", connection, frame]` before a frame
goes out, `["reply", connection, status, error]` for each reply, `["upload", key, digest]` before the bytes of a file go
out, `["note", kind, text]` for everything else.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Journal:
    """Appends entries; each is with the operating system when `add` returns, so that SIGKILL loses none."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def add(self, *entry: object) -> None:
        """Append one entry."""
        with self._lock:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


@dataclass
class Frame:
    """One frame of one connection."""

    writer: str
    frontier: str
    """Where it was sent; empty where the journal does not tell."""
    text: str
    messages: Sequence[dict[str, Any]]
    acknowledged: bool = False
    refusal: str | None = None

    @property
    def run(self) -> str:
        """The run that it belongs to."""
        return str(self.messages[0]["run_id"])


@dataclass
class Journals:
    """Everything that the journals of a folder tell."""

    frames: list[Frame] = field(default_factory=list)
    """In the order of sending, writer by writer."""
    uploads: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Key of a file -> digests of what was sent, or was about to be."""
    notes: list[tuple[str, str, str]] = field(default_factory=list)
    """Writer, kind and text."""

    def of_runs(self) -> dict[str, list[Frame]]:
        """Return the frames of each run."""
        found: dict[str, list[Frame]] = defaultdict(list)
        for frame in self.frames:
            found[frame.run].append(frame)
        return found

    def acknowledged_runs(self) -> set[str]:
        """Return the runs of which some frame was acknowledged."""
        return {frame.run for frame in self.frames if frame.acknowledged}

    def announced(self) -> set[tuple[str, str]]:
        """Return run and path of each file that a frame announces, acknowledged or not: its upload was answered."""
        return {
            (frame.run, str(message["artifact_path"]))
            for frame in self.frames
            for message in frame.messages
            if message["type"] == "blob_ref"
        }


@dataclass
class _Connection:
    frontier: str = ""
    frames: list[Frame] = field(default_factory=list)
    """One for each time something was sent: a frame that was sent again stands here twice."""
    replies: int = 0


def digest(data: bytes) -> str:
    """Return what a journal keeps of the bytes of a file."""
    return hashlib.sha256(data).hexdigest()


def read_journals(folder: Path) -> Journals:
    """Read all journals of a folder."""
    found = Journals()
    for path in sorted(folder.glob("*.jsonl")):
        _read(path.stem, _entries(path), found)
    return found


def _entries(path: Path) -> Iterator[list[Any]]:
    """Yield the entries of a file; the last line may be torn when its writer was killed."""
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def _read(name: str, entries: Iterator[list[Any]], found: Journals) -> None:
    connections: dict[int, _Connection] = defaultdict(_Connection)
    for kind, *values in entries:
        if kind == "open":
            connections[values[0]].frontier = values[1]
        elif kind == "send":
            _note_frame(connections[values[0]], name, values[1], found)
        elif kind == "reply":
            _note_reply(connections[values[0]], values[1], values[2])
        elif kind == "upload":
            found.uploads[values[0]].add(values[1])
        else:
            found.notes.append((name, values[0], values[1]))


def _note_frame(connection: _Connection, writer: str, text: str, found: Journals) -> None:
    """Note a frame; the same bytes again without a reply in between are the same frame."""
    before = connection.frames[-1] if connection.frames else None
    if before is not None and before.text == text and not before.acknowledged:
        connection.frames.append(before)
        return
    decoded = json.loads(text)
    frame = Frame(writer, connection.frontier, text, decoded if isinstance(decoded, list) else [decoded])
    connection.frames.append(frame)
    found.frames.append(frame)


def _note_reply(connection: _Connection, status: str, error: str | None) -> None:
    """Note a reply: replies come in the order of frames, one for each time that something was sent."""
    frame = connection.frames[connection.replies]
    connection.replies += 1
    if status == "ok":
        frame.acknowledged = True
    else:
        frame.refusal = error or "no reason given"
