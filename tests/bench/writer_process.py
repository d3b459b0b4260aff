"""The raw writers of `tests.bench.writers`, seen from the process that measures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]


class WriterProcess:
    """The raw writers of `tests.bench.writers`, encoded and connected, waiting for the word."""

    def __init__(
        self,
        port: int,
        prefix: str,
        connections: int,
        frames: int,
        points_per_second: float = 0,
        *,
        seconds: float = 0,
    ) -> None:
        """Start them; with `seconds` frames are made on the way, and no more are sent after that time."""
        arguments = map(str, (port, prefix, connections, frames, points_per_second, seconds))
        command = [sys.executable, "-m", "tests.bench.writers", *arguments]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.runs = [f"{prefix}-{number}" for number in range(connections)]
        self.frames = frames
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == "ready"

    def begin(self) -> None:
        """Let them write."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")

    def is_busy(self) -> bool:
        """Tell whether they still write."""
        return self._process.poll() is None

    def wait(self) -> dict[str, Any]:
        """Wait for the last reply and return the report: points, seconds."""
        assert self._process.stdout is not None
        with self._process:  # closes the pipes
            report: dict[str, Any] = json.loads(self._process.stdout.readline())
        return report
