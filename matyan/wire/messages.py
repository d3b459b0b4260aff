"""Tagged Structs: commands (SDK -> log), replies, and the envelope of a log record.

Commands mirror the messages of the ingestion contract (docs/reference/wire.md). They are what the typed decoder makes
of a frame; the tolerant decoder makes the same Structs of odd but acceptable input. Unknown members are ignored, new
members go last with a default: records must be readable by older and newer releases.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec

from matyan.limits import STEP_MAX, STEP_MIN

Step = Annotated[int, msgspec.Meta(ge=STEP_MIN, le=STEP_MAX)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)] | float | None
"""Client time: ISO 8601 with zone, or seconds since 1970-01-01 UTC; None means the time of arrival."""

NO_CONTEXT: Final = msgspec.Raw(b"null")


class CreateRun(msgspec.Struct, frozen=True, tag="create_run", tag_field="type"):
    """Open a run: make it when unknown, else set it running again and keep everything."""

    client_datetime: Moment = None
    force_resume: bool = False


class SetRunProperty(msgspec.Struct, frozen=True, tag="set_run_property", tag_field="type"):
    """Overwrite the given properties; None leaves one as it is."""

    name: str | None = None
    description: str | None = None
    experiment: str | None = None
    archived: bool | None = None


class LogHparams(msgspec.Struct, frozen=True, tag="log_hparams", tag_field="type"):
    """Set params: a chain of one-key objects is a path, what ends it replaces the subtree there."""

    value: dict[str, Any]


class LogMetric(msgspec.Struct, frozen=True, tag="log_metric", tag_field="type"):
    """One point of a scalar sequence; step None means the last step plus one."""

    name: str
    value: float
    step: Step | None = None
    epoch: float | None = None
    context: msgspec.Raw = NO_CONTEXT
    """The JSON text of an object or null, undecoded: equal texts need to be looked at only once."""
    dtype: str | None = None
    client_datetime: Moment = None


class LogCustomObject(msgspec.Struct, frozen=True, tag="log_custom_object", tag_field="type"):
    """One item of an object sequence: an object, or a list of objects of one kind."""

    name: str
    value: dict[str, Any] | list[dict[str, Any]]
    step: Step | None = None
    epoch: float | None = None
    context: msgspec.Raw = NO_CONTEXT
    dtype: str | None = "custom"
    client_datetime: Moment = None


class AddTag(msgspec.Struct, frozen=True, tag="add_tag", tag_field="type"):
    """Attach a tag by name, creating it when unknown."""

    tag_name: str


class RemoveTag(msgspec.Struct, frozen=True, tag="remove_tag", tag_field="type"):
    """Detach a tag by name; an unknown one is ignored."""

    tag_name: str


class LogTerminalLine(msgspec.Struct, frozen=True, tag="log_terminal_line", tag_field="type"):
    """Set line `step` of the terminal log of this life of the run; later text replaces earlier."""

    line: str
    step: Step


class LogRecordMessage(msgspec.Struct, frozen=True, tag="log_record", tag_field="type"):
    """One structured log message; numbered by the worker in order of arrival."""

    message: str
    level: int
    timestamp: float
    """Seconds since 1970-01-01 UTC."""
    logger_info: Any = None
    extra_args: Any = None


class BlobRef(msgspec.Struct, frozen=True, tag="blob_ref", tag_field="type"):
    """The file of this path has been uploaded."""

    s3_key: str
    artifact_path: str
    content_type: str = "application/octet-stream"


class FinishRun(msgspec.Struct, frozen=True, tag="finish_run", tag_field="type"):
    """The run has ended."""

    client_datetime: Moment = None


Command = (
    CreateRun
    | SetRunProperty
    | LogHparams
    | LogMetric
    | LogCustomObject
    | AddTag
    | RemoveTag
    | LogTerminalLine
    | LogRecordMessage
    | BlobRef
    | FinishRun
)


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """An item that the gateway did not take; shown to people as a warning record of the run."""

    index: int
    """Position in the client's frame."""
    type: str
    reason: str
    excerpt: str = ""
    """The first characters of the item."""


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """The place in a log at which something was refused: the name of a dead letter."""

    log_id: str
    topic: str
    partition: int
    offset: int
    index: int
    """See `DeadLetter`."""


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """The value of one log record: what one frame of one run was accepted for."""

    version: int
    project: str
    run_id: str
    received_ms: int
    """Arrival at the gateway: milliseconds since 1970-01-01 UTC."""
    encoding: str
    """How the payload is decoded; see `wire/frames.py`."""
    payload: bytes
    """The client's frame, zstd-compressed."""
    refusals: tuple[Refusal, ...] = ()
    writer: str = ""
    """Identity of the connection or SDK writer."""
    sequence: int = 0
    """Number of this frame at its writer, from 1; 0 when the writer does not count."""
    retried: Origin | None = None
    """The dead letter that this record is, appended again; applied only while that letter is there."""
    gateway: str = ""
    """Identity of the process that appended it, when it may have appended it twice."""
    number: int = 0
    """Number of this record among those of the gateway in its partition, from 1, in the order of appending."""

    @property
    def is_numbered(self) -> bool:
        """Whether its gateway and number tell if it was applied before. A letter's retry goes by the letter's name."""
        return bool(self.gateway) and self.number > 0 and self.retried is None


class Reply(msgspec.Struct, frozen=True):
    """Exactly one answers each frame."""

    status: str
    error: str | None
