"""A scan, in which one name stands for one run after the other, selects what each run alone would be selected by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from matyan.ids import RunNumber
from matyan.query.language import compile_query
from matyan.query.names import RunName
from matyan.query.projection import decoder_of, paths_read
from matyan.runs.model import Run, RunDocument
from matyan.sequences.model import Bucket, Summary
from matyan.wire.codec import encode_tree
from tests.unit.query.test_reads import QUERIES, TREES

LARGE = {"large": "x" * 10_000}


def run_of(tree: Mapping[Any, Any], number: int = 1, **fields: Any) -> Run:
    document = RunDocument(hash=f"r{number}", params=encode_tree(dict(tree)), **fields)
    return Run(number=RunNumber(number), document=document, experiment=None, tags=())


def name_for(text: str) -> RunName:
    """Return the name `run` of a query, which knows as many notes of a run as its number says."""
    decode = decoder_of(paths_read(compile_query(text, variable="run").tree, "run"))
    return RunName(
        now_seconds=0.0, tz_offset_minutes=0, notes=lambda run: [{"content": "x"}] * run.number, decode=decode
    )


def scanned(text: str, runs: Sequence[Run], summaries: Sequence[Sequence[Summary]] | None = None) -> list[int]:
    """Return which runs a scan selects."""
    ask = compile_query(text, variable="run").of_runs(name_for(text))
    return [at for selected, _ in ask(runs, summaries or [()] * len(runs)) for at in selected]


def loss(last: float) -> Summary:
    return Summary(bucket=Bucket.METRIC, name="loss", context="{}", dtype="float", last=last)


@given(st.lists(TREES | st.just(LARGE), max_size=6), QUERIES)
def test_a_scan_selects_the_runs_that_are_selected_one_by_one(trees: list[dict[Any, Any]], text: str) -> None:
    runs = [run_of(tree, number) for number, tree in enumerate(trees)]
    query = compile_query(text, variable="run")
    expected = [at for at, run in enumerate(runs) if query.matches({"run": name_for(text).of(run)})]

    assert scanned(text, runs) == expected


def test_a_scan_over_many_runs_asks_each_once_and_in_order() -> None:
    runs = [run_of({"i": i}, archived=i % 3 == 0) for i in range(167)]

    found = scanned("run.i % 2 == 0", runs)

    assert found == [i for i in range(len(runs)) if i % 3 and i % 2 == 0]


def test_a_row_that_fails_and_a_large_one_do_not_disturb_those_around_them() -> None:
    runs = [
        run_of({"a": 1}),
        run_of({"a": "x"}),
        run_of({"a": 1}),
        run_of({"a": 1, **LARGE}),
        run_of({}),
        run_of({"a": 1}),
    ]

    assert scanned("run.a + 1 == 2", runs) == [0, 2, 3, 5]


def test_each_row_has_the_sequences_and_notes_of_its_own_run() -> None:
    runs = [run_of({}, number) for number in range(4)]

    assert scanned("run.metrics['loss'].last > 1", runs, [[loss(2)], [loss(0)], [], [loss(3)]]) == [0, 3]
    assert scanned("len(run.notes) > 1 and len(run.notes) < 3", runs) == [2]
