"""Columns <-> bytes: chunks, tails and previews.

A block is a format byte, a codec byte, n as uint32 little-endian, then one length-prefixed block per column in the
order steps, values, epochs, times. An epochs block of length 0 means that no point has an epoch.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, standalone

from matyan.errors import CorruptedError, InvalidArgumentError
from matyan.limits import CHUNK_POINTS_MAX
from matyan.sequences.model import Columns, Float64s, Points

ColumnName = Literal["steps", "values", "epochs", "times"]

FORMAT_VERSION: Final = 1
RAW: Final = 0
"""Little-endian columns as they are: for the tail, which is rewritten with every slice."""
PCODEC: Final = 1
"""pcodec, values as float64."""
PCODEC_FLOAT32: Final = 2
"""pcodec, values as float32 because every value survives the round trip bit for bit."""

_HEADER: Final = struct.Struct("<BBI")
_LENGTH: Final = struct.Struct("<I")
_NO_LENGTH: Final = _LENGTH.pack(0)
_NUMBER_BYTES: Final = 8
"""Of one number in an uncompressed column."""
_EMPTY_INTS: Final = np.empty(0, np.int64)
_EMPTY_FLOATS: Final = np.empty(0, np.float64)
EMPTY: Final = Columns(_EMPTY_INTS, _EMPTY_FLOATS, _EMPTY_FLOATS, _EMPTY_INTS)

_COLUMNS: Final[Mapping[ColumnName, tuple[int, type[np.generic]]]] = {
    "steps": (0, np.int64),
    "values": (1, np.float64),
    "epochs": (2, np.float64),
    "times": (3, np.int64),
}
"""Place in a block and type in memory."""

_THOROUGH: Final = ChunkConfig()
_QUICK: Final = ChunkConfig(compression_level=4, mode_spec=ModeSpec.classic(), delta_spec=DeltaSpec.no_op())
"""A tenth of the time, and hardly larger for noise; for blocks that are written anew before long."""
# Automatic delta search costs three times a fixed order and finds the same for counters and clocks.
_CONSECUTIVE: Final = ChunkConfig(delta_spec=DeltaSpec.try_consecutive(1))


def encode_raw(columns: Columns) -> bytes:
    """Pack n >= 0 points without compression (24 or 32 bytes a point)."""
    return _join(RAW, len(columns), [column.tobytes() if column is not None else b"" for column in _stored(columns)])


def encode_chunk(columns: Columns, *, quick: bool = False) -> bytes:
    """Pack one chunk of a scalar sequence.

    Args:
        columns: n points, 1 <= n <= CHUNK_POINTS_MAX, steps strictly rising.
        quick: spend little time on it.

    Returns:
        A block, at most 32 bytes a point and some header bytes; see the module.

    Raises:
        InvalidArgumentError: n is out of range.
    """
    n = len(columns)
    if not 1 <= n <= CHUNK_POINTS_MAX:
        raise InvalidArgumentError(f"a chunk has {n} points, limit {CHUNK_POINTS_MAX}")
    steps, values, epochs, times = _stored(columns)
    narrow = _as_float32(values)
    config = _QUICK if quick else _THOROUGH
    return _join(
        PCODEC if narrow is None else PCODEC_FLOAT32,
        n,
        [
            standalone.simple_compress(steps, _CONSECUTIVE),
            standalone.simple_compress(values if narrow is None else narrow, config),
            b"" if epochs is None else standalone.simple_compress(epochs, config),
            standalone.simple_compress(times, _CONSECUTIVE),
        ],
    )


def count(block: bytes) -> int:
    """Return how many points a block holds."""
    n: int = _HEADER.unpack_from(block)[2]
    return n


def is_packed(block: bytes) -> bool:
    """Return whether decoding a block takes longer than looking it up."""
    codec: int = _HEADER.unpack_from(block)[1]
    return codec != RAW


def extend_raw(block: bytes, points: Points) -> bytes | None:
    """Return an uncompressed block with points appended behind its own, or None when they cannot simply be appended.

    The hot path of ingestion: a slice brings each sequence a few points in order, and numpy's fixed costs would be
    five times the work. The caller has seen that the steps rise beyond those of the block.
    """
    version, codec, n = _HEADER.unpack_from(block)
    steps, values, epochs, times = points
    count, size = n + len(steps), n * _NUMBER_BYTES
    if version != FORMAT_VERSION or codec != RAW:
        return None
    epochs_size = 0 if epochs is None else size
    if len(block) != _HEADER.size + 4 * _LENGTH.size + 3 * size + epochs_size:
        return None  # one of them has epochs and the other has none
    values_at = _HEADER.size + 2 * _LENGTH.size + size
    epochs_at = values_at + _LENGTH.size + size
    length = _LENGTH.pack(count * _NUMBER_BYTES)
    return b"".join(
        (
            _HEADER.pack(FORMAT_VERSION, RAW, count),
            length,
            block[_HEADER.size + _LENGTH.size : values_at - _LENGTH.size],
            array("q", steps).tobytes(),
            length,
            block[values_at : values_at + size],
            array("d", values).tobytes(),
            _NO_LENGTH if epochs is None else length,
            block[epochs_at : epochs_at + epochs_size],
            b"" if epochs is None else array("d", epochs).tobytes(),
            length,
            block[len(block) - size :],
            array("q", times).tobytes(),
        )
    )


def decode(block: bytes) -> Columns:
    """Invert `encode_raw` and `encode_chunk`.

    Raises:
        CorruptedError: the block is of an unknown format or codec.
    """
    codec, n = _codec_of(block)
    steps, values, epochs, times = _split(block)
    if codec == RAW:
        return Columns(
            np.frombuffer(steps, np.int64),
            np.frombuffer(values, np.float64),
            np.frombuffer(epochs, np.float64) if epochs else _missing(n),
            np.frombuffer(times, np.int64),
        )
    return Columns(
        _decompress(steps),
        _decompress(values).astype(np.float64, copy=False),
        _decompress(epochs) if epochs else _missing(n),
        _decompress(times),
    )


class Packed(NamedTuple):
    """A block whose columns are not decoded yet."""

    codec: int
    points: int
    columns: Sequence[bytes]


def split(block: bytes) -> Packed:
    """Return what `decode_column` takes.

    Raises:
        CorruptedError: as `decode`.
    """
    return Packed(*_codec_of(block), _split(block))


def decode_column(block: Packed, name: ColumnName) -> NDArray[Any]:
    """Return one column of what `decode` returns, without the work for the others."""
    at, dtype = _COLUMNS[name]
    data = block.columns[at]
    if not data and name == "epochs":
        return _missing(block.points)
    return np.frombuffer(data, dtype) if block.codec == RAW else _decompress(data).astype(dtype, copy=False)


def merge(parts: Sequence[Columns]) -> Columns:
    """Return the union of `parts`, steps strictly rising; of a step given twice the later part and row wins."""
    filled = [part for part in parts if len(part)]
    if len(filled) <= 1:
        merged = filled[0] if filled else EMPTY
    else:
        merged = Columns(
            np.concatenate([part.steps for part in filled]),
            np.concatenate([part.values for part in filled]),
            np.concatenate([part.epochs for part in filled]),
            np.concatenate([part.times for part in filled]),
        )
    if _is_rising(merged.steps):
        return merged
    order = np.argsort(merged.steps, kind="stable")
    steps = merged.steps[order]
    keep = np.empty(len(steps), np.bool_)
    keep[-1] = True
    np.not_equal(steps[1:], steps[:-1], out=keep[:-1])
    return take(merged, order[keep])


def take(columns: Columns, rows: NDArray[Any] | slice) -> Columns:
    """Return the rows chosen by an index array, a mask or a slice."""
    return Columns(columns.steps[rows], columns.values[rows], columns.epochs[rows], columns.times[rows])


def cut(columns: Columns, points: int) -> Iterator[Columns]:
    """Return `columns` in blocks of at most `points` rows."""
    for begin in range(0, len(columns), points):
        yield take(columns, slice(begin, begin + points))


def _codec_of(block: bytes) -> tuple[int, int]:
    """Return the codec of a block and how many points it holds."""
    version, codec, n = _HEADER.unpack_from(block)
    if version != FORMAT_VERSION or codec > PCODEC_FLOAT32:
        raise CorruptedError(f"a chunk has format {version}, codec {codec}; a newer release may have written it")
    return codec, n


def _is_rising(steps: NDArray[np.int64]) -> bool:
    return len(steps) < 2 or bool((steps[1:] > steps[:-1]).all())  # noqa: PLR2004 (one point is always in order)


def _stored(columns: Columns) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, NDArray[Any]]:
    epochs = None if bool(np.isnan(columns.epochs).all()) else np.ascontiguousarray(columns.epochs)
    steps, values, _, times = columns
    return np.ascontiguousarray(steps), np.ascontiguousarray(values), epochs, np.ascontiguousarray(times)


def _as_float32(values: Float64s) -> NDArray[np.float32] | None:
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = values.astype(np.float32)
        wide = narrow.astype(np.float64)
    # Bits, not values: NaN payloads and -0.0 count.
    return narrow if np.array_equal(wide.view(np.int64), values.view(np.int64)) else None


def _missing(n: int) -> Float64s:
    return np.full(n, np.nan)


def _decompress(data: bytes) -> NDArray[Any]:
    column: NDArray[Any] | None = standalone.simple_decompress(data)
    if column is None:
        raise CorruptedError("a chunk has an empty column")
    return column


def _join(codec: int, n: int, blocks: list[bytes]) -> bytes:
    parts = [_HEADER.pack(FORMAT_VERSION, codec, n)]
    for block in blocks:
        parts += (_LENGTH.pack(len(block)), block)
    return b"".join(parts)


def _split(block: bytes) -> list[bytes]:
    columns, at = [], _HEADER.size
    for _ in range(4):
        (length,) = _LENGTH.unpack_from(block, at)
        at += _LENGTH.size
        columns.append(block[at : at + length])
        at += length
    if at != len(block):
        raise CorruptedError(f"a chunk has {len(block)} bytes, its header says {at}")
    return columns
