"""Dead letters: what could not be applied, with its reason, kept until somebody looks."""

from __future__ import annotations

from typing import Final

import msgspec

from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.limits import SCAN_ROWS_MAX
from matyan.store import keyspace
from matyan.store.records import RecordCodec

EXCERPT_BYTES_MAX: Final = 4096


class DeadLetter(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """One command (index 0 and up) or whole record (index -1) that the store could not take."""

    topic: str
    partition: int
    offset: int
    index: int
    project: str
    run_id: str
    reason: str
    excerpt: bytes
    """The first EXCERPT_BYTES_MAX bytes of what was refused."""
    received_ms: int


_codec: Final = RecordCodec(DeadLetter)


def put(tx: KvTransaction, letter: DeadLetter) -> None:
    """Store a letter, in the transaction that moves past it."""
    tx.put(keyspace.dead_letter(letter.topic, letter.partition, letter.offset, letter.index), _codec.encode(letter))


def read(reader: KvReader, *, rows_max: int = SCAN_ROWS_MAX) -> list[DeadLetter]:
    """Return letters, oldest first of each partition."""
    return [_codec.decode(value) for _, value in reader.scan(*keyspace.dead_letters(), rows_max=rows_max)]
