"""Replay a recorded session of the real client with its REST requests, and compare what it was told with what we tell.

What the recording stub answered is no authority on values that it made up, such as ids and times: each difference needs
a reason in a table. Members that we send besides are fine, since the client reads what it knows.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from tests.support import treestream
from tests.support.captures import Replay
from tests.support.checks import check_run
from tests.support.rest import Rest
from tests.support.server import MatyanServer

_MISSING: Final = "(missing)"
_STREAM: Final = "application/octet-stream"


class Difference(NamedTuple):
    """One member that the client was told otherwise."""

    request: str
    member: str
    recorded: Any
    found: Any

    def __str__(self) -> str:
        return f"{self.request} {self.member}: {self.recorded!r} -> {self.found!r}"


class CapturedReads(Replay):
    """A capture, or some of its steps, whose requests are sent to our server where they were recorded."""

    def __init__(self, server: MatyanServer, capture: str, *, steps: Callable[[str], bool] = bool) -> None:
        super().__init__(server, capture)
        self._entries = [entry for entry in self._entries if steps(entry["step"] or "start")]
        self.differences: list[Difference] = []
        self.requests = 0
        self._ours: dict[str, str] = {}
        """Id or URI that was recorded -> ours."""
        self._settled: set[str] = set()

    def _play_request(self, request: dict[str, Any], recorded: dict[str, Any]) -> None:
        is_blob = request["method"] == "PUT" and "/runs/" not in request["target"]
        if is_blob or request["target"].endswith("/presign"):
            super()._play_request(request, recorded)
            return
        self._settle()
        self.requests += 1
        answer = self._http.request(
            request["method"],
            self._translated(request["target"]),
            content=self._translated(request.get("body", "")),
            headers={name: value for name, value in request["headers"] if name == "Content-Type"},
        )
        name = f"{request['method']} {request['target']}"
        if answer.status_code != recorded["status"]:
            self.differences.append(Difference(name, "status", recorded["status"], answer.status_code))
        elif answer.is_success and answer.content:
            is_json = answer.headers["content-type"].startswith("application/json")
            told = answer.json() if is_json else _trees(answer.content)
            self._compare(name, self._told(recorded), told)

    def _settle(self) -> None:
        """Wait until every new run is visible, which compares it with the contract, too."""
        with Rest(self._server.url) as rest:
            for run in self.expected.keys() - self._settled:
                check_run(rest, self.expected[run])
        self._settled |= self.expected.keys()

    def _translated(self, text: str) -> str:
        for recorded, ours in self._ours.items():
            text = text.replace(recorded, ours)
        return text

    def _told(self, recorded: dict[str, Any]) -> Any:
        """Return a recorded answer, decoded, with our URIs for its own."""
        if recorded["content_type"] != _STREAM:
            return json.loads(recorded["body"])
        trees = _trees(base64.b64decode(recorded.get("body_b64", "")))
        return {self._ours.get(str(key), key): tree for key, tree in trees.items()}

    def _compare(self, request: str, recorded: Any, found: Any) -> None:
        ours = dict(_members(found))
        for member, value in _members(recorded):
            told = ours.get(member, _MISSING)
            if re.search(r"(\.|^)(id|tag_id|blob_uri)$", member) and isinstance(value, str) and told != _MISSING:
                self._ours[value] = told
            elif told != value:
                self.differences.append(Difference(request, member, value, told))


def _trees(body: bytes) -> dict[str | int, Any]:
    """Return what the client keeps of a stream: no progress messages."""
    return {key: tree for key, tree in treestream.trees(body) if not str(key).startswith("progress_")}


def _members(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) of all leaves; entries of lists of named things go by their names, in any order."""
    if isinstance(tree, dict) and tree and tree.get("type") != "numpy":
        for key, value in tree.items():
            yield from _members(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, (list, tuple)) and tree:
        for index, value in enumerate(tree):
            name = value.get("name") if isinstance(value, dict) else None
            yield from _members(value, f"{path}[{index if name is None else name}]")
    else:
        yield path, treestream.numbers(tree) if isinstance(tree, dict) and tree else tree
