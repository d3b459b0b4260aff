"""From text to query: preparation, the default filter, syntax errors, the whitelist, and the split."""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.errors import InvalidArgumentError, QuerySyntaxError, TooSlowError, UnavailableError
from matyan.query.language import TURN_SECONDS, VARIABLES, Asked, Query, compile_query
from matyan.query.names import RunName
from matyan.query.sandbox import Budget, QueryBudgetError
from matyan.query.syntax import DEPTH_MAX, NODES_MAX, TEXT_CHARACTERS_MAX, prepare
from matyan.runs.model import Run
from matyan.wire.codec import encode_tree
from tests.support.dataset import golden_runs
from tests.unit.query.rows import NOW_SECONDS, name_run

NEWEST: Final = {"run": name_run(golden_runs()[0])}
RUN: Final = golden_runs()[0].run


def is_true(text: str) -> bool:
    return compile_query(text, variable="run").matches(NEWEST)


def with_params(tree: Mapping[str, Any]) -> Run:
    """Return a run with these params."""
    return msgspec.structs.replace(RUN, document=msgspec.structs.replace(RUN.document, params=encode_tree(tree)))


def asked(query: Query, runs: Sequence[Run]) -> Iterator[Asked]:
    """Ask runs as a scan does."""
    return query.of_runs(NEWEST["run"])(runs, [()] * len(runs))


def selected(query: Query, runs: Sequence[Run]) -> list[int]:
    """Return which of the runs a scan selects."""
    return [at for some, _ in asked(query, runs) for at in some]


@pytest.mark.parametrize(
    ("text", "variable", "prepared"),
    [
        ("", "run", ""),
        (" \n ", "metric", ""),
        (" run.a ", "run", "(run.a)"),
        ("select metrics IF run.a", "run", "(run.a)"),
        ("SELECTif run.a if x", "run", "(run.a if x)"),
        ("select if ", "run", ""),
        ("select x if y", "metric", "(select x if y)"),
    ],
)
def test_a_text_is_prepared_as_aim_does(text: str, variable: str, prepared: str) -> None:
    assert prepare(text, variable=variable) == prepared


@pytest.mark.parametrize("text", ["  select everything", "SELECT", "selected == 1"])
def test_a_select_without_if_is_a_syntax_error_at_no_place(text: str) -> None:
    with pytest.raises(QuerySyntaxError) as caught:
        compile_query(text, variable="run")

    assert (caught.value.statement, caught.value.line, caught.value.offset, caught.value.end_offset) == ("", 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("", "run.archived == False"),
        ("run.a", "run.archived == False and run.a"),
        ("run.a or 'run.archived'", "run.a or 'run.archived'"),
    ],
)
def test_the_tree_includes_the_default_filter(text: str, expression: str) -> None:
    tree = compile_query(text, variable="run").tree

    assert ast.unparse(tree) == expression


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="positions are those of CPython 3.11's parser")
@pytest.mark.parametrize(
    ("text", "line", "offset", "end_offset", "statement"),
    [
        ("run.hparams.lr ==", 1, 19, 20, "(run.hparams.lr ==)"),
        ("(run.hparams.lr > 1", 1, 1, 0, "((run.hparams.lr > 1)"),
        ("run.a run.b", 1, 2, 13, "(run.a run.b)"),
        ("run.a = 1", 1, 2, 7, "(run.a = 1)"),
        ("import os", 1, 2, 8, "(import os)"),
        ("run.a == 1 and\n run.b ==", 2, 10, 11, " run.b ==)"),
        ("run.name == 'abc", 1, 14, 14, "(run.name == 'abc)"),
        ("   run.x ==", 1, 10, 11, "(run.x ==)"),
        ("run.a == 1)", 1, 13, 13, "(run.a == 1))"),
        ("run.a ? 1", 1, 8, 9, "(run.a ? 1)"),
        ("await run.name", 1, 2, 16, None),
    ],
)
def test_a_syntax_error_has_the_positions_of_the_contract(
    text: str, line: int, offset: int, end_offset: int, statement: str | None
) -> None:
    with pytest.raises(QuerySyntaxError) as caught:
        compile_query(text, variable="run")

    error = caught.value
    assert (error.line, error.offset, error.end_offset, error.statement) == (line, offset, end_offset, statement)


@pytest.mark.parametrize("text", ["run.__class__", "eval('1')", "run.x.gi_frame", "lambda: (yield)"])
def test_a_refusal_is_no_syntax_error(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        compile_query(text, variable="run")

    assert not isinstance(caught.value, QuerySyntaxError)
    assert caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "x" * TEXT_CHARACTERS_MAX,
        " or ".join(["1"] * NODES_MAX),
        "[" * DEPTH_MAX + "]" * DEPTH_MAX,
    ],
    ids=["characters", "nodes", "depth"],
)
def test_a_text_over_a_limit_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"limit|more than|deeper"):
        compile_query(text, variable="run")


def test_the_longest_queries_of_the_ui_are_within_the_limits() -> None:
    selected = [f'(metric.name == "loss {i}" and metric.context.subset == "train")' for i in range(500)]

    compile_query(f"(run.hparams.lr > 0.01) and ({' or '.join(selected)})", variable="metric")


