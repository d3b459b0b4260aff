"""The limits of a write, counted as FoundationDB counts them; every engine checks with these."""

from __future__ import annotations

from matyan.errors import InvalidArgumentError, TooLargeError
from matyan.limits import KEY_BYTES_MAX, TRANSACTION_BYTES_MAX, VALUE_BYTES_MAX

KEYS_END = b"\xff"
"""All keys lie below it: what begins with 0xff belongs to the engine itself, in FoundationDB too."""


class WriteBudget:
    """The bytes that one transaction may still write: keys and values written, bounds of ranges cleared."""

    __slots__ = ("_used_bytes",)

    def __init__(self) -> None:
        self._used_bytes = 0

    @property
    def used_bytes(self) -> int:
        """What has been charged so far."""
        return self._used_bytes

    def charge_put(self, key: bytes, value: bytes) -> None:
        """Count one key with its value; the same key twice counts twice."""
        if len(value) > VALUE_BYTES_MAX:
            raise TooLargeError(f"value of key {key!r} has {len(value)} bytes, limit {VALUE_BYTES_MAX}")
        self.charge_key(key, len(value))

    def charge_key(self, key: bytes, operand_bytes: int = 0) -> None:
        """Count a mutation of one key.

        Raises:
            TooLargeError: the key or the transaction passed its limit.
            InvalidArgumentError: the key is empty or belongs to the engine.
        """
        if len(key) > KEY_BYTES_MAX:
            raise TooLargeError(f"key has {len(key)} bytes, limit {KEY_BYTES_MAX}: {key[:64]!r}...")
        if not key or key >= KEYS_END:
            raise InvalidArgumentError(f"key {key!r} must not be empty or begin with 0xff")
        self._charge(len(key) + operand_bytes)

    def charge_range(self, begin: bytes, end: bytes) -> None:
        """Count a cleared range, by its bounds: what it holds costs nothing."""
        check_range_end(end)
        self._charge(len(begin) + len(end))

    def _charge(self, count_bytes: int) -> None:
        used_bytes = self._used_bytes + count_bytes
        if used_bytes > TRANSACTION_BYTES_MAX:
            raise TooLargeError(f"transaction writes {used_bytes} bytes or more, limit {TRANSACTION_BYTES_MAX}")
        self._used_bytes = used_bytes


def check_range_end(end: bytes) -> None:
    """Refuse a range that reaches into the engine's own keys.

    Raises:
        InvalidArgumentError: it does.
    """
    if end > KEYS_END:
        raise InvalidArgumentError(f"range end {end!r} lies above {KEYS_END!r}, where no keys are")
