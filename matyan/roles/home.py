"""The data directory: who uses it now, and the secrets it keeps."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from matyan.errors import ConfigurationError

SECRET_BYTES: Final = 32
_PRIVATE_DIRECTORY: Final = 0o700
_PRIVATE_FILE: Final = 0o600


@contextlib.contextmanager
def locked_home(home: Path) -> Iterator[None]:
    """Hold the data directory for this process, making it when there is none.

    The lock is the kernel's: it ends with the process however that ends, so no stale file is ever in the way.

    Raises:
        ConfigurationError: another process holds it (the message says which), or it cannot be written.
    """
    try:
        home.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE_FILE)
    except OSError as error:
        raise ConfigurationError(f"cannot use the data directory {home}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise ConfigurationError(
                f"the data in {home} is in use by another matyan, process {holder}; "
                "stop that one, or use other data with --home (MATYAN_HOME)"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def secret(home: Path, name: str) -> bytes:
    """Return the secret `name` of this data directory, made at first use, readable by its owner only.

    Raises:
        ConfigurationError: the file is not what we wrote, or cannot be read or written.
    """
    path = home / "secrets" / name
    try:
        path.parent.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        if not path.exists():
            _write_private(path, secrets.token_bytes(SECRET_BYTES))
        value = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot use the secret {path}: {error.strerror}") from error
    if len(value) != SECRET_BYTES:
        raise ConfigurationError(
            f"{path} has {len(value)} bytes, not {SECRET_BYTES}: restore it, or delete it to get a new one "
            "(links handed out before then stop working)"
        )
    return value


def _write_private(path: Path, value: bytes) -> None:
    """Write all or nothing, so that a crash leaves no half secret."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _PRIVATE_FILE)
    try:
        os.write(descriptor, value)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.rename(path)
