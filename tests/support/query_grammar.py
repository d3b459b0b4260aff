"""Queries made by Hypothesis: everything that a plan understands, what is close to it, and what it must leave alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

from hypothesis import strategies as st

VALUES: Final[Sequence[Any]] = (
    *(None, True, False, 0, 1, -1, 2, 0.1, 1.0, -0.0, 1e300, float("inf"), float("-inf"), float("nan")),
    *(2**53, 2**53 + 1, float(2**53), -(2**53) - 1, 2**63, -(2**63)),
    *("", "a", "ab", "b", "é", "a\x00b", "b" * 64, "b" * 70, "b" * 70 + "c", "\U0010ffff"),
    *([], {}, [1, 2], {"a": 1}, {"b": {"a": 2}}, {"a": {"b": "a"}}, {1: "a"}, [{"a": 1}]),
)
"""Params of runs; the scalars among them are what queries compare with, too."""
KEYS: Final = ("a", "b", "lr", "name", "keys", "get", "tags", "x y", "é", "")
METRICS: Final = ("loss", "acc", "lo", "m" * 70)
CONTEXTS: Final[Sequence[dict[str, Any]]] = (
    *({}, {"subset": "train"}, {"subset": "val"}, {"k": 1}, {"k": True}),
    *({"subset": "train", "k": 1.0}, {"long": "c" * 70}, {"n": None, "l": ["a"]}),
)
METRIC_VALUES: Final = (0.0, 0.5, 1.0, -1.0, 3.0, float("nan"), float("inf"))
EXPERIMENTS: Final = ("vision", "nlp", "default", "é")
TAGS: Final = ("prod", "base", "prod-eu")
NAMES: Final = ("sweep-1", "sweep-2", "other", "Run: r1", "b" * 70, "b" * 70 + "c")
CREATED_SECONDS: Final = (1_717_243_200.0, 1_717_243_200.25, 1_717_246_800.0, 1_717_329_600.123_456_7, 0.0, -1.5)


def literal(value: Any) -> str:
    """Return a value as a query writes it."""
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - NaN
        return "(1e999 - 1e999)"
    return repr(value).replace("inf", "1e999")


_SCALARS: Final = st.sampled_from([value for value in VALUES if not isinstance(value, list | dict)]).map(literal)
_NUMBERS: Final = st.sampled_from([value for value in VALUES if isinstance(value, bool | int | float)]).map(
    literal
) | st.sampled_from(["2 - 1", "1 / 2", "-(1)", "+1", "0.1 * 10", "1 / 0", "'a' * 2"])
_TEXTS: Final = st.sampled_from([*NAMES, *EXPERIMENTS, *TAGS, "sweep", "", "Run: ", "r1", "\ud800"]).map(literal)
_COMPARISONS: Final = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
_MEMBERSHIPS: Final = st.sampled_from(["in", "not in"])
_IDENTITIES: Final = st.sampled_from(["is", "is not"])


def _container(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    several = st.lists(values, max_size=3)
    return st.one_of(
        several.map(lambda each: f"[{', '.join(each)}]"),
        several.map(lambda each: f"({''.join(f'{one}, ' for one in each)})"),
        several.filter(bool).map(lambda each: f"{{{', '.join(each)}}}"),
    )


def _compared(subjects: st.SearchStrategy[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return comparisons of each form."""
    return st.one_of(
        st.tuples(subjects, _COMPARISONS, values).map(" ".join),
        st.tuples(values, _COMPARISONS, subjects).map(" ".join),
        st.tuples(values, _COMPARISONS, subjects, _COMPARISONS, values).map(" ".join),
        st.tuples(subjects, _MEMBERSHIPS, _container(values)).map(" ".join),
        st.tuples(subjects, _IDENTITIES, values).map(" ".join),
        subjects,
    )


@st.composite
def _params(draw: st.DrawFn) -> str:
    """Return an expression for a param."""
    text = "run"
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from(KEYS))
        forms = [f"[{key!r}]", f".get({key!r})", f"[{key!r}, {draw(st.sampled_from(KEYS))!r}]", "[0]", "[1]"]
        if key.isidentifier():
            forms += [f".{key}"] * 4
        text += draw(st.sampled_from(forms))
    return text


