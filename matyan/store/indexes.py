"""Entries of the index: which runs have a value in a field, in the order of the values.

An entry is a key: kind, field, code of the value (its place, together), and run number. Codes keep the order of values:
whatever has the lesser code is less. What a code leaves out (the end of a long text, the low bits of a great integer)
makes different values share it, never change places; `is_exact` tells such codes. Entries follow from what they are
made from, the document of a run or the record of a sequence, so who changes that knows which entries to clear, and
nothing is stored about them (docs/decisions/0021-indexes.md).
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Final

from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.ids import Project, RunNumber
from matyan.limits import KEY_BYTES_MAX
from matyan.store import keyspace

VERSION: Final = 1
"""Counts changes of what is indexed or how: an index of another version is made anew."""

TEXT_BYTES_MAX: Final = 64
"""Of a text that is a value: what its code keeps."""
NAME_BYTES_MAX: Final = 64
"""Of a text that names a field; a digest stands for a longer one."""
PATH_BYTES_MAX: Final = 200
"""Of all keys that lead to a param; a digest stands for a longer path."""
EXACT_MAX: Final = 2.0**53
"""From here on several integers share the nearest float."""

_INCOMPLETE: Final = b"\x00"
_PARTS_CACHED_MAX: Final = 16_384
_DIGEST: Final = 0x01
_TEXT: Final = 0x02
_CODES: Final = 0x10
"""First bytes of what follows a field are not below this, those of its parts are."""
_NUMBER: Final = struct.Struct(">Q")
_FLOAT: Final = struct.Struct(">d")
_BITS: Final = struct.Struct(">q")
_NEGATIVE_ZERO: Final = -(2**63)
_SIGN: Final = 1 << 63
_ALL: Final = 2**64 - 1
NUMBER_BYTES: Final = 8
DIGEST_BYTES: Final = 16
SHAPE_BYTES: Final = 8


class Kind(IntEnum):
    """What is indexed. Those without entries of their own are found by other lists of runs, see `runs/index.py`."""

    HASH = 1
    NAME = 2
    CREATED = 3
    ENDED = 4
    DURATION = 5
    EXPERIMENT = 6
    TAG = 7
    ACTIVE = 8
    ARCHIVED = 9
    PARAM = 10
    SEQUENCE = 11
    LAST = 12
    MINIMUM = 13
    MAXIMUM = 14
    UNINDEXED = 15
    """Runs whose params have no entries, since there are too many."""


class Class(IntEnum):
    """First byte of a code: values of one class are in order, classes follow each other."""

    NONE = _CODES
    NUMBER = 0x20
    TEXT = 0x30
    SHAPE = 0x40
    """No value but how something is built: for lists, empty objects and what lies below them."""


# ---- fields


def field_of(kind: Kind, path: Sequence[str] = ()) -> bytes:
    """Return how entries of a kind begin that has a path of texts, or none."""
    return field_of_parts(kind, b"".join(map(part, path)))


def field_of_parts(kind: Kind, parts: bytes) -> bytes:
    """Return the same for a path whose parts are known."""
    if len(parts) > PATH_BYTES_MAX:
        parts = _digest_part(parts)
    return bytes((kind,)) + parts


def sequence_field(kind: Kind, bucket: int, name: str, context: str | None = None) -> bytes:
    """Return how entries of sequences begin, of one context or (None) of all."""
    parts = bytes((kind, bucket)) + part(name)
    return parts if context is None else parts + part(context)


def is_shortened(text: str) -> bool:
    """Return whether a digest stands for the name or context of a sequence."""
    return part(text)[0] == _DIGEST


def read_parts(place: bytes, at: int) -> tuple[list[str | bytes], int]:
    """Return the texts (or the digests that stand for them) of the field at `at`, and where its code begins."""
    parts: list[str | bytes] = []
    while at < len(place) and place[at] < _CODES:
        if place[at] == _DIGEST:
            parts.append(place[at + 1 : at + 1 + DIGEST_BYTES])
            at += 1 + DIGEST_BYTES
            continue
        end = place.index(b"\x00", at)
        while place[end + 1 : end + 2] == b"\xff":
            end = place.index(b"\x00", end + 2)
        parts.append(place[at + 1 : end].replace(b"\x00\xff", b"\x00").decode("utf-8", "surrogatepass"))
        at = end + 1
    return parts, at


def part(text: str) -> bytes:
    """Return what a text becomes in a field."""
    return _known_part(text) if len(text) <= NAME_BYTES_MAX else _make_part(text)


@lru_cache(_PARTS_CACHED_MAX)
def _known_part(text: str) -> bytes:
    return _make_part(text)


def _make_part(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) > NAME_BYTES_MAX:
        return _digest_part(raw)
    return b"\x02" + raw.replace(b"\x00", b"\x00\xff") + b"\x00"


def _digest_part(raw: bytes) -> bytes:
    return bytes((_DIGEST,)) + hashlib.blake2b(raw, digest_size=DIGEST_BYTES).digest()


# ---- codes

NONE_CODE: Final = bytes((Class.NONE,))


def code_of(value: float | str) -> bytes | None:
    """Return the code of a number (True is 1, as in Python) or a text; None for NaN, which has no order."""
    return text_code(value) if isinstance(value, str) else number_code(value)


def is_exact(code: bytes) -> bool:
    """Return whether all numbers or texts that have this code are equal."""
    if code[0] == Class.TEXT:
        return code[-1] == 0
    return abs(_float_of(code)) < EXACT_MAX


def shape_code(digest: bytes) -> bytes:
    """Return the code that stands for how a value is built, of the SHAPE_BYTES of its digest."""
    return bytes((Class.SHAPE,)) + digest


def after(code: bytes) -> bytes:
    """Return what is greater than all entries with this code and less than those with a greater one."""
    return code + b"\xff"


def number_code(value: float) -> bytes | None:
    """Return the code of a number; None for NaN."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    if number != number:  # noqa: PLR0124 - NaN
        return None
    (bits,) = _BITS.unpack(_FLOAT.pack(number))
    # As in `engines/kv/tuples.py`: positive doubles order as integers, the sign turns the negative ones around.
    # -0.0, the least of them, equals 0.0.
    return b"\x20" + _NUMBER.pack(bits + _SIGN if bits >= 0 else -bits - 1 if bits != _NEGATIVE_ZERO else _SIGN)


