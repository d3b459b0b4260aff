"""Dead letters of a slice: those it makes, and those that come again and are applied after all. Writes no key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvReader
from matyan.engines.log.protocol import TopicPartition
from matyan.ingestion.batches import Piece, Spoilt
from matyan.store import deadletters
from matyan.store.deadletters import BLOB_PREFIX, EXCERPT_BYTES_MAX, REASON_CHARACTERS_MAX, DeadLetter
from matyan.store.offsets import Applied
from matyan.wire.messages import Origin

Waiting = Mapping[Origin, DeadLetter]

_WHOLE_RECORD = -1


def read_waiting(reader: KvReader, pieces: Sequence[Piece]) -> Waiting:
    """Return the letters that a slice brings again and that are still there; reads nothing when it brings none."""
    origins = list(dict.fromkeys(one for piece in pieces if (one := piece.envelope.retried) is not None))
    if not origins:
        return {}
    found = deadletters.get_many(reader, origins)
    return {origin: letter for origin, letter in zip(origins, found, strict=True) if letter is not None}


def leave_out_repeats(
    pieces: Sequence[Piece], spoilt: Sequence[Spoilt], waiting: Waiting
) -> tuple[Sequence[Piece], Sequence[Spoilt]]:
    """Leave out records of letters that were applied or dropped; of a letter's records in one slice the first stays."""
    first: dict[Origin, int] = {}
    repeats: set[int] = set()
    for piece in pieces:
        origin = piece.envelope.retried
        if origin is not None and (origin not in waiting or first.setdefault(origin, piece.offset) != piece.offset):
            repeats.add(piece.offset)
    if not repeats:
        return pieces, spoilt
    return (
        [piece for piece in pieces if piece.offset not in repeats],
        [one for one in spoilt if one.offset not in repeats],
    )


def settled(pieces: Sequence[Piece], end: Applied) -> Sequence[Origin]:
    """Return the letters whose records a slice that ends there has applied to their last command."""
    return [
        piece.envelope.retried for piece in pieces if piece.envelope.retried is not None and piece.offset < end.offset
    ]


def make_letter(
    spoilt: Spoilt, partition: TopicPartition, log_id: str, *, waiting: Waiting, blobs: BlobEngine, now_ms: int
) -> DeadLetter:
    """Make a letter; what its excerpt cannot hold goes to a blob, under the same name however often.

    What came again and is refused again keeps the name of its first letter.
    """
    envelope = spoilt.envelope
    origin = _origin(spoilt, partition, log_id)
    before = waiting.get(origin)
    place = f"{origin.log_id}/{origin.topic}/{origin.partition}/{origin.offset}/{origin.index}"
    blob_key = f"{BLOB_PREFIX}{place}" if len(spoilt.payload) > EXCERPT_BYTES_MAX else None
    if blob_key is not None:
        blobs.put(blob_key, [spoilt.payload], content_type="application/x-matyan-commands")
    return DeadLetter(
        log_id=origin.log_id,
        topic=origin.topic,
        partition=origin.partition,
        offset=origin.offset,
        index=origin.index,
        project=envelope.project,
        run_id=envelope.run_id,
        reason=spoilt.reason.encode(errors="replace").decode()[:REASON_CHARACTERS_MAX],
        excerpt=spoilt.payload[:EXCERPT_BYTES_MAX],
        blob_key=blob_key,
        received_ms=envelope.received_ms,
        writer=envelope.writer,
        refused_ms=now_ms,
        retries=0 if before is None else before.retries + 1,
    )


def _origin(spoilt: Spoilt, partition: TopicPartition, log_id: str) -> Origin:
    before = spoilt.envelope.retried
    if before is None:
        return Origin(log_id, partition.topic, partition.partition, spoilt.offset, spoilt.item)
    if before.index == _WHOLE_RECORD:  # one of its commands, whose place in the record is the same as before
        return Origin(before.log_id, before.topic, before.partition, before.offset, spoilt.item)
    return before
