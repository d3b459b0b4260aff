"""Stores of many runs, made once through the importer's bulk path and kept for the benchmarks that read them."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from matyan.catalog import repository as catalog
from matyan.catalog.model import Experiment, Tag
from matyan.engines.blob.filesystem import open_filesystem_blobs
from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.ids import DEFAULT_PROJECT, RunId, RunNumber
from matyan.runs import repository as runs
from matyan.runs.model import RunDocument
from matyan.sequences.model import Bucket, Columns, SequenceKey, canonical_context
from matyan.sequences.repository import Whole, encode_whole
from matyan.store.subspaces import TABLE
from matyan.transfer.writing import Batch, RunWriter
from matyan.wire.codec import encode_tree
from tests.bench import machine, population
from tests.bench.population import EXPERIMENTS, LONG_METRIC, LONG_POINTS, LONG_RUN, STEPS, TAGS, PlannedRun
from tests.bench.table import Table

RUNS_AT_ONCE: Final = 200
_HOME: Final = "home"
_STEPS: Final = np.arange(STEPS, dtype=np.int64)
_EPOCHS: Final = np.floor(_STEPS / 10)


class Made(NamedTuple):
    """A store, and what making it took."""

    home: Path
    seconds: float
    cpu_seconds: float


def default_cache() -> Path:
    """Return where stores are kept unless told otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "matyan-bench"


def kept_store(cache: Path, count: int) -> Path:
    """Return the home of a store of `count` runs; it is made when it is not there or of another layout."""
    place = _place(cache, count)
    return place / _HOME if place.exists() else make_store(cache, count).home


def make_store(cache: Path, count: int) -> Made:
    """Make a store of `count` runs and the one long metric anew, and remove older ones of this size."""
    place = _place(cache, count)
    fresh = place.with_name(f"{os.getpid()}.{place.name}")
    begin, begin_cpu = time.perf_counter(), time.process_time()
    kv = open_embedded_kv(fresh / _HOME / "kv")
    blobs = open_filesystem_blobs(fresh / _HOME / "blobs", keys=[bytes(32)])
    _Filling(kv, blobs).fill(population.planned_runs(count))
    kv.close()
    made = Made(place / _HOME, time.perf_counter() - begin, time.process_time() - begin_cpu)
    for old in cache.glob(f"{count}-*"):
        shutil.rmtree(old)
    fresh.rename(place)
    return made


def table(cache: Path, counts: Sequence[int]) -> Table:
    """Make stores and tell what that took."""
    rows = []
    for count in counts:
        made = make_store(cache, count)
        size = machine.disk_bytes(made.home) / 1e6
        rate = f"{count / made.seconds:,.0f} runs/s"
        cpu = f"{made.cpu_seconds / count * 1e3:.2f} ms"
        rows.append((f"{count:,} runs", f"{made.seconds:,.1f} s", rate, cpu, f"{size:,.0f} MB"))
    return Table("Stores", ("store", "time", "rate", "processor time a run", "on disk"), rows)


def _place(cache: Path, count: int) -> Path:
    """A store of another layout or of other runs has another name, so nobody takes an old one for it."""
    layout = repr([(int(space), row.key, row.value) for space, row in sorted(TABLE.items())])
    return cache / f"{count}-{population.VERSION}-{hashlib.sha256(layout.encode()).hexdigest()[:12]}"


class _Filling:
    """A store that is being filled."""

    def __init__(self, kv: KvEngine, blobs: BlobEngine) -> None:
        self._kv = kv
        self._blobs = blobs
        self._batch = Batch(kv, DEFAULT_PROJECT)

    def fill(self, planned: Iterator[PlannedRun]) -> None:
        """Write names, the long metric and the planned runs."""
        self._kv.write(_put_names, durable=False)
        self._put([_long_document()], [_long_metric()])
        while part := list(islice(planned, RUNS_AT_ONCE)):
            self._put([_document(run) for run in part], [_metrics(run) for run in part])
        self._batch.flush()
        self._kv.sync()

    def _put(self, documents: Sequence[RunDocument], metrics: Sequence[Iterator[Whole]]) -> None:
        numbers = self._kv.write(lambda tx: [_create_run(tx, document) for document in documents], durable=False)
        for document, number, wholes in zip(documents, numbers, metrics, strict=True):
            writer = RunWriter(
                kv=self._kv,
                blobs=self._blobs,
                project=DEFAULT_PROJECT,
                run_id=RunId(document.hash),
                number=number,
                batch=self._batch,
            )
            for whole in wholes:
                writer.put_metric(whole)


def _put_names(tx: KvTransaction) -> None:
    made = population.BEGIN_SECONDS
    for name in EXPERIMENTS:
        experiment = Experiment(id=f"experiment-{name}", name=name, created_at_seconds=made)
        catalog.experiments.put(tx, DEFAULT_PROJECT, experiment)
    for name in TAGS:
        catalog.tags.put(tx, DEFAULT_PROJECT, Tag(id=f"tag-{name}", name=name, created_at_seconds=made))


def _create_run(tx: KvTransaction, document: RunDocument) -> RunNumber:
    number = runs.create(tx, DEFAULT_PROJECT, document)
    place = document.place(number)
    if document.experiment_id is not None:
        catalog.experiments.link(tx, DEFAULT_PROJECT, document.experiment_id, place)
    for tag_id in document.tag_ids:
        catalog.tags.link(tx, DEFAULT_PROJECT, tag_id, place)
    return number


def _document(run: PlannedRun) -> RunDocument:
    return RunDocument(
        hash=run.hash,
        name=run.name,
        experiment_id=f"experiment-{run.experiment}",
        tag_ids=tuple(f"tag-{name}" for name in run.tags),
        created_at_seconds=run.created_at_seconds,
        updated_at_seconds=run.end_time_seconds,
        end_time_seconds=run.end_time_seconds,
        archived=run.archived,
        active=False,
        params=encode_tree(run.params),
    )


def _metrics(run: PlannedRun) -> Iterator[Whole]:
    times = run.times_ms()
    for curve in run.curves:
        key = SequenceKey(Bucket.METRIC, curve.name, canonical_context(dict(curve.context)))
        yield encode_whole(key, Columns(_STEPS, curve.values, _EPOCHS, times), dtype="float")


def _long_document() -> RunDocument:
    """Return the run of the long metric, older than all others."""
    begin, end = population.BEGIN_SECONDS - 1e6, population.BEGIN_SECONDS
    return RunDocument(hash=LONG_RUN, name="long", created_at_seconds=begin, end_time_seconds=end, active=False)


def _long_metric() -> Iterator[Whole]:
    steps = np.arange(LONG_POINTS, dtype=np.int64)
    times = int((population.BEGIN_SECONDS - 1e6) * 1000) + steps * 997
    columns = Columns(steps, population.long_values(), np.full(LONG_POINTS, np.nan), times)
    yield encode_whole(SequenceKey(Bucket.METRIC, LONG_METRIC), columns, dtype="float")
