"""What an embedded log is: its id and topics (`log.json`), and who has it open (`lock`)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from matyan.engines.disk import Disk, replace_file
from matyan.errors import ConfigurationError, ConflictError, CorruptedError, InvalidArgumentError

FORMAT: Final = 1
PARTITIONS_MAX: Final = 1024
_CATALOG_NAME: Final = "log.json"
_LOCK_NAME: Final = "lock"
_TOPIC_NAME: Final = re.compile(r"[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,199}")
"""Kafka's rule, so that a topic's name is a directory's name too."""


class Catalog(msgspec.Struct, frozen=True):
    """The content of `log.json`."""

    format: int
    log_id: str
    """32 hexadecimal digits."""
    topics: dict[str, int]
    """Topic to number of partitions; a topic never leaves and its number never changes."""


def load_catalog(root: Path, disk: Disk) -> Catalog:
    """Return the log's catalog; a fresh directory gets one with a new id.

    Raises:
        CorruptedError: the file is damaged, missing beside records, or of a later version.
        OSError: it cannot be read or written.
    """
    path = root / _CATALOG_NAME
    try:
        catalog = msgspec.json.decode(path.read_bytes(), type=Catalog)
    except FileNotFoundError:
        return _create_catalog(root, disk)
    except msgspec.MsgspecError as error:
        raise CorruptedError(f"{path} is damaged: {error}") from error
    if catalog.format != FORMAT:
        raise CorruptedError(f"{path} has format {catalog.format}, this version reads {FORMAT}; use a newer matyan")
    return catalog


def save_catalog(root: Path, catalog: Catalog, disk: Disk) -> None:
    """Replace `log.json`, durably.

    Raises:
        OSError: the old one stands.
    """
    replace_file(disk, root / _CATALOG_NAME, msgspec.json.encode(catalog))


def check_partitions(catalog: Catalog, partitions: Mapping[str, int] | int) -> None:
    """Compare what is asked for with what is stored; 0 asks for nothing.

    Raises:
        ConfigurationError: with every fault in it.
    """
    if partitions == 0:
        return
    asked = partitions if isinstance(partitions, Mapping) else dict.fromkeys(catalog.topics, partitions)
    counts = [*asked.values()] if isinstance(partitions, Mapping) else [partitions]
    faults = [
        f"a topic has 1 to {PARTITIONS_MAX} partitions, not {count}"
        for count in counts
        if not 1 <= count <= PARTITIONS_MAX
    ]
    faults += [
        f"topic {topic} has {catalog.topics[topic]} partitions, {count} asked: the number is fixed for a log; "
        "drain the log and start a fresh one to change it"
        for topic, count in asked.items()
        if catalog.topics.get(topic, count) != count
    ]
    if faults:
        raise ConfigurationError("; ".join(faults))


def check_topic(name: str) -> None:
    """Raise InvalidArgumentError for a name that no topic can have."""
    if not _TOPIC_NAME.fullmatch(name):
        raise InvalidArgumentError(f"{name!r} is no topic name: 1 to 200 letters, digits, dots, dashes and underscores")


def hold_lock(root: Path) -> int:
    """Lock the log for this process; return the descriptor that holds it.

    The kernel frees the lock with the process, however it ends: there is never a stale lock to delete.

    Raises:
        ConflictError: somebody has it open.
    """
    fd = os.open(root / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise ConflictError(f"the log in {root} is in use by process {holder}") from error
    # The pid is a courtesy: on a full disk the lock holds without it.
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _create_catalog(root: Path, disk: Disk) -> Catalog:
    if any(root.glob("*/*.log")):
        raise CorruptedError(f"{root / _CATALOG_NAME} is missing beside records: restore it, or move the records away")
    catalog = Catalog(FORMAT, uuid.uuid4().hex, {})
    save_catalog(root, catalog, disk)
    return catalog
