"""All that a tracker tells of its runs as plain data, and what the released client's backup makes of it.

`LOSSES` is the table of the client's own faults; a tracker can neither cause nor cure one of them.
"""

from __future__ import annotations

import copy
import io
import math
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from tests.support import treestream
from tests.support.oracle import BUCKETS, json_params
from tests.support.rest import Rest, canonical

Snapshot = dict[str, Any]
"""Everything of one run; numbers as their repr, so that NaN equals NaN and -0.0 not 0.0."""
RESTORED: Final = "when it was restored"
"""Stands for a time within the restore."""
ANY: Final = "run.archived in (True, False)"
"""A search leaves archived runs out unless it speaks of them."""
LOG_TAIL: Final = 200
MEDIA: Final = tuple(dict.fromkeys(BUCKETS.values()))
REFUSED: Final = "not stored: "
"""How a record begins by which the tracker says that it refused an item."""


def snapshot(rest: Rest, run: str, *, restored: tuple[float, float] = (math.inf, math.inf)) -> Snapshot:
    """Read a run; times within `restored` are replaced by RESTORED."""

    def moment(seconds: float | None) -> Any:
        return RESTORED if seconds is not None and restored[0] <= seconds <= restored[1] else seconds

    info = rest.info(run)
    props = info["props"]
    records = rest.records(run)
    return {
        "props": {
            **{name: props[name] for name in ("name", "description", "archived", "active")},
            "experiment": props["experiment"]["name"],
            "creation_time": moment(props["creation_time"]),
            "end_time": moment(props["end_time"]),
        },
        "tags": sorted(tag["name"] for tag in props["tags"]),
        "params": rest.runs(f"run.hash == {run!r} and {ANY}", skip_system=False)[run]["params"],
        "metrics": {
            key: {step: (repr(point.value), repr(point.epoch), moment(point.time)) for step, point in series.items()}
            for key, series in rest.metrics(run, ANY).items()
        },
        "objects": {bucket: _objects(rest, run, bucket, moment) for bucket in MEDIA},
        "lines": rest.lines(run),
        "records": [_record(record) for record in records if not record["message"].startswith(REFUSED)],
        "refusals": sum(record["message"].startswith(REFUSED) for record in records),
        "artifacts": _artifacts(rest, run),
        "notes": [note["content"] for note in rest.get(f"/runs/{quote(run)}/note/").json()],
    }


def entities(rest: Rest) -> dict[str, dict[str, Any]]:
    """Return what is told of every experiment and tag, without ids and times, by kind and name.

    A tag that was made through REST has an empty colour and description, one that a run brought has null.
    """
    return {
        f"{kind} {entity['name']}": {name: entity.get(name) or None for name in ("description", "color", "archived")}
        for kind in ("experiments", "tags")
        for entity in rest.get(f"/{kind}/").json()
    }


def restored_from_a_client_backup(before: Snapshot) -> Snapshot:
    """Return what must be there after the client backed a run up and restored it."""
    after = copy.deepcopy(before)
    for lose in LOSSES.values():
        lose(after)
    return after


def _objects(rest: Rest, run: str, bucket: str, moment: Callable[[float], Any]) -> dict[Any, Any]:
    """Return the objects of one kind: blobs as their bytes, without the names by which they are asked for."""
    query = {"q": f"run.hash == {run!r} and {ANY}", "record_density": 1000}
    found = treestream.runs(rest.get(f"/runs/search/{bucket}/", **query).content)
    traces = found[run]["traces"] if run in found else []
    return {
        (trace["name"], canonical(trace["context"])): {
            step: (
                [_object(rest, bucket, item) for item in (value if isinstance(value, list) else [value])],
                moment(time),
            )
            for step, value, time in zip(trace["iters"], trace["values"], trace["timestamps"][0], strict=True)
        }
        for trace in traces
    }


def _object(rest: Rest, bucket: str, item: dict[str, Any]) -> dict[str, Any]:
    uri = item.pop("blob_uri", None)
    if uri is not None:
        item["blob"] = treestream.trees(rest.send("POST", f"/runs/{bucket}/get-batch/", [uri]).content)[0][1]
    return item


def _record(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("message", "log_level", "timestamp", "args", "logger_info")}


def _artifacts(rest: Rest, run: str) -> dict[str, bytes]:
    if not rest.info(run)["artifacts"]:
        return {}
    body = rest.get(f"/runs/{quote(run)}/artifacts/download-all/").content
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# ---- the client's own faults


def _lose_run_times(run: Snapshot) -> None:
    run["props"]["creation_time"] = RESTORED
    if run["props"]["end_time"] is not None:
        run["props"]["end_time"] = RESTORED


def _lose_tags(run: Snapshot) -> None:
    run["tags"] = []


def _lose_point_details(run: Snapshot) -> None:
    for series in run["metrics"].values():
        for step, (value, _, _) in series.items():
            series[step] = (value, "nan", RESTORED)


def _lose_points_that_are_not_finite(run: Snapshot) -> None:
    for series in run["metrics"].values():
        lost = [step for step, (value, _, _) in series.items() if not math.isfinite(float(value))]
        for step in lost:
            del series[step]
        run["refusals"] += len(lost)


def _turn_objects_into_numbers(run: Snapshot) -> None:
    for bucket in MEDIA:
        for key, steps in run["objects"][bucket].items():
            run["metrics"][key] = {number: (repr(float(number)), "nan", RESTORED) for number in range(len(steps))}
        run["objects"][bucket] = {}


def _turn_odd_params_into_words(run: Snapshot) -> None:
    run["params"] = json_params(run["params"])


def _cut_logs(run: Snapshot) -> None:
    run["lines"] = dict(list(run["lines"].items())[-LOG_TAIL:])
    run["records"] = run["records"][-LOG_TAIL:]


def _keep_the_last_leaf_of_what_records_hold(run: Snapshot) -> None:
    for record in run["records"]:
        record["args"], record["logger_info"] = _last_leaf(record["args"]), _last_leaf(record["logger_info"])


def _last_leaf(value: Any) -> Any:
    if isinstance(value, list):
        value = {str(index): item for index, item in enumerate(value)}
    if not isinstance(value, dict):
        return value
    return {key: _last_leaf(item) for key, item in list(value.items())[-1:]} or None


def _lose_artifacts_and_notes(run: Snapshot) -> None:
    run["artifacts"], run["notes"] = {}, []


LOSSES: Final[Mapping[str, Callable[[Snapshot], None]]] = {
    "restore sends no times of a run: it is created and ended anew": _lose_run_times,
    "restore creates tags and attaches none": _lose_tags,
    "backup reads points without epochs and times": _lose_point_details,
    "backup reads NaN and infinities as null, which restore sends as the value of a point": (
        _lose_points_that_are_not_finite
    ),
    "the client's decoder makes dicts of lists, and backup saves their keys: objects become 0, 1, 2 ... of a metric": (
        _turn_objects_into_numbers
    ),
    "backup reads params as JSON, where NaN and infinities are words": _turn_odd_params_into_words,
    "backup asks for logs without a range and gets their tails": _cut_logs,
    "the client's decoder of log records merges nested values one level deep": _keep_the_last_leaf_of_what_records_hold,
    "backup knows neither artifacts nor notes": _lose_artifacts_and_notes,
}
"""Reason -> what it does to a run, in the order in which it happens."""
