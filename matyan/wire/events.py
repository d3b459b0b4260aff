"""Control events: what happened to runs, experiments and tags, told to whoever reads the topic `control-events`.

UTF-8 JSON: {"type": "run_deleted", "timestamp": "2026-11-21T03:23:32.560305Z", "payload": {...}, "id": "..."}. An event
may be repeated, under the same id; those of one run come in the order in which they happened. Readers skip unknown
types and unknown members. See docs/reference/wire.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar, Final

import msgspec


class _OfRun(msgspec.Struct, frozen=True, kw_only=True):
    """An event of one run."""

    run_id: str
    project: str = "default"

    @property
    def subject(self) -> str:
        """What the event is about: events of one subject keep their order."""
        return f"{self.project}/{self.run_id}"


class RunDeleted(_OfRun, frozen=True, kw_only=True):
    """A run is gone for every reader; its keys and files are about to be freed."""

    type: ClassVar[str] = "run_deleted"

    number: int | None = None
    """The number that the store had given to the run; another run of the same hash has another."""
    deleted_at_seconds: float | None = None


class RunArchived(_OfRun, frozen=True, kw_only=True):
    """A run was archived."""

    type: ClassVar[str] = "run_archived"

    archived: bool = True


class RunUnarchived(_OfRun, frozen=True, kw_only=True):
    """A run was taken back from the archive."""

    type: ClassVar[str] = "run_unarchived"

    archived: bool = False


class ExperimentDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment is gone; each of its runs that goes with it has an event of its own."""

    type: ClassVar[str] = "experiment_deleted"

    experiment_id: str
    project: str = "default"

    @property
    def subject(self) -> str:
        """What the event is about."""
        return f"{self.project}/{self.experiment_id}"


class TagDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """A tag is gone."""

    type: ClassVar[str] = "tag_deleted"

    tag_id: str
    project: str = "default"

    @property
    def subject(self) -> str:
        """What the event is about."""
        return f"{self.project}/{self.tag_id}"


Payload = RunDeleted | RunArchived | RunUnarchived | ExperimentDeleted | TagDeleted

PAYLOADS: Final[Mapping[str, type[Payload]]] = {
    kind.type: kind for kind in (RunDeleted, RunArchived, RunUnarchived, ExperimentDeleted, TagDeleted)
}


class ControlEvent(msgspec.Struct, frozen=True):
    """The envelope."""

    type: str
    timestamp: datetime
    payload: msgspec.Raw
    id: str = ""
    """The same in every repetition of the event, and in no other; empty from writers that give none."""


_encoder: Final = msgspec.json.Encoder()
_envelopes: Final = msgspec.json.Decoder(ControlEvent)
_payloads: Final = {name: msgspec.json.Decoder(kind) for name, kind in PAYLOADS.items()}


def encode_event(payload: Payload, *, event_id: str, time_seconds: float) -> bytes:
    """Return the JSON text of an event that happened `time_seconds` after 1970-01-01 UTC."""
    return _encoder.encode(
        {
            "type": payload.type,
            "timestamp": datetime.fromtimestamp(time_seconds, UTC),
            "payload": payload,
            "id": event_id,
        }
    )


def decode_event(data: bytes) -> ControlEvent:
    """Read the envelope of an event of any type.

    Raises:
        msgspec.MsgspecError: it is none.
    """
    return _envelopes.decode(data)


def decode_payload(event: ControlEvent) -> Payload | None:
    """Read what an event says; None for a type that this release does not know.

    Raises:
        msgspec.MsgspecError: it is not what its type asks for.
    """
    decoder = _payloads.get(event.type)
    return None if decoder is None else decoder.decode(event.payload)
