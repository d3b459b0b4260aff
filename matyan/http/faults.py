"""What is wrong with a request, field by field, in the shape that FastAPI's clients know (status 422)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec
from litestar import Request
from litestar.exceptions import ValidationException

from matyan.errors import InvalidArgumentError

Source = Literal["query", "path", "header", "body"]


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """One fault: its kind, where it is, what to do, what was sent."""

    type: str
    loc: tuple[str | int, ...]
    msg: str
    input: Any = msgspec.field(default=msgspec.UNSET)
    ctx: Mapping[str, str] | msgspec.UnsetType = msgspec.UNSET


class RequestFaultError(InvalidArgumentError):
    """The request has faults; answered with 422 and all of them."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(fault.msg for fault in faults))
        self.faults: Sequence[Fault] = faults


class _Kind(NamedTuple):
    type: str
    msg: str


_FROM_TEXT: Final[Mapping[str, _Kind]] = {
    "int": _Kind("int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
    "int_size": _Kind("int_parsing_size", "Unable to parse input string as an integer, exceeded maximum size"),
    "float": _Kind("float_parsing", "Input should be a valid number, unable to parse string as a number"),
    "bool": _Kind("bool_parsing", "Input should be a valid boolean, unable to interpret input"),
}
_EXPECTED: Final[Mapping[str, _Kind]] = {
    "int": _Kind("int_type", "Input should be a valid integer"),
    "float": _Kind("float_type", "Input should be a valid number"),
    "bool": _Kind("bool_type", "Input should be a valid boolean"),
    "str": _Kind("string_type", "Input should be a valid string"),
    "array": _Kind("list_type", "Input should be a valid list"),
    "object": _Kind("dict_type", "Input should be a valid dictionary"),
    "uuid": _Kind("uuid_parsing", "Input should be a valid UUID"),
}
_MISSING: Final = re.compile(r"Object missing required field `([^`]*)`")
_MISMATCH: Final = re.compile(r"Expected `(?:object \| (?=array))?([a-z]+)[^`]*`, got `([a-z]+)`")
"""Where a list or an empty object is fine, a list is what to send."""
_STEP: Final = re.compile(r"([^.\[\]]+)|\[(\d+)\]")

BODY_KEY: Final = "matyan_body"
"""Where `JsonRequest` leaves the decoded body in the scope's state, for the messages made here."""


def text_fault(kind: Literal["int", "int_size", "float", "bool"], source: Source, name: str, text: str) -> Fault:
    """Return the fault of a text that does not read as a number or boolean."""
    row = _FROM_TEXT[kind]
    return Fault(row.type, (source, name), row.msg, text)


def faults_of(request: Request[Any, Any, Any], error: ValidationException) -> list[Fault]:
    """Translate what Litestar found wrong with the parameters or the body."""
    return [_fault(request, item, error) for item in error.extra or () if isinstance(item, dict)] or [
        Fault("value_error", ("body",), error.detail)
    ]


def _fault(request: Request[Any, Any, Any], item: Mapping[str, Any], error: ValidationException) -> Fault:
    source, message = str(getattr(item.get("source"), "value", "body")), str(item.get("message", ""))
    if source != "body":
        key = str(item.get("key", ""))
        given = request.query_params.get(key) if source == "query" else request.headers.get(key)
        return _from_message(message, (source, key), msgspec.UNSET if given is None else given)
    body = request.scope["state"].get(BODY_KEY, msgspec.UNSET)
    if body is msgspec.UNSET:
        return Fault("missing", ("body",), "Field required", None)
    steps = _body_steps(str(item.get("key", "")), str(error.__cause__))
    return _from_message(message, ("body", *steps), _at(body, steps))


def _from_message(message: str, loc: tuple[str | int, ...], given: Any) -> Fault:
    """Read msgspec's words: they are the only thing that says what kind of fault it was."""
    if match := _MISSING.match(message):
        return Fault("missing", (*loc, match[1]), "Field required", given)
    if match := _MISMATCH.match(message):
        wanted, got = match.groups()
        row = _FROM_TEXT.get(wanted) if got == "str" else None
        row = row or _EXPECTED.get(wanted)
        if row is not None:
            return Fault(row.type, loc, row.msg, given)
    return Fault("value_error", loc, message, given)


def _body_steps(key: str, cause: str) -> list[str | int]:
    """Return the path inside the body: Litestar's key loses list positions, msgspec's own text has them."""
    path = cause.rpartition("at `$.data")[2].rstrip("`") if "at `$.data" in cause else key.removeprefix("data")
    return [int(index) if index else name for name, index in _STEP.findall(path)]


def _at(body: Any, steps: Sequence[str | int]) -> Any:
    for step in steps:
        try:
            body = body[step]
        except (KeyError, IndexError, TypeError):
            return msgspec.UNSET
    return body
