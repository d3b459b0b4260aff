"""Rows of the golden dataset that generated queries are asked about."""

from __future__ import annotations

from collections.abc import Mapping

from matyan.query.names import SequenceName
from matyan.sequences.model import Bucket
from tests.support.dataset import golden_runs
from tests.unit.query.rows import name_run


def make_rows() -> dict[str, Mapping[str, object]]:
    """Return, by the variable of a search, a row that has one of all."""
    rows: dict[str, Mapping[str, object]] = {}
    for golden in golden_runs():
        run = name_run(golden)
        if golden.run.params and golden.run.tags:
            rows.setdefault("run", {"run": run})
        for summary in golden.summaries:
            word = Bucket(summary.bucket).word
            if word in ("metric", "images"):
                rows.setdefault(word, {"run": run, word: SequenceName(summary, run)})
    return rows
