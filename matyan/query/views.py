"""Run -> answer trees of the searches, and the bytes of a metric's arrays.

Everything is built with `wire/trees.py`, with one exception: the records of a metric trace. A search sends thousands of
these, which differ only in the path they stand under, name and context, and their numbers. So their bytes are laid out
once per shape and filled in (`trace_pieces`); a test compares them with those of the general encoder. What stands
around the traces, params and properties, is most of the rest and the same in each search: of small runs it is
remembered by content, so that nothing can be out of date.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matyan.catalog.model import Experiment, Tag
from matyan.ids import RunId
from matyan.limits import CHUNK_POINTS_MAX
from matyan.query.executor import WorkClock
from matyan.query.traces import Trace
from matyan.runs.model import SYSTEM_PARAMS, Run
from matyan.sequences.chunks import ColumnName
from matyan.sequences.model import Bucket, Columns, Float64s, Summary
from matyan.sequences.packed import PackedColumns
from matyan.sequences.repository import SAMPLE_POINTS_MAX
from matyan.wire.codec import decode_tree
from matyan.wire.trees import begin_array, encode_path, encode_tree_records, progress, stopped

SUMMARY_VERSION: Final = 2
"""Clients of the contract know the form of metric values by this number."""
SILENCE_SECONDS_MAX: Final = 0.5
"""A stream that has nothing to say says so this often, for proxies and for the page that waits (contract)."""
LAYOUTS_CACHED_MAX: Final = 1024
RUNS_REMEMBERED_MAX: Final = 4096
"""About what a chart shows; each search of more begins anew."""
REMEMBERED_BYTES_MAX: Final = 4096
"""Of a run's params, or of its texts: encoded as records they take several times as much."""
MILLISECONDS_PER_SECOND: Final = 1000.0
POINTS_PER_PIECE: Final = 15 * CHUNK_POINTS_MAX
"""240 kB: most are sent as they are (`http/streaming.py`)."""

_LENGTH: Final = struct.Struct("<I")
_FLOAT64: Final = np.dtype("<f8")
_ARRAYS: Final = ("values", "iters", "epochs", "timestamps", "x_axis_values", "x_axis_iters")
_COLUMNS_SENT: Final[Sequence[tuple[ColumnName, Callable[[NDArray[Any]], Float64s]]]] = (
    ("values", lambda values: values),
    ("steps", lambda steps: steps.astype(_FLOAT64)),
    ("epochs", lambda epochs: epochs),
    ("times", lambda times_ms: times_ms / MILLISECONDS_PER_SECOND),
)
"""What the first four of these are made of, and how."""
_BYTES_TAG: Final = 5
"""First byte of an encoded blob (contract, streaming-codec section 3); contexts, being JSON, hold none."""

Tree = dict[str, Any]


# ---- trees


class Props(NamedTuple):
    """What the properties of a run are made of."""

    name: str
    description: str | None
    experiment: Experiment | None
    tags: tuple[Tag, ...]
    archived: bool
    created_at_seconds: float
    end_time_seconds: float | None
    active: bool


def props_of(run: Run) -> Props:
    """Return what the properties of a run are made of."""
    document = run.document
    return Props(
        run.name,
        document.description or None,
        run.experiment,
        run.tags,
        document.archived,
        document.created_at_seconds,
        document.end_time_seconds,
        document.active,
    )


def props_tree(props: Props) -> Tree:
    """Return the properties of a run, in the order of the contract; times are seconds since 1970-01-01 UTC."""
    experiment = props.experiment
    return {
        "name": props.name,
        "description": props.description,
        "experiment": {
            "id": experiment and experiment.id,
            "name": experiment and experiment.name,
            "description": experiment and experiment.description,
        },
        "tags": [
            {"id": tag.id, "name": tag.name, "color": tag.color, "description": tag.description} for tag in props.tags
        ],
        "archived": props.archived,
        "creation_time": props.created_at_seconds,
        "end_time": props.end_time_seconds,
        "active": props.active,
    }


def params_tree(run: Run, *, skip_system: bool) -> Tree:
    """Return the params of a run; system params may have been read for the query alone."""
    if not skip_system:
        return run.params
    return {key: value for key, value in run.params.items() if key != SYSTEM_PARAMS}


def metrics_tree(summaries: Iterable[Summary]) -> list[Tree]:
    """Return what a run search says of the metrics among a run's sequences."""
    return [
        {"context": summary.context_object, "name": summary.name, "values": values_tree(summary)}
        for summary in summaries
        if summary.bucket == Bucket.METRIC
    ]


