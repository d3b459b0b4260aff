"""Encoders and decoders made once: trees of params, log envelopes.

Frames have a module of their own, `wire/frames.py`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from matyan.wire.messages import Envelope

_BIG_INTEGER: Final = 1
"""msgpack extension code: an integer beyond 64 bit as decimal text (msgpack itself ends at 64 bit)."""
_INT64_MIN: Final = -(2**63)
_UINT64_MAX: Final = 2**64 - 1

_encoder: Final = msgspec.msgpack.Encoder()
_envelopes: Final = msgspec.msgpack.Decoder(Envelope)


def decode_extension(code: int, data: memoryview) -> object:
    """Undo `tag_big_integers`: the `ext_hook` of every msgpack decoder of ours."""
    if code == _BIG_INTEGER:
        return int(bytes(data))
    raise ValueError(f"unknown extension {code}")


_trees: Final = msgspec.msgpack.Decoder(ext_hook=decode_extension)


def tag_big_integers(value: object) -> object:
    """Return JSON-like data with integers beyond 64 bit as extensions, which msgpack can carry."""
    if isinstance(value, dict):
        return {key: tag_big_integers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [tag_big_integers(item) for item in value]
    if isinstance(value, int) and not _INT64_MIN <= value <= _UINT64_MAX:
        return msgspec.msgpack.Ext(_BIG_INTEGER, str(value).encode())
    return value


def encode_tree(tree: object) -> bytes:
    """Pack JSON-like data (dict keys text or int, integers of any size, any double) as msgpack."""
    try:
        return _encoder.encode(tree)
    except OverflowError:
        return _encoder.encode(tag_big_integers(tree))


def decode_tree(data: bytes) -> Any:
    """Invert `encode_tree`; tuples come back as lists."""
    return _trees.decode(data)


def encode_envelope(envelope: Envelope) -> bytes:
    """Pack a log record's value."""
    return _encoder.encode(envelope)


def decode_envelope(data: bytes) -> Envelope:
    """Invert `encode_envelope`.

    Raises:
        msgspec.MsgspecError: the bytes are no envelope.
    """
    return _envelopes.decode(data)
