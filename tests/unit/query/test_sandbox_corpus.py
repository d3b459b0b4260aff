"""Known attacks on query sandboxes give errors, quickly, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any, Final

import pytest

from matyan.errors import InvalidArgumentError
from matyan.query.language import compile_query
from matyan.query.names import RunName
from matyan.query.sandbox import Budget, QueryBudgetError
from tests.fuzz.corpus import ESCAPES, EXHAUSTIONS, Attack
from tests.support.dataset import golden_runs
from tests.unit.query.rows import name_run

SECONDS_MAX: Final = 0.5
"""Five times what is promised: a busy machine takes longer, and what is not bounded takes far longer still."""


def title(attack: Attack) -> str:
    return attack.text[:40].encode("unicode_escape").decode()


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


@pytest.mark.parametrize(
    "source",
    [
        *("CVE-2024-2195", "CVE-2024-8238", "CVE-2025-5321", "CVE-2023-37271", "CVE-2023-41039", "CVE-2024-47532"),
        *("CVE-2025-22153", "CVE-2026-55830", "CVE-2026-76825"),
    ],
)
def test_the_corpus_knows_a_published_escape(source: str) -> None:
    assert len({attack.text for attack in ESCAPES if source in attack.source}) >= 5


@pytest.mark.parametrize("attack", ESCAPES, ids=title)
def test_an_escape_is_refused_or_fails(attack: Attack, rows: list[dict[str, RunName]]) -> None:
    assert {outcome(attack.text, row) for row in rows} <= {"refused", "False"}


@pytest.mark.parametrize("attack", EXHAUSTIONS, ids=title)
def test_an_exhaustion_ends_soon(attack: Attack, rows: list[dict[str, RunName]]) -> None:
    # Processor time, and the best of three: on a shared machine it is only ever too long by chance.
    seconds = []
    for _ in range(3):
        began = time.thread_time()
        ended = outcome(attack.text, rows[0])
        seconds.append(time.thread_time() - began)
        if seconds[-1] < SECONDS_MAX:
            break

    assert ended in {"refused", "stopped", "False"}
    assert min(seconds) < SECONDS_MAX


def test_the_corpus_and_random_queries_show_no_flaw_in_a_fresh_process() -> None:
    # In a process of its own: the memory of what ran before would hide that of an attack.
    command = [sys.executable, "-m", "tests.fuzz.queries", "--minutes", "0.1", "--seed", "5"]

    fuzzed = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)

    assert fuzzed.returncode == 0, fuzzed.stdout + fuzzed.stderr