def values_tree(summary: Summary) -> Tree:
    """Return first, last and extreme values of a metric; integers of an integer metric, extremes only where known."""
    number = _as_int if summary.dtype == "int" else _as_it_is
    tree: Tree = {
        "dtype": summary.dtype,
        "first_step": summary.first_step,
        "first": number(summary.first),
        "last_step": summary.last_step,
        "last": number(summary.last),
        "max": number(summary.maximum),
        "min": number(summary.minimum),
        "version": SUMMARY_VERSION,
    }
    return {key: value for key, value in tree.items() if value is not None}


def _as_int(value: float | None) -> float | None:
    return value if value is None or not math.isfinite(value) else int(value)


def _as_it_is(value: float | None) -> float | None:
    return value


# ---- bytes of a metric search


def metrics_head(run: Run, *, skip_system: bool) -> bytes:
    """Return the beginning of a run's tree; the traces follow, then the tail."""
    params = run.document.params
    has_more = not skip_system and run.raw_system_params is not None
    if has_more or len(params) > REMEMBERED_BYTES_MAX:
        return encode_tree_records({run.hash: {"params": params_tree(run, skip_system=skip_system), "traces": []}})
    return _known_head(run.hash, params)


@lru_cache(maxsize=RUNS_REMEMBERED_MAX)
def _known_head(run_id: RunId, params: bytes) -> bytes:
    return encode_tree_records({run_id: {"params": decode_tree(params), "traces": []}})


def trace_pieces(run: Run, index: int, trace: Trace, *, points: int) -> Iterable[bytes]:
    """Return the records of a run's trace: what `encode_tree_records` makes of it, faster, and in pieces if it is long.

    Args:
        run: the run.
        index: the place of the trace in the run's list.
        trace: the metric, with a sample of any length.
        points: the `p` of the request.
    """
    summary, sample, axis = trace
    if isinstance(sample, Columns) and len(sample) <= SAMPLE_POINTS_MAX:
        return (_trace_bytes(run, index, summary, sample, axis, points=points),)
    return _long_trace_pieces(run, index, trace, points=points)


def _trace_bytes(
    run: Run, index: int, summary: Summary, sample: Columns, axis: tuple[Float64s, Float64s] | None, *, points: int
) -> bytes:
    steps, values, epochs, times_ms = sample
    columns = [values, steps.astype(_FLOAT64), epochs, times_ms / MILLISECONDS_PER_SECOND, *(axis or ())]
    root = encode_path((run.hash, "traces", index))
    (head,) = _head_layout(len(root), summary.name, summary.context, points)
    arrays = _array_layout(len(root), len(sample), None if axis is None else len(axis[0]))
    return root.join(head) + _fill(arrays, root, columns)


def _long_trace_pieces(run: Run, index: int, trace: Trace, *, points: int) -> Iterator[bytes]:
    """Yield the records in pieces, so that no array is made as a whole only to be copied."""
    summary, sample, axis = trace
    root = (run.hash, "traces", index)
    tree = {"name": summary.name, "context": summary.context_object, "slice": [0, 0, points]}
    yield encode_tree_records({run.hash: {"traces": {index: tree}}})
    for name, (column, as_sent) in zip(_ARRAYS, _COLUMNS_SENT, strict=False):
        yield begin_array((*root, name), len(sample))
        yield from _joined(map(as_sent, _parts(sample, column)))
    axis_names = _ARRAYS[len(_COLUMNS_SENT) :]
    if axis is None:
        yield encode_tree_records({run.hash: {"traces": {index: dict.fromkeys(axis_names)}}})
        return
    for name, array in zip(axis_names, axis, strict=True):
        yield begin_array((*root, name), len(array))
        yield from _joined(_cut(array))


def _parts(sample: Columns | PackedColumns, column: ColumnName) -> Iterator[NDArray[Any]]:
    return sample.parts(column) if isinstance(sample, PackedColumns) else _cut(getattr(sample, column))


