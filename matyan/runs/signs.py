"""Signs of life: when a run was heard of last, and that it counts as crashed.

Data leaves its sign in `UNSETTLED_RUNS` as it is. Whoever settles a run moves it here, and here goes what a gateway
says of silent clients that are still connected. So the worker writes no further key for each slice.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.ids import Project, RunId, RunNumber
from matyan.store import keyspace

_MILLISECONDS: Final = struct.Struct("<Q")


def note(tx: KvTransaction, project: Project, number: RunNumber, time_ms: int) -> None:
    """Note that a run was heard of."""
    tx.put(keyspace.last_seen(project, number), _MILLISECONDS.pack(time_ms))


def note_data(tx: KvTransaction, project: Project, number: RunNumber, time_ms: int) -> None:
    """Note that a run has sent data, which are not settled yet."""
    tx.put(keyspace.unsettled_run(project, number), _MILLISECONDS.pack(time_ms))


def marked(value: bytes, token: bytes) -> bytes:
    """Return a sign of data with the mark of who settles them: whoever finds it unchanged knows that none came since.

    A sign alone does not tell that: data may come twice in a millisecond.
    """
    return value[: _MILLISECONDS.size] + token


def decode_ms(value: bytes) -> int:
    """Return the moment of a stored sign, in milliseconds since 1970."""
    return int(_MILLISECONDS.unpack_from(value)[0])


def read(reader: KvReader, project: Project, numbers: Sequence[RunNumber]) -> list[int]:
    """Return when each run was heard of last, in milliseconds since 1970; 0 when nothing is known."""
    keys = [make(project, number) for make in (keyspace.last_seen, keyspace.unsettled_run) for number in numbers]
    values = [0 if value is None else decode_ms(value) for value in reader.get_many(keys)]
    return [max(pair) for pair in zip(values[: len(numbers)], values[len(numbers) :], strict=True)]


def put_crashed(tx: KvTransaction, project: Project, run_id: RunId) -> None:
    """Have the next worker that hears of a run look whether it counts as crashed."""
    tx.put(keyspace.crashed_run(project, run_id), b"")


def clear_crashed(tx: KvTransaction, project: Project, run_id: RunId) -> None:
    """Undo `put_crashed`."""
    tx.clear(keyspace.crashed_run(project, run_id))
