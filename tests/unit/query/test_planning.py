"""Queries and the plans that are made of them."""

from __future__ import annotations

import time
from typing import Final

import pytest

from matyan.query.language import compile_query
from matyan.query.plan import DESCRIPTION_CHARACTERS_MAX, SPANS_MAX, And, Condition, Not, Or, Plan, Term, Wanted
from matyan.query.planning import FIELDS_MAX, LOOKED_UP_MAX, make_plan

NOW_SECONDS: Final = 1_717_700_000.0
DEFAULT: Final = "not run.archived and "


def plan_of(q: str, word: str = "run", *, offset: int = 0) -> Plan:
    tree = compile_query(q, variable=word).tree
    return make_plan(tree, variable=word, tz_offset_minutes=offset, now_seconds=NOW_SECONDS)


def described(q: str, word: str = "run", *, offset: int = 0) -> str:
    """Return what a plan says beside the default filter."""
    text = str(plan_of(q, word, offset=offset))
    return "everything" if text == "not run.archived" else text.removeprefix(DEFAULT)


RUNS: Final = {
    # ---- flags, by all the values they can have
    "run.archived == True": "run.archived",
    "run.archived": "run.archived",
    "not run.archived": "everything",
    "run.archived != False": "run.archived",
    "run.archived is True": "run.archived",
    "run.archived in (True, False)": "everything",
    "run.archived == None": "nothing",
    "0 < run.archived": "run.archived",
    "run.active": "run.active",
    "run.active == False": "not run.active",
    "bool(run.active)": "run.active",
    "run.is_archived": "run.archived",
    # ---- params
    "run.lr == 0.1": "run.lr == 0.1",
    "run.hparams.lr >= -1": "run.hparams.lr >= -1",
    "0.1 < run.hparams['lr']": "run.hparams.lr > 0.1",
    "run['hparams', 'lr'] < 1": "run.hparams.lr < 1",
    "run.get('hparams').get('lr') == 'a'": "run.hparams.lr == 'a'",
    "run['a b'].c == True": "run['a b'].c == True",
    "run['name'] == 'x'": "run['name'] == 'x'",
    "run.hparams['get'] == 1": "run.hparams.get == 1",
    "0 <= run.lr < 1": "0 <= run.lr < 1",
    "run.lr >= 0 and run.lr < 1 and run.lr > 0": "0 < run.lr < 1",
    "run.lr > 1 and run.lr <= 1": "nothing",
    "run.lr > 1 and run.lr < 'a'": "nothing",
    "run.lr != 1": "not run.lr == 1",
    "not run.lr > 1": "not run.lr > 1",
    "not run.lr != 1": "run.lr == 1",
    "run.lr in (1, 2.5, 'a')": "run.lr in (1, 2.5, 'a')",
    "run.lr not in [1]": "not run.lr == 1",
    "run.lr in ()": "nothing",
    "run.lr == 1 or run.lr == 2": "run.lr in (1, 2)",
    "run.lr == 2 ** 2": "everything",
    "run.lr == 2 * 3 - 1": "run.lr == 5",
    "run.lr == 1e999": "run.lr == inf",
    "run.lr == 1e999 - 1e999": "everything",
    "run.lr == 1 / 0": "everything",
    "run.lr == None": "everything",
    "run.lr is None": "everything",
    "run.lr": "everything",
    "run.lr in 'abc'": "everything",
    "run.lr in (1, None)": "everything",
    "run.lr == [1]": "everything",
    "run.lr == run.other": "everything",
    "run.lr.get('a', 1) == 1": "everything",
    "run.lr.keys == 1": "everything",
    "run.list[0] == 1": "everything",
    "run.a + 1 == 2": "everything",
    "run['__system_params'].cpu == 1": "everything",
    # ---- fixed attributes
    "run.name == 'a'": "run.name == 'a'",
    "run.name.startswith('a')": "run.name.startswith('a')",
    "run.name.startswith(('a', 'b'))": "(run.name.startswith('a') or run.name.startswith('b'))",
    "run.name.startswith('')": "everything",
    "run.name.startswith('a', 1)": "everything",
    "run.name.endswith('a')": "everything",
    "run.name == 1": "everything",
    "run.name.foo == 'a'": "everything",
    "'a' in run.name": "everything",
    "run.model.startswith('a')": "everything",
    "run.hash in ['a', 'b']": "run.hash in ('a', 'b')",
    "run.experiment != 'a'": "not run.experiment == 'a'",
    "run.description == 'a'": "everything",
    "'a' in run.tags": "'a' in run.tags",
    "'a' in run.tags and 'b' in run.tags": "'a' in run.tags and 'b' in run.tags",
    "'a' not in run.tags": "not 'a' in run.tags",
    "run.tags == 'a'": "everything",
    "1 in run.tags": "everything",
    "run.creation_time > 5": "run.creation_time > 5",
    "run.duration < 60.5": "run.duration < 60.5",
    "run.end_time == None": "everything",
    # ---- dates: wider by what rounding may take, narrower below a `not`
    "run.created_at > 5": "run.creation_time > 5",
    "run.created_at in {5}": "run.creation_time == 5",
    "run.created_at not in {5}": "everything",
    "run.created_at > True": "everything",
    "run.created_at >= datetime(2024, 6, 4)": "run.creation_time >= 1717459199.9999976",
    "not run.created_at >= datetime(2024, 6, 4)": "not run.creation_time >= 1717459200.0000024",
    "run.created_at < datetime(2024, 6, 5) - timedelta(days=1)": "run.creation_time < 1717459200.0000024",
    "run.finalized_at == datetime(2024, 6, 4)": "1717459199.9999976 <= run.end_time <= 1717459200.0000024",
    "run.finalized_at != datetime(2024, 6, 4)": "everything",
    "run.created_at > datetime.utcnow() - timedelta(days=1)": "run.creation_time >= 1717606400.0",
    "run.created_at < datetime.utcnow()": "everything",
    "run.created_at > datetime(2024, 13, 1)": "everything",
    "run.updated_at > datetime(2024, 6, 4)": "everything",
    # ---- sequences of the run
    "run.metrics['loss'].last < 1": "metric['loss', {}].last < 1",
    "run.metrics['loss', {'b': 1, 'a': 'x'}].min == 1": """metric['loss', {"a":"x","b":1}].min == 1""",
    "not run.metrics['loss'].max > 1": "not metric['loss', {}].max > 1",
    "run.metrics['loss'].first < 1": "everything",
    "run.metrics[run.name].last < 1": "everything",
    "run.metrics['loss', 'a'].last < 1": "everything",
    "run.metrics == None": "everything",
    # ---- logic
    "run.a == 1 and run.b == 2": "run.a == 1 and run.b == 2",
    "run.a == 1 or run.b == 2": "(run.a == 1 or run.b == 2)",
    "run.a == 1 or run.b": "everything",
    "run.a == 1 and run.b": "run.a == 1",
    "not (run.a == 1 or run.b == 2)": "not run.a == 1 and not run.b == 2",
    "not (run.a != 1 and run.b != 2)": "(run.a == 1 or run.b == 2)",
    "run.a == 1 if run.b else False": "run.a == 1",
    "run.a == 1 and run.a == 1": "run.a == 1",
    "True": "everything",
    "()": "nothing",
    "not ()": "everything",
    "None or run.a == 1": "run.a == 1",
    # ---- names that mean something else
    "(x := run.a == 1) and x": "run.a == 1",
    "(run := 1) and run.a == 1": "everything",
    "(datetime := 1) and run.a == 1": "everything",
    "[run for run in [run.a]] == [1] and run.b == 1": "run.b == 1",
    "(lambda run: run.a == 1)(run)": "everything",
}
"""Query -> plan, the default filter left out."""


