"""The map of the database in the docs is the table in the code."""

import os
from pathlib import Path

from matyan.store.subspaces import TABLE, Subspace

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "keyspace.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def render() -> str:
    lines = ["| number | subspace | key after project and number | value | owner |", "|--:|---|---|---|---|"]
    lines += [
        f"| {space.value} | {space.name.lower()} | `{row.key}` | {row.value} | `{row.owner}` |"
        for space, row in TABLE.items()
    ]
    return "\n".join(lines)


def test_the_page_holds_the_table() -> None:
    before, rest = PAGE.read_text().split(BEGIN)
    shown, after = rest.split(END)
    if os.environ.get("MATYAN_WRITE_DOCS"):
        PAGE.write_text(f"{before}{BEGIN}\n{render()}\n{END}{after}")
        return

    assert shown.strip() == render(), "run the test with MATYAN_WRITE_DOCS=1 to write the page anew"


def test_every_subspace_has_its_row() -> None:
    assert set(TABLE) == set(Subspace)
