"""The SQLite file of an Aim repository: names, experiments, tags, notes, and what people did to runs."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from matyan.errors import ConfigurationError

FILE: Final = "run_metadata.sqlite"
Row = Mapping[str, Any]


class AimNote(msgspec.Struct, frozen=True):
    """A note of a run or experiment."""

    identity: str
    """Moment of creation, and a number among those of the same moment: the same in every copy of the repository."""
    content: str
    created_at_seconds: float
    updated_at_seconds: float


class AimExperiment(msgspec.Struct, frozen=True):
    """An experiment."""

    id: str
    name: str
    description: str | None
    archived: bool
    created_at_seconds: float
    notes: tuple[AimNote, ...]


class AimTag(msgspec.Struct, frozen=True):
    """A tag."""

    id: str
    name: str
    color: str | None
    description: str | None
    archived: bool
    created_at_seconds: float


class AimRunRow(msgspec.Struct, frozen=True):
    """What stands in the catalog of one run."""

    hash: str
    name: str | None = None
    """None when nobody gave it one."""
    description: str | None = None
    archived: bool = False
    created_at_seconds: float | None = None
    updated_at_seconds: float | None = None
    end_time_seconds: float | None = None
    """As old versions of Aim kept it; newer ones keep it among the run's data."""
    experiment: str | None = None
    """Its name."""
    tags: tuple[str, ...] = ()
    """Names, in order of attachment."""
    notes: tuple[AimNote, ...] = ()


class AimCatalog(msgspec.Struct, frozen=True):
    """Everything of the file, oldest first."""

    experiments: tuple[AimExperiment, ...] = ()
    tags: tuple[AimTag, ...] = ()
    runs: tuple[AimRunRow, ...] = ()


def read_catalog(home: Path) -> AimCatalog:
    """Read the catalog of the repository directory `home` (`.../.aim`); an absent file is an empty catalog.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    path = home / FILE
    if not path.exists():
        return AimCatalog()
    try:
        with _connected(path) as connection:
            return _read(connection)
    except sqlite3.Error as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error


def _connected(path: Path) -> contextlib.closing[sqlite3.Connection]:
    """Open the file so that nothing is written; `immutable` where even a lock cannot be taken."""
    mode = "mode=ro" if _can_lock(path) else "immutable=1"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)
    connection.row_factory = sqlite3.Row
    return contextlib.closing(connection)


def _can_lock(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            return False
    return True


def _read(connection: sqlite3.Connection) -> AimCatalog:
    # One transaction: Aim may be writing.
    connection.execute("BEGIN")
    experiments = _rows(connection, "experiment")
    tags = _rows(connection, "tag")
    notes = _rows(connection, "note")
    names = {row["id"]: row["name"] for row in experiments}
    tag_names = {row["id"]: row["name"] for row in tags}
    attached: dict[int, list[str]] = defaultdict(list)
    for row in _rows(connection, "run_tag", order="rowid"):
        if row["tag_id"] in tag_names:
            attached[row["run_id"]].append(tag_names[row["tag_id"]])
    run_notes, experiment_notes = _notes(notes, "run_id"), _notes(notes, "experiment_id")
    runs = [
        _run(row, names.get(row.get("experiment_id")), attached[row["id"]], run_notes.get(row["id"], ()))
        for row in _rows(connection, "run")
    ]
    return AimCatalog(
        experiments=tuple(_experiment(row, experiment_notes.get(row["id"], ())) for row in experiments),
        tags=tuple(map(_tag, tags)),
        runs=tuple(runs),
    )


def _rows(connection: sqlite3.Connection, table: str, order: str = "id") -> list[Row]:
    """Return a table as dicts; empty where this version of Aim had no such table. Columns differ between versions."""
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone()
    if known is None:
        return []
    return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY {order}")]  # noqa: S608 - ours


def _run(row: Row, experiment: str | None, tags: Iterable[str], notes: tuple[AimNote, ...]) -> AimRunRow:
    name = row.get("name")
    return AimRunRow(
        hash=row["hash"],
        # The column's default, which stands there when no name was ever given.
        name=None if name == f"Run: {row['hash']}" else name,
        description=row.get("description"),
        archived=bool(row.get("is_archived")),
        created_at_seconds=_seconds(row.get("created_at")),
        updated_at_seconds=_seconds(row.get("updated_at")),
        end_time_seconds=_seconds(row.get("finalized_at")),
        experiment=experiment,
        tags=tuple(dict.fromkeys(tags)),
        notes=notes,
    )


def _experiment(row: Row, notes: tuple[AimNote, ...]) -> AimExperiment:
    return AimExperiment(
        id=row["uuid"],
        name=row["name"],
        description=row.get("description"),
        archived=bool(row.get("is_archived")),
        created_at_seconds=_seconds(row.get("created_at")) or 0.0,
        notes=notes,
    )


def _tag(row: Row) -> AimTag:
    return AimTag(
        id=row["uuid"],
        name=row["name"],
        color=row.get("color"),
        description=row.get("description"),
        archived=bool(row.get("is_archived")),
        created_at_seconds=_seconds(row.get("created_at")) or 0.0,
    )


def _notes(rows: Iterable[Row], owner: str) -> dict[int, tuple[AimNote, ...]]:
    found: dict[int, list[AimNote]] = defaultdict(list)
    for row in rows:
        if row.get(owner) is None:
            continue
        notes = found[row[owner]]
        created = str(row.get("created_at"))
        same = sum(note.identity.startswith(f"{created}#") for note in notes)
        created_at_seconds = _seconds(row.get("created_at")) or 0.0
        updated_at_seconds = _seconds(row.get("updated_at")) or created_at_seconds
        notes.append(AimNote(f"{created}#{same}", row["content"], created_at_seconds, updated_at_seconds))
    return {key: tuple(notes) for key, notes in found.items()}


def _seconds(text: str | None) -> float | None:
    """Return seconds since 1970 of a moment as SQLAlchemy writes it: UTC without a zone."""
    if not text:
        return None
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
