"""Requests of a benchmark: sent as often as asked on one connection, timed until the last byte of the answer."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Self
from urllib.parse import urlencode, urlsplit

from tests.bench.processes import cpu_seconds_of

SECONDS_MAX: Final = 120.0


class Request(NamedTuple):
    """One request; with a body it is a POST of JSON."""

    path: str
    body: object = None


def search(kind: str, query: str, **params: object) -> Request:
    """Return a search of `run` or `metric`, without progress messages."""
    values = {name: str(value).lower() if isinstance(value, bool) else value for name, value in params.items()}
    return Request(f"/runs/search/{kind}/?{urlencode({'q': query, 'report_progress': 'false', **values})}")


class Timing(NamedTuple):
    """How long the repetitions of a request took."""

    seconds: Sequence[float]
    cpu_seconds: float
    """Processor time of the server per request."""
    answer_bytes: int

    def quantile(self, part: float) -> float:
        """Return the seconds that `part` of all stay at or below."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]

    def text(self) -> str:
        """Return median and 99th percentile (the greatest of fewer than a hundred) in milliseconds."""
        return f"{milliseconds(self.quantile(0.5))} ({milliseconds(self.quantile(0.99))})"


class Client:
    """One connection to a server, and the process that answers there."""

    def __init__(self, url: str, pid: int) -> None:
        """Connect to the API whose paths begin with `url`."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._base = parts.path
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=SECONDS_MAX)
        self._pid = pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def send(self, request: Request) -> bytes:
        """Return the whole answer, which must be one of success."""
        body = None if request.body is None else json.dumps(request.body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        self._connection.request("GET" if body is None else "POST", self._base + request.path, body, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != http.client.OK:
            raise AssertionError(f"{request.path}: {answer.status} {content[:500]!r}")
        return content

    def measure(self, requests: Sequence[Request], *, repeats: int) -> Timing:
        """Send all the requests, one after another, `repeats` times; the sum of each round is one timing."""

        def send_all() -> int:
            return sum(len(self.send(request)) for request in requests)

        return measure(send_all, self._pid, repeats=repeats)


def measure(action: Callable[[], int], pid: int, *, repeats: int) -> Timing:
    """Do something `repeats` times and time each; it returns the size of the answer."""
    seconds, size = [], 0
    begin_cpu = cpu_seconds_of(pid)
    for _ in range(repeats):
        begin = time.perf_counter()
        size = action()
        seconds.append(time.perf_counter() - begin)
    return Timing(seconds, (cpu_seconds_of(pid) - begin_cpu) / repeats, size)


def milliseconds(seconds: float) -> str:
    """Return milliseconds for a table."""
    return digits(seconds * 1e3)


def digits(value: float) -> str:
    """Return a number with as many digits as it deserves: two at least."""
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"
