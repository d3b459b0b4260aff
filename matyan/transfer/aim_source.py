"""An Aim repository as a source: which runs there are, and everything of one run as plain structs.

What Aim keeps of a sequence is one record a step (the last write wins) in columns keyed by the step, or, of newer
metrics, by a hash of it, with the steps in a column of their own; besides that the first value tracked, and the least
and greatest. Nothing here writes, locks, or needs an index.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from matyan.errors import ConfigurationError
from matyan.limits import JSON_DEPTH_MAX
from matyan.sequences import chunks
from matyan.sequences.model import Columns, Float64s, Int64s
from matyan.transfer.aim_catalog import FILE, AimCatalog, AimRunRow, read_catalog
from matyan.transfer.aim_chunks import AimDataError, AimObject, Chunk, check_library, decode, fold
from matyan.transfer.aim_runs import AimSequence, make_run
from matyan.wire.streams import Tag, decode_path

_DIRECTORY: Final = ".aim"
_VERSION_MAJOR: Final = 1
_ROW_KEY_BYTES: Final = 10
"""Of an integer in a path: a byte before and after its eight."""
_NUMBER_BYTES: Final = 9
_NO_VALUE: Final = b"\x00"


class AimItem(NamedTuple):
    """One step of a sequence of objects."""

    step: int
    value: AimObject | list[Any] | Any
    epoch: float | None
    time_ms: int


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
        self.run = make_run(row, meta.tree("meta", "chunks", row.hash), _made_at(home, row))

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
            AimDataError: the file is damaged, or an object is nested too deeply.
        """
        epochs = self._by_step(sequence, "epoch")
        times = self._by_step(sequence, "time")
        records = ((decode_path(key), value) for key, value in self._series.readable(*sequence.path, "val") if key)
        for step, rows in groupby(records, key=lambda record: record[0][0]):
            if not isinstance(step, int):
                continue
            value, cut = fold((path[1:], decode(data)) for path, data in rows)
            if cut:
                raise AimDataError(f"the object of step {step} is nested deeper than {JSON_DEPTH_MAX} levels")
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
                digest.update(f"{part}/{file.name}/{_size_and_time(file)}\n".encode())
        return digest.hexdigest()


def _size_and_time(file: Path) -> str:
    try:
        status = file.stat()
    except FileNotFoundError:  # Aim put its content into another one just now
        return "gone"
    return f"{status.st_size}/{status.st_mtime_ns}"


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
    number = None if value == _NO_VALUE else decode(value)
    return float(number) if isinstance(number, int | float) else np.nan


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
