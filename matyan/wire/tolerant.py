"""The tolerant path: frames that JSON or our types do not take as they are, read item by item.

Python's JSON reader takes what Python's writer (and so matyan-client) writes: NaN, Infinity, integers of any size, lone
surrogates. What the types refuse is mended where its meaning is plain (`"0.5"`, `1.0` as a step, a time without zone).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, cast, get_args

import msgspec

from matyan.errors import InvalidArgumentError
from matyan.limits import JSON_DEPTH_MAX, STEP_MAX, STEP_MIN
from matyan.wire.checks import MOMENT_SECONDS_MAX, is_deeper_than
from matyan.wire.messages import NO_CONTEXT, Command, Moment

TYPES: Final[Mapping[str, type[Command]]] = {str(kind.__struct_config__.tag): kind for kind in get_args(Command)}
OBJECT_KINDS: Final = frozenset({"image", "audio", "text", "distribution", "figure"})
"""`dtype` or `value.type` that make a `log_metric` with an object as value a `log_custom_object`."""
EXCERPT_CHARACTERS_MAX: Final = 400
_INTEGER_DIGITS_MAX: Final = 4300
"""Python converts no longer integers; they stay decimal text."""
_MILLISECONDS: Final = 1000

# An escaped backslash and a proper pair are matched to be stepped over; the group is a surrogate that stands alone.
_SURROGATES: Final = re.compile(
    r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]', re.DOTALL)


class Unreadable(NamedTuple):
    """An item too deep to be decoded."""

    reason: str
    excerpt: str


def parse_items(data: bytes) -> list[object]:
    """Return the items of a frame as JSON-like data, `Unreadable` in place of those nested too deep.

    Raises:
        InvalidArgumentError: the frame is not UTF-8, not JSON, or neither an object nor an array.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgumentError("the frame is not UTF-8") from error
    if "\\ud" in text or "\\uD" in text:
        text = _SURROGATES.sub(lambda match: "\\ufffd" if match[1] else match[0], text)
    try:
        frame = _parse(text)
    except RecursionError:
        return [_parse_bounded(part, depth) for part, depth in _split(text)]
    if isinstance(frame, list):
        return frame
    if isinstance(frame, dict):
        return [frame]
    raise InvalidArgumentError(f"a frame is an object or an array of objects, not {_word(frame)}")


def mend(item: object) -> Command:
    """Return the item as a command, odd members mended.

    Raises:
        InvalidArgumentError: it is none; the message says which member is wrong.
    """
    if isinstance(item, Unreadable):
        raise InvalidArgumentError(item.reason)
    if not isinstance(item, dict):
        raise InvalidArgumentError(f"an item is an object, not {_word(item)}")
    if is_deeper_than(item, JSON_DEPTH_MAX):
        raise InvalidArgumentError(f"nested deeper than {JSON_DEPTH_MAX} levels")
    kind = item.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        raise InvalidArgumentError(f"unknown type {str(kind)[:100]!r}, known are {', '.join(TYPES)}")
    if kind == "log_metric" and isinstance(item.get("value"), dict | list):
        kind = _object_type(item)
    menders = _MENDERS.get(kind, {})
    mended = item | {name: fix(item[name]) for name, fix in menders.items() if name in item} | {"type": kind}
    try:
        return msgspec.convert(mended, TYPES[kind])
    except msgspec.ValidationError as error:
        raise InvalidArgumentError(str(error).replace(" - at `$.", " - at `")) from error


def type_of(item: object) -> str:
    """Return what the item says of its type, for people."""
    return str(item["type"])[:100] if isinstance(item, dict) and "type" in item else ""


def excerpt_of(item: object) -> str:
    """Return the beginning of an item, for people; containers in it are not shown."""
    if isinstance(item, Unreadable):
        return item.excerpt
    shown = {str(key)[:100]: _short(value) for key, value in item.items()} if isinstance(item, dict) else _short(item)
    return json.dumps(shown, ensure_ascii=False)[:EXCERPT_CHARACTERS_MAX]


def _short(value: object) -> object:
    if isinstance(value, dict | list):
        return "{...}" if isinstance(value, dict) else "[...]"
    return str(value)[:100] if isinstance(value, str | int) and not isinstance(value, bool) else value


def _word(value: object) -> str:
    words = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "an array"}
    return words.get(type(value), "null")


