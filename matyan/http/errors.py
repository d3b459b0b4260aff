"""Error code -> status and body, one table; Litestar's own errors and those of request bodies included."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap

from matyan.errors import MatyanError, QuerySyntaxError
from matyan.http.answers import json_response
from matyan.http.dialect import Dialect, dialect_of
from matyan.http.faults import Fault, RequestFaultError, faults_of

logger = logging.getLogger(__name__)


class ErrorRow(NamedTuple):
    """How one error code is answered."""

    status: int
    name: str
    """The `error.code` of the Matyan dialect."""


ERRORS: Final[Mapping[str, ErrorRow]] = {
    "invalid_argument": ErrorRow(400, "bad_request"),
    "unauthenticated": ErrorRow(401, "unauthorized"),
    "forbidden": ErrorRow(403, "forbidden"),
    "not_found": ErrorRow(404, "not_found"),
    "conflict": ErrorRow(409, "conflict"),
    "too_large": ErrorRow(413, "error"),
    "rate_limited": ErrorRow(429, "error"),
    "unavailable": ErrorRow(503, "error"),
    "internal": ErrorRow(500, "internal_error"),
}
"""Code of `matyan.errors` -> answer. A conflict is 400 under `/api` (`Dialect.conflict_status`)."""

_NAMES: Final[Mapping[int, str]] = {row.status: row.name for row in ERRORS.values() if row.name != "error"}


def status_of(error: MatyanError, dialect: Dialect) -> int:
    """Return the HTTP status of an error of ours."""
    return dialect.conflict_status if error.code == "conflict" else ERRORS[error.code].status


def error_body(dialect: Dialect, status: int, message: str, *, name: str, detail: Any = None) -> dict[str, Any]:
    """Return the body of a deliberate error; `detail` replaces the text that stands there by default."""
    if dialect.error_codes:
        return {"message": message, "detail": detail or message, "error": {"code": name, "message": message}}
    return {"message": message, "detail": detail or f"{status}: {message}"}


def _on_matyan_error(request: Request[Any, Any, Any], error: MatyanError) -> Response[bytes]:
    dialect = dialect_of(request.scope["path"])
    status = status_of(error, dialect)
    if status >= 500:  # noqa: PLR2004 - the border between the caller's fault and ours
        logger.error("request failed", extra={"code": error.code, "error": error.message}, exc_info=error)
    body = error_body(dialect, status, error.message, name=ERRORS[error.code].name)
    return json_response(body, status=status, headers={"retry-after": "1"} if error.code == "unavailable" else None)


def _on_query_syntax_error(request: Request[Any, Any, Any], error: QuerySyntaxError) -> Response[bytes]:
    detail = {
        "statement": error.statement or "",
        "line": error.line,
        "offset": error.offset,
        "end_offset": error.end_offset,
    }
    dialect = dialect_of(request.scope["path"])
    body = error_body(dialect, 400, "SyntaxError", name="bad_request", detail=detail)
    return json_response(body, status=400)


def _on_validation_error(request: Request[Any, Any, Any], error: ValidationException) -> Response[bytes]:
    return _faults_response(request, faults_of(request, error))


def _on_request_fault(request: Request[Any, Any, Any], error: RequestFaultError) -> Response[bytes]:
    return _faults_response(request, error.faults)


def _on_unencodable(request: Request[Any, Any, Any], _: UnicodeEncodeError) -> Response[bytes]:
    """Answer a lone surrogate where no text or no such text was expected: JSON can say it, UTF-8 cannot."""
    fault = Fault("string_unicode", ("body",), "a text holds a lone surrogate, which UTF-8 cannot carry")
    return _faults_response(request, [fault])


def _faults_response(request: Request[Any, Any, Any], faults: Sequence[Fault]) -> Response[bytes]:
    dialect = dialect_of(request.scope["path"])
    body: dict[str, Any] = {"detail": faults}
    if dialect.error_codes:
        text = "; ".join(f"{'.'.join(map(str, fault.loc))}: {fault.msg}" for fault in faults)
        body = error_body(dialect, 422, text, name="validation_error", detail=faults)
    return json_response(body, status=422)


def _on_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Answer what Litestar raised: no route, a wrong method, a body too large, a refused guard."""
    dialect = dialect_of(request.scope["path"])
    status = error.status_code
    if status in (404, 405) and not dialect.error_codes:
        body: dict[str, Any] = {"detail": error.detail}
    else:
        body = error_body(dialect, status, error.detail, name=_NAMES.get(status, "error"))
    return json_response(body, status=status, headers=_allowed(error.headers or {}))


def _allowed(headers: Mapping[str, str]) -> dict[str, str]:
    """Leave OPTIONS out of Allow: Litestar adds it to every route, the contract does not."""
    methods = [method for method in headers.get("allow", "").split(", ") if method and method != "OPTIONS"]
    return {**headers, "allow": ", ".join(sorted(methods))} if methods else dict(headers)


def _on_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer a fault of ours; its text stays in the log, since it may hold another user's data."""
    logger.error("request raised", extra={"path": request.scope.get("path_template", "")}, exc_info=error)
    dialect = dialect_of(request.scope["path"])
    message = f"'{type(error)}' exception raised!"
    detail = "internal error, see the log of the server"
    return json_response(error_body(dialect, 500, message, name="internal_error", detail=detail), status=500)


EXCEPTION_HANDLERS: Final[ExceptionHandlersMap] = {
    MatyanError: _on_matyan_error,
    QuerySyntaxError: _on_query_syntax_error,
    RequestFaultError: _on_request_fault,
    ValidationException: _on_validation_error,
    HTTPException: _on_http_exception,
    UnicodeEncodeError: _on_unencodable,
    Exception: _on_unexpected,
}
