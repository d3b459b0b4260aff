"""Requests recorded from a real Aim, sent to a running server; answers compared by the rules of the contract.

The rules: status and JSON equal, streams equal once decoded, lists named `unordered` as multisets, values named
`volatile` not at all. What else may differ is said by an `Allowance`, one row each, with its reason.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote, urlencode

import httpx

from tests.support import loopback, treestream
from tests.support.dataset import GOLDEN

RECORDINGS: Final = GOLDEN / "rest"
ANY: Final = "<any>"

Recording = Mapping[str, Any]


def load(phase: str) -> list[Recording]:
    """Return the recordings of one phase (`read`, `write`, `static`, `readonly-server`) in order."""
    found: list[Recording] = json.loads((RECORDINGS / f"{phase}.json").read_text())
    return found


class Allowance(NamedTuple):
    """How the answer to a recorded request may differ from the recorded one, and why."""

    why: str
    status: int | None = None
    """The status to expect instead; then only the status is compared."""
    ignored: Sequence[str] = ()
    """Paths whose values are not compared: `json.0.id`, `decoded.*.traces.*.values`."""
    unordered: Sequence[str] = ()
    """Lists that are compared as multisets."""
    lengths: Sequence[str] = ()
    """Arrays and lists of which only the length is compared."""


EXACT: Final = Allowance("")
FREE_ORDER: Final = ("json.traces.*", "decoded.*.traces", "decoded.*.traces.metric")
"""The sequences of a run: Aim lists them by the hash of their context, which no client can foresee (contract)."""


class Replay:
    """Sends recordings one after another; ids that earlier answers gave stand in for the recorded ones."""

    def __init__(self, origin: str, *, base: str = "/api") -> None:
        self._client = loopback.client(origin, timeout=60)
        self._base = base
        self._captured: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def send(self, recording: Recording) -> httpx.Response:
        """Send one request as it was recorded."""
        path = quote(self._base + self._filled(recording["path"]), safe="/%:@!$&'()*+,;=~")
        query = urlencode([tuple(pair) for pair in self._filled(recording.get("query", []))], quote_via=quote)
        body = recording.get("raw_body")
        if "body" in recording:
            body = json.dumps(self._filled(recording["body"]))
        headers = {"Content-Type": "application/json"} if body is not None else {}
        target = f"{path}?{query}" if query else path
        return self._client.request(
            recording["method"],
            "/",
            headers={**headers, **recording.get("headers", {})},
            content=body,
            extensions={"target": target.encode()},  # as it is: an URL would lose its `..` and its double slashes
        )

    def difference(self, recording: Recording, allowance: Allowance = EXACT) -> str | None:
        """Send one request; return the first difference from the recorded answer, or None."""
        response = self.send(recording)
        status = allowance.status or recording["status"]
        if response.status_code != status:
            return f"status {status} expected, {response.status_code} got: {response.text[:200]}"
        if allowance.status:
            return None if status < httpx.codes.BAD_REQUEST else _bad_error_body(response)
        got = _answer(recording, response)
        self._capture(recording, got)
        expected: dict[str, Any] = {name: _copied(recording[name]) for name in got}
        for side in (expected, got):
            _normalize(side, recording, allowance)
        return first_difference(expected, got)

    def _capture(self, recording: Recording, got: Mapping[str, Any]) -> None:
        for name, path in recording.get("capture", {}).items():
            self._captured[name] = _at(got, path)

    def _filled(self, value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(r"\$\{(\w+)\}", lambda match: str(self._captured.get(match[1], match[0])), value)
        if isinstance(value, list):
            return [self._filled(each) for each in value]
        return {key: self._filled(each) for key, each in value.items()} if isinstance(value, dict) else value


def typed(value: Any) -> Any:
    """Return a decoded value in the typed JSON of the recordings: NaN, bytes, arrays and integer keys have forms."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"$": "nan" if math.isnan(value) else str(value)}
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, list):
        return [typed(each) for each in value]
    return _typed_object(value) if isinstance(value, dict) else value


def _typed_object(value: dict[str | int, Any]) -> dict[str, Any]:
    if value.get("type") == "numpy" and value.get("dtype") == "float64":
        numbers = struct.unpack(f"<{len(value['blob']) // 8}d", value["blob"])
        return {**value, "blob": {"$f64": [typed(number) for number in numbers]}}  # type: ignore[dict-item]  # its keys are text
    pairs = [(key, typed(each)) for key, each in value.items()]
    if all(isinstance(key, str) for key in value):
        return dict(pairs)  # type: ignore[arg-type]  # likewise
    return {"$map": [list(pair) for pair in pairs]}


