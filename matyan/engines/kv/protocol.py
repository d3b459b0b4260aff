"""KvEngine, KvReader, KvTransaction: the contract of a key-value store, in words.

Keys and values are bytes; keys are ordered as unsigned bytes. Every engine enforces the limits of
`matyan.limits` (key, value, transaction bytes), so that what works embedded works on FoundationDB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

T = TypeVar("T")
Pair = tuple[bytes, bytes]


class KeyRange(NamedTuple):
    """A half-open range of keys: begin <= key < end."""

    begin: bytes
    end: bytes


class KvReader(Protocol):
    """A consistent view of the store. Not to be used after the function that received it returned.

    One round trip to FoundationDB costs what a thousand local reads cost: ask for everything at once.
    """

    def get(self, key: bytes) -> bytes | None:
        """Return the value, or None when the key is missing."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return one value or None per key, in the order asked."""

    def scan(self, begin: bytes, end: bytes, *, rows_max: int, reverse: bool = False) -> list[Pair]:
        """Return up to `rows_max` pairs of `begin <= key < end`, ascending or descending.

        `rows_max` is between 1 and SCAN_ROWS_MAX. A longer read continues from the last key, in a
        transaction of its own where consistency allows.
        """

    def scan_many(self, ranges: Sequence[KeyRange], *, rows_max: int) -> list[list[Pair]]:
        """Return what `scan` (ascending) returns for each range; `rows_max` holds per range."""


class KvTransaction(KvReader, Protocol):
    """A reader that also sees its own writes. Everything read is part of the conflict set."""

    @property
    def written_bytes(self) -> int:
        """How much is written so far, as the limit of a transaction counts it."""

    def put(self, key: bytes, value: bytes) -> None:
        """Set a value.

        Raises:
            TooLargeError: the key, the value or the transaction passed its limit.
        """

    def clear(self, key: bytes) -> None:
        """Delete a key; a missing one is fine."""

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """Delete every key of `begin <= key < end`; cheap at any size on FoundationDB."""

    def add(self, key: bytes, delta: int) -> None:
        """Add to a counter without reading it: signed 64-bit little-endian, a missing key counts as 0."""

    def put_versionstamped(self, prefix: bytes, suffix: bytes, value: bytes) -> None:
        """Set `prefix + versionstamp + suffix`, the versionstamp 10 bytes, greater in every later commit.

        Such keys cannot be read in the transaction that writes them.
        """


class KvEngine(Protocol):
    """A key-value store shared by all threads of the process. Every call may block."""

    def read(self, fn: Callable[[KvReader], T]) -> T:
        """Run `fn` on a snapshot and return its result. `fn` may run more than once."""

    def write(self, fn: Callable[[KvTransaction], T], *, durable: bool = True) -> T:
        """Run `fn`, commit, and return its result. All or nothing, serializable.

        `fn` may run more than once, and a commit whose answer was lost is tried again:
        it makes no ids, reads no clock, sends nothing, and gives the same state when applied twice.

        Args:
            durable: False lets the last commits be lost when the machine (not the process) dies; what is lost is a
                suffix of the commits, never a part of one. For callers that can repeat their work from the log.

        Raises:
            TooLargeError: a key, a value or the transaction passed its limit; nothing was written.
            UnavailableError: conflicts, the disk or the network outlasted the retry budget.
        """

    def sync(self) -> None:
        """Return when every commit made before this call survives the loss of power."""

    def tend(self) -> None:
        """Do the engine's own housekeeping; to be called about once a minute."""

    def close(self) -> None:
        """Release everything. Other calls must have ended."""
