"""Budgets and weights."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.query.nodes import Node
from matyan.query.sandbox import DEPTH_MAX, INT_BITS_MAX, SIZE_MAX, Budget, QueryBudgetError, weigh


class Ticking:
    """A clock that a second passes on at each look."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return float(self.looks)


def spend_singly(budget: Budget, steps: int) -> None:
    for _ in range(steps):
        budget.spend(1)


def test_a_row_may_spend_its_steps_and_no_more() -> None:
    budget = Budget(seconds=1000, steps=100)

    budget.begin_row()
    budget.spend(100)
    with pytest.raises(QueryBudgetError, match="100 steps"):
        budget.spend(1)


def test_the_next_row_has_steps_of_its_own() -> None:
    budget = Budget(seconds=1000, steps=100)
    budget.begin_row()
    budget.spend(100)

    budget.begin_row()
    budget.spend(100)


def test_the_deadline_holds_within_a_row() -> None:
    budget = Budget(seconds=5, steps=10_000, clock=Ticking())
    budget.begin_row()

    with pytest.raises(QueryBudgetError, match="longer"):
        spend_singly(budget, 10_000)


def test_single_steps_seldom_look_at_the_clock() -> None:
    clock = Ticking()
    budget = Budget(seconds=1e9, steps=10_000, clock=clock)
    budget.begin_row()

    spend_singly(budget, 10_000)

    assert clock.looks < 400


def test_one_large_step_looks_at_the_clock() -> None:
    budget = Budget(seconds=1.5, steps=10_000, clock=Ticking())
    budget.begin_row()

    with pytest.raises(QueryBudgetError):
        budget.spend(1000)


@pytest.mark.parametrize(
    ("value", "units"),
    [
        (None, 1),
        ("x" * 160, 11),
        (1 << 640, 11),
        ([1, 2], 3),
        ({"a": [1]}, 4),
        (slice(1, 2), 4),
        (partial(len, [1, 2]), 4),
        (Node([1, 2]), 4),
        ({1, 2}, 3),
    ],
    ids=repr,
)
def test_a_value_weighs_all_that_it_holds(value: object, units: int) -> None:
    assert weigh(value) == units


def test_what_is_shared_counts_as_often_as_it_is_held() -> None:
    value: Any = [0]
    for _ in range(DEPTH_MAX // 2):
        value = [value, value]

    assert weigh(value) > SIZE_MAX


def test_what_nests_too_deep_weighs_too_much() -> None:
    value: Any = ()
    for _ in range(DEPTH_MAX):
        value = (value,)

    assert weigh(value) > SIZE_MAX


trees = st.recursive(
    st.integers(-9, 9) | st.text(max_size=3), lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner)
)


@given(trees)
def test_the_weight_of_a_tree_is_one_more_than_that_of_its_parts(tree: Any) -> None:
    parts = tree if isinstance(tree, list | tuple) else ()

    assert weigh(tree) == 1 + sum(map(weigh, parts))


def test_the_largest_integer_weighs_less_than_the_limit() -> None:
    assert weigh(1 << INT_BITS_MAX) < SIZE_MAX
