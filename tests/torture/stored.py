"""What a run holds, read through REST, in the slots of `tests.torture.expected`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import httpx

from tests.support import treestream
from tests.support.rest import Rest, canonical
from tests.torture.expected import ABSENT, LINE, PICTURES, Histories, Slot, json_text, object_text, point
from tests.torture.journal import digest

ALL_RUNS: Final = "run.archived in [True, False]"
"""A query that leaves out no run: without it archived ones are."""
DENSITY: Final = 10_000_000
"""Above the length of any sequence: nothing is thinned out."""
_DEFAULTS: Final = {"archived": False, "active": True, "experiment": "default", "description": ""}
"""What a property holds that nobody set."""


@dataclass
class Stored:
    """One run as readers see it."""

    slots: dict[Slot, Any] = field(default_factory=dict)
    """A file that the run names and that is not there holds ABSENT; a file that nothing names has no slot."""
    records: list[str] = field(default_factory=list)
    """Texts of the log records in order."""
    lines: list[str] = field(default_factory=list)
    """Terminal lines in order, those that count."""

    def repeated(self) -> list[str]:
        """Return texts of records and lines that stand there more than once."""
        counts = Counter([*(f"record {text!r}" for text in self.records), *(f"line {text!r}" for text in self.lines)])
        return [text for text, count in counts.items() if count > 1]


def read_run(rest: Rest, run: str, expected: Histories) -> Stored | None:
    """Read everything of a run; None when there is no such run.

    Args:
        rest: reads.
        run: the id.
        expected: says at which depth params were set.
    """
    try:
        info = rest.info(run)
    except httpx.HTTPStatusError as error:
        if error.response.status_code == httpx.codes.NOT_FOUND:
            return None
        raise
    found = Stored()
    found.slots.update(_properties(run, info))
    found.slots.update(_params(info["params"], (), expected))
    found.slots.update(_points(rest, run))
    for bucket in ("images", "texts", "distributions", "figures"):
        for trace in info["traces"].get(bucket, []):
            found.slots.update(_objects(rest, run, bucket, trace))
    found.slots.update(_artifacts(rest, run, info))
    _read_logs(rest, run, found)
    return found


def _properties(run: str, info: Mapping[str, Any]) -> Iterator[tuple[Slot, Any]]:
    props = info["props"]
    values = {**{name: props[name] for name in ("name", "description", "archived", "active")}}
    values["experiment"] = props["experiment"]["name"]
    yield ("run",), True
    for name, value in values.items():
        if value not in (_DEFAULTS.get(name), None, f"Run: {run}"):
            yield ("property", name), value
    for tag in props["tags"]:
        yield ("tag", tag["name"]), True


def _params(tree: Any, path: tuple[str, ...], expected: Histories) -> Iterator[tuple[Slot, Any]]:
    """Yield params, cut where they were set."""
    if path and (("param", path) in expected or not isinstance(tree, dict)):
        yield ("param", path), json_text(tree)
        return
    for key, value in tree.items():
        yield from _params(value, (*path, key), expected)


def _points(rest: Rest, run: str) -> Iterator[tuple[Slot, Any]]:
    for (name, context), series in rest.metrics(run, ALL_RUNS).items():
        for step, found in series.items():
            yield ("point", name, context, step), point(found.value, found.epoch, round(found.time * 1000))


def _objects(rest: Rest, run: str, bucket: str, trace: Mapping[str, Any]) -> Iterator[tuple[Slot, Any]]:
    body = [{"name": trace["name"], "context": trace["context"]}]
    path = f"/runs/{quote(run)}/{bucket}/get-batch/?record_density={DENSITY}"
    tree = dict(treestream.trees(rest.send("POST", path, body).content))
    for step, value in zip(tree.get("iters", []), tree.get("values", []), strict=True):
        found = value[0] if isinstance(value, list) else value
        slot = (bucket, trace["name"], canonical(trace["context"]), int(step))
        yield ("object", *slot), object_text(bucket, _as_sent(bucket, found))
        if bucket == "images":
            key = f"{run}/{PICTURES}{trace['name']}/{int(step)}.png"
            yield ("file", key), _picture(rest, found["blob_uri"])


def _as_sent(bucket: str, value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an object with its data as a client sends it."""
    if bucket == "figures":
        return {"data": json.loads(value["data"])}
    if bucket == "distributions":
        return {**value, "data": [int(weight) for weight in treestream.numbers(value["data"])]}
    return value


def _picture(rest: Rest, uri: str) -> str | None:
    """Return the digest of a picture that an item names; ABSENT when it is not there."""
    found = dict(treestream.trees(rest.send("POST", "/runs/images/get-batch/", [uri]).content))
    return digest(found[uri]) if uri in found else ABSENT


def _artifacts(rest: Rest, run: str, info: Mapping[str, Any]) -> Iterator[tuple[Slot, Any]]:
    for artifact in info["artifacts"]:
        yield ("file", f"{run}/{artifact['path']}"), _artifact(rest, run, artifact["path"])


def _artifact(rest: Rest, run: str, path: str) -> str | None:
    """Return the digest of an artifact that the run names; ABSENT when it is not there."""
    try:
        answer = rest.send("GET", f"/runs/{quote(run)}/artifacts/download/?path={quote(path, safe='')}")
    except httpx.HTTPStatusError as error:
        if error.response.status_code == httpx.codes.NOT_FOUND:
            return ABSENT
        raise
    return digest(answer.content)


def _read_logs(rest: Rest, run: str, found: Stored) -> None:
    for record in rest.records(run):
        found.records.append(record["message"])
        arguments = json_text(record.get("args") or {})
        found.slots["record", record["message"]] = (record["log_level"], arguments)
    found.lines = [text for _, text in sorted(rest.lines(run).items()) if text.startswith(LINE)]
    found.slots.update({("line", text): 1 for text in found.lines})
