"""Order-preserving tuple <-> key bytes, byte for byte what FoundationDB's tuple layer writes.

Keys compare as their tuples do, element by element. Between types the order is: None, bytes, str, int, float, bool.
The one place where two encodings meet: integers up to 2**64 - 2 carry their length in the type code, from 2**64 - 1
on in a byte of their own, exactly as the FoundationDB bindings draw that line.
Source: https://github.com/apple/foundationdb/blob/main/design/tuple.md
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from matyan.engines.kv.protocol import KeyRange
from matyan.errors import CorruptedError, InvalidArgumentError

Item = None | bytes | str | int | float | bool

_NONE: Final = 0x00
_BYTES: Final = 0x01
_STR: Final = 0x02
_NEGATIVE_LONG: Final = 0x0B
_ZERO: Final = 0x14
_POSITIVE_LONG: Final = 0x1D
_DOUBLE: Final = 0x21
_FALSE: Final = 0x26
_TRUE: Final = 0x27

_SHORT_MAX: Final = 2**64 - 2
"""The greatest magnitude whose length fits the type code."""
_LONG_BYTES_MAX: Final = 255
_SIGN_BIT: Final = 1 << 63
_ALL_BITS: Final = (1 << 64) - 1
_DOUBLE_STRUCT: Final = struct.Struct(">d")
_UINT64_STRUCT: Final = struct.Struct(">Q")


def pack(items: tuple[Item, ...], prefix: bytes = b"") -> bytes:
    """Return `prefix` followed by the encoded items.

    Raises:
        InvalidArgumentError: an item has a type or value that no key can hold.
    """
    parts = [prefix]
    for item in items:
        encode = _ENCODERS.get(type(item)) or _encoder_of(item)
        parts.append(encode(item))
    return b"".join(parts)


def unpack(key: bytes, prefix: bytes = b"") -> tuple[Item, ...]:
    """Return the items of a key that `pack` made with the same prefix.

    Raises:
        CorruptedError: the key is not made of that prefix and whole items.
    """
    if not key.startswith(prefix):
        raise CorruptedError(f"key {key!r} does not begin with {prefix!r}")
    items: list[Item] = []
    position = len(prefix)
    while position < len(key):
        item, position = _decode(key, position)
        items.append(item)
    return tuple(items)


def range_of(items: tuple[Item, ...], prefix: bytes = b"") -> KeyRange:
    """Return the range of all keys strictly below a tuple: those of every longer tuple that begins with `items`."""
    base = pack(items, prefix)
    return KeyRange(base + b"\x00", base + b"\xff")


def strinc(prefix: bytes) -> bytes:
    """Return the first key after all those that begin with `prefix`.

    Raises:
        InvalidArgumentError: nothing comes after; `prefix` is empty or has only 0xff bytes.
    """
    stem = prefix.rstrip(b"\xff")
    if not stem:
        raise InvalidArgumentError(f"no key comes after all keys that begin with {prefix!r}")
    return stem[:-1] + bytes((stem[-1] + 1,))


# ---- encoding


def _encode_none(_item: None) -> bytes:
    return b"\x00"


def _encode_bytes(item: bytes) -> bytes:
    # A zero byte ends the item, so one inside it is followed by 0xff, which no type code is.
    return b"\x01" + item.replace(b"\x00", b"\x00\xff") + b"\x00"


def _encode_str(item: str) -> bytes:
    try:
        encoded = item.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"text {item!r} holds a lone surrogate, which UTF-8 cannot carry") from error
    return b"\x02" + encoded.replace(b"\x00", b"\x00\xff") + b"\x00"


def _encode_int(item: int) -> bytes:
    if -_SHORT_MAX <= item <= _SHORT_MAX:
        size = (item.bit_length() + 7) >> 3
        if item >= 0:
            return bytes((_ZERO + size,)) + item.to_bytes(size, "big")
        # One's complement of the magnitude: greater (nearer zero) numbers get greater bytes.
        return bytes((_ZERO - size,)) + (item + (1 << (8 * size)) - 1).to_bytes(size, "big")
    size = (item.bit_length() + 7) >> 3
    if size > _LONG_BYTES_MAX:
        raise InvalidArgumentError(f"an integer of {size} bytes does not fit a key, limit {_LONG_BYTES_MAX}")
    if item > 0:
        return bytes((_POSITIVE_LONG, size)) + item.to_bytes(size, "big")
    return bytes((_NEGATIVE_LONG, size ^ 0xFF)) + (item + (1 << (8 * size)) - 1).to_bytes(size, "big")


def _encode_float(item: float) -> bytes:
    (bits,) = _UINT64_STRUCT.unpack(_DOUBLE_STRUCT.pack(item))
    # IEEE 754 orders positive doubles as integers; the sign moves them above the negatives, which are turned around.
    return b"\x21" + _UINT64_STRUCT.pack(bits ^ (_ALL_BITS if bits & _SIGN_BIT else _SIGN_BIT))


def _encode_bool(item: bool) -> bytes:  # noqa: FBT001 - one encoder per type, called by a table
    return b"\x27" if item else b"\x26"


_ENCODERS: Final[dict[type, Callable[..., bytes]]] = {
    type(None): _encode_none,
    bytes: _encode_bytes,
    str: _encode_str,
    bool: _encode_bool,
    int: _encode_int,
    float: _encode_float,
}


def _encoder_of(item: object) -> Callable[..., bytes]:
    """Return the encoder for an instance of a subclass (StrEnum, IntEnum), which the table does not name."""
    for base, encode in _ENCODERS.items():
        if isinstance(item, base):
            return encode
    raise InvalidArgumentError(f"a key cannot hold a {type(item).__name__}")


# ---- decoding


def _decode(key: bytes, position: int) -> tuple[Item, int]:
    """Return the item that begins at `position`, and where the next one begins."""
    code = key[position]
    position += 1
    if _BYTES <= code <= _STR:
        return _decode_text(key, position, code)
    if _NEGATIVE_LONG <= code <= _POSITIVE_LONG:
        return _decode_int(key, position, code)
    if code == _DOUBLE:
        (bits,) = _UINT64_STRUCT.unpack(_take(key, position, 8))
        bits ^= _SIGN_BIT if bits & _SIGN_BIT else _ALL_BITS
        return _DOUBLE_STRUCT.unpack(_UINT64_STRUCT.pack(bits))[0], position + 8
    if code == _NONE:
        return None, position
    if code in (_FALSE, _TRUE):
        return code == _TRUE, position
    raise CorruptedError(f"key {key!r} has the unknown type code {code:#04x} at {position - 1}")


def _decode_text(key: bytes, position: int, code: int) -> tuple[bytes | str, int]:
    end = key.find(b"\x00", position)
    while end >= 0 and key[end + 1 : end + 2] == b"\xff":
        end = key.find(b"\x00", end + 2)
    if end < 0:
        raise CorruptedError(f"key {key!r} ends inside an item")
    raw = key[position:end].replace(b"\x00\xff", b"\x00")
    if code == _BYTES:
        return raw, end + 1
    try:
        return raw.decode(), end + 1
    except UnicodeDecodeError as error:
        raise CorruptedError(f"key {key!r} holds text that is not UTF-8") from error


def _decode_int(key: bytes, position: int, code: int) -> tuple[int, int]:
    if code == _POSITIVE_LONG:
        size, position, is_negative = _take(key, position, 1)[0], position + 1, False
    elif code == _NEGATIVE_LONG:
        size, position, is_negative = _take(key, position, 1)[0] ^ 0xFF, position + 1, True
    else:
        size, is_negative = abs(code - _ZERO), code < _ZERO
    value = int.from_bytes(_take(key, position, size), "big")
    return value - (1 << (8 * size)) + 1 if is_negative else value, position + size


def _take(key: bytes, position: int, size: int) -> bytes:
    taken = key[position : position + size]
    if len(taken) != size:
        raise CorruptedError(f"key {key!r} ends inside an item")
    return taken