_DATES: Final = st.sampled_from(
    [
        *("datetime(2024, 6, 1)", "datetime(2024, 6, 1, 12)", "datetime(2024, 6, 1, 12, 0, 0, 250000)"),
        *(
            "datetime(2024, 6, 2, hour=12, second=0)",
            "datetime(2024, 6, 2) - timedelta(hours=11)",
            "datetime(2024, 13, 1)",
        ),
        *("datetime.now()", "datetime.now() - timedelta(days=100000)", "datetime.utcnow()", "datetime(1970, 1, 1)"),
        *("timedelta(1)", "datetime(9999, 12, 31)", "datetime(1, 1, 1)", *map(str, CREATED_SECONDS), "True", "None"),
    ]
)
_SECONDS: Final = st.sampled_from([*map(str, CREATED_SECONDS), "1717243200", "0", "3600.0", "None", "True", "1e999"])
_RUN: Final = st.one_of(
    _compared(_params(), _SCALARS),
    _compared(_params(), _SCALARS),
    _compared(
        st.sampled_from(["run.archived", "run.active", "run.is_archived"]),
        st.sampled_from(["True", "False", "0", "1", "None", "0.5"]),
    ),
    _compared(st.sampled_from(["run.name", "run.hash", "run.experiment", "run.description"]), _TEXTS),
    _compared(st.sampled_from(["run.creation_time", "run.end_time", "run.duration"]), _SECONDS),
    _compared(st.sampled_from(["run.created_at", "run.finalized_at", "run.updated_at"]), _DATES),
    st.tuples(_TEXTS, _MEMBERSHIPS, st.sampled_from(["run.tags", "run.name", "run.experiment"])).map(" ".join),
    st.tuples(st.sampled_from(["name", "hash", "experiment", "a", "tags"]), _TEXTS | _container(_TEXTS)).map(
        lambda pair: f"run.{pair[0]}.startswith({pair[1]})"
    ),
    st.sampled_from(
        [
            *("run.name.startswith('sweep', 1)", "run.name.foo == None", "run.a.b.c == None", "run.tags == ['prod']"),
            *("any(t == 'prod' for t in run.tags)", "[run for run in [run.name]] == ['other']", "len(run.tags) > 0"),
            *(
                "(lambda run: run)(1) == 1",
                "(lambda: run.a)() == 1",
                "run",
                "run.metrics",
                "not run.tags",
                "run.a + 1 > 1",
            ),
            *("(1, )", "()", "[]", "{}", "0", "''", "1 == 1", "None", "nothing", "run.tags.contains('prod')", "1 / 0"),
            *("bool(run.archived)", "bool(run.a == 1)", "isinstance(run.a, int)", "-run.a < 0", "run.a < run.b"),
        ]
    ),
)
_CONTEXT_TEXTS: Final = st.sampled_from(
    [*map(repr, CONTEXTS), "{'k': 1.0}", "{'l': ['a'], 'n': None}", "{1: 2}", "None", "{'k': (1,)}"]
)
_METRIC_NAMES: Final = st.sampled_from([*map(repr, METRICS), "'nope'", "''", "1"])
_METRIC_NUMBERS: Final = st.sampled_from([literal(value) for value in METRIC_VALUES] + ["None", "'a'", "True"])
_KEYS_OF_METRICS: Final = _METRIC_NAMES | st.tuples(_METRIC_NAMES, _CONTEXT_TEXTS).map(", ".join) | st.just("run.name")
_METRICS: Final = _compared(
    st.tuples(_KEYS_OF_METRICS, st.sampled_from(["last", "min", "max", "first", "last_step", "nope"])).map(
        lambda pair: f"run.metrics[{pair[0]}].{pair[1]}"
    ),
    _METRIC_NUMBERS,
)


def _of_sequence(word: str) -> st.SearchStrategy[str]:
    return st.one_of(
        _compared(st.just(f"{word}.name"), _METRIC_NAMES),
        _compared(st.just(f"{word}.name"), _METRIC_NAMES),
        _compared(st.just(f"{word}.context"), _CONTEXT_TEXTS),
        _compared(st.sampled_from([f"{word}.last", f"{word}.min", f"{word}.max", f"{word}.first"]), _METRIC_NUMBERS),
        st.sampled_from(
            [
                *(f"{word}.context.subset == 'train'", f"not {word}.context", f"{word}.name.startswith('lo')", word),
                *(
                    f"{word}.context['k'] == 1",
                    f"{word}.run.name == 'other'",
                    f"{word}.run.a == 1",
                    f"len({word}.name) == 4",
                ),
            ]
        ),
    )


@functools.cache
def queries(word: str) -> st.SearchStrategy[str]:
    """Return queries of the search that goes by this word, `run` or that of a kind of sequences."""
    atoms = _RUN | _METRICS if word == "run" else _RUN | _METRICS | _of_sequence(word) | _of_sequence(word)
    # Most of them select nothing beside the default filter, so some switch it off.
    free = st.just("run.archived in (True, False)")
    return st.recursive(atoms | free, _combined, max_leaves=5)


def _combined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(parts, parts).map(lambda pair: f"({pair[0]}) and ({pair[1]})"),
        st.tuples(parts, parts).map(lambda pair: f"({pair[0]}) or ({pair[1]})"),
        parts.map(lambda part: f"not ({part})"),
        st.tuples(parts, parts, parts).map(lambda three: f"({three[0]}) if ({three[1]}) else ({three[2]})"),
        st.tuples(st.sampled_from(["x", "run", "metric", "datetime", "bool"]), parts).map(
            lambda pair: f"({pair[0]} := ({pair[1]}))"
        ),
    )
