"""Whatever a query says, it ends as the contract has it and touches nothing (a longer run: tests.fuzz.queries)."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matyan.errors import InvalidArgumentError
from matyan.query.language import compile_query
from tests.fuzz.examiner import CANARY, Examiner, FlawError
from tests.fuzz.grammar import random_expression, random_mutation
from tests.fuzz.rows import make_rows

EXAMINER = Examiner(make_rows())

variables = st.sampled_from(["run", "metric", "images"])


@settings(max_examples=150, deadline=None)
@given(st.randoms(), variables)
def test_an_expression_of_the_grammar_shows_no_flaw(random: Random, variable: str) -> None:
    EXAMINER.examine(random_expression(random), variable=variable)


@settings(max_examples=150, deadline=None)
@given(st.randoms(), variables)
def test_a_changed_attack_shows_no_flaw(random: Random, variable: str) -> None:
    EXAMINER.examine(random_mutation(random), variable=variable)


@settings(deadline=None)
@given(st.text(max_size=200), variables)
def test_any_text_shows_no_flaw(text: str, variable: str) -> None:
    EXAMINER.examine(text, variable=variable)


def test_random_queries_leave_the_process_as_it_was() -> None:
    examiner = Examiner(make_rows())

    for seed in range(200):
        examiner.examine(random_mutation(Random(seed)))

    examiner.check_world()


def test_a_good_part_of_the_random_queries_is_evaluated() -> None:
    def is_accepted(text: str) -> bool:
        try:
            compile_query(text, variable="run")
        except InvalidArgumentError:
            return False
        return True

    accepted = sum(is_accepted(random_expression(Random(seed))) for seed in range(200))

    assert accepted > 60


class Leaky(Examiner):
    """Sees a value that no query can make, as if one had."""

    leaked: object = None

    def _run(self, text: str, variable: str) -> str:
        self._check_value(self.leaked, text)
        return super()._run(text, variable)


@pytest.mark.parametrize(
    "leaked",
    [object(), compile_query, pytest, [{"a": (object(),)}], f"x{CANARY}", type],
    ids=["object", "function", "module", "nested", "canary", "type"],
)
def test_the_examiner_sees_what_a_query_should_not_hold(leaked: object) -> None:
    examiner = Leaky(make_rows())
    examiner.leaked = leaked

    with pytest.raises(FlawError):
        examiner.examine("1")
