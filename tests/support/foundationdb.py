"""Stores of their own on a real FoundationDB cluster, for tests: each under a random prefix, cleared afterwards."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from matyan.engines.kv.protocol import KvEngine
from matyan.settings import FdbSettings

CLUSTER_FILE: Final = "MATYAN_TEST_FDB_CLUSTER_FILE"
API_VERSION: Final = "MATYAN_TEST_FDB_API_VERSION"
"""710 or 730; what is not set is the newest."""
BINARIES: Final = "MATYAN_TEST_FDB_BINARIES"
"""A directory with fdbserver and fdbcli, of the client library's release."""


def cluster_file() -> Path:
    """Return the cluster file of the tests, or skip the test where there is none."""
    named = os.environ.get(CLUSTER_FILE)
    if named is None:
        pytest.skip(f"needs a FoundationDB cluster: set {CLUSTER_FILE}")
    return Path(named)


def make_settings() -> FdbSettings:
    """Return settings of a store that nobody else has."""
    return FdbSettings(prefix=f"test-{uuid.uuid4().hex}", api_version=int(os.environ.get(API_VERSION, "0")))


def open_store(settings: FdbSettings) -> KvEngine:
    """Open a store on the cluster of the tests; skip the test where there is none."""
    file = cluster_file()
    from matyan.engines.kv.foundationdb import open_foundationdb_kv  # noqa: PLC0415 - its library is not always there

    return open_foundationdb_kv(file, settings)


def remove_store(settings: FdbSettings) -> None:
    """Clear everything under the prefix, the format mark too."""
    _database(settings).clear_range_startswith(f"{settings.prefix}/".encode())


def remove_store_at_exit(settings: FdbSettings) -> None:
    """Do that when this process ends."""
    _database(settings)  # the client stops its network thread at exit: it has to be told of that before us, not after
    atexit.register(remove_store, settings)


def _database(settings: FdbSettings) -> Any:
    from matyan.engines.kv.foundationdb_client import open_database  # noqa: PLC0415 - see above

    return open_database(cluster_file(), api_version=settings.api_version)


@contextlib.contextmanager
def fresh_store() -> Iterator[KvEngine]:
    """Open an empty store, and remove it afterwards."""
    settings = make_settings()
    kv = open_store(settings)
    try:
        yield kv
    finally:
        kv.close()
        remove_store(settings)


class Cluster:
    """A cluster of one process on an empty directory, for tests that stop it; it forgets nothing when killed."""

    def __init__(self, directory: Path) -> None:
        binaries = os.environ.get(BINARIES)
        if binaries is None:
            pytest.skip(f"needs fdbserver and fdbcli: set {BINARIES} to their directory")
        self._binaries = Path(binaries)
        self._directory = directory
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._address = f"127.0.0.1:{free.getsockname()[1]}"
        self.file = directory / "fdb.cluster"
        self.file.write_text(f"test:{uuid.uuid4().hex}@{self._address}\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; the first time, make the database."""
        is_new = not (self._directory / "data").exists()
        paths = [part for name in ("data", "log") for part in (f"--{name}dir", str(self._directory / name))]
        for name in ("data", "log"):
            (self._directory / name).mkdir(exist_ok=True)
        command = [str(self._binaries / "fdbserver"), "-p", self._address, "-C", str(self.file), *paths]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if is_new:
            subprocess.run(
                [self._binaries / "fdbcli", "-C", self.file, "--timeout", "60", "--exec", "configure new single ssd"],
                check=True,
                capture_output=True,
                timeout=90,
            )

    def pause(self, *, is_paused: bool) -> None:
        """Stop the process as a machine that hangs does, or let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if is_paused else signal.SIGCONT)

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
