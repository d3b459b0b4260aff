"""Saved documents and notes in the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.catalog import documents
from matyan.catalog.documents import App
from matyan.catalog.notes import experiment_notes, run_notes
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KvEngine
from matyan.ids import DEFAULT_PROJECT, Project, RunNumber
from matyan.limits import PIECE_BYTES_MAX
from tests.support.kv import RunTwiceKv, read_all

OTHER = Project("other")


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[KvEngine]:
    engine = open_embedded_kv(tmp_path / "kv")
    yield RunTwiceKv(engine)
    engine.close()


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES_MAX - 100, PIECE_BYTES_MAX, 5 * PIECE_BYTES_MAX])
def test_document_of_any_size_comes_back(kv: KvEngine, size: int) -> None:
    apps = [App(id=name, type="runs", state=bytes(size)) for name in ("a", "b")]
    for app in apps:
        kv.write(lambda tx, app=app: documents.apps.put(tx, DEFAULT_PROJECT, app))  # type: ignore[misc]  # mypy cannot infer a lambda with a default

    assert kv.read(lambda reader: documents.apps.list(reader, DEFAULT_PROJECT)) == apps
    assert kv.read(lambda reader: documents.apps.get(reader, DEFAULT_PROJECT, "b")) == apps[1]
    assert kv.read(lambda reader: documents.apps.get(reader, OTHER, "b")) is None


def test_more_documents_than_a_scan_are_listed_whole(kv: KvEngine) -> None:
    state = bytes(2 * PIECE_BYTES_MAX)
    names = [f"{name:03}" for name in range(70)]
    for name in names:
        app = App(id=name, type="runs", state=state)
        kv.write(lambda tx, app=app: documents.apps.put(tx, DEFAULT_PROJECT, app), durable=False)  # type: ignore[misc]  # mypy cannot infer a lambda with a default

    found = kv.read(lambda reader: documents.apps.list(reader, DEFAULT_PROJECT))
    assert [app.id for app in found] == names
    assert all(app.state == state for app in found)


def test_shorter_document_and_clearing_leave_nothing_behind(kv: KvEngine) -> None:
    for size in (3 * PIECE_BYTES_MAX, 10):
        app = App(id="a", type="runs", state=bytes(size))
        kv.write(lambda tx, app=app: documents.apps.put(tx, DEFAULT_PROJECT, app))  # type: ignore[misc]  # mypy cannot infer a lambda with a default

    assert len(read_all(kv)) == 1
    kv.write(lambda tx: documents.apps.clear(tx, DEFAULT_PROJECT, "a"))
    assert read_all(kv) == {}


def test_notes_are_numbered_through_the_project_and_listed_newest_first(kv: KvEngine) -> None:
    def write(text: str) -> None:
        kv.write(lambda tx: run_notes.create(tx, DEFAULT_PROJECT, RunNumber(1), text, 5.0))
        kv.write(lambda tx: experiment_notes.create(tx, DEFAULT_PROJECT, "e", text, 5.0))

    write("first")
    write("second")

    found = kv.read(lambda reader: run_notes.list(reader, DEFAULT_PROJECT, RunNumber(1)))
    assert [(note.number, note.content) for note in found] == [(3, "second"), (1, "first")]
    assert kv.read(lambda reader: run_notes.list(reader, DEFAULT_PROJECT, RunNumber(10))) == []
    assert kv.read(lambda reader: experiment_notes.get(reader, DEFAULT_PROJECT, "e", 1)) is None
