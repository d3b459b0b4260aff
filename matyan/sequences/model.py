"""SequenceKey, Columns, Summary: what a sequence is, and what "last" means.

`last` is the stored value at the greatest step, always; `first` is the point tracked first.
"""

from __future__ import annotations

import enum
import hashlib
import json
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]

EMPTY_CONTEXT: Final = "{}"
CACHED_TEXT_MAX: Final = 512
"""Names and contexts above this are not remembered: caches are bounded by entries."""


class Bucket(enum.IntEnum):
    """The kind of a sequence; part of its identity, so a text under a metric's name harms nothing."""

    METRIC = 1
    IMAGES = 2
    AUDIOS = 3
    TEXTS = 4
    DISTRIBUTIONS = 5
    FIGURES = 6
    LOGS = 7
    LOG_RECORDS = 8

    @property
    def word(self) -> str:
        """The name in URLs and answers: `metric`, `images`, ..., `log_records`."""
        return self.name.lower()


PUBLIC_BUCKETS: Final = (
    Bucket.METRIC,
    Bucket.IMAGES,
    Bucket.AUDIOS,
    Bucket.TEXTS,
    Bucket.DISTRIBUTIONS,
    Bucket.FIGURES,
)
BUCKET_OF_WORD: Final = {bucket.word: bucket for bucket in Bucket}
BUCKET_OF_KIND: Final = {
    "image": Bucket.IMAGES,
    "audio": Bucket.AUDIOS,
    "text": Bucket.TEXTS,
    "distribution": Bucket.DISTRIBUTIONS,
    "figure": Bucket.FIGURES,
}
"""The singular word that producers put into `dtype` and `value.type`."""


def canonical_context(context: dict[str, Any] | None) -> str:
    """Return the context's identity: JSON with sorted keys, no blanks, ASCII; `{}` for empty or null."""
    if not context:
        return EMPTY_CONTEXT
    return json.dumps(context, sort_keys=True, separators=(",", ":"))


class SequenceKey(NamedTuple):
    """What a sequence is within its run."""

    bucket: Bucket
    name: str
    context: str = EMPTY_CONTEXT
    """Canonical JSON."""

    def digest(self) -> bytes:
        """Return 16 bytes that stand for name and context in keys."""
        if len(self.name) + len(self.context) <= CACHED_TEXT_MAX:
            return _known_digest(self.name, self.context)
        return _digest(self.name, self.context)


@lru_cache(65_536)
def _known_digest(name: str, context: str) -> bytes:
    return _digest(name, context)


def _digest(name: str, context: str) -> bytes:
    return hashlib.blake2b(f"{name}\x00{context}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Columns(NamedTuple):
    """n points of a scalar sequence, steps strictly rising unless said otherwise.

    steps  int64   (n,)
    values float64 (n,)  NaN, infinities and -0.0 are kept bit for bit
    epochs float64 (n,)  NaN where none was given
    times  int64   (n,)  milliseconds since 1970-01-01 UTC, client clock
    """

    steps: Int64s
    values: Float64s
    epochs: Float64s
    times: Int64s

    def __len__(self) -> int:
        """Return n (not the number of columns)."""
        return int(self.steps.shape[0])


class Points(NamedTuple):
    """Points of a scalar sequence in order of arrival, as lists: steps in any order, repeated or not."""

    steps: list[int]
    values: list[float]
    epochs: list[float] | None
    """None when no point has one; else NaN where none was given."""
    times: list[int]

    def columns(self) -> Columns:
        """Return the same as arrays."""
        return Columns(
            np.array(self.steps, np.int64),
            np.array(self.values, np.float64),
            np.full(len(self.steps), np.nan) if self.epochs is None else np.array(self.epochs, np.float64),
            np.array(self.times, np.int64),
        )


class Indexed(NamedTuple):
    """The values of a metric as they stand in the index, each None where it has no entry."""

    last: float | None = None
    minimum: float | None = None
    maximum: float | None = None


class Summary(msgspec.Struct, array_like=True, kw_only=True):
    """The record of one sequence: everything that listing, filtering and the runs table read.

    Numbers of an object sequence (images, ...) are steps and counts only; its values are None.
    """

    bucket: int
    name: str
    context: str
    dtype: str
    """Metrics: `float`, `int` or `number` (both were tracked). Objects: `image`, `list(image)`, ..."""
    count: int = 0
    """Points written; a step written again counts twice when it was no longer in the tail."""
    first_step: int = 0
    first: float | None = None
    last_step: int = 0
    """The greatest step."""
    last: float | None = None
    step_min: int = 0
    minimum: float | None = None
    """Over all finite and infinite values ever written, NaN ignored; None when there was no number."""
    maximum: float | None = None
    non_finite: int = 0
    time_first_ms: int = 0
    time_last_ms: int = 0
    record_length_max: int = 1
    """Object sequences: the greatest number of objects in one item."""
    small_blocks: tuple[int, ...] = ()
    """Numbers of the blocks that wait to be merged, oldest first."""
    chunk_next: int = 1
    """The number that the next block gets; blocks are numbered in order of writing."""
    chunked: bool = False
    """Whether there are blocks besides the tail."""
    indexed: Indexed | None = None
    """What the index holds of it; None before it has any entry."""
    chunk_settled: int = 1
    """What `chunk_next` was when the sequence was settled last: no block is new where it still is."""

    @classmethod
    def begin(cls, key: SequenceKey, *, dtype: str, step: int, time_ms: int) -> Summary:
        """Return the record of a sequence whose first point or item is yet to be counted."""
        return cls(
            bucket=int(key.bucket),
            name=key.name,
            context=key.context,
            dtype=dtype,
            first_step=step,
            last_step=step,
            step_min=step,
            time_first_ms=time_ms,
            time_last_ms=time_ms,
        )

    @property
    def key(self) -> SequenceKey:
        """The identity."""
        return SequenceKey(Bucket(self.bucket), self.name, self.context)

    @property
    def context_object(self) -> dict[str, Any]:
        """The context, decoded."""
        decoded: dict[str, Any] = json.loads(self.context)
        return decoded


class Item(msgspec.Struct, array_like=True, frozen=True):
    """One step of an object sequence, a terminal line or a log record."""

    value: Any
    """images, audios, ...: a list of objects; logs: the text; log_records: the record object."""
    epoch: float | None = None
    time_ms: int = 0
    single: bool = True
    """Whether the client tracked one object, not a list."""
    blob_key: str | None = None
    """Where `value` lies when it is too large for the store; then `value` here is None."""
