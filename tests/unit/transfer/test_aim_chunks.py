"""Trees out of the records of an Aim file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.limits import JSON_DEPTH_MAX
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
    assert fold(unfold(tree)) == (tree, ())


def test_nothing_is_none() -> None:
    assert fold([]) == (None, ())


def test_a_leaf_that_became_a_tree_is_the_tree() -> None:
    assert fold([((), Mark.OBJECT), (("a",), 1), (("a", "b"), 2)]).tree == {"a": {"b": 2}}


def test_places_of_a_list_that_were_never_filled_are_none() -> None:
    assert fold([((), Mark.LIST), ((2,), "x")]).tree == [None, None, "x"]


def test_a_list_with_places_far_apart_takes_no_memory() -> None:
    assert fold([((), Mark.LIST), ((2**62,), "x")]).tree == {2**62: "x"}


def test_objects_keep_their_class_and_show_their_fields_among_params() -> None:
    found = fold([(("image",), ClassMark("aim.image")), (("image", "format"), "png")]).tree

    assert found == {"image": AimObject("aim.image", {"format": "png"})}
    assert plain(found) == {"image": {"format": "png"}}


def nested(depth: int) -> tuple[Key, ...]:
    return ("attrs", *("k" for _ in range(depth)))


def test_a_tree_as_deep_as_a_frame_may_be_is_kept_whole() -> None:
    tree, cut = fold([(nested(JSON_DEPTH_MAX), 1)])

    assert list(unfold(tree)) == [(nested(JSON_DEPTH_MAX), 1)]
    assert cut == ()


@pytest.mark.parametrize("depth", [JSON_DEPTH_MAX + 1, 950, 100_000])
def test_what_is_nested_too_deeply_is_left_out_and_told_of(depth: int) -> None:
    found = fold([(("attrs", "k", "lr"), 0.5), (nested(depth), 1), ((*nested(depth), "x"), 2)])

    assert found == ({"attrs": {"k": {"lr": 0.5}}}, (nested(JSON_DEPTH_MAX),))


def test_a_container_at_the_last_level_is_too_deep() -> None:
    path = nested(JSON_DEPTH_MAX)

    assert fold([(path, Mark.LIST), ((*path, 0), 1)]) == (None, (path,))


@pytest.mark.parametrize("value", [b"\x02\x01", b"\x63", b"\x04\xff"])
def test_a_value_that_is_none_of_aims_is_refused(value: bytes) -> None:
    with pytest.raises(AimDataError, match="a value cannot be read"):
        decode(value)
