"""A process of the product that is killed, stopped, frozen and started again, whatever state the others are in."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx

from tests.support import loopback
from tests.support.scripts import ROOT
from tests.support.server import MATYAN, free_port

START_SECONDS_MAX: Final = 90.0
STOP_SECONDS_MAX: Final = 45.0


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without settings of the one who runs this, and without proxies on the way to loopback."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MATYAN_") and "proxy" not in name.lower()
    }
    return {**own, "PYTHONUNBUFFERED": "1", **extra}


class Process:
    """One command of matyan on a port of its own, over many lives."""

    def __init__(
        self, name: str, arguments: Sequence[str], folder: Path, settings: Mapping[str, str], prefix: Sequence[str] = ()
    ) -> None:
        """Make it; it does not run yet.

        Args:
            name: of its log file, and in schedules.
            arguments: of `matyan`, without --port.
            folder: where its log goes.
            settings: its environment variables.
            prefix: a command that stands in for `matyan`.
        """
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = folder / f"{name}.log"
        self._command = [*(prefix or [str(MATYAN)]), *arguments, "--port", str(self.port)]
        self._settings = dict(settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()
        self.deaths: list[int] = []
        """Exit codes of lives that nobody ended, and of ends that were no clean ones."""

    @property
    def is_running(self) -> bool:
        """Whether it has a life."""
        return self._process is not None

    def start(self) -> None:
        """Begin a life, unless it has one; does not wait until it is ready."""
        with self._lock:
            if self._process is None:
                self._start()

    def _start(self) -> None:
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(self._settings),
                start_new_session=True,
            )

    def tend(self) -> None:
        """Start it again when it ended by itself, as a service manager would."""
        if not self._lock.acquire(blocking=False):
            return  # it is being ended right now
        try:
            if self._process is not None and (code := self._process.poll()) is not None:
                self.deaths.append(code)
                self._process = None
                self.start()
        finally:
            self._lock.release()

    def kill(self) -> None:
        """End it as a power cut would."""
        with self._lock:
            self._kill()

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it as a service manager does."""
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(STOP_SECONDS_MAX)
            self._process = None
            if code != 0:
                self.deaths.append(code)
            return
        self.deaths.append(-signal.SIGKILL)
        self._kill()

    def freeze(self) -> None:
        """Make it stand still, its connections open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def is_ready(self) -> bool:
        """Ask it."""
        try:
            return loopback.get(f"{self.url}/health/ready/", timeout=2).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def wait_until_ready(self) -> None:
        """Wait for that.

        Raises:
            TimeoutError: it did not become ready; says where its log is.
        """
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self.is_ready():
            self.tend()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} is not ready after {START_SECONDS_MAX:.0f} s: see {self.log_path}")
            time.sleep(0.1)

    def samples(self, name: str) -> dict[str, float]:
        """Return a metric's values by name and labels, as they are exposed; none while nothing was observed."""
        text = loopback.get(f"{self.url}/metrics/", timeout=10).raise_for_status().text
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{")))
        return {labelled: float(value) for labelled, value in lines}

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of the tests."""
    return [sys.executable, "-m", module, *arguments]
