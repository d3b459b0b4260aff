"""What a point costs under different patterns of arrival: bytes stored, values read, bytes written again and again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KeyRange, KvReader, KvTransaction
from matyan.ids import DEFAULT_PROJECT, RunNumber
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket, Points, SequenceKey
from matyan.sequences.repository import SequenceRef
from matyan.store import keyspace
from matyan.store.scans import scan_all
from matyan.store.subspaces import Subspace
from tests.bench.counted_kv import CountedKv, Counts
from tests.bench.table import Table
from tests.bench.timed import digits

_NUMBER: Final = RunNumber(1)
_NOISE: Final = np.random.default_rng(20_261_121).normal(0, 0.1, 10_000).astype(np.float32).astype(np.float64)
_MINUTE_MS: Final = 60_000
_BEGIN_MS: Final = 1_750_000_000_000


class Slice(NamedTuple):
    """What arrives together: points of some sequences, applied in one transaction."""

    names: Sequence[str]
    steps: Sequence[int]
    """Of each of these sequences."""
    is_quiet: bool = False
    """Whether nothing comes for a minute, so that the sequences are settled before the next slice."""


class Pattern(NamedTuple):
    """A way in which points arrive."""

    name: str
    slices: Callable[[float], Iterator[Slice]]
    """All of them, of a week of work or of a part of it."""


class Cost(NamedTuple):
    """What a pattern took."""

    points: int
    counts: Counts
    cpu_seconds: float
    stored_bytes: int
    """Keys and values after everything is settled."""
    blocks: float
    """Values that hold the points of a sequence, on average."""


def table(folder: Path, share: float) -> Table:
    """Measure every pattern, or a share of each, on stores of their own."""
    columns = (
        "arrival",
        "points",
        "bytes a point, stored",
        "bytes written a point",
        "values read a point",
        "values of a sequence in the end",
        "processor time a point",
    )
    rows = [_row(pattern.name, _measure(folder / str(index), pattern, share)) for index, pattern in enumerate(PATTERNS)]
    return Table("Patterns of arrival", columns, rows)


# ---- patterns


def _one_by_one(share: float) -> Iterator[Slice]:
    for step in range(int(10_080 * share)):
        yield Slice(["loss"], [step])


def _quietly(share: float) -> Iterator[Slice]:
    return (each._replace(is_quiet=True) for each in _one_by_one(share))


def _at_once(share: float) -> Iterator[Slice]:
    return _in_slices(range(int(1_000_000 * share)), 10_000)


def _many_sequences(share: float) -> Iterator[Slice]:
    names = [f"metric {number}" for number in range(int(10_000 * share))]
    for step in range(10):
        for begin in range(0, len(names), 500):
            yield Slice(names[begin : begin + 500], [step])


def _in_reverse(share: float) -> Iterator[Slice]:
    return _in_slices(reversed(range(int(100_000 * share))), 100)


def _at_random(share: float) -> Iterator[Slice]:
    steps = list(range(int(100_000 * share)))
    random.Random(7).shuffle(steps)
    return _in_slices(steps, 100)


def _repeated(share: float) -> Iterator[Slice]:
    count = int(1_000 * share)
    return _in_slices((step for _ in range(100) for step in range(count)), 100)


PATTERNS: Final = (
    Pattern("one point at a time, 10,080 of them", _one_by_one),
    Pattern("one point a minute for a week: quiet after each", _quietly),
    Pattern("a million at once, 10,000 a slice", _at_once),
    Pattern("ten thousand sequences of ten points", _many_sequences),
    Pattern("steps in reverse, 100 a slice", _in_reverse),
    Pattern("steps in random order, 100 a slice", _at_random),
    Pattern("the same 1,000 steps a hundred times, 100 a slice", _repeated),
)


def _in_slices(steps: Iterable[int], size: int) -> Iterator[Slice]:
    rest = iter(steps)
    while part := list(islice(rest, size)):
        yield Slice(["loss"], part)


# ---- measuring


def _measure(folder: Path, pattern: Pattern, share: float) -> Cost:
    engine = open_embedded_kv(folder)
    kv = CountedKv(engine)
    points, names, begin = 0, dict[str, None](), time.process_time()
    for each in pattern.slices(share):
        kv.write(partial(_append, arrived=each), durable=False)
        if each.is_quiet:
            _settle(kv, each.names)
        points += len(each.steps) * len(each.names)
        names |= dict.fromkeys(each.names)
    _settle(kv, list(names))
    seconds = time.process_time() - begin
    stored, blocks = engine.read(_stored)
    engine.close()
    return Cost(points, kv.counts, seconds, stored, blocks / len(names))


def _append(tx: KvTransaction, *, arrived: Slice) -> None:
    refs = [_ref(name) for name in arrived.names]
    steps = list(arrived.steps)
    values = _NOISE[np.asarray(steps) % len(_NOISE)].tolist()
    fresh = Points(steps, values, None, [_BEGIN_MS + step * _MINUTE_MS for step in steps])
    for ref, opened in zip(refs, sequences.open_many(tx, DEFAULT_PROJECT, refs), strict=True):
        sequences.append(tx, DEFAULT_PROJECT, ref, opened, fresh, dtype="float")


def _settle(kv: CountedKv, names: Sequence[str]) -> None:
    for begin in range(0, len(names), 50):
        kv.write(partial(_settle_some, names=names[begin : begin + 50]), durable=False)


def _settle_some(tx: KvTransaction, *, names: Sequence[str]) -> None:
    for name in names:
        sequences.settle(tx, DEFAULT_PROJECT, _ref(name))


def _ref(name: str) -> SequenceRef:
    return SequenceRef(_NUMBER, SequenceKey(Bucket.METRIC, name))


def _stored(reader: KvReader) -> tuple[int, int]:
    """Return the bytes of everything that is stored, and how many values hold points."""
    everything = scan_all(reader, *KeyRange(b"\x00", b"\xff"))
    points = keyspace.subspace(DEFAULT_PROJECT, Subspace.POINTS)
    size, blocks = 0, 0
    for key, value in everything:
        size += len(key) + len(value)
        blocks += key.startswith(points)
    return size, blocks


def _row(name: str, cost: Cost) -> Sequence[str]:
    def each(total: float) -> str:
        return digits(total / cost.points)

    return (
        name,
        f"{cost.points:,}",
        each(cost.stored_bytes),
        each(cost.counts.bytes_written),
        f"{cost.counts.values_read / cost.points:.2f}",
        digits(cost.blocks),
        f"{each(cost.cpu_seconds * 1e6)} us",
    )
