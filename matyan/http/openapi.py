"""The OpenAPI document: what Litestar sees in the handlers, and what this server adds to every operation.

Litestar describes parameters, bodies and the answers that handlers declare with `answers` and `streams`. Errors are the
same everywhere and differ by dialect only, so they are added here, by what an operation can meet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema

from matyan.http.answers import JSON, json_bytes
from matyan.http.dialect import Dialect, dialect_of
from matyan.http.faults import Fault

STREAM: Final = "application/octet-stream"
_SCHEMAS: Final = "#/components/schemas/"
_PATHS: Final = {"/metrics": "/metrics/"}
"""Route -> path to show: without the slash it may be a page of the UI."""
_METHODS: Final = frozenset({"get", "put", "post", "delete", "patch"})

Responses = dict[int, ResponseSpec]


def answers(kind: Any, description: str, *, status: int = 200) -> Responses:
    """Declare what a handler answers when all is well: `responses=answers(list[Tag], "All tags.")`.

    Args:
        kind: the type of the JSON body, as `json_bytes` writes it; None for the body `null`.
        description: a sentence for the reader of the document.
        status: the HTTP status.
    """
    return {status: ResponseSpec(Null if kind is None else kind, False, description, JSON)}


def deletes(description: str) -> Responses:
    """Declare `null`, or an empty answer with status 204 where the dialect wants that (`Dialect.delete_status`)."""
    return answers(None, description) | {204: ResponseSpec(None, False, description, JSON)}


def streams(description: str, media_type: str = STREAM) -> Responses:
    """Declare a stream of bytes."""
    return {200: ResponseSpec(Any, False, description, media_type)}


class Null(msgspec.Struct):
    """Stands for the body `null`, which no type of Litestar's schemas says."""


@dataclass
class TakesBytes(Operation):
    """`operation_class=TakesBytes` on a handler that reads a body of any type and size from the request itself."""

    def __post_init__(self) -> None:
        """Declare the body."""
        self.request_body = RequestBody(content={STREAM: OpenAPIMediaType(schema=Schema())}, required=True)


# ---- errors


class ErrorCode(msgspec.Struct):
    """The kind of an error, for programs."""

    code: Literal[
        "bad_request",
        "unauthorized",
        "forbidden",
        "not_found",
        "conflict",
        "validation_error",
        "internal_error",
        "error",
    ]
    message: str


class AimError(msgspec.Struct, omit_defaults=True):
    """An error under `/api`: of a query, `detail` says where it is wrong; a route that is not there has no message."""

    detail: str | dict[str, Any]
    message: str = ""


class AimFaults(msgspec.Struct):
    """What is wrong with parameters or body, under `/api`."""

    detail: list[Fault]


class MatyanError(msgspec.Struct):
    """An error under `/api/v1`: of a query, `detail` says where it is wrong."""

    message: str
    detail: str | dict[str, Any]
    error: ErrorCode


class MatyanFaults(msgspec.Struct):
    """What is wrong with parameters or body, under `/api/v1`."""

    message: str
    detail: list[Fault]
    error: ErrorCode


_BODIES: Final[Mapping[str, tuple[str, str]]] = {
    "aim": (AimError.__name__, AimFaults.__name__),
    "matyan": (MatyanError.__name__, MatyanFaults.__name__),
}
"""Dialect -> body of an error, body of faults."""


class _Error(NamedTuple):
    status: int
    description: str
    can_happen: Callable[[Mapping[str, Any], Dialect], bool]


def _asks(operation: Mapping[str, Any], _: Dialect) -> bool:
    return "parameters" in operation or "requestBody" in operation


def _may_be_too_much(operation: Mapping[str, Any], _: Dialect) -> bool:
    return "requestBody" in operation


def _names_something(operation: Mapping[str, Any], _: Dialect) -> bool:
    return any(parameter["in"] == "path" for parameter in operation.get("parameters", ())) or "requestBody" in operation


def _may_conflict(operation: Mapping[str, Any], dialect: Dialect) -> bool:
    return "requestBody" in operation and dialect.conflict_status == 409  # noqa: PLR2004 - else it is a 400


