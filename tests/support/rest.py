"""Read a tracker back through REST as its clients do, decoded without any code of the product."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

import httpx

from tests.support import loopback, treestream

T = TypeVar("T")
MATYAN_BASE: Final = "/api/v1/rest"
VISIBLE_SECONDS_MAX: Final = 20.0


def canonical(context: Mapping[str, Any] | None) -> str:
    """Return the identity of a context: its sorted JSON; empty and null are the same."""
    return json.dumps(context or {}, sort_keys=True)


@dataclass(frozen=True)
class Point:
    """One point of a metric; `epoch` NaN when none was given, `time` in seconds since 1970-01-01 UTC."""

    value: float
    epoch: float
    time: float


Series = dict[int, Point]


class Rest:
    """A reader of one tracker. Any answer of 400 and above raises `httpx.HTTPStatusError`."""

    def __init__(self, origin: str, base: str = MATYAN_BASE) -> None:
        self._client = loopback.client(origin + base, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **params: Any) -> httpx.Response:
        """Return the answer to a GET below the API base."""
        return self._client.get(path, params=params).raise_for_status()

    def send(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Return the answer to a request with a JSON body."""
        return self._client.request(method, path, json=body).raise_for_status()

    def info(self, run: str, **params: Any) -> dict[str, Any]:
        """Return the run page's data."""
        answer: dict[str, Any] = self.get(f"/runs/{quote(run)}/info/", **params).json()
        return answer

    def exists(self, run: str) -> bool:
        """Tell whether the run is known."""
        status = self._client.get(f"/runs/{quote(run)}/info/").status_code
        assert status in (httpx.codes.OK, httpx.codes.NOT_FOUND), status
        return status == httpx.codes.OK

    def runs(self, query: str = "", **params: Any) -> dict[str, Any]:
        """Return run id -> tree of a run search, in the order of the answer."""
        return treestream.runs(self.get("/runs/search/run/", q=query, **params).content)

    def metrics(self, run: str, query: str = "") -> dict[tuple[str, str], Series]:
        """Return every point of the metrics of a run that match, by (name, canonical context)."""
        own = f"run.hash == {json.dumps(run)}"
        text = f"({own}) and ({query})" if query else own
        found = treestream.runs(self.get("/runs/search/metric/", q=text, p=-1).content)
        assert set(found) <= {run}
        traces = found[run]["traces"] if run in found else []
        series = {(trace["name"], canonical(trace["context"])): _series(trace) for trace in traces}
        assert len(series) == len(traces), "a metric comes twice"
        return series

    def lines(self, run: str, record_range: str = "0:") -> dict[int, str]:
        """Return the terminal log by line number."""
        content = self.get(f"/runs/{quote(run)}/logs/", record_range=record_range).content
        return {int(key): text for key, text in treestream.trees(content)}

    def records(self, run: str, record_range: str = "0:") -> list[dict[str, Any]]:
        """Return the log records in order; their numbers must be 0, 1, 2 ..."""
        content = self.get(f"/runs/{quote(run)}/log-records/", record_range=record_range).content
        found = treestream.trees(content)
        if not found:
            return []
        (name, count), *rest = found
        assert name == "log_records_count"
        assert [key for key, _ in rest] == list(range(count))
        return [record for _, record in rest]

    def tags(self, run: str) -> set[str]:
        """Return the names of the run's tags."""
        return {tag["name"] for tag in self.info(run)["props"]["tags"]}


def eventually(read: Callable[[], T], accept: Callable[[T], object], seconds: float = VISIBLE_SECONDS_MAX) -> T:
    """Read until `accept` holds and return what was read; after `seconds` return the last reading anyway.

    The caller asserts on what it gets, so that a failure shows the difference and not a time-out. Between two readings
    at least as much time passes as the first took: who waits takes at most half of what the server could do.
    """
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        try:
            found = read()
            if accept(found) or time.monotonic() > deadline:
                return found
        except httpx.HTTPStatusError:
            if time.monotonic() > deadline:
                raise
        time.sleep(max(0.02, time.monotonic() - began))


def status_of(call: Callable[[], Any]) -> int:
    """Return the status that a call of a client ends with; 200 where it raises none."""
    try:
        call()
    except httpx.HTTPStatusError as error:
        return error.response.status_code
    return 200


def _series(trace: dict[str, Any]) -> Series:
    columns = [treestream.numbers(trace[name]) for name in ("iters", "values", "epochs", "timestamps")]
    steps = [int(step) for step in columns[0]]
    assert steps == sorted(set(steps)), "steps must rise"
    return {
        step: Point(value=value, epoch=epoch, time=moment)
        for step, value, epoch, moment in zip(steps, *columns[1:], strict=True)
    }
