"""Object sequences, terminal lines and log records in the store: one item a step."""

from __future__ import annotations

from collections.abc import Iterator

from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.errors import CorruptedError
from matyan.ids import Project, RunNumber
from matyan.limits import SCAN_ROWS_MAX
from matyan.sequences.model import Item, SequenceKey
from matyan.store import keyspace
from matyan.store.records import VERSION, put_document, read_documents
from matyan.wire.codec import decode_tree, encode_tree


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
    for base, data in read_documents(reader, low, high, rows_max=rows_max):
        yield keyspace.last_number(base), decode(data)
