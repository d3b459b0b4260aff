"""Scalar sequences in the store: append, read a sample, read all; and the summaries of every kind.

Fresh points land in the tail, one small uncompressed block that each slice rewrites. A full tail becomes a small block,
as it is; when SMALL_BLOCKS_MAX of these wait, they are merged into chunks of CHUNK_POINTS_MAX and enter the preview. So
a point is compressed once, whatever the pattern of arrival, and a sample is made of the preview, the few small blocks
and the tail. Blocks are numbered in order of writing, small ones and the tail above all chunks; of a step that several
hold the later one is true (ADR 0008).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from matyan.engines.kv.protocol import KeyRange, KvReader, KvTransaction, Pair
from matyan.ids import Project, RunNumber
from matyan.limits import CHUNK_POINTS_MAX, PREVIEW_POINTS_MAX, SCAN_ROWS_MAX, SMALL_BLOCKS_MAX, TAIL_POINTS_MAX
from matyan.sequences import chunks, entries
from matyan.sequences.model import CACHED_TEXT_MAX, Bucket, Columns, Points, SequenceKey, Summary
from matyan.sequences.packed import remembered_columns
from matyan.sequences.sampling import sample
from matyan.sequences.summarising import add_followers, follow, summarise
from matyan.store import keyspace
from matyan.store.records import RecordCodec

_codec: Final = RecordCodec(Summary)
_EMPTY_TAIL: Final = chunks.encode_raw(chunks.EMPTY)
SAMPLE_POINTS_MAX: Final = PREVIEW_POINTS_MAX + 2
"""Samples up to this size come from preview, small blocks and tail; larger ones read every chunk."""


class SequenceRef(NamedTuple):
    """A sequence of a run."""

    number: RunNumber
    key: SequenceKey


class OpenSequence(NamedTuple):
    """What appending needs to know; a new sequence has neither summary nor tail."""

    summary_key: bytes
    tail_key: bytes
    summary: Summary | None
    tail: bytes | None


# ---- summaries


def summary_keys(project: Project, refs: Sequence[SequenceRef]) -> list[bytes]:
    """Return the keys that `get_summaries` reads."""
    return [keyspace.summary(project, ref.number, ref.key.bucket, ref.key.digest()) for ref in refs]


def get_summaries(reader: KvReader, project: Project, refs: Sequence[SequenceRef]) -> list[Summary | None]:
    """Return the summary of each sequence, None where there is no such sequence."""
    return [None if value is None else _codec.decode(value) for value in reader.get_many(summary_keys(project, refs))]


def read_stored(reader: KvReader, keys: Sequence[bytes]) -> list[Summary]:
    """Return the summaries stored under keys, those that are gone left out."""
    return [_codec.decode(value) for value in reader.get_many(keys) if value is not None]


def put_summary(
    tx: KvTransaction, project: Project, number: RunNumber, summary: Summary, *, is_settled: bool = False
) -> None:
    """Store a summary, and what the index holds of it.

    Args:
        tx: the transaction.
        project: the project.
        number: the run.
        summary: the record; one that was not read from the store gets the entries of a new sequence.
        is_settled: whether nothing more is expected soon: the values of a metric are indexed then only.
    """
    key = keyspace.summary(project, number, summary.bucket, summary.key.digest())
    known = summary.indexed
    if known is None:
        stored = tx.get(key)
        known = None if stored is None else _codec.decode(stored).indexed
    if known is None or is_settled:
        now = entries.values_of(summary) if is_settled else entries.NO_VALUES
        entries.update(tx, project, number, summary, known, now)
        known = now
    if known is not summary.indexed:
        # A copy, as the transaction may run again.
        summary = msgspec.structs.replace(summary, indexed=known)
    tx.put(key, _codec.encode(summary))


def index_anew(tx: KvTransaction, project: Project, number: RunNumber, stored: Sequence[Pair]) -> None:
    """Write what the index should hold of sequences, given the keys and values of their summaries as they are stored.

    Values of a sequence that is not settled are indexed as they are.
    """
    for key, value in stored:
        summary = _codec.decode(value)
        now = entries.values_of(summary)
        entries.rewrite(tx, project, number, summary, now)
        if summary.indexed != now:
            summary.indexed = now
            tx.put(key, _codec.encode(summary))


def stored_entries(stored: Iterable[Pair], *, is_settled: bool = False) -> dict[bytes, bytes]:
    """Return what the index should hold of sequences of a run, given keys and values of their stored summaries.

    That is all values of a settled one, and else what its summary says of them.
    """
    found: dict[bytes, bytes] = {}
    for _, value in stored:
        summary = _codec.decode(value)
        indexed = entries.values_of(summary) if is_settled else summary.indexed or entries.NO_VALUES
        found |= entries.entries_of(summary, indexed)
    return found


def clear_entries(tx: KvTransaction, project: Project, number: RunNumber, stored: bytes) -> None:
    """Take out of the index what it holds of a sequence whose stored summary is about to be cleared."""
    summary = _codec.decode(stored)
    entries.update(tx, project, number, summary, summary.indexed, None)


def list_summaries(
    reader: KvReader, project: Project, numbers: Sequence[RunNumber], bucket: Bucket | None = None
) -> list[list[Summary]]:
    """Return the summaries of each run, of one kind or of all (by kind)."""
    prefixes = [
        keyspace.summaries(project, number) if bucket is None else keyspace.summaries_of(project, number, bucket)
        for number in numbers
    ]
    ranges = [keyspace.children(prefix) for prefix in prefixes]
    found = reader.scan_many(ranges, rows_max=SCAN_ROWS_MAX)
    return [
        [_codec.decode(value) for _, value in _continued(reader, rows, where.end)]
        for rows, where in zip(found, ranges, strict=True)
    ]


# ---- appending


def open_keys(project: Project, refs: Sequence[SequenceRef]) -> list[bytes]:
    """Return the keys that `open_many` reads."""
    return list(chain.from_iterable(_hot_keys(project, ref) for ref in refs))


def _hot_keys(project: Project, ref: SequenceRef) -> tuple[bytes, bytes]:
    """Return the keys of summary and tail. Asked for twice with every slice, so the latest are remembered."""
    if len(ref.key.name) + len(ref.key.context) <= CACHED_TEXT_MAX:
        return _known_hot_keys(project, ref)
    return _make_hot_keys(project, ref)


def _make_hot_keys(project: Project, ref: SequenceRef) -> tuple[bytes, bytes]:
    digest = ref.key.digest()
    return (
        keyspace.summary(project, ref.number, ref.key.bucket, digest),
        keyspace.points(project, ref.number, digest) + _block(keyspace.TAIL),
    )


_known_hot_keys: Final = lru_cache(16_384)(_make_hot_keys)


def open_many(reader: KvReader, project: Project, refs: Sequence[SequenceRef]) -> list[OpenSequence]:
    """Return what `append` needs, for many sequences in one round trip."""
    keys = open_keys(project, refs)
    values = reader.get_many(keys)
    return [
        OpenSequence(summary_key, tail_key, None if summary is None else _codec.decode(summary), tail)
        for summary_key, tail_key, summary, tail in zip(keys[::2], keys[1::2], values[::2], values[1::2], strict=True)
    ]


def append(
    tx: KvTransaction, project: Project, ref: SequenceRef, opened: OpenSequence, fresh: Points, *, dtype: str
) -> None:
    """Add points to a sequence.

    Args:
        opened: as read in this transaction.
        fresh: n >= 1 points in order of arrival: steps in any order, repeated or not.
        dtype: `float` or `int`, what the points were tracked as.
    """
    base = keyspace.points(project, ref.number, ref.key.digest())
    block = _extend(opened, fresh, dtype)
    if block is None:
        summary, block = _merge_into_tail(opened, ref.key, fresh.columns(), dtype)
    else:
        assert opened.summary is not None
        summary = opened.summary
    tx.put(opened.tail_key, _flush(tx, base, summary, block) if chunks.count(block) > TAIL_POINTS_MAX else block)
    if summary.indexed is None:
        put_summary(tx, project, ref.number, summary)
    else:
        tx.put(opened.summary_key, _codec.encode(summary))


def _extend(opened: OpenSequence, fresh: Points, dtype: str) -> bytes | None:
    """Return the tail with points appended, however many, and update the summary; None where that is not enough.

    It is enough for what training mostly sends: finite values of one type, in order, beyond all that is there.
    """
    summary, tail = opened.summary, opened.tail
    if summary is None or tail is None or summary.dtype != dtype or not follow(summary, fresh):
        return None
    extended = chunks.extend_raw(tail, fresh)
    if extended is not None:
        add_followers(summary, fresh)
    return extended


def _merge_into_tail(opened: OpenSequence, key: SequenceKey, fresh: Columns, dtype: str) -> tuple[Summary, bytes]:
    """Return summary and tail with any points entered."""
    tail = chunks.EMPTY if opened.tail is None else chunks.decode(opened.tail)
    summary = summarise(opened.summary, key, fresh, dtype)
    merged = chunks.merge([tail, fresh])
    # Exact while everything is in the tail; later a step written again counts twice.
    summary.count += len(merged) - len(tail)
    return summary, chunks.encode_raw(merged)


def settle(tx: KvTransaction, project: Project, ref: SequenceRef) -> None:
    """Store a sequence that has fallen quiet as compactly as it goes, and index its values; more may still follow."""
    (_, _, summary, block) = open_many(tx, project, [ref])[0]
    if summary is None:
        return
    if block is not None:
        _settle_blocks(tx, project, ref, summary, block)
    put_summary(tx, project, ref.number, summary, is_settled=True)


def _settle_blocks(tx: KvTransaction, project: Project, ref: SequenceRef, summary: Summary, block: bytes) -> None:
    tail = chunks.decode(block)
    base = keyspace.points(project, ref.number, ref.key.digest())
    if summary.chunk_next != summary.chunk_settled:
        # Only behind new blocks: who sends a point now and then would else have the last ones written anew each time.
        tail = _merge_small(tx, base, summary, tail, settles=True)
        summary.chunk_settled = summary.chunk_next
    tx.put(base + _block(keyspace.TAIL), chunks.encode_chunk(tail) if len(tail) else _EMPTY_TAIL)


def _flush(tx: KvTransaction, base: bytes, summary: Summary, tail: bytes) -> bytes:
    """Move the points of a full tail into a small block, or into chunks; return the new tail."""
    summary.chunked = True
    if len(summary.small_blocks) + chunks.count(tail) / TAIL_POINTS_MAX < _merged_at_once(base, summary):
        number = keyspace.SMALL_BLOCKS + _next_number(summary)
        summary.small_blocks = (*summary.small_blocks, number)
        tx.put(base + _block(number), tail)
        return _EMPTY_TAIL
    return chunks.encode_raw(_merge_small(tx, base, summary, chunks.decode(tail), settles=False))


def _merged_at_once(base: bytes, summary: Summary) -> int:
    """Return how many full tails are merged at once.

    The first time they are fewer, as many as the key says: the sequences of a run grow in step, and merging all of them
    in one slice, each time, would hold up everything else for as long as it takes.
    """
    is_first = summary.chunk_next == 1 + len(summary.small_blocks)
    return 2 + crc32(base) % (SMALL_BLOCKS_MAX - 1) if is_first else SMALL_BLOCKS_MAX


def _merge_small(tx: KvTransaction, base: bytes, summary: Summary, points: Columns, *, settles: bool) -> Columns:
    """Merge the small blocks and newer `points` into chunks and the preview; return the rest if it fits the tail.

    Merging all of them keeps the order of writing true: nothing older ever gets a greater number than something newer.
    """
    small = [base + _block(number) for number in summary.small_blocks]
    older = [chunks.decode(value) for value in tx.get_many(small) if value is not None]
    for key in small:
        tx.clear(key)
    summary.small_blocks = ()
    merged = chunks.merge([*older, points])
    _preview(tx, base, merged, quick=not settles)
    for block in chunks.cut(merged, CHUNK_POINTS_MAX):
        if len(block) <= TAIL_POINTS_MAX:
            return block
        number = _next_number(summary)
        if len(block) < CHUNK_POINTS_MAX:
            summary.small_blocks = (number,)
        encode = chunks.encode_chunk if settles or len(block) == CHUNK_POINTS_MAX else chunks.encode_raw
        tx.put(base + _block(number), encode(block))
    return chunks.EMPTY


def _preview(tx: KvTransaction, base: bytes, points: Columns, *, quick: bool) -> None:
    """Let points enter the preview."""
    before = tx.get(base + _block(keyspace.PREVIEW))
    known = chunks.EMPTY if before is None else chunks.decode(before)
    thinned = sample(chunks.merge([known, points]), SAMPLE_POINTS_MAX)
    tx.put(base + _block(keyspace.PREVIEW), chunks.encode_chunk(thinned, quick=quick))


def _next_number(summary: Summary) -> int:
    number = summary.chunk_next
    summary.chunk_next += 1
    return number


# ---- whole sequences


class Whole(NamedTuple):
    """A sequence whose points are all known, encoded as it would stand after being appended and settled."""

    summary: Summary
    blocks: Sequence[tuple[int, bytes]]
    """Block number and bytes; the last ones are the preview, where there is one, and the tail."""


def encode_whole(key: SequenceKey, columns: Columns, *, dtype: str) -> Whole:
    """Return the blocks and the summary of n >= 1 points, steps strictly rising; `first` is the one of the least step.

    A tenth of the work of appending: every point is compressed once.
    """
    summary = summarise(None, key, columns, dtype)
    summary.count = len(columns)
    if len(columns) <= TAIL_POINTS_MAX:
        return Whole(summary, [(keyspace.TAIL, chunks.encode_chunk(columns))])
    summary.chunked = True
    blocks: list[tuple[int, bytes]] = []
    tail = _EMPTY_TAIL
    for block in chunks.cut(columns, CHUNK_POINTS_MAX):
        if len(block) <= TAIL_POINTS_MAX:
            tail = chunks.encode_chunk(block)
            break
        number = _next_number(summary)
        if len(block) < CHUNK_POINTS_MAX:
            summary.small_blocks = (number,)
        blocks.append((number, chunks.encode_chunk(block)))
    summary.chunk_settled = summary.chunk_next
    preview = chunks.encode_chunk(sample(columns, SAMPLE_POINTS_MAX))
    return Whole(summary, [*blocks, (keyspace.PREVIEW, preview), (keyspace.TAIL, tail)])


def put_block(tx: KvTransaction, project: Project, ref: SequenceRef, number: int, block: bytes) -> None:
    """Store one block of a whole sequence. It is there for readers when its summary is: put that last."""
    tx.put(keyspace.points(project, ref.number, ref.key.digest()) + _block(number), block)


# ---- reading


def read_samples(
    reader: KvReader, project: Project, refs: Sequence[tuple[RunNumber, Summary]], points: int
) -> list[Columns]:
    """Return min(n, points) points of each sequence, steps rising, the last always among them; -1 for all.

    Up to SAMPLE_POINTS_MAX points cost one value of a short sequence, and two and a few small blocks of any other; all
    are fetched in two round trips. Summaries may be older than what `reader` sees, as long as nobody writes the first
    steps of a short sequence once more in between.
    """
    if not 0 <= points <= SAMPLE_POINTS_MAX:
        return [sample(read_all(reader, project, number, summary), points) for number, summary in refs]
    bases = [keyspace.points(project, number, summary.key.digest()) for number, summary in refs]
    first = [keyspace.PREVIEW if summary.chunked else keyspace.TAIL for _, summary in refs]
    values = reader.get_many([base + _block(number) for base, number in zip(bases, first, strict=True)])
    parts = [[] if value is None else [remembered_columns(value)] for value in values]
    long = [row for row, (_, summary) in enumerate(refs) if summary.chunked]
    newest = reader.scan_many([_newest(bases[row]) for row in long], rows_max=SCAN_ROWS_MAX)
    for row, found in zip(long, newest, strict=True):
        parts[row] += [chunks.decode(value) for _, value in found]
    for row, (number, summary) in enumerate(refs):
        if not summary.chunked and _has_moved(parts[row], summary):
            parts[row] = [read_all(reader, project, number, summary)]
    # A block by itself is in order; to look at that again would be a tenth of the work of reading a short sequence.
    return [sample(found[0] if len(found) == 1 else chunks.merge(found), points) for found in parts]


def _has_moved(tail: Sequence[Columns], summary: Summary) -> bool:
    """Tell whether the tail of a sequence that had nothing else has become a block since its summary was read."""
    (columns,) = tail or (chunks.EMPTY,)
    return len(columns) < summary.count or int(columns.steps[0]) > summary.step_min


def _newest(base: bytes) -> KeyRange:
    """Return where the points are that have not entered the preview: small blocks and the tail."""
    return KeyRange(base + _block(keyspace.SMALL_BLOCKS), base + _block(keyspace.TAIL) + b"\x00")


def read_all(reader: KvReader, project: Project, number: RunNumber, summary: Summary) -> Columns:
    """Return every point of a sequence, steps strictly rising."""
    return chunks.merge([chunks.decode(block) for block in read_blocks(reader, project, number, summary)])


def read_blocks(reader: KvReader, project: Project, number: RunNumber, summary: Summary) -> list[bytes]:
    """Return the blocks that hold every point of a sequence, in order of writing."""
    base = keyspace.points(project, number, summary.key.digest())
    where = KeyRange(base + _block(keyspace.PREVIEW + 1), base + _block(keyspace.TAIL) + b"\x00")
    rows = _continued(reader, reader.scan(*where, rows_max=SCAN_ROWS_MAX), where.end)
    return [value for _, value in rows]


def _continued(reader: KvReader, rows: list[tuple[bytes, bytes]], end: bytes) -> list[tuple[bytes, bytes]]:
    """Return `rows` and all that follow up to `end`."""
    whole = list(rows)
    while len(rows) == SCAN_ROWS_MAX:
        rows = reader.scan(rows[-1][0] + b"\x00", end, rows_max=SCAN_ROWS_MAX)
        whole += rows
    return whole


def _block(number: int) -> bytes:
    return number.to_bytes(4, "big")
