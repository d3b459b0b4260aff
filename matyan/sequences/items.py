"""Object sequences, terminal lines and log records in the store: one item a step."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.errors import CorruptedError
from matyan.ids import Project, RunNumber
from matyan.limits import SCAN_ROWS_MAX
from matyan.sequences.model import Item, SequenceKey, Summary
from matyan.store import keyspace
from matyan.store.records import VERSION, get_documents, put_document, read_documents
from matyan.wire.codec import decode_tree, encode_tree

logger = logging.getLogger(__name__)

PAGE_ROWS_FIRST: Final = 64
PAGE_BYTES: Final = 4_000_000
"""About how much one read of steps brings into memory: the store cannot read keys without their values."""


class StepPage(NamedTuple):
    """Steps that a sequence has, and how to read on."""

    steps: list[int]
    begin_next: bytes | None
    """Key from which the next page is read; None at the end."""
    rows_max: int
    """Size of the next page, from what the rows of this one weigh."""


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


def spilled(item: Item, encoded: bytes, run_prefix: str) -> Item:
    """Return what is stored of an item that is too large: the name of a blob that is to hold `encoded`.

    The name follows from the content, so that writing it again is harmless, behind the prefix of the run's blobs.
    """
    return Item(None, item.epoch, item.time_ms, item.single, f"{run_prefix}items/{_digest(encoded)}")


def whole(item: Item, blobs: BlobEngine) -> Item:
    """Return an item with its value, which lies in a blob when it is large; without when that is lost or damaged.

    The blob's name tells what it has to hold: a file that a client put in its place is not taken for the item.
    """
    if item.blob_key is None:
        return item
    try:
        data = blobs.get(item.blob_key)
    except CorruptedError as error:
        data = None
        logger.error("a stored item is damaged", extra={"blob": item.blob_key, "error": error.message})  # noqa: TRY400 - whoever raised it has said where
    if data is None or not item.blob_key.endswith(_digest(data)):
        return item
    return decode(data)


def _digest(encoded: bytes) -> str:
    return hashlib.blake2b(encoded, digest_size=20).hexdigest()


def counted(known: Summary | None, key: SequenceKey, step: int, *, dtype: str, objects: int, time_ms: int) -> Summary:
    """Return the record of a sequence after one more item, of so many objects; None before its first."""
    if known is None:
        known = Summary.begin(key, dtype=dtype, step=step, time_ms=time_ms)
    known.count += 1
    known.last_step = max(known.last_step, step)
    known.step_min = min(known.step_min, step)
    known.time_first_ms = min(known.time_first_ms, time_ms)
    known.time_last_ms = max(known.time_last_ms, time_ms)
    known.record_length_max = max(known.record_length_max, objects)
    if dtype.startswith("list("):
        known.dtype = dtype
    return known


def put(
    tx: KvTransaction,
    project: Project,
    number: RunNumber,
    key: SequenceKey,
    step: int,
    encoded: bytes,
    *,
    is_new: bool = False,
) -> None:
    """Store the item of a step, replacing an earlier one; `is_new` says that there is none, which saves a read."""
    put_document(tx, keyspace.item(project, number, key.bucket, key.digest(), step), encoded, is_new=is_new)


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


def read_steps(
    reader: KvReader,
    project: Project,
    number: RunNumber,
    key: SequenceKey,
    begin: int,
    end: int,
    after: StepPage | None,
) -> StepPage:
    """Return the next of the steps `begin <= step < end` that have an item, ascending, behind the page `after`."""
    digest = key.digest()
    first = keyspace.item(project, number, key.bucket, digest, begin)
    low = first if after is None or after.begin_next is None else after.begin_next
    rows_max = PAGE_ROWS_FIRST if after is None else after.rows_max
    rows = reader.scan(low, keyspace.item(project, number, key.bucket, digest, end), rows_max=rows_max)
    steps = [keyspace.last_number(row[:-1]) for row, _ in rows if row[-1] == 0]
    if len(rows) < rows_max:
        return StepPage(steps, None, rows_max)
    average = max(1, sum(len(value) for _, value in rows) // len(rows))
    return StepPage(steps, rows[-1][0] + b"\x00", max(1, min(SCAN_ROWS_MAX, PAGE_BYTES // average)))


def get_many(
    reader: KvReader, project: Project, number: RunNumber, key: SequenceKey, steps: Sequence[int]
) -> list[Item | None]:
    """Return the items of these steps, None where there is none."""
    digest = key.digest()
    bases = [keyspace.item(project, number, key.bucket, digest, step) for step in steps]
    return [None if data is None else decode(data) for data in get_documents(reader, bases)]
