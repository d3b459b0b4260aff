"""Query and header parameters as dependencies: booleans as people write them, ranges, the time zone.

@get("/{run_id:str}/logs", dependencies={"record_range": step_range("record_range")})
async def logs(self, run_id: FromPath[str], record_range: NamedDependency[StepRange]) -> ...

Each takes its parameter as text and reads it itself, because the contract's words and faults are not Litestar's. It
declares the parameter to Litestar with the type that clients should send: the OpenAPI schema shows that (ADR 0014).

Handlers that ask for the same share the dependency: to declare one takes a fifth of a millisecond at every start.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Final, Literal, NamedTuple

from litestar import Request
from litestar.di import Provide
from litestar.openapi.spec import OpenAPIType
from litestar.params import HeaderParameter, ParameterKwarg, QueryParameter

from matyan.errors import InvalidArgumentError
from matyan.http.dialect import dialect_of
from matyan.http.faults import Fault, RequestFaultError, text_fault

INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**63 - 1
"""What an integer parameter may be; nothing that is stored or counted is larger."""
OFFSET_MINUTES_MAX: Final = 24 * 60
"""No time zone is further from UTC; much further, and local times leave the calendar."""

_TRUE: Final = frozenset({"true", "1", "yes", "on", "t", "y"})
_FALSE: Final = frozenset({"false", "0", "no", "off", "f", "n"})
_RANGE_PATTERN: Final = r"^(-?\d{1,18})?(:(-?\d{1,18})?)?$"
_INTEGER_SCHEMA: Final = {"type": OpenAPIType.INTEGER, "minimum": INTEGER_MIN, "maximum": INTEGER_MAX}


class StepRange(NamedTuple):
    """A half-open range of steps or positions; None where the request leaves an end open."""

    begin: int | None
    end: int | None


ALL: Final = StepRange(None, None)


def read_flag(text: str) -> bool | None:
    """Return the boolean that `text` says, or None when it says none."""
    word = text.lower()
    return True if word in _TRUE else False if word in _FALSE else None


def read_range(text: str, *, bare_is_start: bool) -> StepRange:
    """Parse `a:b`, `a:`, `:b`, or nothing; blanks around are fine, a third part is ignored.

    With `bare_is_start`, `5` means `5:`; else it means everything.

    Raises:
        InvalidArgumentError: an end is no integer, or one that no step can be.
    """
    parts = text.split(":")
    try:
        ends = [int(part) if part.strip() else None for part in parts[:2]]
    except ValueError as error:
        raise InvalidArgumentError("Invalid range format") from error
    if any(end is not None and not INTEGER_MIN <= end <= INTEGER_MAX for end in ends):
        raise InvalidArgumentError("Invalid range format")
    if len(ends) == 1:
        return StepRange(ends[0], None) if bare_is_start else ALL
    return StepRange(ends[0], ends[1])


@cache
def flag(name: str, *, default: bool, description: str | None = None) -> Provide:
    """Make the dependency of a boolean query parameter; what is no boolean is 422."""

    def read(text: str) -> bool:
        value = read_flag(text)
        if value is None:
            raise RequestFaultError(text_fault("bool", "query", name, text))
        return value

    schema = {"type": OpenAPIType.BOOLEAN, "default": default}
    return _declared(QueryParameter(name=name, description=description, schema_extra=schema), read, str(default))


@cache
def integer(name: str, *, default: int = 0, description: str | None = None) -> Provide:
    """Make the dependency of an integer query parameter; what is no integer of 64 bits is 422."""
    schema = _INTEGER_SCHEMA | {"default": default}
    parameter = QueryParameter(name=name, description=description, schema_extra=schema)
    return _declared(parameter, lambda text: _integer(text, "query", name), str(default))


@cache
def optional_integer(name: str, *, description: str | None = None) -> Provide:
    """Make the dependency of an integer query parameter that may be missing: None then."""

    def read(text: str | None) -> int | None:
        return None if text is None else _integer(text, "query", name)

    parameter = QueryParameter(name=name, description=description, schema_extra=_INTEGER_SCHEMA | {"one_of": None})
    return _declared(parameter, read, None, kind=str | None)


@cache
def step_range(name: str) -> Provide:
    """Make the dependency of a range in a query parameter; a missing one is everything."""

    def read(text: str, request: Request[Any, Any, Any]) -> StepRange:
        return read_range(text, bare_is_start=dialect_of(request.scope["path"]).bare_range_is_start)

    description = "`begin:end`, half-open; either end may be missing."
    schema = {"pattern": _RANGE_PATTERN}
    return _declared(QueryParameter(name=name, description=description, schema_extra=schema), read, "")


@cache
def texts(name: str, *, description: str | None = None) -> Provide:
    """Make the dependency of a query parameter that may stand several times."""
    parameter = QueryParameter(name=name, description=description)
    return _declared(parameter, lambda found: found, (), kind=list[str])


@cache
def timezone_offset() -> Provide:
    """Make the dependency of `X-Timezone-Offset`: minutes, UTC minus local; 0 when missing, 422 when no such thing."""
    header = "x-timezone-offset"

    def read(text: str) -> int:
        minutes = _integer(text, "header", header)
        if abs(minutes) > OFFSET_MINUTES_MAX:
            message = f"Value error, the offset is {minutes} minutes; it is at most {OFFSET_MINUTES_MAX} either way"
            raise RequestFaultError(Fault("value_error", ("header", header), message, text))
        return minutes

    parameter = HeaderParameter(
        name="X-Timezone-Offset",
        description="Minutes, UTC minus the client's time, as JavaScript's `getTimezoneOffset` has it.",
        schema_extra={
            "type": OpenAPIType.INTEGER,
            "minimum": -OFFSET_MINUTES_MAX,
            "maximum": OFFSET_MINUTES_MAX,
            "default": 0,
        },
    )
    return _declared(parameter, read, "0")


@cache
def wants_plan() -> Provide:
    """Make the dependency of `X-Matyan-Explain`: whether the answer shall tell the plan of its query."""
    parameter = HeaderParameter(
        name="X-Matyan-Explain",
        description="`1` to be told the plan of the query in the header `X-Matyan-Plan`.",
        schema_extra={"type": OpenAPIType.STRING, "default": "0"},
    )
    return _declared(parameter, lambda text: read_flag(text) is True, "0")


def _integer(text: str, source: Literal["query", "header"], name: str) -> int:
    try:
        number = int(text)
    except ValueError as error:
        raise RequestFaultError(text_fault("int", source, name, text)) from error
    if not INTEGER_MIN <= number <= INTEGER_MAX:
        raise RequestFaultError(text_fault("int_size", source, name, text))
    return number


def _declared(parameter: ParameterKwarg, read: Callable[..., Any], default: Any, *, kind: Any = str) -> Provide:
    """Make the dependency that takes `parameter` as `kind` and gives it to `read`, and the request if that wants it.

    Litestar goes by the signature of a dependency. The names in it must differ from those of all dependencies of a
    handler and of their parameters, so it is made here.
    """
    field = f"{parameter.name}_text".replace("-", "_").lower()
    with_request = "request" in inspect.signature(read).parameters

    def dependency(**given: Any) -> Any:
        return read(given.pop(field), **given)

    keyword = inspect.Parameter.KEYWORD_ONLY
    fields = [inspect.Parameter(field, keyword, default=default)]
    dependency.__annotations__ = {field: Annotated[kind, parameter], "return": Any}
    if with_request:
        fields.append(inspect.Parameter("request", keyword))
        dependency.__annotations__["request"] = Request[Any, Any, Any]
    dependency.__signature__ = inspect.Signature(fields)  # type: ignore[attr-defined]  # what is set here is looked at
    return Provide(dependency, sync_to_thread=False)
