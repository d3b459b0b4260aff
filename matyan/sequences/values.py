"""Stored records of object sequences -> the trees that clients read. Pure.

Producers are many and some are careless: a field that is missing or of a wrong type gets a neutral value here, so that
one damaged object never spoils an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import numpy as np

from matyan.sequences.model import Bucket, Float64s, Item

Tree = dict[str, Any]
UriOf = Callable[[object], str]
"""The storage key that a producer gave with an object -> the URI by which clients ask for its bytes."""

LIST_BUCKETS: Final = frozenset({Bucket.IMAGES, Bucket.AUDIOS, Bucket.TEXTS})
"""Kinds whose records are lists of objects, even of a single one; a record of the others is one object."""
OBJECT_BUCKETS: Final = (Bucket.IMAGES, Bucket.TEXTS, Bucket.DISTRIBUTIONS, Bucket.AUDIOS, Bucket.FIGURES)
NO_FIGURE: Final = "{}"
_WEIGHT: Final = np.dtype("<f8")


def record_value(bucket: Bucket, item: Item, positions: range, uri_of: UriOf) -> Tree | list[Tree]:
    """Return what a client reads of one record.

    Args:
        bucket: the kind of the sequence.
        item: the stored record.
        positions: which objects of a list are shown; each says its position as `index`.
        uri_of: makes the URIs of images and audios.
    """
    objects = item.value if isinstance(item.value, list) else []
    make = _MAKERS[bucket]
    if bucket not in LIST_BUCKETS:
        return make(_fields(objects[0] if objects else None), uri_of)
    shown = range(positions.start, min(positions.stop, len(objects)), positions.step)
    return [make(_fields(objects[position]), uri_of) | {"index": position} for position in shown]


def _image(fields: Tree, uri_of: UriOf) -> Tree:
    return {
        "caption": _text(fields.get("caption")),
        "format": _text(fields.get("format")),
        "width": _integer(fields.get("width")),
        "height": _integer(fields.get("height")),
        "blob_uri": uri_of(fields.get("s3_key")),
    }


def _audio(fields: Tree, uri_of: UriOf) -> Tree:
    return {
        "caption": _text(fields.get("caption")),
        "format": _text(fields.get("format")),
        "blob_uri": uri_of(fields.get("s3_key")),
    }


def _plain_text(fields: Tree, _: UriOf) -> Tree:
    data = fields.get("data")
    return {"data": "" if data is None else data if isinstance(data, str) else _json(data)}


def _distribution(fields: Tree, _: UriOf) -> Tree:
    weights = _weights(fields.get("data"))
    bin_count = _integer(fields.get("bin_count"))
    return {
        "bin_count": len(weights) if bin_count is None else bin_count,
        "range": _bounds(fields.get("range")),
        "data": weights,
    }


def _figure(fields: Tree, _: UriOf) -> Tree:
    """Return a figure whose `data` is JSON text, which both web UIs parse; data from Aim is such text already."""
    data = fields.get("data")
    return {
        "source": _text(fields.get("source")) or "plotly",
        "format": _text(fields.get("format")) or "raw_json",
        "version": _text(fields.get("version")) or "unknown",
        "data": NO_FIGURE if data is None else data if isinstance(data, str) else _json(data),
    }


_MAKERS: Final[Mapping[Bucket, Callable[[Tree, UriOf], Tree]]] = {
    Bucket.IMAGES: _image,
    Bucket.AUDIOS: _audio,
    Bucket.TEXTS: _plain_text,
    Bucket.DISTRIBUTIONS: _distribution,
    Bucket.FIGURES: _figure,
}


def _fields(stored: object) -> Tree:
    return stored if isinstance(stored, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _integer(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _bounds(value: object) -> list[float]:
    """Return lower and upper end of a histogram; a unit range where none can be read."""
    ends = _numbers(value)
    return ends.tolist() if len(ends) == len(("lower", "upper")) else [0.0, 1.0]


def _weights(data: object) -> Float64s:
    """Return the counts of a histogram, stored as a list, or as packed doubles (bytes, or their hexadecimal text)."""
    packed = _packed(data)
    return _numbers(data) if packed is None else np.frombuffer(packed, _WEIGHT)


def _packed(data: object) -> bytes | None:
    if isinstance(data, str):
        try:
            data = bytes.fromhex(data)
        except ValueError:
            return None
    return data if isinstance(data, bytes) and len(data) % _WEIGHT.itemsize == 0 else None


def _numbers(value: object) -> Float64s:
    """Return a flat list of numbers as doubles; nothing when it is something else."""
    try:
        found = np.array(value if isinstance(value, list) else [], np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.empty(0)
    return found if found.ndim == 1 else np.empty(0)


def _json(value: object) -> str:
    """Return JSON text as browsers parse it: NaN and infinities are null."""
    return msgspec.json.encode(value).decode()
