"""The applied offset of each log partition, part of every worker transaction: the one mechanism of exactly once.

The key holds the log's id, so a fresh log never matches an old position by accident.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.engines.log.protocol import TopicPartition
from matyan.errors import OffsetMovedError
from matyan.store import keyspace

_FORM: Final = struct.Struct("<BQI")
_VERSION: Final = 1


class Applied(NamedTuple):
    """How far a partition has been applied: everything before `offset`, and `items` commands of that record itself."""

    offset: int
    items: int = 0


START: Final = Applied(0)


def get(reader: KvReader, log_id: str, partition: TopicPartition) -> Applied | None:
    """Return the position, or None when nothing of this log was ever applied."""
    return get_many(reader, log_id, [partition])[0]


def get_many(reader: KvReader, log_id: str, partitions: Sequence[TopicPartition]) -> list[Applied | None]:
    """Return the position of each partition, in one round trip."""
    values = reader.get_many([keyspace.applied(log_id, *partition) for partition in partitions])
    return [None if value is None else _decode(value) for value in values]


def _decode(value: bytes) -> Applied:
    _, offset, items = _FORM.unpack(value)
    return Applied(offset, items)


def advance(tx: KvTransaction, log_id: str, partition: TopicPartition, *, expected: Applied, to: Applied) -> None:
    """Move the position, in the transaction that applies what lies between.

    Raises:
        OffsetMovedError: the stored position is not `expected`; this slice is not ours to apply.
    """
    stored = get(tx, log_id, partition) or START
    if stored != expected:
        raise OffsetMovedError(stored.offset)
    tx.put(keyspace.applied(log_id, *partition), _FORM.pack(_VERSION, to.offset, to.items))
