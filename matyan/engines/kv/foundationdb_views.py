"""FoundationDbReader, FoundationDbTransaction: what a function sees of one transaction of FoundationDB.

Every call into the library takes microseconds, every wait a round trip: calls that ask for much send all of it before
they wait for the first answer. FoundationDB's errors pass through here; `FoundationDbKv` turns them into ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import fdb

from matyan.engines.kv.budget import WriteBudget, check_range_end
from matyan.engines.kv.protocol import KeyRange, Pair
from matyan.errors import InvalidArgumentError
from matyan.limits import SCAN_ROWS_MAX

_STAMP_PLACE: Final = bytes(10)
"""What the commit writes the versionstamp over."""
_COUNTER_BYTES: Final = 8
_OFFSET_BYTES: Final = 4
_DELTA_MIN: Final = -(2**63)
_DELTA_MAX: Final = 2**63 - 1


class FoundationDbReader:
    """A view of the keys under a prefix, until `end`."""

    __slots__ = ("_prefix", "_reads")

    def __init__(self, reads: Any, prefix: bytes) -> None:
        """Read through `reads`: a transaction, or its snapshot, which conflicts with nothing."""
        self._reads: Any | None = reads
        self._prefix = prefix

    def get(self, key: bytes) -> bytes | None:
        """Return the value, or None when the key is missing."""
        value: bytes | None = self._live().get(self._prefix + key).value
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return one value or None per key, in the order asked; all keys are asked for at once."""
        reads, prefix = self._live(), self._prefix
        answers = [reads.get(prefix + key) for key in keys]
        return [answer.value for answer in answers]

    def scan(self, begin: bytes, end: bytes, *, rows_max: int, reverse: bool = False) -> list[Pair]:
        """Return up to `rows_max` pairs of `begin <= key < end`, ascending or descending."""
        return self._rows(self._ask(begin, end, rows_max, reverse=reverse))

    def scan_many(self, ranges: Sequence[KeyRange], *, rows_max: int) -> list[list[Pair]]:
        """Return what `scan` (ascending) returns for each range; all ranges are asked for at once."""
        return [self._rows(answer) for answer in [self._ask(begin, end, rows_max) for begin, end in ranges]]

    def end(self) -> None:
        """Let go of the transaction; every later call fails."""
        self._reads = None

    def _live(self) -> Any:
        reads = self._reads
        if reads is None:
            raise RuntimeError("a reader or transaction was used after the function that received it had returned")
        return reads

    def _ask(self, begin: bytes, end: bytes, rows_max: int, *, reverse: bool = False) -> Any:
        """Send the request for a range; None for an empty one, which FoundationDB takes for a mistake if inverted."""
        check_range_end(end)
        if not 1 <= rows_max <= SCAN_ROWS_MAX:
            raise InvalidArgumentError(f"rows_max is {rows_max}, must be between 1 and {SCAN_ROWS_MAX}")
        reads, prefix = self._live(), self._prefix
        if begin >= end:
            return None
        return reads.get_range(prefix + begin, prefix + end, rows_max, reverse, fdb.StreamingMode.want_all)

    def _rows(self, answer: Any) -> list[Pair]:
        if answer is None:
            return []
        skipped = len(self._prefix)
        return [(row.key[skipped:], row.value) for row in answer]


class FoundationDbTransaction(FoundationDbReader):
    """A reader that also writes. FoundationDB shows a transaction its own writes."""

    __slots__ = ("_budget",)

    def __init__(self, transaction: Any, prefix: bytes) -> None:
        super().__init__(transaction, prefix)
        self._budget = WriteBudget()

    @property
    def written_bytes(self) -> int:
        """How much is written so far, as our limit counts it."""
        return self._budget.used_bytes

    def put(self, key: bytes, value: bytes) -> None:
        """Set a value."""
        transaction = self._live()
        self._budget.charge_put(key, value)
        transaction.set(self._prefix + key, value)

    def clear(self, key: bytes) -> None:
        """Delete a key."""
        transaction = self._live()
        self._budget.charge_key(key)
        transaction.clear(self._prefix + key)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """Delete a range, at the cost of its bounds."""
        transaction = self._live()
        self._budget.charge_range(begin, end)
        if begin < end:
            transaction.clear_range(self._prefix + begin, self._prefix + end)

    def add(self, key: bytes, delta: int) -> None:
        """Add to a counter where it is stored, so that transactions which count do not conflict."""
        if not _DELTA_MIN <= delta <= _DELTA_MAX:
            raise InvalidArgumentError(f"delta {delta} of counter {key!r} is not a signed 64-bit integer")
        transaction = self._live()
        self._budget.charge_key(key, _COUNTER_BYTES)
        transaction.add(self._prefix + key, delta.to_bytes(_COUNTER_BYTES, "little", signed=True))

    def put_versionstamped(self, prefix: bytes, suffix: bytes, value: bytes) -> None:
        """Set `prefix + versionstamp + suffix`; FoundationDB is told by a number behind the key where it stands."""
        transaction = self._live()
        key = prefix + _STAMP_PLACE + suffix
        self._budget.charge_put(key, value)
        place = len(self._prefix) + len(prefix)
        transaction.set_versionstamped_key(self._prefix + key + place.to_bytes(_OFFSET_BYTES, "little"), value)