@pytest.mark.parametrize(
    "text",
    ["run.name is 'newest' or True", "'\\d' == '\\\\d'", "run.name == 'newest' or 'x'()", "run.name is not 1"],
)
def test_what_python_warns_of_is_no_error(text: str) -> None:
    assert is_true(text)


@pytest.mark.parametrize(
    "text",
    [
        "(x := run.name) == 'newest' and x.startswith('new')",
        "[y for x in [1, 2] if (y := x * 2) > 2] == [4] and y == 4",
        "(len := 5) == 5",
        "(run := 5) == 5",
        "any(True for _ in run.name)",
        "[a + b for a, b in {'x': 'y'}.items()] == ['xy']",
        "[a for (a, (b, *c)) in [(1, (2, 3, 4))]] == [1]",
        "(lambda *a, b=2, **c: (a, b, c))(1, x=3) == ((1,), 2, {'x': 3})",
        "max(*[1, 2], **{'key': lambda x: -x}) == 1",
        "{**{'a': 1}, 'b': 2} == {'a': 1, 'b': 2}",
        "[*range(3)][1:] == [1, 2]",
        "f'{run.name!r:>10}|{1.5:.2f}' == \"  'newest'|1.50\"",
        "'%(a)s-%(b)03d' % {'a': 1, 'b': 2} == '1-002'",
        "'2024-%s (%5.1f%%)' % (run.name, 2.5) == '2024-newest (  2.5%)'",
        "len('ab' * 50000) == 100000 and len([0] * 5000) == 5000",
        "'-'.join([t.upper() for t in ['a', 'b']]) == 'A-B'",
        "3 if run.x else run.name[-1] == 't'",
        "pow(7, 2, 10) == 9 and 2 ** -1 == 0.5 and 2 ** 0.5 > 1",
        "sum([[1], [2]], []) == [1, 2]",
        "1000000 * 0.5 == 500000 and timedelta(days=1) * 20000 > timedelta(0)",
        "math.sqrt(run.hparams.batch_size) > 1 and math.factorial(5) == 120",
        "isinstance(run.name, str) and isinstance(1, (int, float)) and not issubclass(int, str)",
        "ValueError != KeyError",
        "b'a' + b'b' == b'ab' and ... is ...",
        "{x for x in 'aab'} == {'a', 'b'} and {x: 1 for x in 'a'} == {'a': 1}",
        "datetime.fromisoformat('2024-06-01') < datetime.utcnow() and datetime.today() > datetime(2024, 1, 1)",
        "random.randint(1, 1) == whrandom.choice([1])",
    ],
)
def test_the_language_is_pythons_expressions(text: str) -> None:
    assert is_true(text)


def test_what_a_row_assigned_is_gone_for_the_next() -> None:
    query = compile_query("(run.hash == 'nobody' and (x := 1)) or x == 1", variable="run")

    assert not query.matches(NEWEST)
    assert not query.matches(NEWEST)


@pytest.mark.parametrize(
    ("text", "has_run_part", "has_sequence_part"),
    [
        ("", True, False),
        ("metric.name == 'x'", True, True),
        ("run.archived or metric.name", False, True),
        ("metric.name and (run.archived == False and run.a)", True, True),
        ("(x := run.a) and metric.name == x", False, True),
        ("random.random() < 0.5", True, True),
        ("[metric for metric in run.tags]", True, True),
    ],
)
def test_a_conjunction_is_split(text: str, *, has_run_part: bool, has_sequence_part: bool) -> None:
    split = compile_query(text, variable="metric").split

    assert (split.run is not None, split.sequence is not None) == (has_run_part, has_sequence_part)


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("run.hparams.lr == 1 and run['a b'] and run.metrics['loss', {'a': 1}].last > run.name[0:1]", False),
        ("run['__system_params']['x'] == 1", True),
        ("run['__system_params', 'x'] == 1", True),
        ("run['__system' + '_params'] != None", True),
        ("run.get('x') == 1", True),
        ("run[run.x] == 1", True),
    ],
)
def test_a_query_knows_when_it_reads_no_system_params(text: str, *, may: bool) -> None:
    assert compile_query(text, variable="run").may_read_system_params is may


def test_a_search_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="nope"):
        compile_query("", variable="nope")


def test_a_past_deadline_ends_the_search() -> None:
    query = compile_query("run.name == 'x'", variable="run", budget=Budget(seconds=-1))

    with pytest.raises(QueryBudgetError):
        query.matches(NEWEST)


