"""Objects of Aim -> objects as the store keeps them, which are those of matyan-client; and the bytes beside them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from matyan.blobs.service import blob_key
from matyan.ids import Project, RunId
from matyan.sequences.model import BUCKET_OF_KIND, Item
from matyan.transfer.aim_chunks import AimDataError, AimObject, plain
from matyan.transfer.aim_runs import LOG_LINE, LOG_RECORD
from matyan.transfer.aim_source import AimItem
from matyan.wire.streams import Key

Fields = Mapping[Key, Any]
_MEDIA_TYPES: Final = {"jpg": "image/jpeg", "mp3": "audio/mpeg"}
_DIGEST_BYTES: Final = 16


class Blob(NamedTuple):
    """Bytes that go to the object store."""

    key: str
    content: bytes
    content_type: str


class Made(NamedTuple):
    """What one step becomes."""

    item: Item
    dtype: str
    """`image`, `list(image)`, ...; the bucket's name for lines and records."""
    objects: int
    blobs: tuple[Blob, ...]


class _Maker:
    """Makes the objects of one run."""

    def __init__(self, project: Project, run_id: RunId) -> None:
        self._project = project
        self._run_id = run_id
        self.blobs: list[Blob] = []

    def make(self, found: Any) -> dict[str, Any]:
        kind = _kind(found)
        make = _MAKERS.get(kind)
        if make is None:
            # A class of the user's own that no page can draw: kept readable, as the text of its JSON.
            return {"type": "text", "data": json.dumps(plain(found), default=_as_text)}
        try:
            return {"type": kind, **make(self, found.fields)}
        except (KeyError, TypeError, ValueError) as error:
            raise AimDataError(f"an object of class {found.kind} cannot be read: {error!r}") from error

    def upload(self, fields: Fields, family: str) -> str:
        """Note bytes to be stored under a name made of themselves, so that storing them again is harmless."""
        content = _bytes(fields["data"])
        suffix = re.sub(r"[^a-z0-9]", "", str(fields.get("format") or "").lower()) or "bin"
        path = f"seq/{hashlib.blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()}.{suffix}"
        media_type = _MEDIA_TYPES.get(suffix, f"{family}/{suffix}")
        self.blobs.append(Blob(blob_key(self._project, self._run_id, path), content, media_type))
        return f"{self._run_id}/{path}"

    def image(self, fields: Fields) -> dict[str, Any]:
        named = {name: fields.get(name) for name in ("format", "caption", "width", "height")}
        return {**named, "s3_key": self.upload(fields, "image")}

    def audio(self, fields: Fields) -> dict[str, Any]:
        named = {name: fields.get(name) for name in ("format", "caption")}
        return {**named, "rate": fields.get("rate"), "s3_key": self.upload(fields, "audio")}

    def text(self, fields: Fields) -> dict[str, Any]:
        return {"data": _as_text(fields["data"])}

    def distribution(self, fields: Fields) -> dict[str, Any]:
        weights = np.frombuffer(_bytes(fields["data"]), np.dtype(fields["dtype"]))
        return {"bin_count": fields["bin_count"], "range": fields["range"], "data": weights.tolist()}

    def figure(self, fields: Fields) -> dict[str, Any]:
        named = {name: fields.get(name) for name in ("source", "format", "version")}
        return {**named, "data": _as_text(fields["data"])}


_MAKERS: Final[Mapping[str, Callable[[_Maker, Fields], dict[str, Any]]]] = {
    "image": _Maker.image,
    "audio": _Maker.audio,
    "text": _Maker.text,
    "distribution": _Maker.distribution,
    "figure": _Maker.figure,
}


def make(found: AimItem, dtype: str, project: Project, run_id: RunId) -> Made:
    """Return what is stored of one step of a sequence of objects.

    Args:
        found: the step as read.
        dtype: the sequence's.
        project: where the run goes.
        run_id: the run.

    Raises:
        AimDataError: the object lacks what its class needs.
    """
    if dtype == LOG_LINE:
        return Made(Item(_line(found.value), found.epoch, found.time_ms), "logs", 1, ())
    if dtype == LOG_RECORD:
        return Made(Item(_record(found.value), found.epoch, found.time_ms), "log_records", 1, ())
    single = not isinstance(found.value, list)
    maker = _Maker(project, run_id)
    objects = [maker.make(each) for each in ([found.value] if single else found.value)]
    item = Item(objects, found.epoch, found.time_ms, single)
    return Made(item, dtype_of(dtype, single=single), len(objects), tuple(maker.blobs))


def dtype_of(dtype: str, *, single: bool) -> str:
    """Return a sequence's type here: that of Aim, texts for what is not known."""
    kind = dtype.removeprefix("list(").removesuffix(")")
    kind = kind if kind in BUCKET_OF_KIND else "text"
    return kind if single and not dtype.startswith("list") else f"list({kind})"


def _line(found: Any) -> str:
    return _as_text(found.fields.get("data")) if isinstance(found, AimObject) else str(found)


def _record(found: Any) -> dict[str, Any]:
    fields = found.fields if isinstance(found, AimObject) else {}
    return {
        "message": fields.get("message"),
        "log_level": fields.get("log_level"),
        "timestamp": fields.get("timestamp"),
        "args": plain(fields.get("extra_args")),
        "logger_info": plain(fields.get("__logger_info")),
    }


def _kind(found: Any) -> str:
    return found.kind.removeprefix("aim.") if isinstance(found, AimObject) else ""


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
