"""Keys <-> names of objects in a bucket: in the same order, prefix for prefix, and made of what every S3 takes.

A name is the key with other than plain characters escaped, and a `!` at its end:

    default/4f2a/seq/loss curve_1.png   default/4f2a/seq/loss(20curve__1.png!

S3 itself takes almost any text, but its relatives do not: MinIO keeps objects as directories, so it refuses an object
`a` beside `a/b`, segments over 255 bytes, `.`, `..` and empty ones, and clients fold `..` before they send. So

- a byte becomes the code of the tables below, which rise with the bytes and of which none begins another: names sort as
  their keys do, and the name of a prefix begins exactly the names of the keys with that prefix;
- `!` stands before every other code and only at the end of a name, so no object is the directory of another;
- at the start of a segment `-`, `.` and `/` are escaped too, so none is empty, `.` or `..`;
- a segment that reaches SEGMENT_BYTES is ended with `)/`;
- a name that reaches HEAD_BYTES is cut there, and goes on with `(/` and the hash of the whole key. Such names keep
  no order among themselves, and the key lies in an object of its own beside them, see `key_object`.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from matyan.engines.blob.objects import encode_key

SEGMENT_BYTES: Final = 200
"""A segment has at most a code and an end more; file systems and MinIO take 255."""
HEAD_BYTES: Final = 768
NAME_BYTES_MAX: Final = HEAD_BYTES + 2 * len("~FF") + len("(/") + 64 + len(".key")
"""The rest of what S3 takes is for the prefix in the bucket."""
S3_BYTES_MAX: Final = 1024

_END: Final = "!"
_FULL: Final = ")/"
_CUT: Final = "(/"
_KEY_OBJECT: Final = ".key"


def _later_codes() -> list[str]:
    """Return the code of every byte inside a segment; they rise, and none begins another."""
    codes = [f"{_escape(byte)}{byte:02X}" for byte in range(256)]
    for plain in b"-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz/":
        codes[plain] = chr(plain)
    codes[ord("_")] = "__"
    codes[ord("`")] = "_g"  # after `__`
    return codes


def _escape(byte: int) -> str:
    """Return the first character of an escaped byte: one that sorts where the byte stands among the plain ones."""
    if byte <= ord("/"):
        return "("
    if byte <= ord("@"):
        return "="
    return "_" if byte <= ord("`") else "~"


_LATER: Final = _later_codes()
_FIRST: Final = [f"({byte:02X}" if byte <= ord("/") else code for byte, code in enumerate(_LATER)]
_BYTES: Final = tuple({code: byte for byte, code in enumerate(codes)} for codes in (_FIRST, _LATER))


class _Head(NamedTuple):
    text: str
    is_cut: bool


def object_name(key: str) -> str:
    """Return the name of a key's object, at most NAME_BYTES_MAX bytes of ASCII.

    Raises:
        InvalidArgumentError: the key is too long.
    """
    data = encode_key(key)
    head = _head(data)
    return f"{head.text}{hashlib.sha256(data).hexdigest() if head.is_cut else ''}{_END}"


def name_prefix(prefix: str) -> str:
    """Return how the names of all keys with this prefix begin; others begin so only when `is_cut`.

    Raises:
        InvalidArgumentError: the prefix is too long.
    """
    return _head(encode_key(prefix)).text


def is_cut(name: str) -> bool:
    """Return whether the name, or the prefix of names, does not tell the whole key."""
    return _CUT in name


def cut_head(name: str) -> str:
    """Return what names share whose keys begin alike and which keep no order; empty for a name that tells its key."""
    head, cut, _ = name.partition(_CUT)
    return head + cut if cut else ""


def key_object(name: str) -> str:
    """Return the name of the object whose content is the key of a cut name."""
    return name.removesuffix(_END) + _KEY_OBJECT


def is_object(name: str) -> bool:
    """Return whether this is the name of a key's object, rather than of a cut key or of something not ours."""
    return name.endswith(_END)


def key_of(name: str) -> str | None:
    """Return the key whose object has this name, or None when it is no such name, or a cut one."""
    data = _decode(name.removesuffix(_END))
    try:
        key = None if data is None else data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    return key if key is not None and object_name(key) == name else None


def _head(data: bytes) -> _Head:
    pieces: list[str] = []
    name_bytes = segment_bytes = 0
    for byte in data:
        if name_bytes >= HEAD_BYTES:
            return _Head("".join(pieces) + _CUT, is_cut=True)
        code = (_LATER if segment_bytes else _FIRST)[byte]
        segment_bytes = 0 if code == "/" else segment_bytes + len(code)
        if segment_bytes >= SEGMENT_BYTES:
            code += _FULL
            segment_bytes = 0
        pieces.append(code)
        name_bytes += len(code)
    return _Head("".join(pieces), is_cut=False)


def _decode(text: str) -> bytes | None:
    """Return the bytes of which these are the codes; `key_of` checks that they would be written so."""
    data = bytearray()
    at = segment_bytes = 0
    while at < len(text):
        codes = _BYTES[segment_bytes > 0]
        code = next((code for size in (1, 2, 3) if (code := text[at : at + size]) in codes), None)
        if code is None:
            return None
        data.append(codes[code])
        segment_bytes = 0 if code == "/" else segment_bytes + len(code)
        at += len(code)
        if segment_bytes >= SEGMENT_BYTES:
            at += len(_FULL)
            segment_bytes = 0
    return bytes(data)
