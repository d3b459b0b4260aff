"""Raw WebSocket writers, as threads of one process: each writes one run after the other until stdin ends.

    python -m tests.torture.raw_writers SEED JOURNALS WRITERS LIFE_SECONDS FRONTIER...

A writer behaves as a sane SDK does: it waits for the reply of each frame, connects again when a connection breaks, goes
on with the next frame, and never sends a frame again. Writers with even numbers stay with one frontier, the others take
any.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
from websockets.exceptions import WebSocketException

from tests.support.writer import RawWriter, upload
from tests.torture import contents
from tests.torture.journal import Journal, digest

PAUSE_SECONDS: Final = (0.02, 0.25)
RETRY_SECONDS: Final = (0.1, 0.8)
STOP_SECONDS_MAX: Final = 60.0
_BROKEN: Final = (WebSocketException, OSError, TimeoutError)


class Writer:
    """One writer of many runs, one after the other."""

    def __init__(
        self, seed: int, number: int, frontiers: Sequence[str], journal: Journal, stop: threading.Event
    ) -> None:
        self._name = f"raw-{seed}-{number}"
        self._number = number
        self._frontiers = frontiers
        self._journal = journal
        self._stop = stop
        self._noise = random.Random(self._name)
        self._connections = 0

    def write(self, life_seconds: float) -> None:
        """Write runs until told to stop."""
        life = 0
        while not self._stop.is_set():
            self._live(f"{self._name}-{life}", life_seconds * self._noise.uniform(0.5, 1.5))
            life += 1

    def _live(self, run: str, seconds: float) -> None:
        """Write one run from its beginning to its end, over as many connections as it takes."""
        ends, number, has_ended = time.monotonic() + seconds, 0, False
        while not has_ended:
            frontier = self._choose()
            try:
                with RawWriter(frontier.replace("http", "ws", 1), run) as socket:
                    self._connections += 1
                    self._journal.add("open", self._connections, frontier)
                    while not has_ended:
                        has_ended = self._stop.is_set() or time.monotonic() > ends
                        current, number = number, number + 1
                        self._send(socket, frontier, run, current, is_last=has_ended)
                        self._stop.wait(self._noise.uniform(*PAUSE_SECONDS))
            except _BROKEN as error:
                self._journal.add("note", "broken", f"{run}: {type(error).__name__}: {error}"[:200])
                time.sleep(self._noise.uniform(*RETRY_SECONDS))

    def _send(self, socket: RawWriter, frontier: str, run: str, number: int, *, is_last: bool) -> None:
        messages = contents.ending(run, number) if is_last else contents.frame_messages(run, number)
        path = contents.file_path(number)
        if path is not None and not is_last and self._upload(frontier, run, path):
            messages.append(contents.announcement(run, path))
        self._exchange(socket, messages)

    def _exchange(self, socket: RawWriter, messages: Sequence[Mapping[str, Any]]) -> None:
        text = json.dumps(messages)
        self._journal.add("send", self._connections, text)
        reply = socket.send_text(text)
        self._journal.add("reply", self._connections, reply["status"], reply.get("error"))

    def _upload(self, frontier: str, run: str, path: str) -> bool:
        """Upload the file of a frame; tell whether that went well, so that it may be announced."""
        data = contents.file_bytes(run, path)
        self._journal.add("upload", f"{run}/{path}", digest(data))
        try:
            upload(frontier, run, path, data, "image/png")
        except httpx.HTTPError as error:
            self._journal.add("note", "upload failed", f"{run}/{path}: {error!r}"[:200])
            return False
        return True

    def _choose(self) -> str:
        if self._number % 2 == 0:
            return self._frontiers[self._number // 2 % len(self._frontiers)]
        return self._noise.choice(self._frontiers)


def main(seed: int, folder: Path, writers: int, life_seconds: float, frontiers: Sequence[str]) -> None:
    """Write until stdin ends, then finish the runs at hand."""
    stop = threading.Event()
    threads = []
    for number in range(writers):
        writer = Writer(seed, number, frontiers, Journal(folder / f"raw-{number}.jsonl"), stop)
        threads.append(threading.Thread(target=writer.write, args=(life_seconds,), daemon=True))
        threads[-1].start()
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdin.read()
    stop.set()
    deadline = time.monotonic() + STOP_SECONDS_MAX
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    sys.exit(1 if any(thread.is_alive() for thread in threads) else 0)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5:])
