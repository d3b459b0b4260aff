"""Metric search, x axis, align and batches over HTTP: every number is what was tracked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar.testing import TestClient

from matyan.engines.kv.protocol import KvEngine
from matyan.http.app import make_app
from matyan.ids import DEFAULT_PROJECT
from matyan.query import routes as query_routes
from matyan.query.service import SearchService
from matyan.runs import repository as runs
from matyan.sequences import repository as sequences
from matyan.sequences import routes as sequence_routes
from matyan.sequences.repository import SequenceRef
from matyan.sequences.service import MetricReads
from tests.support import store, treestream
from tests.support.stores import opened_store

pytestmark = pytest.mark.one_python

TRAIN: Final = {"subset": "train"}
ARRAYS: Final = ("values", "iters", "epochs", "timestamps")
Client = TestClient[Any]


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[KvEngine]:
    with opened_store(tmp_path / "kv") as store:
        yield store


@pytest.fixture
def client(kv: KvEngine) -> Iterator[Client]:
    services = {
        "search": SearchService(kv=kv),
        "metric_reads": MetricReads(kv=kv, numbers_of=runs.get_numbers),
    }
    app = make_app([*query_routes.ROUTES, *sequence_routes.ROUTES], services=services)
    with TestClient(app, raise_server_exceptions=False) as opened:
        yield opened


def search(client: Client, **params: Any) -> dict[str, Any]:
    """Return run -> tree of a metric search, which must succeed."""
    answer = client.get("/api/runs/search/metric/", params=params)
    assert answer.status_code == 200, answer.text
    return treestream.runs(answer.content)


def align(client: Client, *runs: dict[str, Any], by: str) -> dict[str, Any]:
    """Return run -> traces of an align request, which must succeed."""
    answer = client.post("/api/runs/search/metric/align/", json={"align_by": by, "runs": list(runs)})
    assert answer.status_code == 200, answer.text
    return treestream.runs(answer.content)


def batch(
    client: Client, run_id: str, *traces: dict[str, Any], prefix: str = "/api/v1/rest", **params: Any
) -> list[dict[str, Any]]:
    """Return the answer of a batch request, which must succeed."""
    answer = client.post(f"{prefix}/runs/{run_id}/metric/get-batch/", json=list(traces), params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def named(name: str, context: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "context": context or {}, **more}


# ---- metric search


def test_trace_holds_every_column_as_tracked(kv: KvEngine, client: Client) -> None:
    number = store.make_run(kv, "a", params={"lr": 0.1})
    store.make_metric(
        kv,
        number,
        "loss",
        [0.5, math.nan, -0.0, math.inf],
        steps=[-3, 0, 1, 2**40],
        context=TRAIN,
        epochs=[0, 0.5, math.nan, 2],
        times_ms=[1717603201000, 1717603201500, 1717603202001, 1717603203999],
    )

    tree = search(client, q='metric.name == "loss" and metric.context.subset == "train"')["a"]

    assert list(tree) == ["params", "traces", "props"]
    (trace,) = tree["traces"]
    assert list(trace) == ["name", "context", "slice", *ARRAYS, "x_axis_values", "x_axis_iters"]
    assert (trace["name"], trace["context"], trace["slice"]) == ("loss", TRAIN, [0, 0, 50])
    values, steps, epochs, times = (treestream.numbers(trace[name]) for name in ARRAYS)
    assert str(values) == "[0.5, nan, -0.0, inf]"
    assert steps == [-3, 0, 1, 2**40]
    assert str(epochs) == "[0.0, 0.5, nan, 2.0]"
    assert times == [1717603201.0, 1717603201.5, 1717603202.001, 1717603203.999]
    assert trace["x_axis_values"] is None
    assert trace["x_axis_iters"] is None


def test_epochs_that_were_never_given_are_nan(kv: KvEngine, client: Client) -> None:
    store.make_metric(kv, store.make_run(kv, "a"), "loss", [1.0, 2.0])

    (trace,) = search(client)["a"]["traces"]

    assert [math.isnan(epoch) for epoch in treestream.numbers(trace["epochs"])] == [True, True]


def test_only_matching_metrics_of_matching_runs_are_sent(kv: KvEngine, client: Client) -> None:
    for i in range(4):
        number = store.make_run(kv, f"run-{i}", params={"lr": i}, created_at_seconds=1e9 + i)
        for name in ("loss", "accuracy"):
            store.make_metric(kv, number, name, [float(i)])
        store.make_objects(kv, number, "text", "loss", [{"type": "text", "data": "x"}])

    found = search(client, q="run.lr > 1 and metric.name == 'loss'")

    assert [(run, [trace["name"] for trace in tree["traces"]]) for run, tree in found.items()] == [
        ("run-3", ["loss"]),
        ("run-2", ["loss"]),
    ]


def test_query_on_other_sequences_of_the_run_selects_metrics(kv: KvEngine, client: Client) -> None:
    for run_id, last in (("a", 0.9), ("b", 0.1)):
        number = store.make_run(kv, run_id)
        store.make_metric(kv, number, "loss", [1.0])
        store.make_metric(kv, number, "accuracy", [last], context=TRAIN)

    found = search(client, q="metric.name == 'loss' and run.metrics['accuracy', {'subset': 'train'}].last > 0.5")

    assert {run: [trace["name"] for trace in tree["traces"]] for run, tree in found.items()} == {"a": ["loss"]}


def test_runs_that_fail_their_own_part_of_the_query_are_not_counted(kv: KvEngine, client: Client) -> None:
    for i in range(5):
        number = store.make_run(kv, f"run-{i}", params={"i": i}, created_at_seconds=1e9 + i)
        store.make_metric(kv, number, "loss", [1.0])

    data = client.get("/api/runs/search/metric/", params={"q": "run.i in (1, 3) and metric.name == 'loss'"}).content

    assert treestream.progress(data) == [[2, 5], [4, 5], [4, 5]]


def test_many_runs_with_many_metrics_come_whole_and_in_order(kv: KvEngine, client: Client) -> None:
    for i in range(70):
        number = store.make_run(kv, f"run-{i}", created_at_seconds=1e9 + i)
        for metric in range(8):
            store.make_metric(kv, number, f"m{metric}", [i + metric / 10] * 3)

    found = search(client, report_progress="false")

    assert list(found) == [f"run-{i}" for i in reversed(range(70))]
    for i in range(70):
        traces = found[f"run-{i}"]["traces"]
        assert {trace["name"]: treestream.numbers(trace["values"]) for trace in traces} == {
            f"m{metric}": [i + metric / 10] * 3 for metric in range(8)
        }


def test_archived_runs_are_found_only_when_asked_for(kv: KvEngine, client: Client) -> None:
    store.make_metric(kv, store.make_run(kv, "a", archived=True), "loss", [1.0])

    assert search(client, q="metric.name == 'loss'") == {}
    assert list(search(client, q="metric.name == 'loss' and run.archived")) == ["a"]


@pytest.mark.parametrize("points", [1, 2, 7, 50, 513, 700, 5000, -1])
def test_sample_of_a_long_metric_has_the_size_asked_for(kv: KvEngine, client: Client, points: int) -> None:
    number = store.make_run(kv, "a")
    values = [math.sin(step) for step in range(3000)]
    store.make_metric(kv, number, "loss", values, points_at_once=97)

    (trace,) = search(client, p=points)["a"]["traces"]

    steps = treestream.numbers(trace["iters"])
    assert len(steps) == (3000 if points == -1 else min(points, 3000))
    assert treestream.numbers(trace["values"]) == [values[int(step)] for step in steps]
    assert trace["slice"] == [0, 0, points]


@pytest.mark.parametrize("points", ["0", "-5"])
def test_sample_of_no_size_is_refused(client: Client, points: str) -> None:
    answer = client.get("/api/runs/search/metric/", params={"p": points})

    assert answer.status_code == 400
    assert points in answer.json()["message"]


_run_ids: Final = itertools.count()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.integers(-(2**52), 2**52), min_size=1, max_size=60),
    points=st.integers(1, 70),
    at_once=st.integers(1, 60),
)
def test_sample_is_a_subset_that_holds_first_and_last(
    kv: KvEngine, client: Client, steps: list[int], points: int, at_once: int
) -> None:
    run_id = f"run-{next(_run_ids)}"
    number = store.make_run(kv, run_id)
    store.make_metric(kv, number, "loss", [float(i) for i in range(len(steps))], steps=steps, points_at_once=at_once)
    stored = {step: float(i) for i, step in enumerate(steps)}

    (trace,) = search(client, q=f"run.hash == {run_id!r}", p=points)[run_id]["traces"]

    sampled = dict(zip(treestream.numbers(trace["iters"]), treestream.numbers(trace["values"]), strict=True))
    assert sampled.items() <= stored.items()
    assert len(sampled) == min(points, len(stored))
    assert list(sampled) == sorted(sampled)
    assert max(stored) in sampled
    assert points == 1 or min(stored) in sampled


# ---- x axis


def test_x_axis_pairs_values_by_step_within_the_context(kv: KvEngine, client: Client) -> None:
    number = store.make_run(kv, "a")
    store.make_metric(kv, number, "loss", [5.0, 4.0, 3.0, 2.0], steps=[1, 2, 3, 5], context=TRAIN)
    store.make_metric(kv, number, "loss", [9.0], steps=[1])
    store.make_metric(kv, number, "x", [0.0, 30.0, 50.0], steps=[1, 3, 5], context=TRAIN)

    traces = search(client, q="metric.name == 'loss'", x_axis=" x ")["a"]["traces"]

    by_context = {str(trace["context"]): trace for trace in traces}
    aligned = by_context[str(TRAIN)]
    assert treestream.numbers(aligned["x_axis_values"]) == [0.0, 30.0, 50.0]
    assert treestream.numbers(aligned["x_axis_iters"]) == [1, 3, 5]
    assert by_context["{}"]["x_axis_values"] is None


def test_x_axis_of_a_long_metric_is_found_at_every_sampled_step(kv: KvEngine, client: Client) -> None:
    number = store.make_run(kv, "a")
    store.make_metric(kv, number, "loss", [1.0] * 900)
    store.make_metric(kv, number, "x", [step * 0.5 for step in range(2000)], points_at_once=150)

    (trace,) = search(client, q="metric.name == 'loss'", p=20, x_axis="x")["a"]["traces"]

    steps = treestream.numbers(trace["iters"])
    assert treestream.numbers(trace["x_axis_iters"]) == steps
    assert treestream.numbers(trace["x_axis_values"]) == [step * 0.5 for step in steps]


def test_align_answers_as_the_search_did_with_the_same_sample(kv: KvEngine, client: Client) -> None:
    number = store.make_run(kv, "a")
    store.make_metric(kv, number, "loss", [1.0] * 600, context=TRAIN)
    store.make_metric(kv, number, "x", [step * 2.0 for step in range(600)], context=TRAIN)
    (trace,) = search(client, q="metric.name == 'loss'", p=30, x_axis="x")["a"]["traces"]

    asked = {"run_id": "a", "traces": [{name: trace[name] for name in ("name", "context", "slice")}]}
    (aligned,) = align(client, asked, by="x")["a"]

    assert list(aligned) == ["name", "context", "x_axis_values", "x_axis_iters"]
    assert aligned == {name: trace[name] for name in aligned}


def test_align_keeps_the_place_of_what_cannot_be_aligned(kv: KvEngine, client: Client) -> None:
    number = store.make_run(kv, "a")
    store.make_metric(kv, number, "loss", [1.0, 2.0])
    store.make_metric(kv, number, "x", [10.0, 20.0])
    traces = [named(name, slice=[0, 0, 50]) for name in ("nothing", "loss")]

    found = align(client, {"run_id": "gone", "traces": traces}, {"run_id": "a", "traces": traces}, by="x")

    assert list(found) == ["gone", "a"]
    assert [trace["x_axis_values"] for trace in found["gone"]] == [None, None]
    assert [treestream.numbers(trace["x_axis_values"]) for trace in found["a"]] == [[], [10.0, 20.0]]


def test_align_refuses_a_run_asked_for_twice(client: Client) -> None:
    run = {"run_id": "a", "traces": []}

    answer = client.post("/api/runs/search/metric/align/", json={"align_by": "x", "runs": [run, run]})

    assert answer.status_code == 400


# ---- batches


def test_batch_answers_in_the_order_asked_and_leaves_out_the_unknown(kv: KvEngine, client: Client) -> None:
    number = store.make_run(kv, "a")
    store.make_metric(kv, number, "loss", [1.0, 2.0], context=TRAIN)
    store.make_metric(kv, number, "count", [3], dtype="int")

    found = batch(client, "a", named("count"), named("nothing"), named("loss"), named("loss", TRAIN))

    assert found == [
        {"name": "count", "context": {}, "values": [3.0], "iters": [0]},
        {"name": "loss", "context": TRAIN, "values": [1.0, 2.0], "iters": [0, 1]},
    ]


def test_batch_says_null_for_what_json_cannot_say(kv: KvEngine, client: Client) -> None:
    store.make_metric(kv, store.make_run(kv, "a"), "loss", [math.nan, math.inf, 1.0, -math.inf])

    (found,) = batch(client, "a", named("loss"))

    assert found["values"] == [None, None, 1.0, None]


def test_batch_has_200_points_unless_the_density_says_otherwise(kv: KvEngine, client: Client) -> None:
    store.make_metric(kv, store.make_run(kv, "a"), "loss", [1.0] * 900)

    (usual,) = batch(client, "a", named("loss"))
    (whole,) = batch(client, "a", named("loss"), record_density=50_000)

    assert (len(usual["iters"]), len(whole["iters"])) == (200, 900)


def test_batch_in_aims_dialect_listens_to_no_parameter(kv: KvEngine, client: Client) -> None:
    store.make_metric(kv, store.make_run(kv, "a"), "loss", [1.0] * 900)

    (found,) = batch(client, "a", named("loss"), prefix="/api", record_density=5, record_range="0:3")

    assert len(found["iters"]) == 200


@pytest.mark.parametrize(
    ("record_range", "steps"),
    [
        ("10:13", [10, 11, 12]),
        ("897:", [897, 898, 899]),
        (":2", [0, 1]),
        ("5:5", []),
        ("9:4", []),
        ("2000:", []),
    ],
)
def test_batch_of_a_range_of_steps(kv: KvEngine, client: Client, record_range: str, steps: list[int]) -> None:
    store.make_metric(kv, store.make_run(kv, "a"), "loss", [step / 3 for step in range(900)], points_at_once=60)

    (found,) = batch(client, "a", named("loss"), record_range=record_range)

    assert found["iters"] == steps
    assert found["values"] == [step / 3 for step in steps]


def test_batch_of_a_range_is_a_sample_of_the_range(kv: KvEngine, client: Client) -> None:
    store.make_metric(kv, store.make_run(kv, "a"), "loss", [1.0] * 900)

    (found,) = batch(client, "a", named("loss"), record_range="100:500", record_density=10)

    assert len(found["iters"]) == 10
    assert (found["iters"][0], found["iters"][-1]) == (100, 499)


def test_batch_of_an_unknown_run_is_404(client: Client) -> None:
    answer = client.post("/api/runs/nope/metric/get-batch/", json=[named("loss")])

    assert answer.status_code == 404
    assert answer.json() == {"message": "Run not found.", "detail": "404: Run not found."}


def test_settled_metrics_read_as_before(kv: KvEngine, client: Client) -> None:
    number = store.make_run(kv, "a")
    values = [step / 3 for step in range(1200)]
    ref = store.make_metric(kv, number, "loss", values, epochs=[step // 100 for step in range(1200)], points_at_once=60)
    before = search(client, p=100)

    kv.write(lambda tx: sequences.settle(tx, DEFAULT_PROJECT, SequenceRef(*ref)))

    assert search(client, p=100) == before
    assert batch(client, "a", named("loss"), record_density=-1)[0]["values"] == values
