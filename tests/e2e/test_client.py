"""A user's script with the released matyan-client, unchanged, must find everything it logged in the tracker.

The scripts run in processes of their own; what they logged is read back through REST and compared value by value.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.deployments import Deployment, on_every_deployment
from tests.support.rest import Rest, canonical, eventually

client_scripts = pytest.importorskip("tests.support.client_scripts", reason="matyan-client is not installed")

pytestmark = on_every_deployment

ROOT: Final = Path(__file__).parents[2]
TRAIN: Final = canonical({"subset": "train"})
NO_CONTEXT: Final = canonical(None)


def start_script(server: Deployment, script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.support.client_scripts", script, server.url, *arguments]
    environment = {**os.environ, "LOGURU_LEVEL": "WARNING"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def run_script(server: Deployment, script: str, *arguments: str) -> str:
    process = start_script(server, script, *arguments)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def logged(server: Deployment) -> str:
    """The id of a run to which the script `everything` has logged."""
    run = "e" * 32
    output = run_script(server, "everything", run)
    assert "WARNING" not in output, output
    with Rest(server.url) as reader:
        info = eventually(lambda: reader.info(run), lambda info: not info["props"]["active"])
        assert not info["props"]["active"]
    return run


def test_properties_and_tags_are_those_of_the_script(rest: Rest, logged: str) -> None:
    props = rest.info(logged)["props"]

    assert props["name"] == "all calls"
    assert props["description"] == "größe\nline two"
    assert props["experiment"]["name"] == "everything"
    assert {tag["name"] for tag in props["tags"]} == {"good", "日本語 🚀"}
    assert props["creation_time"] <= props["end_time"] < props["creation_time"] + 60


def test_params_are_those_of_the_script(rest: Rest, logged: str) -> None:
    params = rest.info(logged)["params"]

    assert params == {
        "hparams": {"lr": 0.01, "opt": {"name": "adam", "betas": [0.9, 0.999]}, "amp": True, "seed": None},
        "a": {"b": {"c": [1, {"x": 2}]}},
        "big": 2**70,
        "special": {"nan": "NaN", "inf": "inf", "tuple": [1, 2]},
        "note": "plain text",
    }


def test_a_long_metric_has_every_point_with_its_epoch(rest: Rest, logged: str) -> None:
    series = rest.metrics(logged, "metric.name == 'loss'")[("loss", TRAIN)]

    assert {step: (point.value, point.epoch) for step, point in series.items()} == {
        step: (client_scripts.loss(step), step // 100) for step in range(client_scripts.POINTS)
    }


def test_odd_scalars_come_back_bit_for_bit(rest: Rest, logged: str) -> None:
    series = rest.metrics(logged)[("auto step", NO_CONTEXT)]

    values = [point.value for point in series.values()]
    assert list(series) == list(range(8))
    assert values[:4] == [1.0, 1.0, 1.5, 2.5]
    assert math.isnan(values[4])
    assert values[5:7] == [math.inf, -math.inf]
    assert math.copysign(1, values[7]) == -1


def test_steps_in_any_order_end_sorted_with_the_last_write_kept(rest: Rest, logged: str) -> None:
    series = rest.metrics(logged)[("any order/with 🚀 in the name", NO_CONTEXT)]

    assert {step: point.value for step, point in series.items()} == {-2: -2.0, 3: 3.5, 4: 4.0, 5: 5.0, 10: 10.0}


def test_dict_tracking_and_fractional_epochs_are_kept(rest: Rest, logged: str) -> None:
    metrics = rest.metrics(logged)

    val = canonical({"subset": "val"})
    assert metrics[("acc", val)][3].value == 0.5
    assert metrics[("f1", val)][3].value == 0.25
    assert metrics[("fractional epoch", NO_CONTEXT)][0].epoch == 0.5


def test_the_summary_of_a_metric_is_that_of_its_points(rest: Rest, logged: str) -> None:
    traces = rest.runs(f"run.hash == '{logged}'")[logged]["traces"]["metric"]

    (summary,) = [trace["values"] for trace in traces if trace["name"] == "loss"]
    last = client_scripts.POINTS - 1
    assert summary["last_step"] == last
    assert summary["last"] == summary["min"] == client_scripts.loss(last)
    assert summary["first_step"] == 0
    assert summary["first"] == summary["max"] == client_scripts.loss(0)


def test_objects_are_listed_in_their_buckets(rest: Rest, logged: str) -> None:
    traces = rest.info(logged)["traces"]

    found = {
        bucket: [(trace["name"], trace["context"]) for trace in traces[bucket]] for bucket in traces if traces[bucket]
    }
    assert found.pop("metric")
    assert found == {
        "images": [("pics", {"subset": "train"})],
        "audios": [("sound", {})],
        "texts": [("samples", {})],
        "distributions": [("weights", {"layer": 1})],
        "figures": [("figure", {})],
    }


def test_log_records_come_in_order_with_level_and_arguments(rest: Rest, logged: str) -> None:
    records = rest.records(logged)

    assert [(record["message"], record["log_level"], record["args"] or None) for record in records] == [
        ("debug message", "DEBUG", None),
        ("info message", "INFO", {"answer": 42}),
        ("warning message", "WARNING", {"nested": {"a": [1, 2]}}),
        ("error message %s", "ERROR", None),
    ]


def test_the_terminal_log_holds_what_was_printed(rest: Rest, logged: str) -> None:
    lines = rest.lines(logged)

    assert [line for line in lines.values() if line] == ["first line", "last line"]


def test_artifacts_are_listed_by_path(rest: Rest, logged: str) -> None:
    artifacts = rest.info(logged)["artifacts"]

    assert {artifact["path"] for artifact in artifacts} == {"config.yaml", "cfg/main config.yaml"}


def test_the_clients_own_reader_finds_the_run(server: Deployment, logged: str) -> None:
    found = json.loads(run_script(server, "read", logged).splitlines()[-1])

    assert found["learning_rate"] == 0.01
    assert sorted(found["tags"]) == ["good", "日本語 🚀"]
    assert found["loss"]["last_value"] == client_scripts.loss(client_scripts.POINTS - 1)
    assert logged in found["runs"]


def test_two_processes_write_one_run_at_the_same_time(server: Deployment, rest: Rest) -> None:
    run = "2" * 32
    processes = [start_script(server, "two_writers", run, name) for name in ("a", "b")]

    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output

    expected = {step: client_scripts.loss(step) for step in range(client_scripts.WRITER_POINTS)}
    keys = {(name, canonical({"writer": name})) for name in ("a", "b")}
    metrics = eventually(
        lambda: rest.metrics(run), lambda found: sum(map(len, found.values())) == 2 * client_scripts.WRITER_POINTS
    )
    assert metrics.keys() == keys
    for key in keys:
        assert {step: point.value for step, point in metrics[key].items()} == expected


@pytest.mark.parametrize("resumption", ["force", "plain"])
def test_a_reopened_run_keeps_what_it_had_and_goes_on(server: Deployment, rest: Rest, resumption: str) -> None:
    run = f"resumed-{resumption}"
    run_script(server, "life", run, "0", "plain")
    created = eventually(lambda: rest.info(run), lambda info: not info["props"]["active"])["props"]["creation_time"]

    run_script(server, "life", run, "10", resumption)

    info = eventually(
        lambda: rest.info(run), lambda _: len(rest.lines(run)) >= 3 and not rest.info(run)["props"]["active"]
    )
    assert (info["props"]["name"], info["props"]["experiment"]["name"]) == ("many lives", "resumed")
    assert info["props"]["creation_time"] == created
    assert info["params"] == {"hparams": {"lr": 0.1, "layers": [1, 2]}}
    assert rest.tags(run) == {"kept"}
    assert [line for line in rest.lines(run).values() if line] == ["life from 0", "life from 10"]
    series = rest.metrics(run)[("loss", NO_CONTEXT)]
    assert {step: point.value for step, point in series.items()} == {s: client_scripts.loss(s) for s in range(20)}
    assert list(rest.runs(f"run.hash == '{run}'")) == [run]
