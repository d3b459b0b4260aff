"""The data directory: who uses it now, and the secrets it keeps."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from matyan.errors import ConfigurationError

KEY_BYTES: Final = 32
KEYS_KEPT: Final = 3
"""After so many rotations what an old key made is good for nothing."""
_PRIVATE_DIRECTORY: Final = 0o700
_PRIVATE_FILE: Final = 0o600


@contextlib.contextmanager
def locked_home(home: Path) -> Iterator[None]:
    """Hold the data directory for this process, making it when there is none.

    The lock is the kernel's: it ends with the process however that ends, so no stale file is ever in the way.

    Raises:
        ConfigurationError: another process holds it (the message says which), or it cannot be written.
    """

    def refusal(descriptor: int) -> str:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        return (
            f"the data in {home} is in use by another matyan, process {holder}; "
            "stop that one, or use other data with --home (MATYAN_HOME)"
        )

    with _locked(home, "lock", fcntl.LOCK_EX, refusal) as descriptor:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield


@contextlib.contextmanager
def writing_home(home: Path, *, alone: bool = False) -> Iterator[None]:
    """Say that this process writes to the store of a data directory, beside a server or without one.

    Any number may; what replaces the store's files does so `alone`.

    Raises:
        ConfigurationError: others write, or replace the files, now; or the directory cannot be written.
    """
    other = "an import writes to it" if alone else "`matyan compact` rewrites it"
    refusal = f"the store in {home} cannot be used now: {other}; wait for its end"
    with _locked(home, "writers", fcntl.LOCK_EX if alone else fcntl.LOCK_SH, lambda _: refusal):
        yield


@contextlib.contextmanager
def _locked(home: Path, name: str, kind: int, refusal: Callable[[int], str]) -> Iterator[int]:
    """Hold a lock on a file of the data directory, both made when there are none; yield its descriptor.

    Args:
        name: of the file.
        kind: `fcntl.LOCK_EX` or `fcntl.LOCK_SH`.
        refusal: returns what is said when another process holds it, given the descriptor of the file.
    """
    try:
        home.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        descriptor = os.open(home / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE_FILE)
    except OSError as error:
        raise ConfigurationError(f"cannot use the data directory {home}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(refusal(descriptor)) from error
        yield descriptor
    finally:
        os.close(descriptor)


def keys(home: Path, name: str) -> Sequence[bytes]:
    """Return the keys `name` of this data directory, the newest first; one is made at first use.

    Raises:
        ConfigurationError: the file is not what we wrote, or cannot be read or written.
    """
    path = home / "secrets" / name
    try:
        path.parent.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        if not path.exists():
            _write_private(path, secrets.token_bytes(KEY_BYTES))
        found = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot use the secret {path}: {error.strerror}") from error
    if not found or len(found) % KEY_BYTES:
        raise ConfigurationError(
            f"{path} has {len(found)} bytes, not {KEY_BYTES} a key: restore it, or delete it to get a new one "
            "(links handed out before then stop working)"
        )
    return [found[begin : begin + KEY_BYTES] for begin in range(0, len(found), KEY_BYTES)]


def rotate_keys(home: Path) -> Sequence[str]:
    """Put a new key in front of every secret of this data directory; return their names.

    A server uses it from its next start. What older keys made stays good as long as they are kept.

    Raises:
        ConfigurationError: a file is not what we wrote, or cannot be read or written.
    """
    names = sorted(path.name for path in (home / "secrets").glob("[!.]*"))
    if not names:
        raise ConfigurationError(f"{home} holds no secrets yet: `matyan up` makes them")
    for name in names:
        known = keys(home, name)
        try:
            _write_private(home / "secrets" / name, b"".join([secrets.token_bytes(KEY_BYTES), *known[: KEYS_KEPT - 1]]))
        except OSError as error:
            raise ConfigurationError(f"cannot write the secret {name}: {error.strerror}") from error
    return names


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
