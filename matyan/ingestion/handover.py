"""Commands on a shortcut from the gateway to the worker of the same process, which then need not decode a frame again.

It goes by the bytes of the log record, so what is found is what those bytes say, wherever the record came from: from
memory, from a file after a repeat, or from another log. What is not found is decoded as ever. Nothing rests on it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final, NamedTuple

from matyan.wire.messages import Command, Envelope

COMMANDS_MAX: Final = 40_000
"""About 10 MB; a worker that is further behind than this decodes the oldest frames itself."""


class Decoded(NamedTuple):
    """What a log record says."""

    envelope: Envelope
    commands: Sequence[Command]


class Handover:
    """Records of the newest frames with what they say. Any thread may call it."""

    def __init__(self, commands_max: int = COMMANDS_MAX) -> None:
        """Make it; it keeps nothing before somebody takes from it."""
        self._commands_max = commands_max
        self._lock = threading.Lock()
        self._known: dict[bytes, Decoded] = {}
        """By the value of the record; the oldest first."""
        self._commands = 0
        self._has_taker = False

    def join(self) -> None:
        """Announce that a worker of this process takes from it."""
        self._has_taker = True

    def put(self, value: bytes, decoded: Decoded) -> None:
        """Keep what a record's value says until it is taken, or too much has been put after it.

        Args:
            value: of the record, about to be appended.
            decoded: exactly what decoding `value` would give; nobody changes it any more.
        """
        if not self._has_taker or len(decoded.commands) > self._commands_max:
            return
        with self._lock:
            self._forget(value)
            self._known[value] = decoded
            self._commands += len(decoded.commands)
            while self._commands > self._commands_max:
                self._forget(next(iter(self._known)))

    def take(self, value: bytes) -> Decoded | None:
        """Return what a record's value says, once; None where it has to be decoded."""
        with self._lock:
            return self._forget(value)

    def _forget(self, value: bytes) -> Decoded | None:
        decoded = self._known.pop(value, None)
        if decoded is not None:
            self._commands -= len(decoded.commands)
        return decoded
