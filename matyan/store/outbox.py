"""The outbox: records for the log, written in the transaction that causes them; a relay appends and then clears them.

So a record is appended if and only if its transaction was committed, perhaps more than once, in the order of commits.
A cleared entry is durable in the log. Each topic has an order of its own and waits for nothing but itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.store import keyspace
from matyan.store.records import RecordCodec

BACKLOG_ENTRIES_MAX: Final = 100
"""Counted at most: there is no way to count without reading all of each entry, up to 100 kB."""


class OutboxEntry(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """One record on its way to the log."""

    time_ms: int
    """When its cause happened: milliseconds since 1970-01-01 UTC."""
    key: bytes
    value: bytes


class Waiting(NamedTuple):
    """An entry and where it stands in the store."""

    place: bytes
    entry: OutboxEntry


class Backlog(NamedTuple):
    """How much of one topic waits."""

    entries: int
    """BACKLOG_ENTRIES_MAX stands for that many or more."""
    oldest_ms: int | None
    """When the cause of the oldest entry happened; None when nothing waits."""


_codec: Final = RecordCodec(OutboxEntry)


def put(tx: KvTransaction, topic: str, entry: OutboxEntry, *, name: bytes) -> None:
    """Write an entry; it is appended to `topic` after the commit, never without it.

    `name` tells apart, and orders, what one transaction writes for one topic: two entries of one name are one.

    Raises:
        TooLargeError: key and value together pass VALUE_BYTES_MAX, or the name is too long for a key.
    """
    tx.put_versionstamped(keyspace.outbox(topic), name, _codec.encode(entry))


def read(reader: KvReader, topic: str, *, rows_max: int, after: bytes | None = None) -> list[Waiting]:
    """Return the oldest entries of a topic, or the oldest behind a place, in the order of their commits."""
    begin, end = keyspace.children(keyspace.outbox(topic))
    rows = reader.scan(begin if after is None else after + b"\x00", end, rows_max=rows_max)
    return [Waiting(place, _codec.decode(value)) for place, value in rows]


def clear(tx: KvTransaction, places: Sequence[bytes]) -> None:
    """Forget entries that are durable in the log; those that are gone already do no harm."""
    for place in places:
        tx.clear(place)


def read_backlog(reader: KvReader, topic: str) -> Backlog:
    """Return how much of a topic waits, and since when."""
    rows = reader.scan(*keyspace.children(keyspace.outbox(topic)), rows_max=BACKLOG_ENTRIES_MAX)
    return Backlog(len(rows), _codec.decode(rows[0][1]).time_ms if rows else None)