class Ticking:
    """A clock that a second passes on at each look."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


def test_a_scan_grants_each_row_its_own_steps() -> None:
    budget = Budget(seconds=1000, steps=350)
    query = compile_query("[0 for i in range(100)] and run.name", variable="run", budget=budget)

    assert selected(query, [RUN] * 50) == list(range(50))
    with pytest.raises(QueryBudgetError, match="350 steps"):
        selected(compile_query("[0 for i in range(300)]", variable="run", budget=budget), [RUN])


def test_a_scan_ends_with_the_row_in_which_its_time_is_over() -> None:
    query = compile_query("run.name == 'x'", variable="run", budget=Budget(seconds=2.5, clock=Ticking()))
    asking = asked(query, [RUN] * 100)

    assert next(asking) == ([], 1)
    with pytest.raises(QueryBudgetError, match="longer"):
        next(asking)


def test_a_scan_goes_on_while_its_turn_is_not_over() -> None:
    seconds = iter([0.0, 0.0, 0.0, *[TURN_SECONDS / 4 * row for row in range(100)]])
    query = compile_query("", variable="run", budget=Budget(clock=lambda: next(seconds)))

    assert next(asked(query, [RUN] * 100)) == (list(range(6)), 6)


def test_a_scan_whose_rows_spend_nothing_but_take_long_ends_its_turn_all_the_same() -> None:
    needle, text = "a" * 50 + "b" + "a" * 50, "a" * 1_000_000
    long = msgspec.structs.replace(RUN.document, description=text)
    query = compile_query(f"'{needle}' in run.description", variable="run")

    found = list(asked(query, [msgspec.structs.replace(RUN, document=long)] * 3))

    assert found == [([], 1), ([], 2), ([], 3)]


def test_a_scan_hands_on_what_it_found_after_each_row_that_spent_something() -> None:
    query = compile_query("len(run.name) > 0", variable="run")

    assert list(asked(query, [RUN] * 3)) == [([0], 1), ([1], 2), ([2], 3)]


def test_a_scan_of_no_runs_asks_none() -> None:
    assert list(asked(compile_query("", variable="run"), [])) == []


@pytest.mark.parametrize("error", [UnavailableError("away"), TooSlowError("slow")])
def test_a_store_that_does_not_answer_is_no_reason_to_leave_a_row_out(error: Exception) -> None:
    def notes(_: Run) -> Sequence[Mapping[str, Any]]:
        raise error

    name = RunName(now_seconds=NOW_SECONDS, tz_offset_minutes=0, notes=notes)
    query = compile_query("len(run.notes) == 0", variable="run")

    with pytest.raises(type(error)):
        list(query.of_runs(name)([RUN], [()]))
    with pytest.raises(type(error)):
        query.matches({"run": name.of(RUN, ())})


def test_what_fails_to_evaluate_loses_its_row_alone() -> None:
    named, unnamed = (with_params({"a": value}) for value in ("x", 1))
    query = compile_query("run.a + 1 == 2", variable="run")

    assert selected(query, [named, unnamed, named, unnamed]) == [1, 3]


def test_queries_in_many_threads_do_not_disturb_each_other() -> None:
    wrong: list[str] = []

    def work(number: int) -> None:
        for i in range(20):
            text = f"run.name is not {i} and {number} == {number}"
            if not compile_query(text, variable="run").matches(NEWEST):
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong


literals = st.sampled_from(["0", "1", "2", "-3", "2.5", "'a'", "'b'", "[1, 2]", "(1,)", "{'a': 1}", "None", "True"])
operators = st.sampled_from(
    [
        *("+", "-", "*", "/", "//", "%", "**", "<<", ">>", "&", "|", "^", "@"),
        *("==", "!=", "<", "<=", ">", ">=", "and", "or", "in", "is"),
    ]
)
wrappers = st.sampled_from(
    [
        *("not {}", "-{}", "{}[0]", "[{}, {}]", "{} if {} else 0", "[{} for x in (1, 2)]", "(lambda x: {})(1)"),
        *("len({})", "str({})", "sorted({})", "sum({})", "max({})", "list({})", "round({})", "'%s' % ({},)"),
    ]
)


def wrap(form: str, part: str) -> str:
    return "(" + form.replace("{}", part) + ")"


expressions = st.recursive(
    literals,
    lambda inner: (
        st.builds(lambda left, word, right: f"({left} {word} {right})", inner, operators, inner)
        | st.builds(
            lambda form, part: "(" + form.replace("{}", part) + ")", wrappers.filter(lambda w: "f'" not in w), inner
        )
    ),
    max_leaves=8,
)


@given(expressions)
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_an_expression_has_the_value_that_python_gives_it(text: str) -> None:
    try:
        expected: object = repr(eval(text, {}))
    except Exception:  # noqa: BLE001 - whatever goes wrong in Python
        expected = None
    query = compile_query(
        f"repr({text}) == {expected!r}" if expected is not None else f"({text}) or True", variable="run"
    )

    matched = query.matches(NEWEST)

    assert matched is (expected is not None)


@given(st.text(alphabet="run.metics()[]{}'\"=<>+-*/%:,_ 019lambdforif\n\\#@!~&|^\u00e9\uff3f", max_size=60))
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@pytest.mark.parametrize("variable", sorted(VARIABLES))
def test_no_text_gives_anything_but_an_answer_or_a_refusal(variable: str, text: str) -> None:
    try:
        query = compile_query(text, variable=variable)
    except InvalidArgumentError:
        return

    assert query.matches({"run": NEWEST["run"], variable: NEWEST["run"]}) in (True, False)
