"""The fast bytes of a metric trace are those of the general encoder; progress messages."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from matyan.catalog.model import Experiment, Tag
from matyan.clock import ManualClock
from matyan.ids import RunNumber
from matyan.query import views
from matyan.query.executor import WorkClock
from matyan.query.traces import Trace
from matyan.query.views import Progress
from matyan.runs.model import Run, RunDocument
from matyan.sequences.model import Columns, Summary, canonical_context
from matyan.wire.codec import encode_tree
from matyan.wire.trees import encode_tree_records
from tests.support import treestream

texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | texts | st.just("blob"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.just("blob"), inner, max_size=3),
    max_leaves=6,
)
contexts = st.dictionaries(texts | st.just("blob"), json_values, max_size=3)


def make_named_run(run_id: str) -> Run:
    return Run(number=RunNumber(1), document=RunDocument(hash=run_id), experiment=None, tags=())


@given(
    run_id=texts,
    name=texts,
    context=contexts,
    index=st.integers(0, 300),
    count=st.integers(0, 5) | st.just(600) | st.just(views.POINTS_PER_PIECE + 1),
    axis_count=st.none() | st.integers(1, 5),
    points=st.integers(1, 1000),
)
def test_trace_bytes_equal_those_of_the_general_encoder(
    run_id: str, name: str, context: dict[str, Any], index: int, count: int, axis_count: int | None, points: int
) -> None:
    columns = Columns(
        np.arange(count), np.arange(count) / 3, np.full(count, np.nan), np.arange(count) + 1_717_603_201_500
    )
    axis = None if axis_count is None else (np.linspace(1, 9, axis_count), np.arange(axis_count).astype(np.float64))
    summary = Summary(bucket=1, name=name, context=canonical_context(context), dtype="float")
    trace = {
        "name": name,
        "context": summary.context_object,
        "slice": [0, 0, points],
        "values": columns.values,
        "iters": columns.steps.astype(np.float64),
        "epochs": columns.epochs,
        "timestamps": columns.times / 1000,
        "x_axis_values": None if axis is None else axis[0],
        "x_axis_iters": None if axis is None else axis[1],
    }

    pieces = list(views.trace_pieces(make_named_run(run_id), index, Trace(summary, columns, axis), points=points))

    assert b"".join(pieces) == encode_tree_records({run_id: {"traces": {index: trace}}})
    assert max(map(len, pieces)) <= views.POINTS_PER_PIECE * 8 + 1000


def a_few(*choices: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(choices)


LONG_TEXT = "t" * (views.REMEMBERED_BYTES_MAX + 1)
runs = st.builds(
    lambda experiment, tags, system, params, **fields: Run(
        number=RunNumber(1),
        document=RunDocument(params=encode_tree(params), **fields),
        experiment=experiment,
        tags=tags,
        raw_system_params=system,
    ),
    hash=a_few("a", "b"),
    name=a_few(None, "", "run", LONG_TEXT),
    description=a_few(None, "", "text"),
    experiment=a_few(None, Experiment(id="1", name="e"), Experiment(id="1", name="e", description="d")),
    tags=a_few((), (Tag(id="1", name="t"),), (Tag(id="1", name="t", color="#fff"), Tag(id="2", name="u"))),
    archived=st.booleans(),
    active=st.booleans(),
    created_at_seconds=a_few(0.0, 1.0),
    end_time_seconds=a_few(None, 0.0, 1.0),
    params=a_few({}, {"a": 1}, {"a": 1.0}, {"a": True}, {"a": {"b": None}}, {"a": LONG_TEXT}),
    system=a_few(None, encode_tree({"cpu": 4})),
)


@given(run=runs, skip_system=st.booleans())
def test_what_is_remembered_of_a_run_equals_what_would_be_made_anew(run: Run, *, skip_system: bool) -> None:
    params = views.params_tree(run, skip_system=skip_system)
    props = views.props_tree(views.props_of(run))

    assert views.metrics_head(run, skip_system=skip_system) == encode_tree_records(
        {run.hash: {"params": params, "traces": []}}
    )
    assert views.run_tail(run) == encode_tree_records({run.hash: {"props": props}})


def test_progress_never_goes_back_when_a_search_goes_over_runs_again() -> None:
    clock = ManualClock()
    report = Progress(lambda: 24, WorkClock(clock.monotonic_seconds))
    clock.advance(1)

    sent = [report.pulse(20), report.after_run(4), report.pulse(24), report.end()]

    assert [treestream.progress(message) for message in sent] == [[[20, 24]], [[20, 24]], [], [[24, 24]]]
