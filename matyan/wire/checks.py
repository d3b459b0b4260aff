"""What the types of a command cannot say: sizes of names, depth of values, ranges. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from matyan.limits import (
    ARTIFACT_PATH_BYTES_MAX,
    CONTEXT_BYTES_MAX,
    JSON_DEPTH_MAX,
    LABEL_BYTES_MAX,
    RUN_ID_BYTES_MAX,
    SEQUENCE_NAME_BYTES_MAX,
    STEP_MAX,
    STEP_MIN,
)
from matyan.wire.messages import (
    NO_CONTEXT,
    AddTag,
    BlobRef,
    Command,
    CreateRun,
    FinishRun,
    LogCustomObject,
    LogHparams,
    LogMetric,
    LogRecordMessage,
    LogTerminalLine,
    Moment,
    RemoveTag,
    SetRunProperty,
)
from matyan.wire.tables import PointTable

MOMENT_SECONDS_MAX: Final = 2e10
"""Year 2603. A greater client time is meant in milliseconds, as the reference takes it."""
_BLOB_KEY_BYTES_MAX: Final = RUN_ID_BYTES_MAX + 1 + ARTIFACT_PATH_BYTES_MAX
_UTF8_BYTES_MAX: Final = 4
"""Of one character; a text with this many times fewer characters than the limit needs no counting."""
_NAME_CHARACTERS_SAFE: Final = SEQUENCE_NAME_BYTES_MAX // _UTF8_BYTES_MAX
_LABEL_CHARACTERS_SAFE: Final = LABEL_BYTES_MAX // _UTF8_BYTES_MAX
_CONTEXTS_KNOWN_MAX: Final = 10_000
_CONTEXT_BYTES_KNOWN_MAX: Final = 512

_CONTAINERS: Final = frozenset({dict, list})

_known_contexts: Final[set[bytes]] = {bytes(NO_CONTEXT), b"{}"}
"""Texts that have passed `find_context_fault`; a few of them stand in millions of points."""


def are_fine(commands: Iterable[Command]) -> bool:
    """Tell whether `find_fault` would find nothing in any of them; metrics, the bulk, cost a third of a microsecond."""
    for command in commands:
        if type(command) is LogMetric:
            moment, dtype = command.client_datetime, command.dtype
            if (
                len(command.name) <= _NAME_CHARACTERS_SAFE
                and bytes(command.context) in _known_contexts
                and (dtype is None or len(dtype) <= _LABEL_CHARACTERS_SAFE)
                and type(moment) is not float
            ):
                continue
        if find_fault(command) is not None:
            return False
    return True


def is_fine(table: PointTable) -> bool:
    """Tell, by columns, whether `find_fault` would find nothing in any of its points; False also when in doubt."""
    dtypes = set(table.dtypes)
    return (
        float not in set(map(type, table.moments))
        and all(dtype is None or len(dtype) <= _LABEL_CHARACTERS_SAFE for dtype in dtypes)
        and are_fine(table.heads)
    )


def find_fault(command: Command) -> str | None:
    """Return why the command cannot be taken, or None when it can."""
    return _FAULTS[type(command)](command)


def is_deeper_than(value: object, depth_max: int) -> bool:
    """Tell whether objects and lists are nested deeper than this."""
    items = value.values() if type(value) is dict else value if type(value) is list else ()
    if depth_max <= 0 and type(value) in _CONTAINERS:
        return True
    for item in items:  # noqa: SIM110 (a generator costs as much as the rest; this runs for every odd item)
        if type(item) in _CONTAINERS and is_deeper_than(item, depth_max - 1):
            return True
    return False


def find_context_fault(context: bytes) -> str | None:
    """Return why this JSON text is no context: it is an object or null, of bounded size and depth."""
    if context in _known_contexts:
        return None
    if len(context) > CONTEXT_BYTES_MAX:
        return f"the context has {len(context)} bytes, limit {CONTEXT_BYTES_MAX}"
    fault = _context_value_fault(context)
    if fault is not None:
        return fault
    if len(context) <= _CONTEXT_BYTES_KNOWN_MAX:
        if len(_known_contexts) >= _CONTEXTS_KNOWN_MAX:
            _known_contexts.clear()
        _known_contexts.add(context)
    return None


_DEPTH_FAULT: Final = f"nested deeper than {JSON_DEPTH_MAX} levels"


def _context_value_fault(context: bytes) -> str | None:
    try:
        value = _read_context(context)
    except RecursionError:
        return _DEPTH_FAULT
    except ValueError as error:
        return f"the context is not JSON: {error}"
    if value is not None and not isinstance(value, dict):
        return "the context is neither an object nor null"
    return _depth_fault(value)


def _read_context(context: bytes) -> object:
    """Decode; lone surrogates are an error (UnicodeEncodeError is a ValueError), NaN is not."""
    try:
        return msgspec.json.decode(context)
    except msgspec.DecodeError:
        value = json.loads(context)
        json.dumps(value, ensure_ascii=False).encode()
        return value


def _text_fault(what: str, text: str | None, bytes_max: int) -> str | None:
    if text is None or len(text) <= bytes_max // _UTF8_BYTES_MAX:
        return None
    size = len(text.encode())
    return f"the {what} has {size} bytes, limit {bytes_max}" if size > bytes_max else None


def _depth_fault(*values: object) -> str | None:
    return _DEPTH_FAULT if any(is_deeper_than(value, JSON_DEPTH_MAX) for value in values) else None


def _moment_fault(moment: Moment) -> str | None:
    if isinstance(moment, float) and not abs(moment) <= MOMENT_SECONDS_MAX:
        return "client_datetime is no time in seconds"
    return None


def _point_fault(command: LogMetric | LogCustomObject) -> str | None:
    return (
        _text_fault("sequence name", command.name, SEQUENCE_NAME_BYTES_MAX)
        or _text_fault("dtype", command.dtype, LABEL_BYTES_MAX)
        or find_context_fault(bytes(command.context))
        or _moment_fault(command.client_datetime)
    )


def _object_fault(command: LogCustomObject) -> str | None:
    return _point_fault(command) or _depth_fault(command.value)


def _property_fault(command: SetRunProperty) -> str | None:
    return _text_fault("run name", command.name, LABEL_BYTES_MAX) or _text_fault(
        "experiment name", command.experiment, LABEL_BYTES_MAX
    )


def _record_fault(command: LogRecordMessage) -> str | None:
    if not STEP_MIN <= command.level <= STEP_MAX:
        return f"the level {str(command.level)[:40]} does not fit into 64 bit"
    if not math.isfinite(command.timestamp):
        return f"the timestamp {command.timestamp} is no time"
    return _depth_fault(command.logger_info, command.extra_args)


def _blob_fault(command: BlobRef) -> str | None:
    return (
        _text_fault("artifact path", command.artifact_path, ARTIFACT_PATH_BYTES_MAX)
        or _text_fault("blob key", command.s3_key, _BLOB_KEY_BYTES_MAX)
        or _text_fault("content type", command.content_type, LABEL_BYTES_MAX)
    )


def _tag_fault(command: AddTag | RemoveTag) -> str | None:
    return _text_fault("tag name", command.tag_name, LABEL_BYTES_MAX)


def _no_fault(_: Command) -> str | None:
    return None


_FAULTS: Final[Mapping[type[Command], Callable[[Any], str | None]]] = {
    CreateRun: lambda command: _moment_fault(command.client_datetime),
    SetRunProperty: _property_fault,
    LogHparams: lambda command: _depth_fault(command.value),
    LogMetric: _point_fault,
    LogCustomObject: _object_fault,
    AddTag: _tag_fault,
    RemoveTag: _tag_fault,
    LogTerminalLine: _no_fault,
    LogRecordMessage: _record_fault,
    BlobRef: _blob_fault,
    FinishRun: lambda command: _moment_fault(command.client_datetime),
}