@pytest.mark.parametrize(("q", "expected"), RUNS.items())
def test_a_run_search_is_planned(q: str, expected: str) -> None:
    assert described(q) == expected


SEQUENCES: Final = {
    "metric.name == 'loss'": ("metric['loss']", Wanted(frozenset({"loss"}))),
    "metric.name in ('a', 'b')": ("(metric['a'] or metric['b'])", Wanted(frozenset({"a", "b"}))),
    "metric.name != 'loss'": ("everything", Wanted()),
    "not metric.name != 'loss'": ("metric['loss']", Wanted(frozenset({"loss"}))),
    "metric.name == 'a' and metric.name == 'b'": ("nothing", Wanted(frozenset())),
    "metric.name == 'a' or metric.name == 'b'": ("(metric['a'] or metric['b'])", Wanted(frozenset({"a", "b"}))),
    "metric.name == 'a' or run.b == 1": ("(metric['a'] or run.b == 1)", Wanted()),
    "metric.name == 1": ("everything", Wanted()),
    "metric.name == 'a' and metric.context == {'s': 'x'}": (
        """metric['a', {"s":"x"}]""",
        Wanted(frozenset({"a"}), frozenset({'{"s":"x"}'})),
    ),
    "metric.name == 'a' and not metric.context": ("metric['a', {}]", Wanted(frozenset({"a"}), frozenset({"{}"}))),
    # 1, 1.0 and True are equal, and three contexts.
    "metric.name == 'a' and metric.context == {'s': 1}": ("metric['a']", Wanted(frozenset({"a"}))),
    "metric.name == 'a' and metric.context.s == 'x'": ("metric['a']", Wanted(frozenset({"a"}))),
    "metric.last < 1": ("everything", Wanted()),
    "metric.last < 1 and metric.name == 'a'": ("metric['a'].last < 1 and metric['a']", Wanted(frozenset({"a"}))),
    "metric.name == 'a' and 0 < metric.min < metric.max < 1": (
        "metric['a'] and metric['a'].min > 0 and metric['a'].max < 1",
        Wanted(frozenset({"a"})),
    ),
    "metric.name == 'a' and not metric.last < 1": ("metric['a']", Wanted(frozenset({"a"}))),
    "metric.name == 'a' and metric.first < 1": ("metric['a']", Wanted(frozenset({"a"}))),
    "(metric.name == 'a' or metric.name == 'b') and metric.last == 1": (
        "(metric['a'] or metric['b']) and (metric['a'].last == 1 or metric['b'].last == 1)",
        Wanted(frozenset({"a", "b"})),
    ),
    "(metric.name == 'a' and metric.last == 1) or (metric.name == 'b' and metric.last == 2)": (
        "((metric['a'] and metric['a'].last == 1) or (metric['b'] and metric['b'].last == 2))",
        Wanted(frozenset({"a", "b"})),
    ),
    "metric.name == 'a' and metric.last in ()": ("nothing", Wanted(frozenset())),
    "metric.name.startswith('lo')": ("metric.name.startswith('lo')", Wanted()),
    "not metric.name.startswith('lo')": ("everything", Wanted()),
    "metric.run.a == 1": ("run.a == 1", Wanted()),
    "images.name == 'a'": ("everything", Wanted()),
    "(metric := 1) and metric.name == 'a'": ("everything", Wanted()),
}
"""Query of a metric search -> plan, and what the metrics are called that are wanted."""


