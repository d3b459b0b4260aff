from __future__ import annotations

import enum
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from matyan.engines.kv.tuples import Item, pack, range_of, strinc, unpack
from matyan.errors import CorruptedError, InvalidArgumentError

# The order between types that the module promises.
ORDER = (type(None), bytes, str, int, float, bool)

WIDE_INTS = st.one_of(
    st.integers(),
    st.integers(-(2**64) - 3, -(2**64) + 3),
    st.integers(2**64 - 3, 2**64 + 3),
    st.integers(-(2**2040) + 1, 2**2040 - 1),
    st.builds(lambda bits, offset: (1 << bits) + offset, st.integers(0, 72), st.integers(-2, 2)),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
ITEMS: st.SearchStrategy[Item] = st.one_of(
    st.none(), st.binary(), TEXTS, WIDE_INTS, st.floats(), st.booleans(), st.binary().map(lambda raw: b"\x00" + raw)
)
TUPLES = st.lists(ITEMS, max_size=5).map(tuple)


def rank(items: tuple[Item, ...]) -> list[Any]:
    """Return what Python sorts as the tuple layer must: by type first; -0.0 below 0.0."""
    return [
        (
            ORDER.index(type(item)),
            (item, math.copysign(1, item)) if isinstance(item, float) else 0 if item is None else item,
        )
        for item in items
    ]


@given(TUPLES)
@example((2**64 - 2, 2**64 - 1, 2**64, -(2**64) + 2, -(2**64) + 1, -(2**64)))
@example((0, -1, 255, 256, -255, -256, True, False, None, "", b"", "a\x00b", b"\x00\xff", -0.0, math.nan, -math.inf))
def test_keys_equal_those_of_foundationdb(items: tuple[Item, ...]) -> None:
    fdb_tuple = pytest.importorskip("fdb.tuple", reason="needs the Python package foundationdb")

    assert pack(items) == fdb_tuple.pack(items)


@given(TUPLES, st.binary(max_size=3))
def test_unpack_inverts_pack_with_types_and_signs(items: tuple[Item, ...], prefix: bytes) -> None:
    found = unpack(pack(items, prefix), prefix)

    assert repr(found) == repr(items)  # repr tells 1 from True and -0.0 from 0.0, and NaN equals itself


@given(st.lists(st.lists(ITEMS.filter(lambda item: item == item), max_size=3).map(tuple), min_size=2, max_size=6))  # noqa: PLR0124 - NaN has no place in Python's order
def test_keys_sort_as_their_tuples_do(tuples: list[tuple[Item, ...]]) -> None:
    assert sorted(tuples, key=pack) == sorted(tuples, key=rank)


@given(TUPLES, TUPLES, st.binary(max_size=2))
def test_the_range_of_a_tuple_holds_exactly_the_longer_ones(
    items: tuple[Item, ...], other: tuple[Item, ...], prefix: bytes
) -> None:
    begin, end = range_of(items, prefix)
    key = pack(other, prefix)

    is_below = len(other) > len(items) and repr(other[: len(items)]) == repr(items)
    assert (begin <= key < end) == is_below
    assert not begin <= pack(items, prefix) < end
    assert begin <= pack((*items, "x"), prefix) < end


@given(st.binary(max_size=5), st.binary(max_size=5))
def test_strinc_is_the_first_key_after_all_with_the_prefix(prefix: bytes, key: bytes) -> None:
    if not prefix.strip(b"\xff"):
        with pytest.raises(InvalidArgumentError, match="no key comes after"):
            strinc(prefix)
        return

    assert (prefix <= key < strinc(prefix)) == key.startswith(prefix)


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 7


def test_members_of_enums_are_packed_as_their_values() -> None:
    assert pack((Colour.RED, Level.HIGH)) == pack(("red", 7))


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ([1], "cannot hold a list"),
        (("nested",), "cannot hold a tuple"),
        (1j, "cannot hold a complex"),
        ("\ud800", "lone surrogate"),
        (2**2040, "256 bytes"),
        (-(2**2040), "256 bytes"),
    ],
)
def test_what_no_key_can_hold_is_refused(item: Any, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        pack((item,))


@pytest.mark.parametrize(
    "key",
    [
        b"\x01abc",
        b"\x01abc\x00\xff",
        b"\x02abc",
        b"\x02\xff\x00",
        b"\x16\x01",
        b"\x12\x01",
        b"\x1d",
        b"\x1d\x09\x01",
        b"\x0b\xf6\x01",
        b"\x21\x01",
        b"\x05\x00",
        b"\x30",
        b"\xff",
    ],
    ids=lambda key: key.hex(),
)
def test_a_key_that_pack_did_not_make_is_refused(key: bytes) -> None:
    with pytest.raises(CorruptedError):
        unpack(key)


def test_a_key_with_another_prefix_is_refused() -> None:
    with pytest.raises(CorruptedError, match="does not begin with"):
        unpack(pack(("a",), b"x"), b"y")