def _cut(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (array[begin : begin + CHUNK_POINTS_MAX] for begin in range(0, len(array), CHUNK_POINTS_MAX))


def _joined(parts: Iterable[Float64s]) -> Iterator[bytes]:
    """Yield the bytes of arrays, POINTS_PER_PIECE at once or a few less: they are copied once, while they are near."""
    gathered: list[memoryview] = []
    count = 0
    for part in parts:
        if count + len(part) > POINTS_PER_PIECE:
            yield b"".join(gathered)
            gathered, count = [], 0
        gathered.append(part.data)
        count += len(part)
    if gathered:
        yield b"".join(gathered)


def run_tail(run: Run) -> bytes:
    """Return the end of the tree of a run in a search of sequences."""
    props = props_of(run)
    return (_known_tail if _text_length(props) <= REMEMBERED_BYTES_MAX else _tail)(run.hash, props)


def _tail(run_id: RunId, props: Props) -> bytes:
    return encode_tree_records({run_id: {"props": props_tree(props)}})


_known_tail = lru_cache(maxsize=RUNS_REMEMBERED_MAX)(_tail)


def _text_length(props: Props) -> int:
    """Return how many characters the properties have, about."""
    named: list[Props | Experiment | Tag] = [props, *props.tags]
    if props.experiment is not None:
        named.append(props.experiment)
    return sum([len(one.name) + len(one.description or "") for one in named])


Layout = tuple[tuple[bytes, ...], ...]
"""Records below a path of known length, all but the path and some blobs: what stands before, between and after the
blobs; each of these in pieces, between which the path stands."""


@lru_cache(maxsize=LAYOUTS_CACHED_MAX)
def _head_layout(root_bytes: int, name: str, context: str, points: int) -> Layout:
    return _lay_out(root_bytes, {"name": name, "context": json.loads(context), "slice": [0, 0, points]})


@lru_cache(maxsize=LAYOUTS_CACHED_MAX)
def _array_layout(root_bytes: int, count: int, axis_count: int | None) -> Layout:
    array = np.zeros(count)
    axis = None if axis_count is None else np.zeros(axis_count)
    return _lay_out(root_bytes, dict(zip(_ARRAYS, [array] * 4 + [axis] * 2, strict=True)))


def _lay_out(root_bytes: int, tree: Tree) -> Layout:
    """Encode `tree` and cut it where the path to it and the content of blobs will stand."""
    segments: list[tuple[bytes, ...]] = []
    pieces: list[bytes] = []
    begun = b""
    for path, value in _records(encode_tree_records(tree)):
        pieces.append(begun + _LENGTH.pack(root_bytes + len(path)))
        begun = path + _LENGTH.pack(len(value)) + value
        if value[0] == _BYTES_TAG:
            segments.append((*pieces, begun[: len(begun) - len(value) + 1]))
            pieces, begun = [], b""
    return (*segments, (*pieces, begun))


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield path and value of encoded records."""
    at = 0
    while at < len(data):
        parts = []
        for _ in range(2):
            (size,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size + size
            parts.append(data[at - size : at])
        yield parts[0], parts[1]


def _fill(layout: Layout, root: bytes, blobs: Sequence[Float64s]) -> bytes:
    parts: list[bytes | memoryview] = []
    for pieces, blob in zip(layout, blobs, strict=False):
        parts += (root.join(pieces), blob.data)
    parts.append(root.join(layout[-1]))
    return b"".join(parts)


# ---- progress messages


class Progress:
    """Numbers and times the progress messages of one stream."""

    def __init__(self, total: Callable[[], int] | None, clock: WorkClock) -> None:
        self._total = total
        """Counts all runs, archived ones included; None when nobody wants messages."""
        self._clock = clock
        self._number = 0
        self._checked = 0
        self._sent = 0
        self._sent_at_seconds = clock.seconds()

    def after_run(self, place: int) -> bytes:
        """Return the message that follows a run's tree."""
        return self._message(place)

    def pulse(self, checked: int) -> bytes:
        """Return a message if there was none for long, else nothing."""
        self._checked = max(self._checked, checked)
        is_silent = self._clock.seconds() - self._sent_at_seconds >= SILENCE_SECONDS_MAX
        return self._message(self._checked) if is_silent else b""

    def end(self) -> bytes:
        """Return the last message, which repeats how far the search came; nothing when it looked at no run."""
        return self._message(self._checked) if self._checked else b""

    def stopped(self, reason: str, message: str) -> bytes:
        """Return the last message of a stream that ends before its time. It is sent even where no other was wanted."""
        total = self._checked if self._total is None else self._total()
        return stopped(self._number, self._checked, total, reason=reason, message=message)

    def _message(self, checked: int) -> bytes:
        """Return the next message; no message takes back what another said, though a search may go over runs twice."""
        if self._total is None:
            return b""
        self._checked = self._sent = max(checked, self._sent)
        self._sent_at_seconds = self._clock.seconds()
        message = progress(self._number, self._sent, self._total())
        self._number += 1
        return message