def _float_of(code: bytes) -> float:
    (bits,) = _NUMBER.unpack_from(code, 1)
    number: float = _FLOAT.unpack(_NUMBER.pack(bits ^ (_SIGN if bits & _SIGN else _ALL)))[0]
    return number


def text_code(text: str) -> bytes:
    """Return the code of a text."""
    # The order of UTF-8 is that of code points. The last byte tells a text from the beginning of a longer one.
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) > TEXT_BYTES_MAX:
        return b"\x30" + raw[:TEXT_BYTES_MAX].replace(b"\x00", b"\x00\xff") + b"\x01"
    return b"\x30" + raw.replace(b"\x00", b"\x00\xff") + b"\x00"


# ---- entries in the store


def entry_key(project: Project, place: bytes, number: RunNumber) -> bytes:
    """Return the key of an entry."""
    return keyspace.index(project) + place + _NUMBER.pack(number)


def number_of(key: bytes) -> RunNumber:
    """Return the run of an entry."""
    return RunNumber(_NUMBER.unpack(key[-NUMBER_BYTES:])[0])


def replace(
    tx: KvTransaction, project: Project, number: RunNumber, before: Mapping[bytes, bytes], now: Mapping[bytes, bytes]
) -> None:
    """Write what two sets of entries of a run differ in, given as place and value. Doing it again changes nothing."""
    prefix, suffix = keyspace.index(project), _NUMBER.pack(number)
    for place in before.keys() - now.keys() if before else ():
        tx.clear(prefix + place + suffix)
    for place, value in now.items():
        if before.get(place) != value:
            tx.put(prefix + place + suffix, value)


def describe(place: bytes) -> str:
    """Return an entry's place as text for people."""
    kind = Kind(place[0])
    begin = 2 if kind in (Kind.SEQUENCE, Kind.LAST, Kind.MINIMUM, Kind.MAXIMUM) else 1
    parts, at = read_parts(place, begin)
    path = " / ".join(part if isinstance(part, str) else f"digest {part.hex()}" for part in parts)
    return (
        f"{kind.name.lower()} {path}, code {place[at:].hex()}"
        if path
        else f"{kind.name.lower()}, code {place[at:].hex()}"
    )


# ---- completeness


def is_complete(reader: KvReader, project: Project) -> bool:
    """Return whether every run has all its entries, in the form that this release reads; one round trip."""
    state, counter = reader.get_many([keyspace.index_state(project), keyspace.run_counter(project)])
    return counter is None if state is None else state == bytes((VERSION,))


def begin(tx: KvTransaction, project: Project) -> None:
    """Note with the first run of a project that the index is complete, unless somebody makes it anew just now."""
    if tx.get(keyspace.index_state(project)) is None:
        set_complete(tx, project)


def set_complete(tx: KvTransaction, project: Project) -> None:
    """Note that every run has all its entries."""
    tx.put(keyspace.index_state(project), bytes((VERSION,)))


def set_incomplete(tx: KvTransaction, project: Project) -> None:
    """Note that entries may be missing: nobody uses the index until it is complete."""
    tx.put(keyspace.index_state(project), _INCOMPLETE)


assert KEY_BYTES_MAX > 64 + PATH_BYTES_MAX + 2 * TEXT_BYTES_MAX + NUMBER_BYTES
assert KEY_BYTES_MAX > 64 + 2 * (2 * NAME_BYTES_MAX + 2) + 2 * NUMBER_BYTES
