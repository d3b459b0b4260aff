"""Liveness, readiness and metrics: what probes and scrapers ask."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency

from matyan.http.answers import json_response
from matyan.http.openapi import answers, streams
from matyan.observe.metrics import CONTENT_TYPE, Metrics
from matyan.threads import run_blocking

logger = logging.getLogger(__name__)

OK: Final = "ok"
Check = Callable[[], None]
"""Returns when the thing works, raises when it does not. May block for a moment."""


class Health:
    """What must work for this process to be ready."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._told: set[str] = set()
        """Checks whose failure is told and changes nothing."""
        self.draining = False
        """Set when the server begins to stop: balancers are to send no more."""

    def add(self, name: str, check: Check, *, is_essential: bool = True) -> None:
        """Show `check` under `name`; make readiness depend on it where it is essential."""
        self._checks[name] = check
        if not is_essential:
            self._told.add(name)

    def is_ready(self, outcomes: Mapping[str, str]) -> bool:
        """Return whether requests should come here, given what `run` returned."""
        return all(outcome == OK or name in self._told for name, outcome in outcomes.items())

    def run(self) -> dict[str, str]:
        """Run every check; return `ok` or the reason for each."""
        found = {name: _outcome(name, check) for name, check in self._checks.items()}
        return found | {"server": "stopping"} if self.draining else found


def _outcome(name: str, check: Check) -> str:
    try:
        check()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        logger.warning("health check failed", extra={"check": name, "error": str(error)})
        return str(error) or type(error).__name__
    return OK


class Liveness(msgspec.Struct, frozen=True):
    """The process lives."""

    status: str


class Readiness(msgspec.Struct, frozen=True):
    """Whether requests should come here, and `ok` or the reason for each part."""

    status: str
    checks: dict[str, str]


_READINESS: Final = answers(Readiness, "Requests should come here.") | answers(
    Readiness, "Requests should not come here.", status=503
)


@get("/health/live", operation_id="isLive", responses=answers(Liveness, "It answers."))
async def live() -> Response[bytes]:
    """Say that the process answers."""
    return json_response(Liveness(OK))


@get("/health/ready", operation_id="isReady", responses=_READINESS)
async def ready(health: NamedDependency[Health]) -> Response[bytes]:
    """Say whether requests should come here; 503 when not."""
    checks = await run_blocking(health.run)
    is_well = all(outcome == OK for outcome in checks.values())
    body = Readiness(OK if is_well else "degraded", checks)
    return json_response(body, status=200 if health.is_ready(checks) else 503)


@get("/metrics", operation_id="readMetricsOfServer", responses=streams("Prometheus text.", "text/plain"))
async def scrape(metrics: NamedDependency[Metrics]) -> Response[bytes]:
    """Return every metric as Prometheus text."""
    text = await run_blocking(metrics.exposition)
    return Response(text, media_type=CONTENT_TYPE)


OPS_ROUTES = (live, ready, scrape)
