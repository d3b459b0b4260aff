"""Known attacks on query sandboxes give errors, quickly, and nothing else."""

from __future__ import annotations

import time
from typing import Any, Final

import pytest

from matyan.errors import InvalidArgumentError
from matyan.query.language import compile_query
from matyan.query.names import RunName
from matyan.query.sandbox import Budget, QueryBudgetError
from tests.support.dataset import golden_runs
from tests.unit.query.corpus import ESCAPES, EXHAUSTIONS
from tests.unit.query.rows import name_run

SECONDS_MAX: Final = 0.5
"""Five times what is promised: a busy machine takes longer, and what is not bounded takes far longer still."""


@pytest.fixture(scope="module")
def rows() -> list[dict[str, RunName]]:
    return [{"run": name_run(golden)} for golden in golden_runs()]


def outcome(text: str, row: dict[str, Any]) -> str:
    """Return what became of a text: refused, stopped, or what it evaluated to."""
    try:
        query = compile_query(text, variable="run", budget=Budget(seconds=10))
    except InvalidArgumentError:
        return "refused"
    try:
        return str(query.matches(row))
    except QueryBudgetError:
        return "stopped"


def test_the_corpus_is_large() -> None:
    assert len(set(ESCAPES)) >= 60
    assert len(set(EXHAUSTIONS)) >= 60


@pytest.mark.parametrize("text", ESCAPES)
def test_an_escape_is_refused_or_fails(text: str, rows: list[dict[str, RunName]]) -> None:
    assert {outcome(text, row) for row in rows} <= {"refused", "False"}


@pytest.mark.parametrize("text", EXHAUSTIONS, ids=lambda text: text[:40].encode("unicode_escape").decode())
def test_an_exhaustion_ends_soon(text: str, rows: list[dict[str, RunName]]) -> None:
    # Processor time, and the best of three: on a shared machine it is only ever too long by chance.
    seconds = []
    for _ in range(3):
        began = time.thread_time()
        ended = outcome(text, rows[0])
        seconds.append(time.thread_time() - began)
        if seconds[-1] < SECONDS_MAX:
            break

    assert ended in {"refused", "stopped", "False"}
    assert min(seconds) < SECONDS_MAX