def first_difference(expected: Any, got: Any, path: str = "") -> str | None:
    """Return where two documents differ first, or None."""
    if isinstance(expected, dict) and isinstance(got, dict):
        if set(expected) != set(got):
            return (
                f"{path}: missing {sorted(set(expected) - set(got))[:5]}, extra {sorted(set(got) - set(expected))[:5]}"
            )
        pairs = [(f"{path}.{key}", expected[key], got[key]) for key in expected]
    elif isinstance(expected, list) and isinstance(got, list):
        if len(expected) != len(got):
            return f"{path}: {len(expected)} entries expected, {len(got)} got: {str(got)[:200]}"
        pairs = [(f"{path}[{index}]", *pair) for index, pair in enumerate(zip(expected, got, strict=True))]
    elif isinstance(expected, bool) != isinstance(got, bool) or expected != got:
        return f"{path}: {str(expected)[:200]!r} expected, {str(got)[:200]!r} got"
    else:
        return None
    return next((found for name, one, other in pairs if (found := first_difference(one, other, name))), None)


def _answer(recording: Recording, response: httpx.Response) -> dict[str, Any]:
    """Return those parts of an answer that the recording has."""
    parts: Mapping[str, Callable[[], Any]] = {
        "decoded": lambda: [[key, typed(tree)] for key, tree in treestream.trees(response.content)],
        "json": response.json,
        "text": lambda: response.text,
        "empty_body": lambda: not response.content,
        "answer_headers": lambda: {name: response.headers.get(name) for name in recording["answer_headers"]},
    }
    return {name: read() for name, read in parts.items() if name in recording}


def _bad_error_body(response: httpx.Response) -> str | None:
    """Every error needs a JSON body: the pages parse it before they look at anything else."""
    body = response.json()
    return None if "detail" in body else f"an error without detail: {body}"


def _normalize(document: dict[str, Any], recording: Recording, allowance: Allowance) -> None:
    changes: Sequence[tuple[Sequence[str], Callable[[Any], Any]]] = (
        (allowance.lengths, _length),
        ((*recording.get("volatile", ()), *allowance.ignored), lambda _: ANY),
        ((*FREE_ORDER, *recording.get("unordered", ()), *allowance.unordered), _sorted),
    )
    for paths, change in changes:
        for path in paths:
            _change(document, _steps(path), change)


def _length(value: Any) -> Any:
    return len(value["$f64"] if isinstance(value, dict) else value)


def _steps(path: str) -> list[str]:
    return re.findall(r"[^.\[\]]+", path)


def _at(document: Mapping[str, Any], path: str) -> Any:
    """Follow a path of a `capture`; it begins in the JSON or in the pairs of a stream."""
    node = document["decoded"] if "decoded" in document else document["json"]
    for step in _steps(path):
        node = node[int(step)] if isinstance(node, list) else node[step]
    return node


def _change(node: Any, steps: Sequence[str], change: Callable[[Any], Any]) -> Any:
    """Return `node` with `change` applied, in place, to all values below `steps`; `*` is every key or position.

    What a stream holds is a list of pairs, `decoded`: there and in a `$map` a step names a pair by its key, and `0`
    as the last step is the key itself.
    """
    if not steps:
        return change(node)
    head, rest = steps[0], steps[1:]
    if head == "decoded" and "decoded" in node:
        pairs = node["decoded"]
        node["decoded"] = _change_pairs(pairs, rest, change) if rest and pairs != ANY else change(pairs)
    elif isinstance(node, dict) and "$map" in node:
        _change_pairs(node["$map"], steps, change)
    elif isinstance(node, dict):
        for key in node:
            if head in ("*", key):
                node[key] = _change(node[key], rest, change)
    elif isinstance(node, list):
        for position, each in enumerate(node):
            if head in ("*", str(position)):
                node[position] = _change(each, rest, change)
    return node


def _change_pairs(pairs: list[list[Any]], steps: Sequence[str], change: Callable[[Any], Any]) -> list[list[Any]]:
    head, rest = steps[0], list(steps[1:])
    for pair in pairs:
        if head in ("*", str(pair[0])):
            place = 0 if rest == ["0"] else 1
            pair[place] = _change(pair[place], [] if rest == ["0"] else rest, change)
    return pairs


def _sorted(value: Any) -> Any:
    return sorted(value, key=lambda item: json.dumps(item, sort_keys=True)) if isinstance(value, list) else value


def _copied(value: Any) -> Any:
    return json.loads(json.dumps(value))
