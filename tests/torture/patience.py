"""A reader that asks again while the tracker is away, or says that its store is: it makes errors, as it is told to."""

from __future__ import annotations

import time
from typing import Final

import httpx

from tests.support.rest import MATYAN_BASE, Rest

PATIENCE_SECONDS: Final = 30.0
PAUSE_SECONDS: Final = 0.3


class _Again(httpx.BaseTransport):
    def __init__(self) -> None:
        self._transport = httpx.HTTPTransport(verify=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = self._transport.handle_request(request)
                answer.read()
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
            else:
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                    return answer
            time.sleep(PAUSE_SECONDS)

    def close(self) -> None:
        self._transport.close()


class PatientRest(Rest):
    """A Rest that takes neither a 503 nor half an answer, for half a minute. What it sends may be sent again."""

    def __init__(self, origin: str) -> None:
        self._client = httpx.Client(base_url=origin + MATYAN_BASE, timeout=60, transport=_Again())
