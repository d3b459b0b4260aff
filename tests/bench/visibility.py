"""How long after its acknowledgement a point is seen by a reader."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from tests.bench.frames import METRICS, STEPS_PER_FRAME
from tests.support.rest import Rest
from tests.support.server import MatyanServer
from tests.support.writer import RawWriter, create, metric

WAIT_SECONDS_MAX: Final = 120.0
_PROBE: Final = "probe"


@dataclass(frozen=True)
class Delays:
    """Seconds from each reply to the first read that showed its point."""

    seconds: Sequence[float]
    points_per_second: float = 0.0
    """What the writers beside the probe really got through."""

    def quantile(self, part: float) -> float:
        """Return the delay that `part` of all stay below."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def seconds_until_visible(url: str, runs: Sequence[str], frames: int, begin: float) -> float:
    """Wait until the last point of every metric of every run is seen by a run search; return seconds since `begin`."""
    last_step = frames * STEPS_PER_FRAME - 1
    missing = set(runs)
    with Rest(url) as rest:
        while missing:
            query = f"run.hash in {sorted(missing)!r}"
            found = rest.runs(query, exclude_params=True, report_progress=False)
            now = time.perf_counter()
            missing -= {run for run, tree in found.items() if _is_complete(tree, last_step)}
            if now - begin > WAIT_SECONDS_MAX:
                raise TimeoutError(f"{len(missing)} runs are not complete after {WAIT_SECONDS_MAX} s")
    return now - begin


def measure_delays(server: MatyanServer, is_loaded: Callable[[], bool]) -> Delays:
    """Send one point after the other on a connection of its own and look for each, as long as the load lasts."""
    delays = []
    address = f"{server.url}/api/v1/rest/runs/{_PROBE}/metric/get-batch/"
    body = [{"name": "pulse", "context": {}}]
    with RawWriter(server.websocket_url, _PROBE) as writer, httpx.Client(trust_env=False) as client:
        writer.send(create(_PROBE))
        step = 0
        while is_loaded():
            writer.send(metric(_PROBE, "pulse", float(step), step))
            begin = time.perf_counter()
            while step not in _steps(client.post(address, json=body)):
                time.sleep(0.001)
            delays.append(time.perf_counter() - begin)
            step += 1
    return Delays(delays)


def _steps(answer: httpx.Response) -> Sequence[int]:
    if answer.status_code == httpx.codes.NOT_FOUND:
        return ()
    found = answer.raise_for_status().json()
    return found[0]["iters"][-1:] if found else ()


def _is_complete(tree: dict[str, object], last_step: int) -> bool:
    traces = tree["traces"]["metric"]  # type: ignore[index] # a decoded tree
    return len(traces) == METRICS and all(trace["values"]["last_step"] == last_step for trace in traces)
