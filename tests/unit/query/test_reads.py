"""What is looked up at compile time means what it means when each row looks it up."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from matyan.ids import RunNumber
from matyan.query.language import compile_query
from matyan.query.names import RUN_ATTRIBUTES, RunName
from matyan.query.projection import decoder_of, paths_read
from matyan.query.reads import Place, place_of, resolve
from matyan.runs.model import Run, RunDocument
from matyan.wire.codec import encode_tree

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([2**70, 0.5, float("nan"), float("inf"), "", "a", "b", "ab", "%s"])
)
KEYS = st.sampled_from(["a", "b", "get", "keys", "name"]) | st.integers(0, 1)
TREES = st.dictionaries(
    KEYS,
    st.recursive(SCALARS, lambda below: st.lists(below, max_size=2) | st.dictionaries(KEYS, below, max_size=2)),
    max_size=3,
)
STEPS = st.sampled_from([".a", ".b", ".get", ".keys", "['a']", "['name']", "['b', 'a']", "['a', 'b', 'a']", "[0]"])
PARAMS = st.lists(STEPS, min_size=1, max_size=3).map(lambda steps: f"run{''.join(steps)}")
LITERALS = st.sampled_from(
    ["None", "True", "0", "1", "-1", "0.5", "'a'", "'ab'", "[]", "{}", "[1]", "(1e999 - 1e999)", "+1", "1j", "b'a'"]
)
CONTAINERS = st.sampled_from(["[1, 'a', None]", "(0, 'b')", "{1, 'a'}", "()", "'ab'", "{'a': 1}", "[run.a]", "{run.a}"])
VALUES = PARAMS | LITERALS
OPERATIONS = st.one_of(
    st.tuples(VALUES, st.sampled_from(["+", "-", "*", "/", "//", "%", "&", "|", "^"]), VALUES).map(
        lambda parts: f"({' '.join(parts)})"
    ),
    PARAMS.map(lambda param: f"{param}.get('a')"),
    PARAMS.map(lambda param: f"len({param})"),
    PARAMS.map(lambda param: f'f"{{{param}}}"'),
    PARAMS.map(lambda param: f"(run.a or {param})"),
)
OPERANDS = VALUES | OPERATIONS
SIGNS = st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "is", "is not"])
CONDITIONS = st.one_of(
    st.tuples(OPERANDS, SIGNS, OPERANDS).map(" ".join),
    st.tuples(OPERANDS, SIGNS, OPERANDS, SIGNS, OPERANDS).map(" ".join),
    st.tuples(OPERANDS, st.sampled_from(["in", "not in"]), CONTAINERS | PARAMS).map(" ".join),
    st.tuples(LITERALS, st.sampled_from(["in", "not in"]), PARAMS, SIGNS, LITERALS).map(" ".join),
    OPERANDS,
)
QUERIES = st.one_of(
    CONDITIONS,
    CONDITIONS.map(lambda text: f"not ({text})"),
    st.tuples(CONDITIONS, st.sampled_from(["and", "or"]), CONDITIONS).map(" ".join),
    CONDITIONS.map(lambda text: f"any([{text} for each in [1, 2]])"),
)


def row(tree: dict[Any, Any], text: str) -> dict[str, RunName]:
    """Return the row of a run with these params, of which what the query reads is decoded."""
    decode = decoder_of(paths_read(compile_query(text, variable="run").tree, "run"))
    document = RunDocument(hash="r", params=encode_tree(tree))
    run = Run(number=RunNumber(1), document=document, experiment=None, tags=())
    return {"run": RunName(now_seconds=0.0, tz_offset_minutes=0, notes=lambda _: [], decode=decode).of(run)}


def is_selected_with_lookups(tree: dict[Any, Any], text: str) -> bool:
    """Return the answer where `run` is bound in the query, so that nothing can be looked up before."""
    bound = f"(lambda run: {text})(run)"
    return compile_query(bound, variable="run").matches(row(tree, bound))


@given(TREES, QUERIES)
@example({"a": float("nan")}, "run.a in [run.a]")
@example({"a": float("nan")}, "run.a == run.a")
@example({"a": "x"}, "not (run.a < 1)")
@example({"a": None}, "run.a is None")
@example({}, "run['a', 'b'] == None")
@example({"a": {}}, "run['a']['b'] == None")
@example({"a": [1]}, "run.a + [2] == [1, 2]")
@example({"a": "%s"}, "run.a % 1 == '1'")
def test_a_query_selects_the_same_runs_whenever_its_params_are_looked_up(tree: dict[Any, Any], text: str) -> None:
    expected = is_selected_with_lookups(tree, text)

    found = compile_query(text, variable="run").matches(row(tree, text))

    assert found == expected


@pytest.mark.parametrize("attribute", sorted(RUN_ATTRIBUTES - {"get", "metrics"}))
def test_an_attribute_with_a_fixed_meaning_is_the_same_whenever_it_is_looked_up(attribute: str) -> None:
    tree, text = {attribute: 1}, f"f'{{run.{attribute}}}' == (lambda run: f'{{run.{attribute}}}')(run)"

    assert compile_query(text, variable="run").matches(row(tree, text)) is (attribute != "info")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("run.a", Place(("a",), 1)),
        ("run.a.b['c', 'd']", Place(("a", "b", "c", "d"), 1)),
        ("run['a', 'b'].c", Place(("a", "b", "c"), 2)),
        ("run['name']", Place(("name",), 1)),
        ("run.keys", Place(("keys",), 1)),
        ("run.a['get']", Place(("a", "get"), 1)),
        ("run.a.get", None),
        ("run.name", None),
        ("run.name.a", None),
        ("run.a[0]", None),
        ("run.a[0].b", None),
        ("run[()]", None),
        ("run", None),
        ("metric.run.a", None),
    ],
)
def test_a_place_is_what_is_written_out_below_the_run(text: str, place: Place | None) -> None:
    assert place_of(ast.parse(text, mode="eval").body) == place


@pytest.mark.parametrize(
    "text", ["(run := 1) == run.a", "(lambda run: run.a)(1)", "[run.a for run in [1]]", "(lambda *run: run.a)(1)"]
)
def test_nothing_is_resolved_where_the_run_may_be_something_else(text: str) -> None:
    _, reads = resolve(ast.parse(text, mode="eval").body)

    assert reads == {}


def test_equal_reads_are_one_function() -> None:
    _, reads = resolve(
        ast.parse("run.a == 1 or run['a'] == 2 or run.a or run.duration or run.duration", mode="eval").body
    )

    assert len(reads) == 3
