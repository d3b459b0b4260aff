"""Commands that add an item to an object sequence, the terminal log or the log records: command -> stored item."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from matyan.blobs.service import blob_key
from matyan.engines.blob.protocol import BlobEngine
from matyan.ingestion.batches import Event, RunGroup, context_identity
from matyan.sequences import items
from matyan.sequences.model import BUCKET_OF_KIND, Bucket, Item, SequenceKey
from matyan.wire.messages import Command, LogCustomObject, LogRecordMessage, LogTerminalLine
from matyan.wire.moments import moment_ms

TERMINAL: Final = SequenceKey(Bucket.LOGS, "logs")
RECORDS: Final = SequenceKey(Bucket.LOG_RECORDS, "log_records")
REFUSALS_SHOWN_MAX: Final = 20
"""Refused items of one frame that become a record each; the rest is counted in one more."""


class Prepared(NamedTuple):
    """An item ready to be stored; made before the transaction, since making it may write a blob."""

    key: SequenceKey
    step: int | None
    """None: the next number of the sequence. Terminal lines: the client's number."""
    encoded: bytes
    dtype: str
    objects: int
    time_ms: int
    writer: str


def prepare(found: RunGroup, blobs: BlobEngine, *, inline_bytes_max: int) -> list[Prepared]:
    """Return the items of a run's events, and of what the gateway refused, in order of arrival.

    Args:
        inline_bytes_max: an item above this is first written to a content-addressed blob under the run's prefix, so
            that writing it again is harmless.
    """
    prepared = [_MAKERS[type(event.command)](event) for event in found.events if type(event.command) in _MAKERS]
    prepared += _refusals(found)
    prefix = blob_key(found.project, found.run_id, "")
    return [item if len(item.encoded) <= inline_bytes_max else _spill(item, blobs, prefix) for item in prepared]


def _spill(item: Prepared, blobs: BlobEngine, run_prefix: str) -> Prepared:
    stored = items.spilled(items.decode(item.encoded), item.encoded, run_prefix)
    assert stored.blob_key is not None
    blobs.put(stored.blob_key, [item.encoded], content_type="application/x-matyan-item")
    return item._replace(encoded=items.encode(stored))


def _custom(event: Event) -> Prepared:
    command = cast("LogCustomObject", event.command)
    objects = command.value if isinstance(command.value, list) else [command.value]
    single = isinstance(command.value, dict)
    kind = str((objects[0].get("type") if objects else None) or command.dtype or "custom")
    bucket = BUCKET_OF_KIND.get(kind) or BUCKET_OF_KIND.get(command.dtype or "")
    if bucket is None:
        # A class of the user's own that no page can draw: kept readable, as the text of its JSON.
        bucket, objects = Bucket.TEXTS, [{"type": "text", "data": json.dumps(value)} for value in objects]
        kind = "text"
    time_ms = moment_ms(command.client_datetime, event.received_ms)
    return Prepared(
        key=SequenceKey(bucket, command.name, context_identity(bytes(command.context))),
        step=command.step,
        encoded=items.encode(Item(objects, command.epoch, time_ms, single)),
        dtype=kind if single else f"list({kind})",
        objects=len(objects),
        time_ms=time_ms,
        writer=event.writer,
    )


def _line(event: Event) -> Prepared:
    command = cast("LogTerminalLine", event.command)
    encoded = items.encode(Item(command.line, None, event.received_ms))
    return Prepared(TERMINAL, command.step, encoded, "logs", 1, event.received_ms, event.writer)


def _record(event: Event) -> Prepared:
    command = cast("LogRecordMessage", event.command)
    record = {
        "message": command.message,
        "log_level": command.level,
        "timestamp": command.timestamp,
        "args": command.extra_args,
        "logger_info": command.logger_info,
    }
    return _log_record(record, event.received_ms)


def _log_record(record: dict[str, Any], received_ms: int) -> Prepared:
    encoded = items.encode(Item(record, None, received_ms))
    return Prepared(RECORDS, None, encoded, "log_records", 1, received_ms, "")


def _refusals(found: RunGroup) -> Sequence[Prepared]:
    shown = found.refusals[:REFUSALS_SHOWN_MAX]
    records = [
        _warning(f"not stored: {refusal.type or 'item'} {refusal.index} of a frame: {refusal.reason}", received_ms)
        for received_ms, refusal in shown
    ]
    if hidden := len(found.refusals) - len(shown):
        records.append(_warning(f"not stored: {hidden} more items", found.refusals[-1][0]))
    return records


def _warning(message: str, received_ms: int) -> Prepared:
    record = {
        "message": message,
        "log_level": logging.WARNING,
        "timestamp": received_ms / 1000,
        "args": None,
        "logger_info": None,
    }
    return _log_record(record, received_ms)


_MAKERS: Final[Mapping[type[Command], Callable[[Event], Prepared]]] = {
    LogCustomObject: _custom,
    LogTerminalLine: _line,
    LogRecordMessage: _record,
}
