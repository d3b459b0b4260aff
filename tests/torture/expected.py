"""From the frames of a run to what must be stored, and what may be.

Everything a run holds is a *slot*: a point, a param, a property, a tag, an object, a record, a line, a file. Each write
of a slot is certain (its frame was acknowledged) or not (its frame may be there once, or not at all).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from tests.support.oracle import BUCKETS, LEVELS
from tests.support.rest import canonical
from tests.torture.journal import Frame

Slot = tuple[Any, ...]
"""Kind of the slot, then what tells it from others of its kind."""
ABSENT: Final = None
"""The value of a slot that holds nothing, such as a tag that was removed."""
LINE: Final = "line of"
"""How a terminal line begins that counts; the released client prints its own troubles between them."""
PICTURES: Final = "seq/"
"""How the path of a file in its run begins when no artifact but an item names it."""


class Write(NamedTuple):
    """What one message does to one slot."""

    slot: Slot
    value: Any


@dataclass
class History:
    """All writes of one slot, in the order of sending."""

    certain: Any = ABSENT
    """What the last acknowledged write left."""
    is_certain: bool = False
    uncertain: list[Any] = field(default_factory=list)
    """What it may hold instead: values of frames without an answer, which may have arrived at any later moment."""

    def allows(self, value: Any) -> bool:
        """Tell whether the slot may hold this value."""
        if value in self.uncertain:
            return True
        return bool(value == self.certain)


Histories = dict[Slot, History]


def histories(frames: Iterable[Frame]) -> Histories:
    """Return what must and may stand in each slot of a run after these frames."""
    found: Histories = defaultdict(History)
    counted: dict[str, int] = defaultdict(int)
    for frame in frames:
        for write in _writes_of(frame, counted):
            history = found[write.slot]
            if frame.acknowledged:
                history.certain, history.is_certain = write.value, True
            else:
                history.uncertain.append(write.value)
    return found


def unique_slots(frames: Sequence[Frame]) -> list[list[Slot]]:
    """Return for each frame the slots that no other frame of the run writes and that stay for good."""
    counted: dict[str, int] = defaultdict(int)
    slots = [[write.slot for write in _writes_of(frame, counted) if write.slot[0] in LASTING] for frame in frames]
    writers: dict[Slot, int] = defaultdict(int)
    for own in slots:
        for slot in set(own):
            writers[slot] += 1
    return [[slot for slot in own if writers[slot] == 1] for own in slots]


LASTING: Final = frozenset({"point", "object", "record"})
"""Kinds of slots that are never emptied again."""


def in_order(frames: Sequence[Frame], applied: Sequence[str]) -> list[Frame]:
    """Return the frames that were applied, as certain ones, in the order in which they were.

    Args:
        frames: of one run; each has one log record.
        applied: the log records found, in order.
    """
    by_record = {record_of(frame): frame for frame in frames}
    return [replace(by_record[text], acknowledged=True) for text in applied if text in by_record]


def record_of(frame: Frame) -> str:
    """Return the text of the one log record of a raw writer's frame."""
    (text,) = [str(message["message"]) for message in frame.messages if message["type"] == "log_record"]
    return text


def line_of(frame: Frame) -> str:
    """Return the one terminal line of a raw writer's frame."""
    (text,) = [str(message["line"]) for message in frame.messages if message["type"] == "log_terminal_line"]
    return text


def number_text(value: Any) -> str:
    """Return text that is equal for equal bits, so that NaN equals itself and -0.0 is not 0.0."""
    return "none" if value is None else repr(float(value))


def json_text(value: Any) -> str:
    """Return text that is equal for equal JSON."""
    return json.dumps(value, sort_keys=True)


def point(value: Any, epoch: Any, milliseconds: int) -> tuple[str, str, int]:
    """Return the value of a point's slot; an epoch that was not given is NaN."""
    return number_text(value), number_text(float("nan") if epoch is None else epoch), milliseconds


def object_text(bucket: str, value: Mapping[str, Any]) -> str:
    """Return the value of an object's slot, from a message or from what was read."""
    members = {
        "images": ("caption", "format", "width", "height"),
        "texts": ("data",),
        "distributions": ("bin_count", "range", "data"),
        "figures": ("data",),
    }[bucket]
    return json_text({name: value.get(name) for name in members})


def is_seen(slot: Slot, stored: Mapping[Slot, Any]) -> bool:
    """Tell whether readers of the run can see what a slot holds.

    A picture and its announcement are frames of their own, and readers find a picture through its item alone. When the
    item's frame was refused or dropped, the picture lies in the bucket without being named; `lost_files` looks there.
    """
    return slot[0] != "file" or slot in stored or not slot[1].partition("/")[2].startswith(PICTURES)


def _writes_of(frame: Frame, counted: dict[str, int]) -> Iterator[Write]:
    yield Write(("run",), True)  # whatever comes first makes the run
    for message in frame.messages:
        step = message.get("step")
        if message["type"] == "log_metric" and step is None:
            step = counted[message["name"]]
            counted[message["name"]] += 1
        yield from _WRITES[message["type"]]({**message, "step": step})


def _property(message: Mapping[str, Any]) -> Iterator[Write]:
    for name in ("name", "description", "experiment", "archived"):
        if message.get(name) is not None:
            yield Write(("property", name), message[name])


def _create(_: Mapping[str, Any]) -> Iterator[Write]:
    # A run that is created again goes on, also when that frame waited in an outage and its end came by another way.
    yield Write(("property", "active"), ABSENT)


def _finish(_: Mapping[str, Any]) -> Iterator[Write]:
    yield Write(("property", "active"), False)


def _params(message: Mapping[str, Any]) -> Iterator[Write]:
    value: Any = message["value"]
    path: tuple[str, ...] = ()
    while isinstance(value, dict) and len(value) == 1:
        ((key, value),) = value.items()
        path = (*path, key)
    yield Write(("param", path), json_text(value))


def _metric(message: Mapping[str, Any]) -> Iterator[Write]:
    milliseconds = round(datetime.fromisoformat(message["client_datetime"]).timestamp() * 1000)
    slot = ("point", message["name"], canonical(message["context"]), message["step"])
    yield Write(slot, point(message["value"], message["epoch"], milliseconds))


def _object(message: Mapping[str, Any]) -> Iterator[Write]:
    value = message["value"]
    bucket = BUCKETS[value["type"]]
    slot = ("object", bucket, message["name"], canonical(message["context"]), message["step"])
    yield Write(slot, object_text(bucket, value))


def _tagged(message: Mapping[str, Any]) -> Iterator[Write]:
    yield Write(("tag", message["tag_name"]), True if message["type"] == "add_tag" else ABSENT)


def _line(message: Mapping[str, Any]) -> Iterator[Write]:
    if message["line"].startswith(LINE):
        yield Write(("line", message["line"]), 1)


def _record(message: Mapping[str, Any]) -> Iterator[Write]:
    arguments = json_text(message.get("extra_args") or {})
    yield Write(("record", message["message"]), (LEVELS[message["level"]], arguments))


def _file(message: Mapping[str, Any]) -> Iterator[Write]:
    yield Write(("file", message["s3_key"]), True)


_WRITES: Final[Mapping[str, Callable[[Mapping[str, Any]], Iterator[Write]]]] = {
    "create_run": _create,
    "set_run_property": _property,
    "finish_run": _finish,
    "log_hparams": _params,
    "log_metric": _metric,
    "log_custom_object": _object,
    "add_tag": _tagged,
    "remove_tag": _tagged,
    "log_terminal_line": _line,
    "log_record": _record,
    "blob_ref": _file,
}
