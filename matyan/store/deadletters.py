"""Dead letters: what could not be applied, with its reason, kept until somebody looks."""

from __future__ import annotations

from typing import Final

import msgspec

from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.store import keyspace
from matyan.store.records import RecordCodec
from matyan.store.scans import scan_all

EXCERPT_BYTES_MAX: Final = 4096


class DeadLetter(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """Something the store could not take.

    `index` is the place of a command in its record; -1 is the record itself, -2 - n what stood at n and was unreadable.
    """

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
    log_id: str = ""
    blob_key: str | None = None
    """Where all of it lies when the excerpt is not all."""


_codec: Final = RecordCodec(DeadLetter)


def put(tx: KvTransaction, letter: DeadLetter) -> None:
    """Store a letter, in the transaction that moves past it."""
    key = keyspace.dead_letter(letter.log_id, letter.topic, letter.partition, letter.offset, letter.index)
    tx.put(key, _codec.encode(letter))


def read(reader: KvReader) -> list[DeadLetter]:
    """Return all letters, oldest first of each partition."""
    return [_codec.decode(value) for _, value in scan_all(reader, *keyspace.dead_letters())]
