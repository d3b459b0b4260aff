"""BlobEngine: the contract of an object store, in words.

Keys are text, `<project>/<run id>/<path>` by convention; they may hold any character (`..`, `%`, `?`, blanks, emoji):
an engine maps them to names of its own and never lets them leave its root.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol


def always() -> bool:
    """Let a deletion go on to its end."""
    return True


class BlobInfo(NamedTuple):
    """A stored object."""

    key: str
    size_bytes: int
    content_type: str
    modified_at_seconds: float


class BlobEntry(NamedTuple):
    """An object as a listing of many tells of it."""

    key: str
    size_bytes: int
    modified_at_seconds: float
    """By the clock of the store."""


class PresignedPut(NamedTuple):
    """How a client uploads one object."""

    url: str
    headers: Mapping[str, str]


class BlobStream(NamedTuple):
    """An object being read."""

    info: BlobInfo
    chunks: Iterator[bytes]


class BlobEngine(Protocol):
    """An object store shared by all threads. Every call may block."""

    def put(self, key: str, chunks: Iterable[bytes], *, content_type: str) -> BlobInfo:
        """Store an object, replacing any other of this key at once: readers see the old or the new, never a part.

        Raises:
            UnavailableError: the disk is full or the store cannot be reached; nothing changed.
        """

    def open(self, key: str) -> BlobStream | None:
        """Return the object as chunks of bounded size, or None when there is none."""

    def get(self, key: str) -> bytes | None:
        """Return the whole object, or None."""

    def info(self, key: str) -> BlobInfo | None:
        """Return what is known of an object without reading it, or None."""

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        """Return every object whose key starts with `prefix`, in key order."""

    def entries(self, prefix: str, *, after: str = "") -> Iterator[BlobEntry]:
        """Return every object whose key starts with `prefix`, in an order of the store's own that never changes.

        The objects of a run stand together. With `after`, a key whose object may be gone by now, those behind its place
        in that order: so millions are read a part at a time. Cheaper than `list`, which looks at each object.
        """

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is fine."""

    def delete_prefix(self, prefix: str, *, may_go_on: Callable[[], bool] = always) -> int:
        """Delete every object whose key starts with `prefix`; return how many.

        `may_go_on` is asked before every bounded piece of the work, which ends when the answer is False.
        """

    def presign_put(self, key: str, *, content_type: str, expires_seconds: int, base_url: str) -> PresignedPut:
        """Return a URL that takes one PUT of this object, for a limited time.

        `base_url` is the origin (and path prefix) at which the asking client reached us, without a final slash; engines
        that have an address of their own ignore it.
        """

    def close(self) -> None:
        """Release everything."""
