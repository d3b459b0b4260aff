"""Records as bytes: one at a time, and many at once."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.errors import CorruptedError
from matyan.store.records import RecordCodec


class Record(msgspec.Struct, array_like=True):
    """What is stored."""

    text: str
    number: int = 0
    data: bytes = b""


CODEC = RecordCodec(Record)
RECORDS = st.builds(Record, st.text(max_size=40), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=300))


@given(st.lists(RECORDS, max_size=20))
def test_many_records_are_read_as_each_of_them_is(records: list[Record]) -> None:
    values = list(map(CODEC.encode, records))

    assert CODEC.decode_many(values) == list(map(CODEC.decode, values)) == records


@pytest.mark.parametrize(
    ("value", "message"),
    [(b"\x02\x91\xa1a", "version 2"), (b"\x01\x91\x05", "cannot be read"), (b"\x01\x92\xa1a", "cannot be read")],
)
def test_one_bad_record_among_many_is_told_of_as_alone(value: bytes, message: str) -> None:
    good = CODEC.encode(Record("a"))

    with pytest.raises(CorruptedError, match=message):
        CODEC.decode_many([good, value, good])
