"""Events leave as other systems know them, and odd ones that come in do no harm."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.wire.events import (
    PAYLOADS,
    ExperimentDeleted,
    Payload,
    RunArchived,
    RunDeleted,
    RunUnarchived,
    TagDeleted,
    decode_event,
    decode_payload,
    encode_event,
)

TIME_SECONDS = 1_795_231_412.560305


@pytest.mark.parametrize(
    ("payload", "kind", "members"),
    [
        (
            RunDeleted(run_id="r", number=7, deleted_at_seconds=1.5),
            "run_deleted",
            {"run_id": "r", "project": "default", "number": 7, "deleted_at_seconds": 1.5},
        ),
        (RunArchived(run_id="r"), "run_archived", {"run_id": "r", "archived": True, "project": "default"}),
        (RunUnarchived(run_id="r"), "run_unarchived", {"run_id": "r", "archived": False, "project": "default"}),
        (ExperimentDeleted(experiment_id="e"), "experiment_deleted", {"experiment_id": "e", "project": "default"}),
        (TagDeleted(tag_id="t", project="p"), "tag_deleted", {"tag_id": "t", "project": "p"}),
    ],
)
def test_the_form_of_every_event(payload: Payload, kind: str, members: dict[str, object]) -> None:
    told = json.loads(encode_event(payload, event_id="id-1", time_seconds=TIME_SECONDS))

    assert told == {"type": kind, "timestamp": "2026-11-21T03:23:32.560305Z", "payload": members, "id": "id-1"}


@given(run_id=st.text(st.characters(codec="utf-8")), number=st.none() | st.integers(0, 2**63))
def test_what_is_told_is_read_back(run_id: str, number: int | None) -> None:
    payload = RunDeleted(run_id=run_id, number=number, deleted_at_seconds=TIME_SECONDS)

    event = decode_event(encode_event(payload, event_id="x", time_seconds=TIME_SECONDS))

    assert decode_payload(event) == payload
    assert (event.id, event.timestamp.timestamp()) == ("x", TIME_SECONDS)


def test_events_of_the_reference_service_are_read() -> None:
    told = (
        b'{"type":"run_deleted","timestamp":"2026-11-21T03:23:32.560305+00:00","payload":{"run_id":"r","blob_keys":[]}}'
    )

    event = decode_event(told)

    assert decode_payload(event) == RunDeleted(run_id="r")
    assert event.id == ""


def test_an_unknown_type_and_unknown_members_are_passed_over() -> None:
    told = (
        b'{"type":"project_deleted","timestamp":"2026-11-21T03:23:32Z","payload":{"project_id":"p"},"project_id":"p"}'
    )

    assert decode_payload(decode_event(told)) is None


@pytest.mark.parametrize("told", [b"", b"{}", b"[]", b"\xff\xfe", b'{"type":"run_deleted","payload":{}}'])
def test_what_is_no_event_is_an_error(told: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_event(told)


def test_a_type_stands_for_one_payload() -> None:
    assert {name: kind.type for name, kind in PAYLOADS.items()} == {name: name for name in PAYLOADS}
