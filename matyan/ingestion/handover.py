"""Commands on a shortcut from the gateway to the worker of the same process, which then need not decode a frame again.

It goes by the bytes of the log record, so what is found is what those bytes say, wherever the record came from: from
memory, from a file after a repeat, or from another log. What is not found is decoded as ever. Nothing rests on it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from matyan.ingestion.backlog import BYTES_HIGH
from matyan.limits import FRAME_INLINE_BYTES_MAX
from matyan.wire.messages import Command, Envelope
from matyan.wire.tables import PointTable

BYTES_MAX: Final = BYTES_HIGH
"""Of frames as they came; decoded points take about three times as much. A worker that is further behind than this, and
than replies are not held back for, decodes the oldest frames itself."""


class Decoded(NamedTuple):
    """What a log record says."""

    envelope: Envelope
    commands: Sequence[Command]
    size_bytes: int
    """Of the frame as it came."""


class Handover:
    """Records of the newest frames with what they say. Any thread may call it."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        """Make it; it keeps nothing before somebody takes from it."""
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Decoded] = OrderedDict()
        """By the value of the record; the oldest first."""
        self._bytes = 0
        self._has_taker = False

    def join(self) -> None:
        """Announce that a worker of this process takes from it."""
        self._has_taker = True

    def put(self, value: bytes, decoded: Decoded) -> None:
        """Keep what a record's value says until it is taken, or too much has been put after it.

        Args:
            value: of the record.
            decoded: exactly what decoding `value` would give, points only (other commands may be many times larger
                than their text); nobody changes it any more.
        """
        if not self._has_taker or decoded.size_bytes > self._bytes_max:
            return
        if isinstance(decoded.commands, PointTable) and decoded.size_bytes <= FRAME_INLINE_BYTES_MAX:
            decoded.commands.times(decoded.envelope.received_ms)  # now, as the points have just been made
        with self._lock:
            self._forget(value)
            self._known[value] = decoded
            self._bytes += decoded.size_bytes
            while self._bytes > self._bytes_max:
                _, oldest = self._known.popitem(last=False)
                self._bytes -= oldest.size_bytes

    def take(self, value: bytes) -> Decoded | None:
        """Return what a record's value says, once; None where it has to be decoded."""
        with self._lock:
            return self._forget(value)

    def _forget(self, value: bytes) -> Decoded | None:
        decoded = self._known.pop(value, None)
        if decoded is not None:
            self._bytes -= decoded.size_bytes
        return decoded
