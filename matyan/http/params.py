"""Query, path and header parameters as dependencies: booleans as people write them, ranges, the time zone.

@get("/{run_id:str}/logs", dependencies={"record_range": step_range("record_range")})
async def logs(self, run_id: FromPath[str], record_range: NamedDependency[StepRange]) -> ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from litestar import Request
from litestar.di import Provide

from matyan.errors import InvalidArgumentError
from matyan.http.dialect import dialect_of
from matyan.http.faults import RequestFaultError, text_fault

_TRUE: Final = frozenset({"true", "1", "yes", "on", "t", "y"})
_FALSE: Final = frozenset({"false", "0", "no", "off", "f", "n"})


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
        InvalidArgumentError: an end is no integer.
    """
    parts = text.split(":")
    try:
        ends = [int(part) if part.strip() else None for part in parts[:2]]
    except ValueError as error:
        raise InvalidArgumentError("Invalid range format") from error
    if len(ends) == 1:
        return StepRange(ends[0], None) if bare_is_start else ALL
    return StepRange(ends[0], ends[1])


def flag(name: str, *, default: bool) -> Provide:
    """Make the dependency of a boolean query parameter; what is no boolean is 422."""

    def read(request: Request[Any, Any, Any]) -> bool:
        text = request.query_params.get(name)
        if text is None:
            return default
        value = read_flag(text)
        if value is None:
            raise RequestFaultError(text_fault("bool", "query", name, text))
        return value

    return _provide(read)


def integer(
    name: str, *, default: int = 0, source: Literal["query", "path"] = "query", loc: str | None = None
) -> Provide:
    """Make the dependency of an integer parameter; what is no integer is 422, under the name `loc` if one is given."""

    def read(request: Request[Any, Any, Any]) -> int:
        text = request.query_params.get(name) if source == "query" else request.path_params.get(name)
        return default if text is None else _integer(str(text), source, loc or name)

    return _provide(read)


def optional_integer(name: str) -> Provide:
    """Make the dependency of an integer query parameter that may be missing: None then."""

    def read(request: Request[Any, Any, Any]) -> int | None:
        text = request.query_params.get(name)
        return None if text is None else _integer(str(text), "query", name)

    return _provide(read)


def step_range(name: str) -> Provide:
    """Make the dependency of a range in a query parameter; a missing one is everything."""

    def read(request: Request[Any, Any, Any]) -> StepRange:
        text = request.query_params.get(name) or ""
        return read_range(text, bare_is_start=dialect_of(request.scope["path"]).bare_range_is_start)

    return _provide(read)


def texts(name: str) -> Provide:
    """Make the dependency of a query parameter that may stand several times."""

    def read(request: Request[Any, Any, Any]) -> list[str]:
        return list(request.query_params.getall(name, []))

    return _provide(read)


def timezone_offset() -> Provide:
    """Make the dependency of `X-Timezone-Offset`: minutes, UTC minus local; 0 when missing, 422 when no integer."""
    header = "x-timezone-offset"

    def read(request: Request[Any, Any, Any]) -> int:
        text = request.headers.get(header)
        return 0 if text is None else _integer(text, "header", header)

    return _provide(read)


def _integer(text: str, source: Literal["query", "path", "header"], name: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise RequestFaultError(text_fault("int", source, name, text)) from error


def _provide(read: Callable[[Request[Any, Any, Any]], Any]) -> Provide:
    return Provide(read, sync_to_thread=False)
