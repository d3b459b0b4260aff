"""Start, watch, stop and kill a real `matyan up`."""

from __future__ import annotations

import io
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
import pytest

from matyan.cli import main
from tests.support import loopback
from tests.support.stores import store_environment

MATYAN: Final = Path(sys.executable).with_name("matyan")
START_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 20.0
PORTS: Final = (10_000, 20_000)


class ServerError(Exception):
    """The process did not do what was waited for; the message holds its log."""


def free_port() -> int:
    """Return a port p of 127.0.0.1 with p and p + 1 unused at this moment.

    It lies below the ports that the system gives to clients, one of which would take it while a server is down.
    """
    while True:
        port = random.SystemRandom().randrange(*PORTS)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def matyan(
    *arguments: str, timeout: float = 60.0, check: bool = True, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one `matyan` command to its end; its output is text."""
    return subprocess.run(
        [MATYAN, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=check,
        env=_environment(environment or {}),
    )


def matyan_here(
    *arguments: str, check: bool = True, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Do as `matyan`, in this process: a new one takes most of a second to import what this one has.

    For commands that are asked many things, after one test has run them as their users do.
    """
    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.setattr(os, "environ", _environment(environment or {}))
        code = main(arguments)
    done = subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())
    if check:
        done.check_returncode()
    return done


class MatyanServer:
    """One `matyan up` on its own data, on `port` and the one after it; a restart keeps them."""

    def __init__(
        self,
        home: Path,
        *,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home
        self.port = port or free_port()
        self.log_path = home.with_name(f"{home.name}.log")
        self._environment = store_environment(home) | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The origin of UI, REST, WebSocket and uploads."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def websocket_url(self) -> str:
        """The origin for WebSockets."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything the server wrote so far, over all its lives."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return [
            str(MATYAN),
            "up",
            "--home",
            str(self.home),
            "--port",
            str(self.port),
        ]

    def start(self) -> Self:
        """Start and wait until the server says that it is ready."""
        assert self._process is None, "it runs already"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(self._environment),
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self.is_ready():
            if self._process.poll() is not None:
                code, self._process = self._process.returncode, None
                raise ServerError(f"ended with {code} while starting:\n{self.log}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServerError(f"not ready after {START_SECONDS_MAX} s:\n{self.log}")
            time.sleep(0.02)
        return self

    def is_ready(self) -> bool:
        """Ask the server whether it would take data."""
        try:
            return loopback.get(f"{self.url}/health/ready/", timeout=2).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def is_running(self) -> bool:
        """Tell whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL, no word of farewell."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """Ask it to end as a service manager would and return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            raise ServerError(f"still there {STOP_SECONDS_MAX} s after SIGTERM:\n{self.log}") from None
        finally:
            self.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


@contextmanager
def started(home: Path, *, environment: Mapping[str, str] | None = None) -> Iterator[MatyanServer]:
    """Yield a running server with its data in `home`; its log is printed when the block fails."""
    server = MatyanServer(home, environment=environment)
    try:
        yield server.start()
    except BaseException:
        print(server.log)
        raise
    finally:
        server.kill()


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment without any setting of the one who runs the tests, or proxies on the way to loopback."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MATYAN_") and "proxy" not in name.lower()
    }
    return {**kept, "PYTHONUNBUFFERED": "1", **extra}
