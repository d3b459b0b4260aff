"""What a tracker must show after a run's messages: the ingestion contract as a plain Python dict machine.

Written from the contract (A6-A11), without any code of the product; slow and simple on purpose.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from tests.support.rest import Point, Series, canonical

BUCKETS: Final = {
    "image": "images",
    "audio": "audios",
    "text": "texts",
    "distribution": "distributions",
    "figure": "figures",
}
LEVELS: Final = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


@dataclass
class ExpectedRun:
    """The state of one run; feed it every message in order."""

    run: str
    name: str = ""
    description: str | None = None
    experiment: str | None = None
    archived: bool = False
    active: bool = True
    created_at: float | None = None
    finished_at: float | None = None
    tags: set[str] = field(default_factory=set)
    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[tuple[str, str], Series] = field(default_factory=dict)
    objects: dict[str, dict[tuple[str, str], dict[int, Any]]] = field(default_factory=dict)
    lines: dict[int, str] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    artifacts: set[str] = field(default_factory=set)
    _first_line: int = 0

    def feed(self, message: Mapping[str, Any]) -> None:
        """Apply one message; items that the contract lets a server refuse are left out by the caller."""
        getattr(self, f"_{message['type']}")(message)

    def feed_text(self, frame: str) -> bool:
        """Apply every acceptable message of a frame as sent; tell whether all of them were."""
        decoded = json.loads(frame)
        messages = decoded if isinstance(decoded, list) else [decoded]
        for message in filter(is_acceptable, messages):
            self.feed(message)
        return all(map(is_acceptable, messages))

    def _create_run(self, message: Mapping[str, Any]) -> None:
        self.name = self.name or f"Run: {self.run}"
        self.created_at = self.created_at or seconds(message["client_datetime"])
        self.active, self.finished_at = True, None
        self._first_line = max(self.lines, default=-1) + 1

    def _set_run_property(self, message: Mapping[str, Any]) -> None:
        for name in ("name", "description", "experiment", "archived"):
            if message.get(name) is not None:
                setattr(self, name, message[name])

    def _log_hparams(self, message: Mapping[str, Any]) -> None:
        path: list[str] = []
        value = message["value"]
        while isinstance(value, dict) and len(value) == 1:
            ((key, value),) = value.items()
            path.append(key)
        if not path:
            self.params = value
            return
        node = self.params
        for key in path[:-1]:
            if not isinstance(node.get(key), dict):
                node[key] = {}
            node = node[key]
        node[path[-1]] = value

    def _log_metric(self, message: Mapping[str, Any]) -> None:
        if isinstance(message["value"], dict):  # as the client's restore sends what its backup calls by the singular
            self._log_custom_object(message)
            return
        series = self.metrics.setdefault((message["name"], canonical(message["context"])), {})
        step = message["step"] if message["step"] is not None else max(series, default=-1) + 1
        epoch = math.nan if message["epoch"] is None else float(message["epoch"])
        moment = seconds(message["client_datetime"])
        series[step] = Point(value=float(message["value"]), epoch=epoch, time=moment)

    def _log_custom_object(self, message: Mapping[str, Any]) -> None:
        bucket = self.objects.setdefault(BUCKETS[message["dtype"]], {})
        bucket.setdefault((message["name"], canonical(message["context"])), {})[message["step"]] = message["value"]

    def _add_tag(self, message: Mapping[str, Any]) -> None:
        self.tags.add(message["tag_name"])

    def _remove_tag(self, message: Mapping[str, Any]) -> None:
        self.tags.discard(message["tag_name"])

    def _log_terminal_line(self, message: Mapping[str, Any]) -> None:
        self.lines[self._first_line + message["step"]] = message["line"]

    def _log_record(self, message: Mapping[str, Any]) -> None:
        level = LEVELS.get(message["level"], f"Level {message['level']}")
        args = message.get("extra_args")
        record = {"message": message["message"], "log_level": level, "timestamp": message["timestamp"], "args": args}
        self.records.append(record)

    def _blob_ref(self, message: Mapping[str, Any]) -> None:
        if not message["artifact_path"].startswith("seq/"):
            self.artifacts.add(message["artifact_path"])

    def _finish_run(self, message: Mapping[str, Any]) -> None:
        self.active = False
        self.finished_at = seconds(message["client_datetime"])


def is_acceptable(message: Mapping[str, Any]) -> bool:
    """Tell whether a server keeps the message: of what the real client sends only fractional steps are refused."""
    return not isinstance(message.get("step"), float)


def seconds(moment: str | float) -> float:
    """Return a client time as seconds since 1970-01-01 UTC."""
    return datetime.fromisoformat(moment).timestamp() if isinstance(moment, str) else moment


def json_params(value: Any) -> Any:
    """Return params as the JSON answers write them: NaN and infinities become text."""
    if isinstance(value, dict):
        return {key: json_params(item) for key, item in value.items()}
    if isinstance(value, list):
        return [json_params(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def same_points(found: Series, expected: Series) -> bool:
    """Compare bit for bit where that is promised: NaN equals NaN; times agree to the millisecond."""
    return found.keys() == expected.keys() and all(
        _same(found[step].value, point.value)
        and _same(found[step].epoch, point.epoch)
        and abs(found[step].time - point.time) <= 0.001
        for step, point in expected.items()
    )


def _same(found: float, expected: float) -> bool:
    if math.isnan(expected):
        return math.isnan(found)
    return found == expected and math.copysign(1, found) == math.copysign(1, expected)
