"""The error tree; `code` is contract, the class name is not.

Messages are lower case without a full stop, hold the offending values, and may reach a user.
"""

from __future__ import annotations

from typing import ClassVar


class MatyanError(Exception):
    """Root of every error that matyan raises on purpose."""

    code: ClassVar[str] = "internal"

    @property
    def message(self) -> str:
        """The text for a human."""
        return str(self)


# ---- the caller's fault


class InvalidArgumentError(MatyanError):
    """The request or item is not acceptable as it is."""

    code = "invalid_argument"


class QuerySyntaxError(InvalidArgumentError):
    """A query does not parse; positions count characters from 1 in the parenthesised text."""

    def __init__(self, message: str, *, statement: str | None, line: int, offset: int, end_offset: int) -> None:
        super().__init__(message)
        self.statement = statement
        self.line = line
        self.offset = offset
        self.end_offset = end_offset


class NotFoundError(MatyanError):
    """What was named does not exist."""

    code = "not_found"


class ConflictError(MatyanError):
    """The request contradicts what is stored, or somebody else holds what it needs."""

    code = "conflict"


class TooLargeError(MatyanError):
    """A key, value, transaction, frame or body passed its limit."""

    code = "too_large"


# ---- ours


class UnavailableError(MatyanError):
    """An engine cannot do its work now (disk full, broker down); trying again later may help."""

    code = "unavailable"


class TooSlowError(UnavailableError):
    """A transaction takes longer than the store lets one last, again and again; a smaller one may help."""


class CorruptedError(MatyanError):
    """Stored bytes are not what we wrote; somebody must look."""

    code = "internal"


class ConfigurationError(MatyanError):
    """The process cannot start as it is told to; the message lists every fault and what to do."""

    code = "invalid_argument"


class OffsetMovedError(MatyanError):
    """The slice was applied already, or by somebody else: seek to `applied_offset` and go on."""

    code = "conflict"

    def __init__(self, applied_offset: int) -> None:
        super().__init__(f"the applied offset is {applied_offset}")
        self.applied_offset = applied_offset


class LeaseLostError(MatyanError):
    """Somebody else holds the lease by now: what was begun under it must not be written."""

    code = "conflict"
