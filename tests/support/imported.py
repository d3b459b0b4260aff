"""Data directories that an import filled: run one in this process, open the store, look at all of it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine
from matyan.engines.open import open_blobs, open_kv
from matyan.ids import DEFAULT_PROJECT, RunId, RunNumber
from matyan.roles.home import keys
from matyan.runs import repository as runs
from matyan.runs.model import Run
from matyan.sequences import items
from matyan.sequences import repository as sequences
from matyan.sequences.model import Columns, Item, SequenceKey, Summary
from matyan.sequences.repository import SequenceRef
from matyan.store import keyspace
from matyan.store.scans import scan_all
from matyan.transfer.aim_import import AimImport, Report, Selection
from matyan.transfer.aim_source import AimRepository
from matyan.transfer.reporting import ProgressLine
from tests.support.kv import RunTwiceKv


class Store(NamedTuple):
    """The engines of a data directory."""

    kv: KvEngine
    blobs: BlobEngine

    def number(self, run_id: str) -> RunNumber:
        number = self.kv.read(lambda reader: runs.get_number(reader, DEFAULT_PROJECT, RunId(run_id)))
        assert number is not None, f"no run {run_id}"
        return number

    def run(self, run_id: str) -> Run:
        found = self.kv.read(lambda reader: runs.find(reader, DEFAULT_PROJECT, RunId(run_id), system_params=True))
        assert found is not None, f"no run {run_id}"
        return found

    def summary(self, run_id: str, key: SequenceKey) -> Summary:
        ref = SequenceRef(self.number(run_id), key)
        (found,) = self.kv.read(lambda reader: sequences.get_summaries(reader, DEFAULT_PROJECT, [ref]))
        assert found is not None, f"no {key} in run {run_id}"
        return found

    def points(self, run_id: str, key: SequenceKey) -> Columns:
        number, summary = self.number(run_id), self.summary(run_id, key)
        return self.kv.read(lambda reader: sequences.read_all(reader, DEFAULT_PROJECT, number, summary))

    def items(self, run_id: str, key: SequenceKey) -> dict[int, Item]:
        number = self.number(run_id)
        return self.kv.read(lambda reader: dict(items.read_range(reader, DEFAULT_PROJECT, number, key)))

    def everything(self) -> tuple[list[tuple[bytes, bytes]], dict[str, bytes | None]]:
        """Return every row of the key-value store but the change feed, and every object with its content.

        The feed tells of each transaction, not of what is stored.
        """
        feed = keyspace.changes(DEFAULT_PROJECT)
        found = self.kv.read(lambda reader: list(scan_all(reader, b"\x00", b"\xf0")))
        rows = [(key, value) for key, value in found if not key.startswith(feed)]
        return rows, {info.key: self.blobs.get(info.key) for info in self.blobs.list("")}


@contextmanager
def opened(home: Path) -> Iterator[Store]:
    """Open the engines of a data directory, as a server would."""
    kv = open_kv(f"lmdb://{home / 'kv'}")
    blobs = open_blobs(f"file://{home / 'blobs'}", keys=keys(home, "uploads"))
    try:
        yield Store(kv, blobs)
    finally:
        blobs.close()
        kv.close()


def import_aim(
    store: Store, source: Path, experiments: Sequence[str] = (), since_seconds: float | None = None
) -> Report:
    """Import in this process, every transaction run twice, and return what the command would print."""
    work = AimImport(
        kv=RunTwiceKv(store.kv),
        blobs=store.blobs,
        repository=AimRepository(source),
        progress=ProgressLine(io.StringIO()),
    )
    return work.run(Selection(experiments, since_seconds))