# ---- JSON text -> data


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidArgumentError(f"the frame is not JSON: {error}") from error
    except ValueError:  # an integer with too many digits
        return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= _INTEGER_DIGITS_MAX else digits)


def _parse_bounded(text: str, depth: int) -> object:
    if depth > JSON_DEPTH_MAX:
        return Unreadable(f"nested deeper than {JSON_DEPTH_MAX} levels", text[:EXCERPT_CHARACTERS_MAX])
    return _parse(text)


def _split(text: str) -> Iterator[tuple[str, int]]:
    """Yield text and depth of every item of a frame that is too deep to be decoded as a whole."""
    text = text.strip()
    outer = 1 if text.startswith("[") else 0
    begin, depth, deepest = outer, 0, 0
    for match in _TOKEN.finditer(text):
        mark = match[0]
        if mark in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in "]}":
            depth -= 1
        elif mark == "," and depth == outer:
            yield text[begin : match.start()], deepest - outer
            begin, deepest = match.end(), depth
        if depth == 0 and match.end() != len(text):
            break
    if depth != 0 or match.end() != len(text):
        raise InvalidArgumentError("the frame is not JSON: brackets do not match")
    yield text[begin : len(text) - outer], deepest - outer


# ---- members


def _object_type(item: Mapping[str, Any]) -> str:
    value, dtype = item["value"], item.get("dtype")
    first = value[0] if isinstance(value, list) and value else value
    kind = first.get("type") if isinstance(first, dict) else None
    if not {str(dtype), str(kind)} & OBJECT_KINDS:
        raise InvalidArgumentError(f"value is {_word(value) if isinstance(value, list) else 'an object'}, not a number")
    return "log_custom_object"


def _number(value: object) -> object:
    """Return a double for whatever reads as one; text and booleans count, huge integers become infinite."""
    if isinstance(value, int | str):
        try:
            return float(value)
        except OverflowError:
            return math.inf if cast("int", value) > 0 else -math.inf
        except ValueError:
            raise InvalidArgumentError(f"{str(value)[:40]!r} is not a number") from None
    return value


def _integer(value: object) -> object:
    """Return an int64 for whatever is one: 3, 3.0, "3", true; None stays None."""
    number = value
    if isinstance(value, str):
        number = int(value) if re.fullmatch(r"\s*[+-]?\d{1,30}\s*", value, re.ASCII) else _number(value)
    if isinstance(number, float):
        if not number.is_integer():
            raise InvalidArgumentError(f"{value!s:.40} is not an integer")
        number = int(number)
    if isinstance(number, int) and not STEP_MIN <= number <= STEP_MAX:
        raise InvalidArgumentError(f"{value!s:.40} does not fit into 64 bit")
    return int(number) if isinstance(number, bool) else number


def _flag(value: object) -> object:
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    return bool(value) if isinstance(value, int | float) and value in {0, 1} else value


def _context(value: object) -> msgspec.Raw:
    if value is None:
        return NO_CONTEXT
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"the context is neither an object nor null but {_word(value)}")
    return msgspec.Raw(json.dumps(value).encode())


def _moment(value: object) -> Moment:
    """Return a client time; one that cannot be read counts as not given (time of arrival), a zone not given as UTC."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            try:
                return _seconds(float(value))
            except ValueError:
                return None
        return _in_utc(moment)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _seconds(cast("float", _number(value)))
    return None


def _in_utc(moment: datetime) -> datetime | None:
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:  # its UTC form lies outside the years 1 to 9999
        return None


def _seconds(number: float) -> float | None:
    seconds = number / _MILLISECONDS if abs(number) > MOMENT_SECONDS_MAX else number
    return seconds if abs(seconds) <= MOMENT_SECONDS_MAX else None


_POINT: Final[Mapping[str, Callable[[object], object]]] = {
    "step": _integer,
    "epoch": _number,
    "context": _context,
    "client_datetime": _moment,
}
_MENDERS: Final[Mapping[str, Mapping[str, Callable[[object], object]]]] = {
    "create_run": {"client_datetime": _moment, "force_resume": _flag},
    "set_run_property": {"archived": _flag},
    "log_metric": {**_POINT, "value": _number},
    "log_custom_object": _POINT,
    "log_terminal_line": {"step": _integer},
    "log_record": {"level": _integer, "timestamp": _number},
    "finish_run": {"client_datetime": _moment},
}
"""Type -> member -> what makes an acceptable value of an odd one."""
