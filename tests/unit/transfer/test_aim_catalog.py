"""The database of an Aim repository, of any version."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from matyan.errors import ConfigurationError
from matyan.transfer.aim_catalog import FILE, AimCatalog, AimRunRow, read_catalog

CREATED = "2024-06-01 12:00:00.250000"
CREATED_SECONDS = 1717243200.25


def make_catalog(home: Path, *statements: str) -> None:
    with sqlite3.connect(home / FILE) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_tables_and_columns_that_an_old_version_lacks_are_empty(tmp_path: Path) -> None:
    make_catalog(
        tmp_path,
        "CREATE TABLE run (id INTEGER PRIMARY KEY, hash TEXT, name TEXT, created_at DATETIME)",
        f"INSERT INTO run VALUES (1, 'abc', 'Run: abc', '{CREATED}')",
    )

    assert read_catalog(tmp_path) == AimCatalog(runs=(AimRunRow(hash="abc", created_at_seconds=CREATED_SECONDS),))


def test_tags_come_in_order_of_attachment(tmp_path: Path) -> None:
    make_catalog(
        tmp_path,
        "CREATE TABLE run (id INTEGER PRIMARY KEY, hash TEXT)",
        "CREATE TABLE tag (id INTEGER PRIMARY KEY, uuid TEXT, name TEXT)",
        "CREATE TABLE run_tag (run_id INTEGER, tag_id INTEGER, PRIMARY KEY (run_id, tag_id))",
        "INSERT INTO run VALUES (1, 'abc')",
        "INSERT INTO tag VALUES (1, 'u1', 'first'), (2, 'u2', 'second')",
        "INSERT INTO run_tag VALUES (1, 2), (1, 1)",
    )

    assert read_catalog(tmp_path).runs[0].tags == ("second", "first")


def test_notes_of_one_moment_have_identities_of_their_own(tmp_path: Path) -> None:
    make_catalog(
        tmp_path,
        "CREATE TABLE run (id INTEGER PRIMARY KEY, hash TEXT)",
        "CREATE TABLE note (id INTEGER PRIMARY KEY, content TEXT, run_id INTEGER, created_at DATETIME)",
        "INSERT INTO run VALUES (1, 'abc')",
        f"INSERT INTO note VALUES (7, 'one', 1, '{CREATED}'), (9, 'two', 1, '{CREATED}')",
    )

    notes = read_catalog(tmp_path).runs[0].notes

    assert [(note.identity, note.content) for note in notes] == [(f"{CREATED}#0", "one"), (f"{CREATED}#1", "two")]


def test_no_database_is_an_empty_catalog(tmp_path: Path) -> None:
    assert read_catalog(tmp_path) == AimCatalog()


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database, whatever its name says" * 100)

    with pytest.raises(ConfigurationError, match="file is not a database"):
        read_catalog(tmp_path)
