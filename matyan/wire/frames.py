"""Frames of the ingestion socket and payloads of log records <-> commands.

A frame that our types take as it is goes into the log as it came (`json`); any other is decoded tolerantly, item by
item, and what was accepted of it is encoded anew (`msgpack`). Both are zstd-compressed.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec
import zstandard

from matyan.errors import CorruptedError, InvalidArgumentError
from matyan.limits import FRAME_BYTES_MAX, FRAME_ITEMS_MAX
from matyan.wire.checks import are_fine, find_fault, is_fine
from matyan.wire.codec import decode_envelope, decode_extension, tag_big_integers
from matyan.wire.messages import Command, LogCustomObject, LogHparams, LogMetric, LogRecordMessage, Refusal
from matyan.wire.tables import tabulate
from matyan.wire.tolerant import excerpt_of, mend, parse_items, type_of

JSON: Final = "json"
MSGPACK: Final = "msgpack"
REFUSALS_MAX: Final = 1000
"""Refusals of one frame that are kept one by one; the rest is only counted, in a last one."""
_ZSTD_LEVEL: Final = 1
_PAYLOAD_BYTES_MAX: Final = 4 * FRAME_BYTES_MAX
"""Uncompressed: msgpack's nine bytes for JSON's `1.,` and some reserve."""

_frames: Final[msgspec.json.Decoder[Command | list[Command]]] = msgspec.json.Decoder(Command | list[Command])
_encoder: Final = msgspec.msgpack.Encoder()
_commands: Final = msgspec.msgpack.Decoder(list[Command], ext_hook=decode_extension)
_command: Final[msgspec.msgpack.Decoder[Command]] = msgspec.msgpack.Decoder(Command, ext_hook=decode_extension)
_items: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])


class DecodedFrame(NamedTuple):
    """What a frame says."""

    commands: Sequence[Command]
    """A `PointTable` where they are one: most frames are, and by column they cost least."""
    refusals: list[Refusal]
    exact: bool
    """Whether the typed decoder took the frame whole, so that its text can stand for the commands."""
    refused: Mapping[str, int] = MappingProxyType({})
    """How many items were refused, by kind: `unreadable`, `out_of_bounds`, `too_many`. Not all of them are listed."""


# ---- frames


def decode_frame(frame: bytes | str) -> DecodedFrame:
    """Decode a client's frame: one JSON object or an array of them; a bad item costs only itself.

    Raises:
        InvalidArgumentError: the frame as a whole is unusable: not JSON, neither object nor array, too large.
    """
    data = frame_bytes(frame)
    if len(data) > FRAME_BYTES_MAX:
        raise InvalidArgumentError(f"the frame has {len(data)} bytes, limit {FRAME_BYTES_MAX}")
    try:
        decoded = _frames.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        return _decode_tolerantly(data)
    commands = decoded if isinstance(decoded, list) else [decoded]
    if len(commands) > FRAME_ITEMS_MAX:
        return _decode_tolerantly(data)
    table = tabulate(commands)
    if table is not None and is_fine(table):
        return DecodedFrame(table, [], exact=True)
    return DecodedFrame(commands, [], exact=True) if are_fine(commands) else _decode_tolerantly(data)


def frame_bytes(frame: bytes | str) -> bytes:
    """Return the frame as UTF-8."""
    return frame.encode("utf-8", "replace") if isinstance(frame, str) else frame


def _decode_tolerantly(data: bytes) -> DecodedFrame:
    items = parse_items(data)
    commands: list[Command] = []
    refusals: list[Refusal] = []
    refused: Counter[str] = Counter()
    for index, item in enumerate(items[:FRAME_ITEMS_MAX]):
        found = _accept(item)
        if not isinstance(found, _Fault):
            commands.append(found)
            continue
        refused[found.kind] += 1
        if len(refusals) < REFUSALS_MAX:
            refusals.append(Refusal(index, type_of(item), found.reason, excerpt_of(item)))
    if unlisted := refused.total() - len(refusals):
        refusals.append(Refusal(len(items), "", f"{unlisted} more items were refused"))
    if len(items) > FRAME_ITEMS_MAX:
        refused["too_many"] = len(items) - FRAME_ITEMS_MAX
        reason = f"the frame has {len(items)} items, limit {FRAME_ITEMS_MAX}; the rest was not taken"
        refusals.append(Refusal(FRAME_ITEMS_MAX, "", reason))
    return DecodedFrame(commands, refusals, exact=False, refused=refused)


class _Fault(NamedTuple):
    kind: str
    reason: str


def _accept(item: object) -> Command | _Fault:
    """Return the command that the item is, or why it is none."""
    try:
        command = mend(item)
    except InvalidArgumentError as error:
        return _Fault("unreadable", error.message)
    reason = find_fault(command)
    return command if reason is None else _Fault("out_of_bounds", reason)


# ---- payloads


def encode_payload(data: bytes, frame: DecodedFrame) -> tuple[str, bytes]:
    """Return encoding and payload of the envelope for what was decoded from `data`."""
    if frame.exact:
        return JSON, _zstd.compress(data)
    return MSGPACK, encode_commands(frame.commands)


def encode_commands(commands: Sequence[Command]) -> bytes:
    """Return commands as a payload of encoding `msgpack`: doubles bit for bit, integers of any size."""
    packable = [_pack_context(command) for command in commands]
    try:
        data = _encoder.encode(packable)
    except OverflowError:
        data = _encoder.encode([_tag_integers(command) for command in packable])
    return _zstd.compress(data)


def tag_of(command: Command) -> str:
    """Return the message type of a command."""
    return str(command.__struct_config__.tag)


def unpacked_bytes(record: bytes) -> int:
    """Return about how many bytes the value of a log record unpacks to, without unpacking it."""
    try:
        size: int = zstandard.get_frame_parameters(decode_envelope(record).payload).content_size
    except (msgspec.MsgspecError, zstandard.ZstdError):
        return len(record)
    return min(size, _PAYLOAD_BYTES_MAX)


def decode_payload(encoding: str, payload: bytes) -> tuple[list[Command], list[tuple[int, str]]]:
    """Return the commands of a log record, and index and reason of those that cannot be read.

    Raises:
        CorruptedError: the payload as a whole cannot be read.
    """
    data = _zstd.decompress(payload)
    if encoding == JSON:
        return _decode_json(data)
    if encoding == MSGPACK:
        return _decode_msgpack(data)
    raise CorruptedError(f"unknown encoding {encoding!r} of a log record; a newer release may have written it")


def _decode_json(data: bytes) -> tuple[list[Command], list[tuple[int, str]]]:
    try:
        decoded = _frames.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        pass
    else:
        return (decoded if isinstance(decoded, list) else [decoded]), []
    try:
        items = parse_items(data)
    except InvalidArgumentError as error:
        raise CorruptedError(f"a log record's payload is no frame: {error}") from error
    found = [_accept(item) for item in items]
    return _sort_out([one.reason if isinstance(one, _Fault) else one for one in found])


def _decode_msgpack(data: bytes) -> tuple[list[Command], list[tuple[int, str]]]:
    try:
        return [_unpack_context(command) for command in _commands.decode(data)], []
    except (msgspec.MsgspecError, RecursionError, ValueError):
        pass
    try:
        items = _items.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise CorruptedError(f"a log record's payload is no list of commands: {error}") from error
    return _sort_out([_read_item(item) for item in items])


def _read_item(item: msgspec.Raw) -> Command | str:
    try:
        return _unpack_context(_command.decode(item))
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        return f"not a command of this release: {error}"


def _sort_out(found: list[Command | str]) -> tuple[list[Command], list[tuple[int, str]]]:
    bad = [(index, reason) for index, reason in enumerate(found) if isinstance(reason, str)]
    return [command for command in found if not isinstance(command, str)], bad


# ---- what msgpack cannot carry plainly


def _pack_context(command: Command) -> Command:
    """Wrap the context: raw JSON cannot stand in msgpack, a msgpack string of it can."""
    if isinstance(command, LogMetric | LogCustomObject):
        return msgspec.structs.replace(command, context=_as_string(bytes(command.context)))
    return command


def _unpack_context(command: Command) -> Command:
    if isinstance(command, LogMetric | LogCustomObject):
        return msgspec.structs.replace(command, context=_as_json(bytes(command.context)))
    return command


@lru_cache(1024)
def _as_string(context: bytes) -> msgspec.Raw:
    return msgspec.Raw(_encoder.encode(context.decode()))


@lru_cache(1024)
def _as_json(packed: bytes) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.decode(packed, type=str).encode())


def _tag_integers(command: Command) -> Command:
    if isinstance(command, LogHparams | LogCustomObject):
        return msgspec.structs.replace(command, value=tag_big_integers(command.value))
    if isinstance(command, LogRecordMessage):
        return msgspec.structs.replace(
            command,
            logger_info=tag_big_integers(command.logger_info),
            extra_args=tag_big_integers(command.extra_args),
        )
    return command


class _Zstd(threading.local):
    """A compressor and a decompressor of each thread's own: they are not thread-safe, and dear to make."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
        self._decompressor = zstandard.ZstdDecompressor()

    def compress(self, data: bytes) -> bytes:
        return self._compressor.compress(data)

    def decompress(self, payload: bytes) -> bytes:
        try:
            size = zstandard.get_frame_parameters(payload).content_size
            if size > _PAYLOAD_BYTES_MAX:  # an absent size reads as 2**64 - 1
                raise CorruptedError(f"a log record's payload claims {size} bytes, limit {_PAYLOAD_BYTES_MAX}")
            return self._decompressor.decompress(payload, max_output_size=_PAYLOAD_BYTES_MAX)
        except zstandard.ZstdError as error:
            raise CorruptedError(f"a log record's payload cannot be decompressed: {error}") from error


_zstd: Final = _Zstd()
