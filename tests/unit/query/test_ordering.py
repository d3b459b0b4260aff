"""The order of a run search: parsing, keys, and sorting against a naive oracle."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.catalog.model import Experiment
from matyan.errors import InvalidArgumentError
from matyan.ids import RunNumber
from matyan.query.ordering import NEWEST_FIRST, Field, Order, Ordering, SortRow, parse_orders
from matyan.runs.model import Run, RunDocument

NOW_SECONDS = 1000.0


def make_run(number: int, experiment: str | None = None, **fields: Any) -> Run:
    return Run(
        number=RunNumber(number),
        document=RunDocument(hash=f"hash-{number}", **fields),
        experiment=None if experiment is None else Experiment(id=experiment, name=experiment),
        tags=(),
    )


def sorted_numbers(orders: list[Order], runs: list[Run]) -> list[int]:
    ordering = Ordering(orders, now_seconds=NOW_SECONDS)
    rows = [SortRow(ordering.keys(run), run.number) for run in runs]
    ordering.sort(rows)
    return [row.number for row in rows]


# ---- parsing


@pytest.mark.parametrize("text", ["", "  ", "[]", '[{"field": "date", "order": "desc"}]'])
def test_nothing_is_the_newest_first(text: str) -> None:
    assert parse_orders(text) == NEWEST_FIRST


def test_a_missing_order_rises_and_a_field_that_comes_again_is_dropped() -> None:
    asked = [{"field": "run"}, {"field": "date", "order": "desc"}, {"field": "run", "order": "desc"}]

    found = parse_orders(json.dumps(asked))

    assert found == (Order(Field.RUN, "asc"), Order(Field.DATE, "desc"))


@pytest.mark.parametrize(
    "text",
    [
        "date",
        "{}",
        '{"field": "date"}',
        '["date"]',
        "[{}]",
        '[{"field": "nope"}]',
        '[{"field": null}]',
        '[{"field": "date", "order": "down"}]',
        '[{"field": "date", "order": null}]',
        "[" * 100_000,
        "\ud800",
    ],
)
def test_what_is_no_order_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="sort is a JSON list"):
        parse_orders(text)


# ---- sorting


@pytest.mark.parametrize("field", list(Field))
def test_runs_can_be_sorted_by_every_field(field: Field) -> None:
    small = make_run(1, "a", name="a", description="a", created_at_seconds=900.0, end_time_seconds=901.0)
    great = make_run(2, "b", name="b", description="b", created_at_seconds=950.0)

    found = [sorted_numbers([Order(field, order)], [great, small]) for order in ("asc", "desc")]

    # Nobody knows creators, so these keep the order before.
    assert found == ([[2, 1], [2, 1]] if field == Field.CREATOR else [[1, 2], [2, 1]])


def test_a_run_that_has_not_ended_lasts_until_now() -> None:
    ended = make_run(1, created_at_seconds=0.0, end_time_seconds=500.0)
    going_on = make_run(2, created_at_seconds=300.0)

    assert sorted_numbers([Order(Field.DURATION)], [going_on, ended]) == [1, 2]


def test_texts_compare_by_code_point() -> None:
    names = ["b", "Z", "é", "a", "日", "z"]
    runs = [make_run(number, name=name) for number, name in enumerate(names)]

    found = sorted_numbers([Order(Field.RUN)], runs)

    assert [names[number] for number in found] == ["Z", "a", "b", "z", "é", "日"]


def test_what_is_missing_comes_first() -> None:
    runs = [make_run(1, "x", description="x"), make_run(2)]

    assert sorted_numbers([Order(Field.EXPERIMENT)], runs) == [2, 1]
    assert sorted_numbers([Order(Field.DESCRIPTION)], runs) == [2, 1]


few_texts = st.sampled_from(["a", "b", "B"])
many_runs = st.lists(
    st.tuples(few_texts, st.none() | few_texts, st.sampled_from([1.0, 2.0]), st.none() | st.sampled_from([3.0, 4.0]))
)
some_orders = st.lists(
    st.builds(Order, st.sampled_from(Field), st.sampled_from(["asc", "desc"])), unique_by=lambda order: order.field
)


@given(many_runs, some_orders)
def test_sorting_equals_a_comparison_field_by_field(made: list[Any], orders: list[Order]) -> None:
    runs = [
        make_run(number, experiment, name=name, created_at_seconds=begin, end_time_seconds=end)
        for number, (name, experiment, begin, end) in enumerate(made)
    ]

    def value(run: Run, field: Field) -> Any:
        document = run.document
        return {
            Field.RUN: run.name,
            Field.EXPERIMENT: run.experiment.name if run.experiment else "",
            Field.HASH: document.hash,
            Field.DATE: document.created_at_seconds,
            Field.DURATION: (document.end_time_seconds or NOW_SECONDS) - document.created_at_seconds,
        }.get(field, "")

    def compare(one: Run, other: Run) -> int:
        for order in orders:
            left, right = value(one, order.field), value(other, order.field)
            if left != right:
                return (-1 if left < right else 1) * (-1 if order.order == "desc" else 1)
        return one.number - other.number

    expected = [run.number for run in sorted(runs, key=functools.cmp_to_key(compare))]
    assert sorted_numbers(orders, runs) == expected
