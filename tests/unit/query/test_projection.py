"""What a query can read of the params, and that decoding just this answers it as decoding everything does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.ids import RunNumber
from matyan.query.language import compile_query
from matyan.query.names import RunName, SequenceName
from matyan.query.projection import EVERYTHING, Path, decoder_of, paths_read
from matyan.runs.model import Run, RunDocument
from matyan.sequences.model import Bucket, Summary
from matyan.wire.codec import decode_tree, encode_tree


def read_by(text: str, variable: str = "run") -> set[Path]:
    return set(paths_read(compile_query(text, variable=variable).tree, variable))


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("run.name == 'x' and run.archived and run.metrics['loss'].last < 1", set()),
        ("run.lr > 1", {("lr",)}),
        ("run.hparams.lr > 1 and run.hparams['lr'] < 2", {("hparams", "lr")}),
        ("run['hparams', 'lr'] > 1", {("hparams", "lr")}),
        ("run.hparams['a', 'b'].c > 1 or run.model", {("hparams", "a", "b", "c"), ("model",)}),
        ("run['name'] == 'x'", {("name",)}),
        ("run.hparams.get('lr') > 1", {("hparams",)}),
        ("'lr' in run.hparams.keys()", {("hparams",)}),
        ("run.hparams[run.which] > 1", {("hparams",), ("which",)}),
        ("run.layers[0] > 1", {("layers",)}),
        ("run.layers[:2] == 1", {("layers",)}),
        ("run.layers[()] == 1", {("layers",)}),
        ("[each.x for each in run.parts]", {("parts",)}),
        ("run.get('lr') > 1", {()}),
        ("run[run.which] > 1", {(), ("which",)}),
        ("[run][0].lr > 1", {()}),
        ("(lambda r: r.lr)(run) > 1", {()}),
        ("(x := run) and x.lr > 1", {()}),
    ],
)
def test_the_tree_of_a_query_tells_what_it_reads(text: str, paths: set[Path]) -> None:
    assert read_by(text) == paths


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("metric.name == 'loss' and metric.context.subset == 'train'", set()),
        ("metric.run.hparams.lr > 1 and run.model", {("hparams", "lr"), ("model",)}),
        ("metric.run.name == 'x'", set()),
        ("[metric][0].run.lr > 1", {()}),
        ("[metric.run][0].lr > 1", {()}),
    ],
)
def test_a_run_is_also_what_a_sequence_belongs_to(text: str, paths: set[Path]) -> None:
    assert read_by(text, "metric") == paths


SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.just(2**70) | st.floats() | st.sampled_from(["", "a", "é"])
)
KEYS = st.sampled_from(["a", "b", "get", "name"]) | st.integers(0, 2)
TREES = st.dictionaries(
    KEYS,
    st.recursive(SCALARS, lambda below: st.lists(below, max_size=2) | st.dictionaries(KEYS, below, max_size=3)),
    max_size=3,
)
STEPS = st.sampled_from([".a", ".b", ".get", "['a']", "['get']", "['b', 'a']", "[0]", ".get('a')", ".keys()"])
OPERATORS = st.sampled_from([" == None", " == 1", " != 'a'", " in [1, 'a', None]", ""])


@given(TREES, st.lists(st.tuples(st.lists(STEPS, min_size=1, max_size=3), OPERATORS), min_size=1, max_size=2))
def test_a_query_finds_the_same_in_what_it_reads_as_in_everything(
    tree: dict[Any, Any], parts: list[tuple[list[str], str]]
) -> None:
    text = " or ".join(f"run{''.join(steps)}{operator}" for steps, operator in parts)
    query = compile_query(text, variable="run")
    document = RunDocument(hash="r", params=encode_tree(tree))
    run = Run(number=RunNumber(1), document=document, experiment=None, tags=())

    answers = [
        query.matches({"run": name_with(decode).of(run)})
        for decode in (decode_tree, decoder_of(paths_read(query.tree, "run")))
    ]

    assert answers[0] == answers[1]


def name_with(decode: Any) -> RunName:
    return RunName(now_seconds=0.0, tz_offset_minutes=0, notes=lambda _: [], decode=decode)


def test_only_what_is_read_is_decoded() -> None:
    params = encode_tree({"a": {"x": 2**70, "y": [1]}, "b": {"x": 1}, "c": 3})

    assert decoder_of(frozenset({("a", "x"), ("c",), ("d",)}))(params) == {"a": {"x": 2**70}, "c": 3}
    assert decoder_of(frozenset())(params) == {}
    assert decoder_of(EVERYTHING)(params) == decode_tree(params)


@pytest.mark.parametrize("tree", [{"a": 1}, {"a": None}, {"a": [1]}, {"a": {1: 2}}, {1: 2, "a": {"x": 1}}])
def test_params_of_another_shape_are_decoded_whole(tree: dict[Any, Any]) -> None:
    assert decoder_of(frozenset({("a", "x")}))(encode_tree(tree)) == tree


def test_a_key_that_no_param_can_have_is_no_error() -> None:
    assert decoder_of(frozenset({("\ud800",)}))(encode_tree({"a": 1})) == {}


def test_a_name_stands_for_one_run_after_the_other() -> None:
    name = name_with(decoder_of(frozenset({("a",)})))
    found = []
    for value in (1, 2):
        document = RunDocument(hash=f"r{value}", params=encode_tree({"a": value}))
        run = Run(number=RunNumber(value), document=document, experiment=None, tags=())
        summary = Summary(bucket=Bucket.METRIC, name="loss", context="{}", dtype="float", last=float(value))
        query = compile_query(f"metric.run.a == {value} and run.metrics['loss'].last == {value}", variable="metric")
        named = name.of(run, [summary])
        found.append(query.matches({"run": named, "metric": SequenceName(summary, named)}))

    assert found == [True, True]