@pytest.mark.parametrize(("q", "expected", "wanted"), [(q, *plan) for q, plan in SEQUENCES.items()])
def test_a_metric_search_is_planned(q: str, expected: str, wanted: Wanted) -> None:
    plan = plan_of(q, "metric")

    assert described(q, "metric") == expected
    assert plan.sequences.names == wanted.names
    assert plan.sequences.contexts == wanted.contexts or plan.sequences.names == frozenset()


def test_values_of_objects_are_not_looked_up() -> None:
    assert described("images.name == 'a' and images.last < 1", "images") == "images['a']"


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("", "not run.archived and images.name"),
        ("run.a == 1", "not run.archived and run.a == 1 and images.name"),
        ("images.name.startswith('a')", "not run.archived and images.name.startswith('a')"),
        ("images.name == 'a'", "not run.archived and images['a']"),
        ("()", "nothing"),
    ],
)
def test_a_search_of_objects_asks_only_runs_that_have_some(q: str, expected: str) -> None:
    assert str(plan_of(q, "images")) == expected


def test_too_many_names_are_not_looked_up() -> None:
    names = [f"m{number}" for number in range(FIELDS_MAX + 1)]

    plan = plan_of(f"metric.name in {names}", "metric")

    assert str(plan) == "not run.archived"
    assert plan.sequences.names == frozenset(names)


