"""An Aim repository as a source: which runs there are, and everything of one run as plain structs.

What Aim keeps of a sequence is one record a step (the last write wins) in columns keyed by the step, or, of newer
metrics, by a hash of it, with the steps in a column of their own; besides that the first value tracked, and the least
and greatest. Nothing here writes, locks, or needs an index.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from matyan.errors import ConfigurationError
from matyan.runs.model import SYSTEM_PARAMS, Artifact
from matyan.sequences import chunks
from matyan.sequences.model import (
    BUCKET_OF_KIND,
    Bucket,
    Columns,
    Float64s,
    Int64s,
    SequenceKey,
    canonical_context,
)
from matyan.transfer.aim_catalog import FILE, AimCatalog, AimRunRow, read_catalog
from matyan.transfer.aim_chunks import AimDataError, AimObject, Chunk, check_library, decode, fold, plain
from matyan.wire.streams import Key, Tag, decode_path

_DIRECTORY: Final = ".aim"
_VERSION_MAJOR: Final = 1
_ROW_KEY_BYTES: Final = 10
"""Of an integer in a path: a byte before and after its eight."""
_NUMBER_BYTES: Final = 9
_NUMBER_TYPES: Final = {"int": "int", "bool": "int", "float": "float", "float64": "float", "number": "number"}
_NO_VALUE: Final = b"\x00"
LOG_LINE: Final = "log_line"
LOG_RECORD: Final = "log_record"
_LOGS: Final = {
    LOG_LINE: SequenceKey(Bucket.LOGS, "logs"),
    LOG_RECORD: SequenceKey(Bucket.LOG_RECORDS, "log_records"),
}


class AimSequence(msgspec.Struct, frozen=True, kw_only=True):
    """A sequence of a run, without its points."""

    key: SequenceKey
    """What it is here."""
    dtype: str
    """Metrics: `float`, `int`, `number`; objects: `image`, `list(image)`, ..., `log_line`, or another class."""
    path: tuple[Key, ...]
    """Where its columns lie in the run's file."""
    hashed: bool
    """Whether rows are keyed by a hash of the step."""
    first_step: int | None = None
    last_step: int | None = None
    """The greatest, as noted apart from the points; None where Aim noted none."""
    first: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    """Of metrics, over everything ever written; None where Aim kept none."""


class AimItem(NamedTuple):
    """One step of a sequence of objects."""

    step: int
    value: AimObject | list[Any] | Any
    epoch: float | None
    time_ms: int


class AimRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run, without the points of its sequences."""

    row: AimRunRow
    created_at_seconds: float
    end_time_seconds: float | None
    params: dict[Key, Any]
    system_params: dict[Key, Any] | None
    artifacts: tuple[Artifact, ...]
    sequences: tuple[AimSequence, ...]


class AimRunReader:
    """One run of the repository."""

    def __init__(self, home: Path, row: AimRunRow) -> None:
        """Read what is known of the run besides its points.

        Raises:
            AimDataError: its file is damaged or gone.
        """
        self._home = home
        self._hash = row.hash
        meta = Chunk(_chunk_path(home, "meta", row.hash))
        tree = meta.tree("meta", "chunks", row.hash)
        self.run = _make_run(row, tree if isinstance(tree, dict) else {}, _made_at(home, row))

    @functools.cached_property
    def _series(self) -> Chunk:
        return Chunk(_chunk_path(self._home, "seqs", self._hash))

    def columns(self, sequence: AimSequence) -> Columns:
        """Return every point of a metric, steps strictly rising.

        Raises:
            AimDataError: the file is damaged.
        """
        rows, values = self._column(sequence, "val")
        numbers = _numbers(values)
        steps, complete = rows, np.ones(len(rows), np.bool_)
        if sequence.hashed:
            step_rows, step_values = self._column(sequence, "step")
            # A writer that died between two columns leaves a value without a step, which Aim does not show either.
            complete = np.isin(rows, step_rows)
            steps = _aligned(rows, step_rows, _integers(step_values), 0)
        epochs = _aligned(rows, *self._numbers_of(sequence, "epoch"), np.nan)
        seconds = _aligned(rows, *self._numbers_of(sequence, "time"), self.run.created_at_seconds)
        times = np.rint(np.nan_to_num(seconds) * 1000).astype(np.int64)
        return chunks.merge([chunks.take(Columns(steps, numbers, epochs, times), complete)])

    def items(self, sequence: AimSequence) -> Iterator[AimItem]:
        """Yield the steps of a sequence of objects: from 0 upwards, then negative ones.

        Raises:
            AimDataError: the file is damaged.
        """
        epochs = self._by_step(sequence, "epoch")
        times = self._by_step(sequence, "time")
        records = ((decode_path(key), value) for key, value in self._series.readable(*sequence.path, "val") if key)
        for step, rows in groupby(records, key=lambda record: record[0][0]):
            if not isinstance(step, int):
                continue
            value = fold((path[1:], decode(data)) for path, data in rows)
            time_ms = round(times.get(step, self.run.created_at_seconds) * 1000)
            yield AimItem(step, value, epochs.get(step), time_ms)

    def _column(self, sequence: AimSequence, name: str) -> tuple[Int64s, list[bytes]]:
        keys, values = [], []
        for key, value in self._series.records(*sequence.path, name):
            if len(key) == _ROW_KEY_BYTES:
                keys.append(key)
                values.append(value)
        table = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, _ROW_KEY_BYTES)
        return np.ascontiguousarray(table[:, 1:-1]).view(">i8").reshape(-1).astype(np.int64), values

    def _numbers_of(self, sequence: AimSequence, name: str) -> tuple[Int64s, Float64s]:
        rows, values = self._column(sequence, name)
        return rows, _numbers(values)

    def _by_step(self, sequence: AimSequence, name: str) -> dict[int, float]:
        rows, numbers = self._numbers_of(sequence, name)
        found = zip(rows.tolist(), numbers.tolist(), strict=True)
        return {step: number for step, number in found if number == number}  # noqa: PLR0124 (NaN: there is none)


class AimRepository:
    """An Aim repository on disk."""

    def __init__(self, path: Path) -> None:
        """Open the repository at `path`: the directory that holds `.aim`, or that one itself.

        Raises:
            ConfigurationError: there is none, it is of another generation, or the extra `aim` is not installed.
        """
        self.home = _find_home(path)
        _check_version(self.home)
        check_library()
        self.catalog: AimCatalog = read_catalog(self.home)

    def runs(self) -> list[AimRunRow]:
        """Return all runs in order of creation, those included that have no row in the catalog; each with its time."""
        known = {row.hash: row for row in self.catalog.runs}
        chunks_path = self.home / "meta" / "chunks"
        stored = {path.name for path in chunks_path.iterdir() if path.is_dir()} if chunks_path.is_dir() else set()
        rows = [*known.values(), *(AimRunRow(hash=name) for name in sorted(stored - known.keys()))]
        timed = [(_made_at(self.home, row), row) for row in rows]
        timed.sort(key=itemgetter(0))
        return [msgspec.structs.replace(row, created_at_seconds=created) for created, row in timed]

    def open_run(self, row: AimRunRow) -> AimRunReader:
        """Return a reader of one run.

        Raises:
            AimDataError: its file is damaged or gone.
        """
        return AimRunReader(self.home, row)

    def signature(self, row: AimRunRow) -> str:
        """Return a text that changes when anything of the run changes: of its files' names, sizes and times."""
        digest = hashlib.blake2b(msgspec.json.encode(row), digest_size=16)
        for part in ("meta", "seqs"):
            path = _chunk_path(self.home, part, row.hash)
            files = sorted(path.iterdir()) if path.is_dir() else []
            for file in files:
                status = file.stat()
                digest.update(f"{part}/{file.name}/{status.st_size}/{status.st_mtime_ns}\n".encode())
        return digest.hexdigest()


def _find_home(path: Path) -> Path:
    for home in (path / _DIRECTORY, path):
        if (home / "meta").is_dir() or (home / FILE).is_file():
            return home
    raise ConfigurationError(f"there is no Aim repository at {path}: name the directory that holds {_DIRECTORY}")


def _check_version(home: Path) -> None:
    file = home / "VERSION"
    text = file.read_text().strip() if file.is_file() else f"{_VERSION_MAJOR}"
    if text.partition(".")[0] != f"{_VERSION_MAJOR}":
        raise ConfigurationError(f"{home} has Aim's data version {text}, this release reads version {_VERSION_MAJOR}")


def _chunk_path(home: Path, part: str, run_hash: str) -> Path:
    return home / part / "chunks" / run_hash


def _made_at(home: Path, row: AimRunRow) -> float:
    """Return when a run was created; of a run without a row, when its file was."""
    if row.created_at_seconds is not None:
        return row.created_at_seconds
    identity = _chunk_path(home, "meta", row.hash) / "IDENTITY"
    return identity.stat().st_mtime if identity.exists() else 0.0


def _make_run(row: AimRunRow, tree: Mapping[Key, Any], created_at_seconds: float) -> AimRun:
    params = plain(tree.get("attrs"))
    params = params if isinstance(params, dict) else {}
    system = params.get(SYSTEM_PARAMS)
    if isinstance(system, dict):
        del params[SYSTEM_PARAMS]
    end = tree.get("end_time", row.end_time_seconds)
    return AimRun(
        row=row,
        created_at_seconds=created_at_seconds,
        end_time_seconds=end if isinstance(end, float | int) else None,
        params=params,
        system_params=system if isinstance(system, dict) else None,
        artifacts=tuple(_artifacts(_dict(tree.get("artifacts")))),
        sequences=tuple(_sequences(row.hash, _dict(tree.get("traces")), _dict(tree.get("contexts")))),
    )


