"""Everything that the released matyan-client reads from a tracker is what was logged; what it changes is changed.

One process of the client makes all the reads, and what it returned is compared here, value by value.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from tests.support import treestream
from tests.support.rest import Rest, eventually
from tests.support.scripts import run_module
from tests.support.server import MatyanServer
from tests.support.writer import RawWriter, create, message, metric, moment

client_scripts = pytest.importorskip("tests.support.client_scripts", reason="matyan-client is not installed")
client_reads = pytest.importorskip("tests.support.client_reads", reason="matyan-client is not installed")

RICH: Final = "e" * 32
"""The run to which a script of the client logged all kinds of data."""
RUNS: Final = 125
LONG_AGO_SECONDS: Final = -1e9
"""Before EPOCH: the other runs are older than the rich one, whatever the clock says."""
LOSS: Final = {step: client_scripts.loss(step) for step in range(client_scripts.POINTS)}
LAST: Final = LOSS[client_scripts.POINTS - 1]
HPARAMS: Final = {"lr": 0.01, "opt": {"name": "adam", "betas": [0.9, 0.999]}, "amp": True, "seed": None}
SAMPLED_POINTS: Final = 50
"""Points of a metric that come when the client does not say how many it wants."""
ALL_METRICS: Final = {
    ("loss", "train"): LAST,
    ("acc", "val"): 0.5,
    ("f1", "val"): 0.25,
    ("auto step", None): -0.0,
    ("fractional epoch", None): 1.0,
    ("any order/with 🚀 in the name", None): 10.0,
}
"""Name and subset of a metric -> its last value."""


def small_run(index: int) -> str:
    return f"small-{index:03}"


SMALL: Final = [small_run(index) for index in reversed(range(RUNS))]
"""Newest first; every fifth is still active."""


@pytest.fixture(scope="module")
def found(server: MatyanServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each reading call of the client returned."""
    run_module("client_scripts", "everything", server.url, RICH)
    for index in range(RUNS):
        with RawWriter(server.websocket_url, small_run(index)) as writer:
            writer.send(*_messages(index))
    with Rest(server.url) as reader:
        visible = eventually(lambda: _visible(reader), lambda count: count == (RUNS + 1, RUNS - RUNS // 5 + 1))
    assert visible == (RUNS + 1, RUNS - RUNS // 5 + 1)
    result: dict[str, Any] = client_reads.results("reads", server.url, tmp_path_factory.mktemp("reads"), RICH)
    return result


def _visible(reader: Rest) -> tuple[int, int]:
    """Return how many runs have their metric, and how many are finished."""
    have_loss = treestream.runs(reader.get("/runs/search/metric/", q="metric.name == 'loss'", p=1).content)
    return len(have_loss), len(reader.runs("run.active == False"))


def _messages(index: int) -> Iterator[Mapping[str, Any]]:
    run, seconds = small_run(index), LONG_AGO_SECONDS + index
    yield create(run, seconds=seconds)
    yield message("set_run_property", run, experiment="small")
    yield message("log_hparams", run, value={"hparams": {"index": index}})
    yield metric(run, "loss", index / 8, 0, seconds=seconds)
    if index % 5:
        yield message("finish_run", run, client_datetime=moment(seconds + 60))


def traces(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the traces of the only run that a search found; the client makes dicts of lists and loses empty ones."""
    (run,) = found
    assert run["hash"] == RICH
    return [{"context": {}, **trace} for trace in run["traces"].values()]


def numbers(array: dict[str, Any]) -> list[float]:
    """Return the doubles of an array that the client leaves encoded."""
    assert (array["type"], array["dtype"]) == ("numpy", "float64")
    return list(struct.unpack(f"<{array['shape']}d", array["blob"]))


# ---- Repo: runs


def test_runs_are_listed_newest_first(found: dict[str, Any]) -> None:
    assert found["list_all_runs"] == found["iter_runs"] == [RICH, *SMALL]
    assert found["total_runs_count"] == 1 + RUNS


def test_active_runs_are_those_that_did_not_finish(found: dict[str, Any]) -> None:
    assert found["list_active_runs"] == [run for run in SMALL if int(run[-3:]) % 5 == 0]


def test_pages_hold_every_run_once_and_end_with_a_short_one(found: dict[str, Any]) -> None:
    assert [run for page in found["pages"] for run in page] == [RICH, *SMALL]
    assert [len(page) for page in found["pages"]] == [50, 50, 26]


def test_pages_of_a_query_hold_its_runs(found: dict[str, Any]) -> None:
    expected = [run for run in SMALL if int(run[-3:]) % 10 == 3]

    assert [run for page in found["pages of a query"] for run in page] == expected
    assert [len(page) for page in found["pages of a query"]] == [5, 5, 3]


def test_a_page_begins_behind_the_run_that_is_named(found: dict[str, Any]) -> None:
    assert found["a page behind a run"] == SMALL[49:]


def test_an_unknown_run_is_none(found: dict[str, Any]) -> None:
    assert found["run_exists"] == [True, False]
    assert found["get_run of an unknown"] is None


def test_a_query_for_a_run_returns_all_of_it_but_its_points(found: dict[str, Any]) -> None:
    (run,) = found["query_runs"]

    special = run["params"].pop("special")
    assert math.isnan(special["nan"])
    assert special == {"nan": special["nan"], "inf": math.inf, "tuple": {0: 1, 1: 2}}
    assert run["params"] == {
        "hparams": {**HPARAMS, "opt": {"name": "adam", "betas": {0: 0.9, 1: 0.999}}},
        "a": {"b": {"c": {0: 1, 1: {"x": 2}}}},
        "big": str(2**70),  # the stream has integers of 64 bit only
        "note": "plain text",
    }
    assert {(trace["name"], trace.get("context", {}).get("subset")) for trace in run["traces"]["metric"].values()} == (
        ALL_METRICS.keys()
    )
    (loss,) = [trace["values"] for trace in run["traces"]["metric"].values() if trace["name"] == "loss"]
    assert (loss["first_step"], loss["first"], loss["max"]) == (0, 2.0, 2.0)
    assert (loss["last_step"], loss["last"], loss["min"]) == (client_scripts.POINTS - 1, LAST, LAST)
    assert {**run["props"], "tags": list(run["props"]["tags"].values())} == found["props"]
    assert run["hash"] == RICH


def test_params_of_every_run_are_collected(found: dict[str, Any]) -> None:
    params = found["repo.collect_params_info"]

    assert params.keys() == {RICH, *SMALL}
    assert all(params[run] == {"hparams": {"index": int(run[-3:])}} for run in SMALL)
    assert params[RICH]["hparams"] == HPARAMS


def test_sequences_of_every_run_are_collected(found: dict[str, Any]) -> None:
    collected = found["repo.collect_sequence_info"]

    assert collected.keys() == {RICH, *SMALL}
    for run in SMALL:
        loss = {"name": "loss", "context": {}, "last_value": int(run[-3:]) / 8}
        assert collected[run] == {"metric": [loss], "images": []}
    assert [trace["name"] for trace in collected[RICH]["images"]] == ["pics"]


# ---- Repo: points and objects


def test_a_query_for_metrics_returns_their_points(found: dict[str, Any]) -> None:
    series = {
        trace["name"]: dict(zip(numbers(trace["iters"]), numbers(trace["values"]), strict=True))
        for trace in traces(found["query_metrics"])
    }

    odd = series.pop("auto step")
    assert math.isnan(odd.pop(4))
    assert odd == {0: 1, 1: 1, 2: 1.5, 3: 2.5, 5: math.inf, 6: -math.inf, 7: 0}
    assert math.copysign(1, odd[7]) == -1
    assert series == {
        "acc": {3: 0.5},
        "f1": {3: 0.25},
        "fractional epoch": {0: 1.0},
        "any order/with 🚀 in the name": {-2: -2.0, 3: 3.5, 4: 4.0, 5: 5.0, 10: 10.0},
    }


def test_a_query_for_a_long_metric_returns_a_sample_with_both_ends(found: dict[str, Any]) -> None:
    (trace,) = traces(found["query_metrics of many points"])

    steps = [int(step) for step in numbers(trace["iters"])]
    assert trace["context"] == {"subset": "train"}
    assert len(steps) == SAMPLED_POINTS
    assert (steps[0], steps[-1]) == (0, client_scripts.POINTS - 1)
    assert numbers(trace["values"]) == [LOSS[step] for step in steps]
    assert numbers(trace["epochs"]) == [step // 100 for step in steps]
    assert numbers(trace["timestamps"]) == sorted(numbers(trace["timestamps"]))


@pytest.mark.parametrize(
    ("method", "name", "context", "objects"),
    [
        ("query_images", "pics", {"subset": "train"}, {"caption": "bytes", "format": "PNG", "width": None}),
        ("query_audios", "sound", {}, {"caption": "beep", "format": "wav"}),
        ("query_texts", "samples", {}, {"data": "hello\nworld 🚀"}),
    ],
)
def test_a_query_for_objects_returns_lists_of_them(
    found: dict[str, Any], method: str, name: str, context: Mapping[str, Any], objects: Mapping[str, Any]
) -> None:
    (trace,) = traces(found[method])

    assert (trace["name"], trace["context"]) == (name, context)
    assert trace["values"][0][0].items() >= {**objects, "index": 0}.items()
    assert trace["iters"] == {step: step for step in range(len(trace["values"]))}
    assert found[f"{method} of none"] == []


def test_an_empty_text_is_a_text(found: dict[str, Any]) -> None:
    (trace,) = traces(found["query_texts"])

    assert trace["values"][1] == {0: {"data": "", "index": 0}}


def test_a_query_for_distributions_returns_their_weights(found: dict[str, Any]) -> None:
    (trace,) = traces(found["query_distributions"])

    assert (trace["name"], trace["context"]) == ("weights", {"layer": 1})
    value = trace["values"][0]
    assert (value["bin_count"], value["range"], numbers(value["data"])) == (3, {0: -1.0, 1: 2.0}, [1, 5, 2])


def test_a_query_for_figures_returns_their_json(found: dict[str, Any]) -> None:
    (trace,) = traces(found["query_figure_objects"])

    assert trace["name"] == "figure"
    assert json.loads(trace["values"][0]["data"]) == client_scripts.FIGURE


def test_blobs_come_back_byte_for_byte(found: dict[str, Any]) -> None:
    assert found["get_blob_batch"]["images"] == [bytes(range(48))]
    assert found["get_blob_batch"]["audios"] == [b"RIFFxxxxWAVE"]
    assert found["get_blob_batch of nothing"] == {}


# ---- Run


def test_properties_of_a_run_are_those_stored(found: dict[str, Any]) -> None:
    props = found["props"]

    assert (props["name"], props["description"]) == ("all calls", "größe\nline two")
    assert props["experiment"]["name"] == "everything"
    assert (props["archived"], props["active"]) == (False, False)
    assert props["creation_time"] <= props["end_time"]
    assert found["tags"] == [tag["name"] for tag in props["tags"]] == ["good", "日本語 🚀"]


def test_params_of_a_run_are_found_by_dotted_keys(found: dict[str, Any]) -> None:
    assert found["params"] == {
        "hparams": HPARAMS,
        "hparams.opt.name": "adam",
        "a.b.c": [1, {"x": 2}],
        "big": 2**70,
        "special": {"nan": "NaN", "inf": "inf", "tuple": [1, 2]},
        "note": "plain text",
    }
    assert found["a missing param"] == "default"


def test_metrics_of_a_run_have_their_last_values(found: dict[str, Any]) -> None:
    assert {(trace["name"], trace["context"].get("subset")): trace["last_value"] for trace in found["metrics"]} == (
        ALL_METRICS
    )
    assert found["get_metric"] == {"name": "loss", "context": {"subset": "train"}, "last_value": LAST}
    assert found["get_metric without context"] == {"name": "auto step", "context": {}, "last_value": 0.0}
    assert found["get_metric of another context"] is None
    assert {(name, context.get("subset"), run) for name, context, run in found["iter_metrics_info"]} == {
        (name, subset, RICH) for name, subset in ALL_METRICS
    }


def test_sequences_of_a_run_come_by_the_kinds_asked_for(found: dict[str, Any]) -> None:
    names = {
        bucket: {trace["name"] for trace in found["collect_sequence_info"][bucket]}
        for bucket in found["collect_sequence_info"]
    }

    assert names == {
        "metric": {name for name, _ in ALL_METRICS},
        "images": {"pics"},
        "audios": {"sound"},
        "texts": {"samples"},
        "distributions": {"weights"},
        "figures": {"figure"},
    }
    assert found["collect_sequence_info of one"].keys() == {"images"}
    assert found["collect_sequence_info of two"].keys() == {"metric", "texts"}


def test_artifacts_of_a_run_are_listed_by_path(found: dict[str, Any]) -> None:
    assert {(artifact["name"], artifact["path"]) for artifact in found["artifacts"]} == {
        ("config.yaml", "config.yaml"),
        ("main config.yaml", "cfg/main config.yaml"),
    }


# ---- the client's transport, as its backup uses it


def test_terminal_lines_are_those_that_were_printed(found: dict[str, Any]) -> None:
    assert found["get_run_logs"] == [(0, "first line"), (1, "last line"), (2, "")]
    assert found["get_run_logs of a range"] == [(1, "last line")]


def test_log_records_have_level_message_and_arguments(found: dict[str, Any]) -> None:
    count, records = found["get_run_log_records"]

    assert count == len(records) == 4
    assert [number for number, _ in records] == [0, 1, 2, 3]
    assert [(record["log_level"], record["message"]) for _, record in records] == [
        ("DEBUG", "debug message"),
        ("INFO", "info message"),
        ("WARNING", "warning message"),
        ("ERROR", "error message %s"),
    ]
    assert records[1][1]["args"] == {"answer": 42}


def test_a_batch_of_a_metric_is_whole_when_enough_points_are_asked_for(found: dict[str, Any]) -> None:
    batch, few = found["get_run_metric_batch"], found["get_run_metric_batch of few"]

    assert [dict(zip(trace["iters"], trace["values"], strict=True)) for trace in batch] == [LOSS]
    assert [(trace["name"], trace["context"], len(trace["iters"])) for trace in few] == [
        ("loss", {"subset": "train"}, SAMPLED_POINTS)
    ]