def spans_of(condition: Condition) -> int:
    """Return how many spans all terms of a condition have."""
    match condition:
        case Term():
            return len(condition.spans)
        case Not():
            return len(condition.term.spans)
        case And() | Or():
            return sum(map(spans_of, condition.parts))
    return 0


MANY: Final = ", ".join(map(str, range(SPANS_MAX)))
TEXTS: Final = ", ".join(f"'{number}'" for number in range(SPANS_MAX))


@pytest.mark.parametrize(
    "q",
    [
        f"run.a in ({MANY}, -1)",
        f"run.a not in ({MANY}, -1)",
        f"not run.a in ({MANY}, -1)",
        f"not (run.a not in ({MANY}, -1))",
        f"run.a in ({MANY}) or run.a < -1",
        f"not (run.a not in ({MANY}) and not run.a < -1)",
        f"run.name.startswith(({TEXTS}, 'a'))",
        f"not run.name.startswith(({TEXTS}, 'a'))",
        " or ".join(f"run.a < {number}" for number in range(SPANS_MAX + 1)),
    ],
)
def test_a_term_of_too_many_spans_is_everything(q: str) -> None:
    assert str(plan_of(f"({q}) and run.b == 1")) == "not run.archived and run.b == 1"


@pytest.mark.parametrize(
    "q",
    [
        f"run.a in ({MANY})",
        f"run.a not in ({MANY})",
        f"run.a in ({MANY}) or run.a == 1",
        " or ".join(f"run.a < {number}" for number in range(SPANS_MAX)),
    ],
)
def test_a_term_has_as_many_spans_as_it_may(q: str) -> None:
    assert spans_of(plan_of(q).runs) == SPANS_MAX + spans_of(plan_of("True").runs)


@pytest.mark.parametrize("word", ["or", "and"])
def test_what_is_said_of_many_names_is_looked_up_to_a_bound(word: str) -> None:
    names = [f"n{number}" for number in range(FIELDS_MAX)]
    said = f" {word} ".join(f"(metric.last < {number} and metric.min > 0)" for number in range(400))
    q = f"run.b == 1 and metric.name in {names} and ({said})"

    began = time.thread_time()
    plan = plan_of(q, "metric")
    seconds = time.thread_time() - began

    assert plan.sequences.names == frozenset(names)
    assert FIELDS_MAX < spans_of(plan.runs) <= LOOKED_UP_MAX + spans_of(plan_of("run.b == 1").runs)
    assert str(plan).startswith("not run.archived and run.b == 1 and (metric['n0'] or ")
    assert seconds < 1


@pytest.mark.parametrize(
    ("q", "looked_up"),
    [
        ("run.a == 1", frozenset()),
        ("run.metrics['a'].last < run.metrics['b', {'s': 1}].first", frozenset({("a", "{}"), ("b", '{"s":1}')})),
        ("[r.metrics['a'] for r in [run]]", frozenset({("a", "{}")})),
        ("run.metrics[1].last < 1 or run.metrics['a', {}, 1].last < 1", frozenset()),
        ("run.metrics['a', {1: 2, 'b': 3}].last < 1", frozenset()),
        ("run.metrics[run.name].last < 1 and run.metrics['a'].last < 1", None),
        ("len(run.metrics) > 1", None),
        ("(lambda metrics: metrics['a'])(run.metrics)", None),
    ],
)
def test_what_a_query_can_read_of_the_metrics_is_known(q: str, looked_up: frozenset[tuple[str, str]] | None) -> None:
    assert plan_of(q).looked_up == looked_up


@pytest.mark.parametrize(("offset", "seconds"), [(0, 1717459199.9999976), (-120, 1717451999.9999976)])
def test_dates_are_those_of_the_viewer(offset: int, seconds: float) -> None:
    plan = described("run.created_at >= datetime(2024, 6, 4)", offset=offset)

    assert plan == f"run.creation_time >= {seconds}"


def test_a_description_is_ascii_of_bounded_length_whatever_the_query_holds() -> None:
    many = " or ".join(f"run['k{number}\\n'] == '{'é' * 90}\\r\\n'" for number in range(40))

    text = str(plan_of(many))

    assert text.isascii()
    assert text.isprintable()
    assert len(text) == DESCRIPTION_CHARACTERS_MAX
