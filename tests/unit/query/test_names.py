"""What names mean beyond the recorded queries; every row of the first two tables was tried on Aim 3.29.1."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.ids import RunNumber
from matyan.query.language import compile_query
from matyan.query.names import RunName, SequenceName, aim_dtype, index_sequences
from matyan.query.nodes import UNDEFINED, Node
from matyan.runs.model import Run, RunDocument
from matyan.sequences.model import Bucket, Summary
from matyan.wire.codec import encode_tree
from tests.support.dataset import golden_runs
from tests.unit.query.rows import name_run

ALL: Final = 22
RUN_QUERIES: Final = (
    # Ordering what cannot be ordered is false, not an error
    ("run.nope > 1 or run.name == 'newest'", 1),
    ("not (run.nope > 1)", ALL),
    ("not (run.hparams.lr > 0.01)", 13),
    ("0.01 < run.hparams.nope or True", ALL),
    ("not (run.hparams.model > 1)", ALL),
    ("run.hparams.none > 1 or True", ALL),
    # What is an error
    ("run.hparams.nope + 1 == 2 or True", 0),
    ("len(run.nope) == 0 or True", 0),
    ("'a' in run.hparams.nope or True", 0),
    ("-run.nope == 1 or True", 0),
    ("run.nope * 2 == 1 or True", 0),
    ("int(run.nope) == 1 or True", 0),
    ("run.nope in 'abc' or True", 0),
    ("run.hparams.list[0:2] != [1]", 0),
    # What is missing at the top holds nothing and equals None
    ("'a' in run.nope or True", ALL),
    ("'a' not in run.nope", ALL),
    ("str(run.nope) == 'None'", ALL),
    ("f'{run.nope}' == 'None'", ALL),
    ("run.nope == run.nope2", ALL),
    ("run.nope != None", 0),
    ("run.nope not in ['a', 'b']", ALL),
    # A path ends at the top, too
    ("run['hparams', 'nope'] == None", ALL),
    ("run['hparams', 'nope'] != 1", ALL),
    ("run.get('nope') == None", ALL),
    ("run.get('nope', 5) == 5", 0),
    # Below a node, what is missing equals nothing
    ("run.hparams.nope != None", ALL),
    ("run.hparams.nope == run.hparams.nope", 0),
    ("run.nope.x == run.nope.y", 0),
    ("run.hparams.none.x == None", 0),
    ("run.hparams.list[-1] != 1", ALL),
    ("run.hparams.list[99] != 1", ALL),
    ("run.hparams.list.foo != 1", ALL),
    ("run.hparams.model[0] == 'v'", 0),
    ("run.a['b'] != 1", ALL),
    ("run.hparams.opt[0] != 1", ALL),
    # Methods of nodes
    ("run.hparams.get('nope', 5) == 5", ALL),
    ("run.hparams.get('nope') == None", ALL),
    ("run.nope.get('x') == None", ALL),
    ("'lr' in run.hparams.keys()", 15),
    ("list(run.hparams.keys()) != []", 20),
    ("run.nope.keys()", ALL),
    ("run.hparams.lr.keys() != None", ALL),
    ("len(run.hparams.keys()) > 0", 0),
    ("run.hparams.values() != None", 0),
    # Nodes as values
    ("[x for x in run.hparams.list] == [1, 2.5, 'x', None, True]", 1),
    ("any(x['a'] == 1 for x in run.hparams.list_of_dicts)", 1),
    ("any(x.a == 1 for x in run.hparams.list_of_dicts)", 0),
    ("max(run.hparams.lr, 0.5) == 0.5", 14),
    ("sum(run.hparams.opt.beta) > 1", 5),
    ("round(run.hparams.lr) == 0", 14),
    ("hash(run.hparams.lr) == hash(0.1)", 2),
    ("{0.1: 1}[run.hparams.lr] == 1", 2),
    ("run.hparams in [{'lr': 0.5}]", 1),
    ("'%s' % run.hparams.lr == '0.1'", 2),
    ("f'{run.hparams.lr}' == '0.1'", 2),
    ("run.hparams.lr not in [0.1]", 20),
    # Plain values have no attributes but their own
    ("run.info.x == None", ALL),
    ("run.info == None", 0),
    ("run.experiment.id == None", ALL),
    ("run.tags[0].name == None", 7),
    ("run.created_at.foo == None", ALL),
    ("run.finalized_at.foo == None", ALL),
    ("run.end_time.foo == None", ALL),
    ("run.updated_at > datetime(2020, 1, 1)", ALL),
    # run.metrics
    ("run.metrics['nope'] != None", 0),
    ("run.metrics['loss', {'subset': 'train'}] == None", ALL),
    ("not run.metrics['loss', {'subset': 'train'}]", ALL),
    ("run.metrics['loss', 5] == None", ALL),
    ("run.metrics['loss', {'subset': 'train'}, 1] == None", ALL),
    ("run.metrics['samples', {'subset': 'train'}].last == None", 0),
    ("run.metrics['samples', {'subset': 'train'}].min == None", 0),
    ("run.metrics['samples', {'subset': 'train'}].dtype == 'aim.image'", 3),
    ("run.metrics['samples', {'subset': 'train'}].record_max_length == 1", 0),
    ("run.metrics['samples', {'subset': 'val'}].record_max_length > 1", 1),
    ("run.metrics['samples', {'subset': 'train'}].version == 2", 0),
    ("not (run.metrics['nope'].last > 1)", ALL),
    ("run.metrics['all_nan'].min == None", 0),
    ("run.metrics['all_nan'].version == 2", 1),
)
METRIC_QUERIES: Final = (
    ("metric.min is None", 0),
    ("metric.nope > 1 or run.name == 'newest'", 2),
    ("metric.context.nope == 1 or run.name == 'newest'", 0),
    ("metric.context.subset > 1 and run.name == 'newest'", 0),
    ("not (metric.context.subset > 1) and run.name == 'newest'", 2),
    ("metric.context.get == 1 or run.name == 'newest'", 0),
    ("'nope' in metric.context or run.name == 'newest'", 2),
    ("metric.record_max_length == None and run.name == 'newest'", 2),
    ("metric['name'] == 'loss' or run.name == 'newest'", 0),
    ("isinstance(metric.last, float) and run.name == 'newest'", 2),
    ("isinstance(metric.last, int)", 2),
    ("metric.context.cfg == {'a': [1, 2], 'b': None}", 1),
    ("metric.context.cfg.keys() != None", 0),
    ("metric.context.cfg.b.x != 1", 0),
)


@pytest.mark.parametrize(("text", "count"), RUN_QUERIES)
def test_a_run_query_selects_as_many_as_in_aim(text: str, count: int) -> None:
    query = compile_query(text, variable="run")

    assert sum(query.matches({"run": name_run(golden)}) for golden in golden_runs()) == count


@pytest.mark.parametrize(("text", "count"), METRIC_QUERIES)
def test_a_metric_query_selects_as_many_as_in_aim(text: str, count: int) -> None:
    query = compile_query(text, variable="metric")
    rows = [(name_run(golden), golden.summaries) for golden in golden_runs()]
    metrics = [(run, each) for run, summaries in rows for each in summaries if each.bucket == Bucket.METRIC]

    assert sum(query.matches({"run": run, "metric": SequenceName(each, run)}) for run, each in metrics) == count


def make_name(params: dict[Any, Any] | None = None, **fields: Any) -> RunName:
    document = RunDocument(hash="r", params=encode_tree(params or {}), **fields)
    run = Run(number=RunNumber(1), document=document, experiment=None, tags=())
    return RunName(now_seconds=1000.0, tz_offset_minutes=-120, notes=lambda _: []).of(run)


def is_true(text: str, name: RunName) -> bool:
    return compile_query(text, variable="run").matches({"run": name})


@pytest.mark.parametrize(
    "text",
    [
        "run.created_at > 1717430000",
        "run.created_at == 1717500000.5",
        "1717600000 > run.created_at",
        "run.created_at > run.since",
        "run.created_at == datetime(2024, 6, 4, 13, 20, 0, 500000)",
        "run.created_at - timedelta(hours=2) < run.created_at",
        "run.created_at.replace(hour=0) == datetime(2024, 6, 4, 0, 20, 0, 500000)",
        "run.created_at.isocalendar()[1] == 23",
        "run.created_at != None",
        "isinstance(run.created_at, datetime)",
    ],
)
def test_a_date_compares_as_local_time_and_as_utc_seconds(text: str) -> None:
    name = make_name({"since": 1717430000}, created_at_seconds=1717500000.5)

    assert is_true(text, name)


@pytest.mark.parametrize(
    "text",
    ["run.created_at > 'x' or True", "run.created_at - timedelta(1) > 1 or True", "run.created_at > True or True"],
)
def test_a_date_does_not_compare_with_anything_else(text: str) -> None:
    assert not is_true(text, make_name(created_at_seconds=1717500000.5))


def test_an_unfinished_run_lasts_until_the_time_of_the_search() -> None:
    assert is_true("run.duration == 990 and run.active and run.end_time is None", make_name(created_at_seconds=10.0))


def test_a_run_without_experiment_has_none() -> None:
    assert is_true("run.experiment is None and run.experiment != 'x'", make_name())


def test_is_archived_is_an_alias() -> None:
    assert is_true("run.is_archived and run.archived", make_name(archived=True))


def test_params_are_not_decoded_before_a_query_asks() -> None:
    run = Run(number=RunNumber(1), document=RunDocument(hash="r", params=b"\xc1"), experiment=None, tags=())
    name = RunName(now_seconds=0.0, tz_offset_minutes=0, notes=lambda _: []).of(run)

    assert is_true("run.hash == 'r'", name)
    assert not is_true("run.x == None", name)


def test_a_context_of_a_query_may_hold_parameters() -> None:
    summary = Summary(bucket=Bucket.METRIC, name="loss", context='{"a":[{"b":1}]}', dtype="float", last=0.5)
    run = Run(
        number=RunNumber(1),
        document=RunDocument(hash="r", params=encode_tree({"metric": "loss", "c": {"b": 1}})),
        experiment=None,
        tags=(),
    )
    name = RunName(now_seconds=0.0, tz_offset_minutes=0, notes=lambda _: []).of(run, [summary])

    assert is_true("run.metrics[run.metric, {'a': (run.c,)}].last == 0.5", name)


def test_a_metric_hides_an_object_sequence_of_its_name_and_context() -> None:
    images = Summary(bucket=Bucket.IMAGES, name="x", context="{}", dtype="image")
    metric = Summary(bucket=Bucket.METRIC, name="x", context="{}", dtype="float")

    assert index_sequences([metric, images])["x", "{}"] is metric
    assert index_sequences([images, metric])["x", "{}"] is metric


@pytest.mark.parametrize(
    ("bucket", "stored", "seen"),
    [
        (Bucket.METRIC, "number", "number"),
        (Bucket.IMAGES, "image", "aim.image"),
        (Bucket.TEXTS, "list(text)", "list(aim.text)"),
    ],
)
def test_the_type_of_a_sequence_is_named_as_in_aim(bucket: Bucket, stored: str, seen: str) -> None:
    assert aim_dtype(Summary(bucket=bucket, name="x", context="{}", dtype=stored)) == seen


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


def is_less(left: Any, right: Any) -> bool:
    try:
        return bool(left < right)
    except TypeError:
        return False


@given(trees, trees)
def test_a_node_compares_as_its_value(left: Any, right: Any) -> None:
    assert (Node(left) == right) == (left == right)
    assert (right == Node(left)) == (left == right)
    assert (Node(left) == Node(right)) == (left == right)
    assert (Node(left) != right) == (left != right)
    assert (Node(left) < right) == is_less(left, right)
    assert (Node(left) > right) == is_less(right, left)
    assert bool(Node(left)) == bool(left)
    assert str(Node(left)) == str(left)


@given(trees)
def test_the_undefined_equals_nothing_and_orders_with_nothing(value: Any) -> None:
    node = Node(value)

    for other in (value, node, UNDEFINED, None):
        for left, right in ((other, UNDEFINED), (UNDEFINED, other)):
            assert (left == right, left != right) == (False, True)
    for left, right in ((value, UNDEFINED), (UNDEFINED, value), (node, UNDEFINED), (UNDEFINED, node)):
        assert [left < right, left <= right, left > right, left >= right] == [False] * 4