def _artifacts(tree: Mapping[Key, Any]) -> Iterator[Artifact]:
    for name, found in tree.items():
        fields = plain(found)
        if isinstance(fields, dict):
            yield Artifact(
                str(fields.get("name", name)), str(fields.get("uri", "")), origin=str(fields.get("path", ""))
            )


def _sequences(run_hash: str, traces: Mapping[Key, Any], contexts: Mapping[Key, Any]) -> Iterator[AimSequence]:
    for context_id, names in traces.items():
        context = canonical_context(_text_keys(plain(contexts.get(context_id)) or {}))
        for name, trace in _dict(names).items():
            if isinstance(trace, dict):
                yield _sequence(run_hash, context_id, context, str(name), trace)


def _sequence(run_hash: str, context_id: Key, context: str, name: str, trace: Mapping[Key, Any]) -> AimSequence:
    dtype = str(trace.get("dtype", "float")).replace("aim.", "")
    number_type = _NUMBER_TYPES.get(dtype)
    version = trace.get("version", 1)
    root: tuple[Key, ...] = ("seqs", "chunks") if version == 1 else ("seqs", f"v{version}", "chunks")
    return AimSequence(
        key=_key(dtype, name, context),
        dtype=number_type or dtype,
        path=(*root, run_hash, context_id, name),
        hashed=version != 1,
        first_step=_step(trace.get("first_step")),
        last_step=_step(trace.get("last_step")),
        first=_number(trace.get("first")) if number_type else None,
        minimum=_number(trace.get("min")),
        maximum=_number(trace.get("max")),
    )


def _key(dtype: str, name: str, context: str) -> SequenceKey:
    if dtype in _NUMBER_TYPES:
        return SequenceKey(Bucket.METRIC, name, context)
    kind = dtype.removeprefix("list(").removesuffix(")")
    if kind in _LOGS:
        return _LOGS[kind]
    # A class of somebody's own is kept readable, as text.
    return SequenceKey(BUCKET_OF_KIND.get(kind, Bucket.TEXTS), name, context)


def _dict(value: Any) -> dict[Key, Any]:
    return value if isinstance(value, dict) else {}


def _text_keys(value: Any) -> Any:
    """Return JSON-like data with keys as JSON has them."""
    if isinstance(value, dict):
        return {str(key): _text_keys(item) for key, item in value.items()}
    return [_text_keys(item) for item in value] if isinstance(value, list) else value


def _step(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


# ---- columns


def _numbers(values: Sequence[bytes]) -> Float64s:
    """Return the numbers of encoded values, NaN for anything else."""
    table = _table(values)
    if table is None:
        return np.fromiter(map(_as_float, values), np.float64, len(values))
    tags, bits = table
    return np.where(tags == Tag.INT, bits.astype(np.float64), bits.view(np.float64))


def _integers(values: Sequence[bytes]) -> Int64s:
    """Return steps; one that was tracked as a float is cut, as Aim reads it.

    Raises:
        AimDataError: one is no number.
    """
    table = _table(values)
    if table is not None and bool((table[0] == Tag.INT).all()):
        return table[1]
    try:
        return np.array([int(decode(value)) for value in values], np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise AimDataError(f"a step is no number of 64 bit: {error}") from error


def _table(values: Sequence[bytes]) -> tuple[NDArray[np.uint8], Int64s] | None:
    """Return type tags and the eight bytes behind them; None unless all are integers or floats."""
    if any(len(value) != _NUMBER_BYTES for value in values):
        return None
    table = np.frombuffer(b"".join(values), np.uint8).reshape(-1, _NUMBER_BYTES)
    tags = table[:, 0]
    if not bool(((tags == Tag.INT) | (tags == Tag.FLOAT)).all()):
        return None
    return tags, np.ascontiguousarray(table[:, 1:]).view("<i8").reshape(-1).astype(np.int64, copy=False)


def _as_float(value: bytes) -> float:
    number = None if value == _NO_VALUE else _number(decode(value))
    return np.nan if number is None else number


def _aligned(rows: Int64s, other_rows: Int64s, column: NDArray[Any], missing: float) -> NDArray[Any]:
    """Return a column in the order of `rows`, `missing` where it lacks one."""
    if np.array_equal(rows, other_rows):
        return column
    order = np.argsort(other_rows, kind="stable")
    found = np.full(len(rows), missing, column.dtype)
    if len(order):
        places = order[np.minimum(np.searchsorted(other_rows, rows, sorter=order), len(order) - 1)]
        same = other_rows[places] == rows
        found[same] = column[places[same]]
    return found
