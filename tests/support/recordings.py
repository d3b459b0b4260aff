"""Requests recorded from a real Aim, replayed against an app and compared by the rules of the contract."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from httpx import Response
from litestar.testing import TestClient

from matyan.clock import ManualClock
from tests.support import treestream
from tests.support.dataset import GOLDEN

RECORDINGS: Final = GOLDEN / "rest"
_ANY: Final = "<any>"

Recording = Mapping[str, Any]


def load(name: str) -> list[Recording]:
    """Return the recordings of one file, in order."""
    found: list[Recording] = json.loads((RECORDINGS / name).read_text())
    return found


class Replay:
    """Sends recorded requests; ids that earlier answers gave stand in for the recorded ones."""

    def __init__(self, client: TestClient[Any], *, volatile: Mapping[int, tuple[str, ...]], clock: ManualClock) -> None:
        self._client = client
        self._volatile = volatile
        self._clock = clock
        self._captured: dict[str, Any] = {}

    def difference(self, recording: Recording) -> str | None:
        """Send one request, a second after the one before; return what differs from the recorded answer, or None."""
        self._clock.advance(1)
        body = json.dumps(self._filled(recording["body"])) if "body" in recording else None
        response = self._client.request(
            recording["method"],
            f"/api{self._filled(recording['path'])}",
            params=recording.get("query", []),
            headers={**recording.get("headers", {}), "Content-Type": "application/json"},
            content=body,
        )
        if response.status_code != recording["status"]:
            return f"status {recording['status']} expected, {response.status_code} got: {response.text[:200]}"
        got = _answer(recording, response)
        for name, path in recording.get("capture", {}).items():
            self._captured[name] = got["json"][path]
        expected = json.loads(json.dumps({key: recording[key] for key in got}))
        for path in (*recording.get("volatile", ()), *self._volatile.get(recording["id"], ())):
            _change(expected, path, lambda _: _ANY)
            _change(got, path, lambda _: _ANY)
        for path in recording.get("unordered", ()):
            _change(expected, path, _sorted)
            _change(got, path, _sorted)
        return None if got == expected else f"\nexpected {json.dumps(expected)}\n     got {json.dumps(got)}"

    def _filled(self, value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(r"\$\{(\w+)\}", lambda match: str(self._captured[match[1]]), value)
        return {key: self._filled(item) for key, item in value.items()} if isinstance(value, dict) else value


def _answer(recording: Recording, response: Response) -> dict[str, Any]:
    if "stream" in recording:
        return {"stream": json.loads(json.dumps(treestream.trees(response.content)))}
    return {"json": response.json()} if "json" in recording else {}


def _change(document: Any, path: str, change: Callable[[Any], Any]) -> None:
    """Replace every value at `path`; `*` stands for every key or position."""
    *above, last = path.replace("decoded", "stream").split(".")
    nodes = [document]
    for name in above:
        nodes = [node[key] for node in nodes for key in _keys(node, name)]
    for node in nodes:
        for key in _keys(node, last):
            node[key] = change(node[key])


def _keys(node: Any, name: str) -> list[Any]:
    if isinstance(node, dict):
        return [key for key in node if name in ("*", key)]
    if isinstance(node, list):
        return [position for position in range(len(node)) if name in ("*", str(position))]
    return []


def _sorted(value: Any) -> Any:
    return sorted(value, key=lambda item: json.dumps(item, sort_keys=True)) if isinstance(value, list) else value
