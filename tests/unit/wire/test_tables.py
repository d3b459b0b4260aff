"""A frame of points by column says what its commands say one by one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.wire.messages import AddTag, Command, LogMetric, Moment
from matyan.wire.moments import moment_ms, moments_ms
from matyan.wire.tables import tabulate

RECEIVED_MS = 1_700_000_000_000
MOMENTS = st.one_of(
    st.none(),
    st.floats(-1e12, 1e12),
    st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 (hypothesis wants naive bounds)
)
ROWS = st.lists(
    st.builds(
        LogMetric,
        name=st.sampled_from("ab"),
        value=st.floats(allow_nan=False),
        step=st.none() | st.integers(-5, 5),
        epoch=st.none() | st.floats(0, 9),
        context=st.sampled_from([msgspec.Raw(b"null"), msgspec.Raw(b'{"subset":"train"}')]),
        dtype=st.sampled_from([None, "float"]),
        client_datetime=MOMENTS,
    ),
    min_size=1,
    max_size=4,
)


def point(name: str, step: int, context: bytes = b"{}") -> LogMetric:
    return LogMetric(name=name, value=step / 2, step=step, context=msgspec.Raw(context))


def table_of(width: int, count: int) -> list[Command]:
    return [point(f"metric {n % width}", n // width) for n in range(count)]


@given(row=ROWS, count=st.integers(0, 40), begin=st.integers(0, 40), end=st.integers(0, 40))
def test_a_table_is_the_sequence_of_its_commands(row: list[LogMetric], count: int, begin: int, end: int) -> None:
    commands: list[Command] = [row[n % len(row)] for n in range(count)]

    table = tabulate(commands)

    if table is not None:
        assert list(table) == commands
        assert table[begin:end] == commands[begin:end]
        assert table[-1] == commands[-1]
        assert [one.name for one in table.heads] == [one.name for one in row[: len(table.heads)]]
        assert table.times(RECEIVED_MS) == [moment_ms(one.client_datetime, RECEIVED_MS) for one in table]


@given(st.lists(MOMENTS, min_size=1))
def test_times_of_many_moments_are_those_of_each(moments: list[Moment]) -> None:
    assert moments_ms(moments, RECEIVED_MS) == [moment_ms(moment, RECEIVED_MS) for moment in moments]


def test_times_of_datetimes_are_those_of_each() -> None:
    begin = datetime(2026, 11, 22, tzinfo=UTC)
    moments: list[Moment] = [begin + timedelta(microseconds=100 * n) for n in range(10_000)]

    assert moments_ms(moments, RECEIVED_MS) == [moment_ms(moment, RECEIVED_MS) for moment in moments]


def test_times_of_another_arrival_are_not_those_remembered() -> None:
    table = tabulate(table_of(2, 10))
    assert table is not None
    table.times(RECEIVED_MS)

    assert table.times(7) == [7] * 10


@pytest.mark.parametrize(("width", "count"), [(1, 8), (3, 9), (3, 10), (4, 8), (50, 100)])
def test_rows_of_the_same_sequences_are_a_table(width: int, count: int) -> None:
    table = tabulate(table_of(width, count))

    assert table is not None
    assert len(table.heads) == width


def test_one_name_in_several_contexts_is_a_table() -> None:
    row = [point("loss", 1, b'{"subset":"train"}'), point("loss", 1, b'{"subset":"val"}'), point("acc", 1)]

    table = tabulate(row * 3)

    assert table is not None
    assert list(table.heads) == row


@pytest.mark.parametrize(
    "commands",
    [
        [],
        table_of(1, 7),
        table_of(8, 8),
        table_of(6, 11),
        [*table_of(2, 10), AddTag("a")],
        [*table_of(2, 10), point("another", 5)],
        [*table_of(2, 10), point("metric 0", 5, b'{"subset":"val"}')],
        [point("a", 1), point("a", 2), *table_of(2, 10)],
    ],
    ids=["nothing", "few", "one row", "not two rows", "another command", "a stray name", "a stray context", "uneven"],
)
def test_what_does_not_repeat_is_no_table(commands: list[Command]) -> None:
    assert tabulate(commands) is None
