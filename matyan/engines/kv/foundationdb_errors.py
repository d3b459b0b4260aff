"""FoundationDB's error numbers -> what a caller of the port is told. Pure: needs neither library nor cluster.

Source: FoundationDB's api-error-codes page and flow/error_definitions.h of release 7.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from matyan.errors import ConfigurationError, CorruptedError, TooLargeError, TooSlowError, UnavailableError

TOO_OLD: Final = 1007
CONFLICT: Final = 1020
UNKNOWN_RESULT: Final = 1021
TIMED_OUT: Final = 1031
UNREADABLE: Final = 1036
TOO_LARGE: Final = 2101

_LARGE: Final = frozenset({TOO_LARGE, 2102, 2103})  # transaction, key, value
_SETUP: Final = frozenset(
    {
        1511,  # file_not_found
        1513,  # file_not_readable
        1515,  # no_cluster_file_found
        2104,  # connection_string_invalid
        2107,  # tls_error
        6000,  # permission_denied
    }
)
_DAMAGE: Final = frozenset({1226, 1233, 1520, 1522})  # audit, location metadata, checksum, file structure
_OF_CALLS: Final = range(2000, 2100)
"""What an API call did wrong: a fault of the program, never of the cluster."""
_ADVICE: Final[Mapping[int, str]] = {
    TOO_OLD: "a function kept a transaction for more than its five seconds, again and again",
    CONFLICT: "others changed what this transaction read, again and again",
    UNKNOWN_RESULT: "the cluster broke off commits, again and again; the last of them may have been kept",
    TIMED_OUT: (
        "no end within {seconds:g} s: see by `fdbcli --exec status` whether the cluster is up and its release "
        "(the first two numbers) is the client library's"
    ),
    1038: "the database is locked, by a restore or an operator",
}


def text_of(error: Any) -> str:
    """Return what the library calls an error of the bindings, which give it as bytes."""
    text = error.description
    return text.decode() if isinstance(text, bytes) else str(text)


def our_error(code: int, text: str, *, place: str, seconds: float, is_after_too_old: bool = False) -> Exception:
    """Return what to raise instead of an error that another attempt does not mend.

    Args:
        code: FoundationDB's number.
        text: what the client library calls it.
        place: names the store in the message.
        seconds: the deadline of the call.
        is_after_too_old: the attempt that ended last, before the deadline came, had become too old.
    """
    message = f"{place}: {text} ({code})"
    if code in _LARGE:
        return TooLargeError(f"transaction, with all that it read, is more than FoundationDB takes: {text} ({code})")
    if code == UNREADABLE:
        return RuntimeError(f"{message}: a transaction read a key that it wrote by put_versionstamped")
    if code in _OF_CALLS:
        return RuntimeError(message)
    if code in _SETUP:
        return ConfigurationError(f"{message}: check the cluster file and its permissions")
    if code in _DAMAGE:
        return CorruptedError(message)
    cause = TOO_OLD if code == TIMED_OUT and is_after_too_old else code
    kind = TooSlowError if cause == TOO_OLD else UnavailableError
    advice = _ADVICE.get(cause)
    return kind(f"{message}: {advice.format(seconds=seconds)}" if advice else message)
