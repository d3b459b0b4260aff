"""However a frame's points are laid out, every sequence gets its own, in order of arrival."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from matyan.ids import Project, RunId
from matyan.ingestion.batches import RunGroup, context_identity
from matyan.sequences.model import Bucket, SequenceKey
from matyan.wire.messages import AddTag, Command, LogMetric
from matyan.wire.moments import moment_ms

RECEIVED_MS = 1_700_000_000_000
CONTEXTS = [b"null", b"{}", b'{"subset":"train"}', b'{ "subset": "train" }']
MOMENTS = st.one_of(
    st.none(),
    st.floats(0, 2e9),
    st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 (hypothesis wants naive bounds)
)
SEQUENCES = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(CONTEXTS)), min_size=1, max_size=6)


def points(sequences: Sequence[tuple[str, bytes]], only_datetimes: bool) -> st.SearchStrategy[list[Command]]:
    """Return frames that go through sequences again and again, cut anywhere."""
    moments = st.just(datetime(2026, 11, 21, 10, 0, 0, 1_500, tzinfo=UTC)) if only_datetimes else MOMENTS

    def make(places: list[int], drawn: Any) -> list[Command]:
        return [
            LogMetric(
                name=sequences[place % len(sequences)][0],
                value=float(place),
                step=drawn[place % len(drawn)][0],
                epoch=drawn[place % len(drawn)][1],
                context=msgspec.Raw(sequences[place % len(sequences)][1]),
                dtype=drawn[place % len(drawn)][2],
                client_datetime=drawn[place % len(drawn)][3],
            )
            for place in places
        ]

    cells = st.tuples(
        st.one_of(st.none(), st.integers(0, 50)),
        st.one_of(st.none(), st.just(1.0)),
        st.sampled_from([None, "float", "int64"]),
        moments,
    )
    return st.builds(
        make, st.integers(0, 40).map(lambda count: list(range(count))), st.lists(cells, min_size=1, max_size=7)
    )


FRAMES = st.lists(SEQUENCES.flatmap(lambda found: st.booleans().flatmap(lambda own: points(found, own))), max_size=3)


def add(group: RunGroup, commands: Sequence[Command]) -> None:
    group.add(commands, writer="w", received_ms=RECEIVED_MS, log_id="log", offset=7)


def rows(group: RunGroup) -> dict[SequenceKey, list[tuple[Any, ...]]]:
    """Return the points of each sequence."""
    return {
        key: list(zip(found.steps, found.values, found.epochs, found.times, strict=True))
        for key, found in group.points.items()
    }


@given(FRAMES)
def test_frames_taken_as_tables_give_what_their_points_give_one_by_one(frames: list[list[Command]]) -> None:
    group = RunGroup(Project("default"), RunId("r"), RECEIVED_MS)

    for frame in frames:
        add(group, frame)

    expected: dict[SequenceKey, list[tuple[Any, ...]]] = {}
    dtypes: dict[SequenceKey, set[str | None]] = {}
    for command in (command for frame in frames for command in frame):
        assert isinstance(command, LogMetric)
        key = SequenceKey(Bucket.METRIC, command.name, context_identity(bytes(command.context)))
        point = (command.step, command.value, command.epoch, moment_ms(command.client_datetime, RECEIVED_MS))
        expected.setdefault(key, []).append(point)
        dtypes.setdefault(key, set()).add(command.dtype)
    assert list(rows(group).items()) == list(expected.items())
    assert {key: buffer.dtypes for key, buffer in group.points.items()} == dtypes


def test_other_commands_among_points_stay_events_in_their_order() -> None:
    group = RunGroup(Project("default"), RunId("r"), RECEIVED_MS)
    metric = LogMetric(name="loss", value=1.0, step=1)

    add(group, [AddTag("a"), *[metric] * 10, AddTag("b")])

    assert [event.command for event in group.events] == [AddTag("a"), AddTag("b")]
    assert len(group.points[SequenceKey(Bucket.METRIC, "loss")].steps) == 10


def test_two_spellings_of_a_context_keep_their_common_order_in_a_table() -> None:
    group = RunGroup(Project("default"), RunId("r"), RECEIVED_MS)
    spellings = [b'{"a":1,"b":2}', b'{"b":2,"a":1}']
    frame = [LogMetric(name="loss", value=float(n), step=n, context=msgspec.Raw(spellings[n % 2])) for n in range(12)]

    add(group, frame)

    (buffer,) = group.points.values()
    assert buffer.steps == list(range(12))
