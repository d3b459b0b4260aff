"""Object sequences, terminal lines and log records in the store: one item a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.errors import CorruptedError
from matyan.ids import Project, RunNumber
from matyan.limits import SCAN_ROWS_MAX
from matyan.sequences.model import Item, SequenceKey
from matyan.store import keyspace
from matyan.store.records import VERSION, get_documents, put_document
from matyan.wire.codec import decode_tree, encode_tree

_FIRST_PIECE: Final = 0


def encode(item: Item) -> bytes:
    """Pack an item; its value may hold integers of any size."""
    return bytes([VERSION]) + encode_tree([item.value, item.epoch, item.time_ms, item.single, item.blob_key])


def decode(data: bytes) -> Item:
    """Invert `encode`.

    Raises:
        CorruptedError: unknown version.
    """
    if data[0] != VERSION:
        raise CorruptedError(f"an item has version {data[0]}, this release reads {VERSION}: update matyan")
    return Item(*decode_tree(data[1:]))


def put(tx: KvTransaction, project: Project, number: RunNumber, key: SequenceKey, step: int, encoded: bytes) -> None:
    """Store the item of a step, replacing an earlier one."""
    put_document(tx, keyspace.item(project, number, key.bucket, key.digest(), step), encoded)


def get_many(
    reader: KvReader, project: Project, number: RunNumber, key: SequenceKey, steps: Sequence[int]
) -> dict[int, Item]:
    """Return the items of exactly these steps, as far as they exist."""
    digest = key.digest()
    found = get_documents(reader, [keyspace.item(project, number, key.bucket, digest, step) for step in steps])
    return {step: decode(data) for step, data in zip(steps, found, strict=True) if data is not None}


def read_range(
    reader: KvReader,
    project: Project,
    number: RunNumber,
    key: SequenceKey,
    *,
    begin: int | None = None,
    end: int | None = None,
    rows_max: int = SCAN_ROWS_MAX,
) -> Iterator[tuple[int, Item]]:
    """Yield the items of `begin <= step < end`, ascending; None is an open end.

    `rows_max` bounds what one scan brings into memory: callers that stop early ask for few.
    """
    digest = key.digest()
    whole = keyspace.children(keyspace.items(project, number, key.bucket, digest))
    low = whole.begin if begin is None else keyspace.item(project, number, key.bucket, digest, begin)
    high = whole.end if end is None else keyspace.item(project, number, key.bucket, digest, end)
    base, pieces = b"", [b""]
    while low < high and (rows := reader.scan(low, high, rows_max=rows_max)):
        for row_key, value in rows:
            if row_key[-1] == _FIRST_PIECE:
                if base:
                    yield keyspace.last_number(base), decode(b"".join(pieces))
                base, pieces = row_key[:-1], [value[1:]]
            else:
                pieces.append(value)
        low = rows[-1][0] + b"\x00"
    if base:
        yield keyspace.last_number(base), decode(b"".join(pieces))


def list_steps(reader: KvReader, project: Project, number: RunNumber, key: SequenceKey) -> list[int]:
    """Return every step that has an item, ascending."""
    prefix = keyspace.items(project, number, key.bucket, key.digest())
    low, high = keyspace.children(prefix)
    steps: list[int] = []
    while rows := reader.scan(low, high, rows_max=SCAN_ROWS_MAX):
        steps += [keyspace.last_number(row_key[:-1]) for row_key, _ in rows if row_key[-1] == _FIRST_PIECE]
        low = rows[-1][0] + b"\x00"
    return steps
