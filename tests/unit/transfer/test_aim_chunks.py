"""Trees out of the records of an Aim file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.transfer.aim_chunks import AimDataError, AimObject, ClassMark, decode, fold, plain
from matyan.wire.streams import Key, Mark

LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
KEYS = st.text(min_size=1) | st.integers(-(2**63), 2**63 - 1)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=20)


def unfold(tree: Any, path: tuple[Key, ...] = ()) -> Iterator[tuple[tuple[Key, ...], Any]]:
    """Yield the records as Aim writes them: a mark for lists and for empty dicts only."""
    if isinstance(tree, dict):
        if not tree:
            yield path, Mark.OBJECT
        for key, value in tree.items():
            yield from unfold(value, (*path, key))
    elif isinstance(tree, list):
        yield path, Mark.LIST
        for index, value in enumerate(tree):
            yield from unfold(value, (*path, index))
    else:
        yield path, tree


@given(TREES)
def test_what_aim_takes_apart_is_put_together_again(tree: Any) -> None:
    assert fold(unfold(tree)) == tree


def test_nothing_is_none() -> None:
    assert fold([]) is None


def test_a_leaf_that_became_a_tree_is_the_tree() -> None:
    assert fold([((), Mark.OBJECT), (("a",), 1), (("a", "b"), 2)]) == {"a": {"b": 2}}


def test_places_of_a_list_that_were_never_filled_are_none() -> None:
    assert fold([((), Mark.LIST), ((2,), "x")]) == [None, None, "x"]


def test_a_list_with_places_far_apart_takes_no_memory() -> None:
    assert fold([((), Mark.LIST), ((2**62,), "x")]) == {2**62: "x"}


def test_objects_keep_their_class_and_show_their_fields_among_params() -> None:
    found = fold([(("image",), ClassMark("aim.image")), (("image", "format"), "png")])

    assert found == {"image": AimObject("aim.image", {"format": "png"})}
    assert plain(found) == {"image": {"format": "png"}}


@pytest.mark.parametrize("value", [b"\x02\x01", b"\x63", b"\x04\xff"])
def test_a_value_that_is_none_of_aims_is_refused(value: bytes) -> None:
    with pytest.raises(AimDataError, match="a value cannot be read"):
        decode(value)
