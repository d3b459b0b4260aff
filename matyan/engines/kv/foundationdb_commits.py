"""Marks that commits leave, by which a commit whose answer was lost is found to have been applied.

FoundationDB answers some commits by "unknown result" (1021): applied or not. Running the function again would make a
second note of one request, or answer "not found" to who has just deleted. So each commit also writes who made it, and
only where that is not found does the function run again.
"""

from __future__ import annotations

import itertools
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from matyan.errors import UnavailableError

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
    """The marks of one engine: as many keys as calls that write at once, used again and again."""

    def __init__(self, prefix: bytes) -> None:
        self._own = prefix + _MARKS + uuid.uuid4().bytes
        self._numbers = itertools.count()
        self._free: deque[bytes] = deque()

    @contextmanager
    def lend(self) -> Iterator[CommitMark]:
        """Yield a mark that no other call has, under a key that no other call uses meanwhile.

        The key of a call that ended in doubt is not used again: its commit may still be on its way, and would replace
        the mark of who has the key next.
        """
        number = next(self._numbers).to_bytes(_NUMBER_BYTES, "big")
        try:
            key = self._free.pop()
        except IndexError:
            key = self._own + number
        is_settled = True
        try:
            yield CommitMark(key, number)
        except BaseException as error:
            is_settled = isinstance(error, Exception) and not isinstance(error, UnavailableError)
            raise
        finally:
            if is_settled:
                self._free.append(key)