_ERRORS: Final = (
    _Error(400, "The request makes no sense, names what is taken, or asks what takes too long.", _asks),
    _Error(403, "Not from this host or origin, or not on a read-only server.", lambda *_: True),
    _Error(404, "There is no such thing.", _names_something),
    _Error(409, "The name is taken.", _may_conflict),
    _Error(413, "The body is too large.", _may_be_too_much),
    _Error(422, "A parameter or the body has the wrong form.", _asks),
    _Error(503, "The server is overloaded, or stopping; try again.", lambda *_: True),
)

# ---- the document


class Document:
    """The document of one app, made when it is first asked for."""

    def __init__(self, make_app: Callable[[], Litestar], *, base_path: str) -> None:
        """Remember how to make it.

        Args:
            make_app: makes an app of the same routes that has an OpenAPI configuration; it is never served.
            base_path: where the server of the document begins.
        """
        self._make_app = make_app
        self._base_path = base_path
        self._lock = threading.Lock()
        self._encoded: bytes | None = None

    def encoded(self) -> bytes:
        """Return the document as JSON; the first call takes about half a second."""
        with self._lock:
            if self._encoded is None:
                schema = self._make_app().openapi_schema.to_schema()
                self._encoded = json_bytes(complete(schema, base_path=self._base_path))
            return self._encoded


def complete(schema: dict[str, Any], *, base_path: str) -> dict[str, Any]:
    """Add to Litestar's schema what holds for all operations: errors, tags, summaries, where the server is."""
    _, components = msgspec.json.schema_components(
        [AimError, AimFaults, MatyanError, MatyanFaults], ref_template=f"{_SCHEMAS}{{name}}"
    )
    schema["components"]["schemas"] |= components
    schema["components"]["schemas"][Null.__name__] = {"type": "null"}
    schema["paths"] = {_PATHS.get(path, path): item for path, item in schema["paths"].items()}
    for path, operation in operations(schema):
        dialect = dialect_of(path)
        _add_errors(operation, dialect)
        operation["tags"] = [_tag(path)]
        operation["summary"] = operation.get("description", "").partition("\n")[0]
    schema["servers"] = [{"url": base_path or "/"}]
    return schema


def operations(schema: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield path and description of every operation."""
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            if method in _METHODS:
                yield path, operation


def named_for(dialect: Dialect, handlers: Collection[HTTPRouteHandler]) -> list[HTTPRouteHandler]:
    """Return the handlers with operation ids that no other dialect has, and with the answers of this dialect."""
    return [_named(dialect, handler) for handler in handlers]


def _named(dialect: Dialect, handler: HTTPRouteHandler) -> HTTPRouteHandler:
    named = copy(handler)
    if isinstance(handler.operation_id, str):
        named.operation_id = f"{dialect.name}_{handler.operation_id}"
    if handler.responses:
        unwanted = {200, 204} - {dialect.delete_status} if 204 in handler.responses else ()  # noqa: PLR2004
        named.responses = {status: spec for status, spec in handler.responses.items() if status not in unwanted}
    return named


def _add_errors(operation: dict[str, Any], dialect: Dialect) -> None:
    """Replace the errors that Litestar thinks of by ours; take out its idea of a 200 where the answer is 204."""
    error, faults = _BODIES[dialect.name]
    responses = {status: answer for status, answer in operation["responses"].items() if status != "400"}
    if "204" in responses:
        responses.pop("200", None)
    for row in _ERRORS:
        if row.can_happen(operation, dialect) and str(row.status) not in responses:
            body = {"$ref": _SCHEMAS + (faults if row.status == 422 else error)}  # noqa: PLR2004
            responses[str(row.status)] = {"description": row.description, "content": {JSON: {"schema": body}}}
    operation["responses"] = responses


def _tag(path: str) -> str:
    """Return the group of a path: its dialect and its first word, or `server` for what stands outside of both."""
    dialect = dialect_of(path)
    if not path.startswith(f"{dialect.prefix}/"):
        return "server"
    return f"{dialect.name} {path.removeprefix(dialect.prefix).split('/')[1]}"
