"""Table: what a benchmark prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """Rows of text under headings; the first column says what was measured."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return it as Markdown, numbers to the right."""
        lines = [self.columns, ["---", *("---:" for _ in self.columns[1:])], *self.rows]
        return "\n".join([f"### {self.title}", "", *(f"| {' | '.join(cells)} |" for cells in lines), ""])
