"""Frames as a client would send them, made of commands."""

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from matyan.wire.messages import Command


def item_of(command: Command) -> dict[str, Any]:
    """Return a command as a client's message."""
    item: dict[str, Any] = {"type": command.__struct_config__.tag}
    for field in command.__struct_fields__:
        value = getattr(command, field)
        if isinstance(value, msgspec.Raw):
            value = json.loads(bytes(value))
        elif hasattr(value, "isoformat"):
            value = value.isoformat()
        item[field] = value
    return item


def frame_of(commands: Iterable[Command]) -> bytes:
    """Return a frame in the dialect of Python's json, bare NaN included."""
    return json.dumps([item_of(command) for command in commands]).encode()
