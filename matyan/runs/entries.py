"""What the index holds of a run's document: a pure function of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from matyan.engines.kv.protocol import KvTransaction
from matyan.ids import Project, RunNumber
from matyan.runs.model import SYSTEM_PARAMS, RunDocument, name_of
from matyan.store import indexes
from matyan.store.indexes import NONE_CODE, Kind
from matyan.wire.codec import decode_tree

PARAMS_INDEXED_MAX: Final = 1000
"""A run with more params than this has none of them indexed: it is always looked at."""
TYPES: Final[Mapping[type, bytes]] = {bool: b"b", int: b"i", float: b"f", str: b"s", type(None): b"n"}
"""What the entry of a param holds: the type of its value."""
_SMALL_BYTES_MAX: Final = 16_384
_SMALL_CACHED_MAX: Final = 64
_LARGE_BYTES_MAX: Final = 4_000_000
_LARGE_CACHED_MAX: Final = 2
_TRUE_CODE: Final = indexes.code_of(True)
_SOURCES: Final = (
    "hash",
    "name",
    "created_at_seconds",
    "end_time_seconds",
    "archived",
    "active",
    "params",
    "has_system_params",
    "system_shape",
)
"""The fields that entries are made from."""

_shapes: Final = msgspec.msgpack.Encoder()


def entries_of(document: RunDocument) -> dict[bytes, bytes]:
    """Return place and value of each entry of a run, those of its sequences not included."""
    ended = document.end_time_seconds
    found: dict[bytes, bytes] = {}
    _add(found, Kind.NAME, name_of(document))
    if ended is not None:
        _add(found, Kind.ENDED, ended)
        _add(found, Kind.DURATION, ended - document.created_at_seconds)
    elif not document.active:
        found[indexes.field_of(Kind.DURATION) + NONE_CODE] = b""
    if document.archived:
        _add(found, Kind.ARCHIVED, value=True)
    if document.has_system_params:
        # Without a digest the run stands for itself.
        shape = document.system_shape or _digest(document.hash.encode("utf-8", "surrogatepass"))
        found[indexes.field_of(Kind.PARAM, (SYSTEM_PARAMS,)) + indexes.shape_code(shape)] = b""
    found.update(_param_entries(document.params))
    return found


def update(
    tx: KvTransaction, project: Project, number: RunNumber, before: RunDocument | None, now: RunDocument | None
) -> None:
    """Bring the entries of a run up to date; None: the run was not there before, or is not any more."""
    if before is not None and now is not None and _source(before) == _source(now):
        return
    known = {} if before is None else entries_of(before)
    wanted = {} if now is None else entries_of(now)
    indexes.replace(tx, project, number, known, wanted)


def shape_digest(value: object) -> bytes:
    """Return bytes that stand for how a value is built: its keys, lengths of lists and types."""
    return _digest(_shapes.encode(_shape(value)))


def _digest(raw: bytes) -> bytes:
    return hashlib.blake2b(raw, digest_size=indexes.SHAPE_BYTES).digest()


def _source(document: RunDocument) -> list[Any]:
    return [getattr(document, name) for name in _SOURCES]


def _add(found: dict[bytes, bytes], kind: Kind, value: float | str) -> None:
    code = indexes.code_of(value)
    if code is not None:
        found[indexes.field_of(kind) + code] = b""


# ---- params


def _param_entries(params: bytes) -> Mapping[bytes, bytes]:
    # Most changes of a run change little: the entries of its params before are those made for the change before.
    size = len(params)
    return (_small if size <= _SMALL_BYTES_MAX else _large if size <= _LARGE_BYTES_MAX else _make_entries)(params)


def _make_entries(params: bytes) -> Mapping[bytes, bytes]:
    # Every change of a run's params comes through here: clever in favour of speed, within the loop.
    part, field_of_parts = indexes.part, indexes.field_of_parts
    found: dict[bytes, bytes] = {}
    waiting: list[tuple[bytes, Mapping[Any, Any]]] = [(b"", decode_tree(params))]
    while waiting:
        base, tree = waiting.pop()
        odd = {}
        for key, value in tree.items():
            kind = type(value)
            if type(key) is not str:
                odd[key] = value
            elif kind is dict and value:
                waiting.append((base + part(key), value))
            elif (code := _code(value, kind)) is not None:
                found[field_of_parts(Kind.PARAM, base + part(key)) + code] = TYPES[kind]
            else:
                found[field_of_parts(Kind.PARAM, base + part(key)) + _shape_code(value)] = b""
            if len(found) > PARAMS_INDEXED_MAX:
                return {indexes.field_of(Kind.UNINDEXED) + NONE_CODE: b""}
        if odd:
            found[field_of_parts(Kind.PARAM, base) + _shape_code(odd)] = b""
    return found


def _code(value: Any, kind: type) -> bytes | None:
    """Return the code of a param; None for what has no order."""
    if kind is str:
        return indexes.text_code(value)
    if kind is float or kind is int or kind is bool:
        return indexes.number_code(value)
    return NONE_CODE if value is None else None


def _shape_code(value: object) -> bytes:
    return indexes.shape_code(shape_digest(value))


_small: Final = lru_cache(_SMALL_CACHED_MAX)(_make_entries)
_large: Final = lru_cache(_LARGE_CACHED_MAX)(_make_entries)


def _shape(value: object) -> object:
    """Return JSON-like data that is equal for values of which the same can be named."""
    if isinstance(value, dict):
        return {key: _shape(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        types = [TYPES.get(type(item)) for item in value]
        return [_shape(item) for item in value] if None in types else types
    return TYPES[type(value)]
