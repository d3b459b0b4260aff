"""RememberingTransaction: reads every key once, so that all of a long transaction can be asked for ahead."""

from __future__ import annotations

from collections.abc import Sequence

from matyan.engines.kv.protocol import KeyRange, KvTransaction, Pair


class RememberingTransaction:
    """A KvTransaction over another one, through which alone that one is used from then on.

    What was read or written by key is not asked for again; scans always ask.
    """

    def __init__(self, tx: KvTransaction) -> None:
        self._tx = tx
        self._known: dict[bytes, bytes | None] = {}

    # ---- KvReader

    def get(self, key: bytes) -> bytes | None:
        """Return the value, or None when the key is missing."""
        if key not in self._known:
            self._known[key] = self._tx.get(key)
        return self._known[key]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return one value or None per key, in the order asked; those that are not known are asked for at once."""
        known = self._known
        unknown = list(dict.fromkeys(key for key in keys if key not in known))
        if unknown:
            known.update(zip(unknown, self._tx.get_many(unknown), strict=True))
        return [known[key] for key in keys]

    def scan(self, begin: bytes, end: bytes, *, rows_max: int, reverse: bool = False) -> list[Pair]:
        """Return up to `rows_max` pairs of `begin <= key < end`, ascending or descending."""
        return self._tx.scan(begin, end, rows_max=rows_max, reverse=reverse)

    def scan_many(self, ranges: Sequence[KeyRange], *, rows_max: int) -> list[list[Pair]]:
        """Return what `scan` (ascending) returns for each range."""
        return self._tx.scan_many(ranges, rows_max=rows_max)

    # ---- KvTransaction

    @property
    def written_bytes(self) -> int:
        """How much is written so far."""
        return self._tx.written_bytes

    def put(self, key: bytes, value: bytes) -> None:
        """Set a value."""
        self._tx.put(key, value)
        self._known[key] = value

    def clear(self, key: bytes) -> None:
        """Delete a key; a missing one is fine."""
        self._tx.clear(key)
        self._known[key] = None

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """Delete every key of `begin <= key < end`."""
        self._tx.clear_range(begin, end)
        self._known.update((key, None) for key in list(self._known) if begin <= key < end)

    def add(self, key: bytes, delta: int) -> None:
        """Add to a counter, and forget what was known of it."""
        self._tx.add(key, delta)
        self._known.pop(key, None)

    def put_versionstamped(self, prefix: bytes, suffix: bytes, value: bytes) -> None:
        """Set `prefix + versionstamp + suffix`, which cannot be read in this transaction."""
        self._tx.put_versionstamped(prefix, suffix, value)
