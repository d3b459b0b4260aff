"""Every recorded query selects on the golden dataset what Aim 3.29.1 selected, or stands in a table with the reason."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from matyan.errors import InvalidArgumentError, QuerySyntaxError
from matyan.query.language import Query, compile_query
from matyan.query.names import RunName, SequenceName
from matyan.sequences.model import BUCKET_OF_WORD, Summary, canonical_context
from tests.support.dataset import GOLDEN, GoldenRun, golden_runs
from tests.unit.query.rows import name_run

RECORDED: Final[list[dict[str, Any]]] = json.loads((GOLDEN / "query-results.json").read_text(encoding="utf-8"))
BY_ID: Final = {row["id"]: row for row in RECORDED}
ANSWERED: Final = [row for row in RECORDED if row["status"] == 200]
REFUSED: Final = [row for row in RECORDED if row["status"] != 200]

EXCEPTIONS: Final[Mapping[int, tuple[int, str]]] = {
    70: (48, "created_at also compares with numbers as UTC seconds (query-language.md, section 9): as creation_time"),
}
"""Queries that select what another recorded query selects, and why."""


def select(query: Query, offset_minutes: int) -> list[list[Any]]:
    """Return what a search answers, in the form of the recording."""
    found: list[list[Any]] = []
    for golden in golden_runs():
        run = name_run(golden, offset_minutes)
        if query.variable != "run":
            found += ([golden.run.hash, golden.run.name, *identity(each)] for each in matching(query, run, golden))
        elif query.matches({"run": run}):
            found.append([golden.run.hash, golden.run.name])
    return found


def matching(query: Query, run: RunName, golden: GoldenRun) -> Iterator[Summary]:
    for summary in golden.summaries:
        is_of_kind = summary.bucket == BUCKET_OF_WORD[query.variable]
        if is_of_kind and query.matches({"run": run, query.variable: SequenceName(summary, run)}):
            yield summary


def identity(summary: Summary) -> tuple[str, str]:
    return summary.name, summary.context


def recorded_selection(row: Mapping[str, Any]) -> list[list[Any]]:
    if "runs" in row:
        return list(row["runs"])
    return [[run, name, sequence, canonical_context(context)] for run, name, sequence, context in row["sequences"]]


@pytest.mark.parametrize("row", ANSWERED, ids=lambda row: str(row["id"]))
def test_a_recorded_query_selects_what_aim_selected(row: Mapping[str, Any]) -> None:
    other, _ = EXCEPTIONS.get(row["id"], (row["id"], ""))
    query = compile_query(row["q"], variable=row["endpoint"])

    found = select(query, row["timezone_offset"] or 0)

    expected = recorded_selection(BY_ID[other])
    # The order of runs is the executor's matter, that of sequences in a run the store's.
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("row", ANSWERED, ids=lambda row: str(row["id"]))
def test_a_split_query_selects_the_same(row: Mapping[str, Any]) -> None:
    whole = compile_query(row["q"], variable=row["endpoint"])
    split = compile_query(row["q"], variable=row["endpoint"]).split

    for golden in golden_runs():
        run = name_run(golden, row["timezone_offset"] or 0)
        passed = split.run is None or split.run.matches({"run": run})
        summaries = [s for s in golden.summaries if s.bucket == BUCKET_OF_WORD.get(whole.variable)]
        for namespace in (
            [{"run": run, whole.variable: SequenceName(summary, run)} for summary in summaries]
            if whole.variable != "run"
            else [{"run": run}]
        ):
            in_two = passed and (split.sequence is None or split.sequence.matches(namespace))
            assert in_two == whole.matches(namespace)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="positions are those of CPython 3.11's parser")
@pytest.mark.parametrize("row", [row for row in RECORDED if row["status"] == 400], ids=lambda row: str(row["id"]))
def test_a_recorded_syntax_error_has_aims_positions(row: Mapping[str, Any]) -> None:
    with pytest.raises(QuerySyntaxError) as caught:
        compile_query(row["q"], variable=row["endpoint"])

    error = caught.value
    detail = {
        "statement": error.statement,
        "line": error.line,
        "offset": error.offset,
        "end_offset": error.end_offset,
    }
    assert detail == row["error"]["detail"]


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: str(row["id"]))
def test_what_aim_refused_is_refused(row: Mapping[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        compile_query(row["q"], variable=row["endpoint"])


def test_the_recording_is_complete() -> None:
    assert len(RECORDED) == 379
    assert {row["status"] for row in RECORDED} == {200, 400, 500}
