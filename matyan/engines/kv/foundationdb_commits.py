"""Marks that commits leave, by which a commit whose answer was lost is found to have been applied.

FoundationDB answers some commits by "unknown result" (1021): applied or not. Running the function again would make a
second note of one request, or answer "not found" to who has just deleted. So each commit also writes who made it, and
only where that is not found does the function run again.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from typing import Any, Final, NamedTuple

_MARKS: Final = b"\xff/matyan/commits/"
_NUMBER_BYTES: Final = 8


class CommitMark(NamedTuple):
    """What the commit of one call writes besides."""

    key: bytes
    value: bytes

    def leave(self, transaction: Any) -> None:
        """Write it with the rest of a transaction."""
        transaction.set(self.key, self.value)

    def is_left(self, transaction: Any) -> bool:
        """Return whether an earlier attempt of the call was applied. Nothing conflicts with this question."""
        return bool(transaction.snapshot.get(self.key).value == self.value)


class CommitMarks:
    """Makes the marks of one engine: a key for each thread that writes, so they never conflict and hardly grow."""

    def __init__(self, prefix: bytes) -> None:
        self._own = prefix + _MARKS + uuid.uuid4().bytes
        self._numbers = itertools.count()

    def make(self) -> CommitMark:
        """Return the mark of a call, which no other call has."""
        thread = threading.get_ident().to_bytes(_NUMBER_BYTES, "big")
        return CommitMark(self._own + thread, next(self._numbers).to_bytes(_NUMBER_BYTES, "big"))
