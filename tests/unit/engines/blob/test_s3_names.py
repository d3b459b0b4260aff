"""Keys and names: one order, the same prefixes, nothing that an S3 refuses."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from matyan.engines.blob import s3_names
from matyan.engines.blob.objects import KEY_BYTES_MAX
from matyan.engines.blob.s3_names import cut_head, is_cut, is_object, key_object, key_of, name_prefix, object_name
from matyan.errors import InvalidArgumentError

SEGMENT_TEXT = st.sampled_from(
    ["", ".", "..", "-", "_", "`", "a", "z", "A", "~", "{", "@", "0", "!", "(", ")", "/", " "]
)
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=20),
    st.lists(SEGMENT_TEXT, max_size=12).map("".join),
    st.lists(SEGMENT_TEXT, max_size=12).map("/".join),
    st.builds(
        lambda text, times: (text * times)[:3000],
        st.sampled_from(["a", "a/", "_", "\u00fc", "//", "a."]),
        st.integers(0, 1500),
    ),
)
KEYS = st.builds("".join, st.lists(TEXT, min_size=1, max_size=3))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("default/4f2a/seq/loss curve_1.png", "default/4f2a/seq/loss(20curve__1.png!"),
        ("a", "a!"),
        ("", "!"),
        ("a/", "a/!"),
        ("//a", "(2F/a!"),
        ("a/../.x", "a/(2E./(2Ex!"),
        ("a=b:?@[^`{~\x00\u00fc", "a=3Db=3A=3F=40_5B_5E_g~7B~7E(00~C3~BC!"),
        ("n" * 250, "n" * 200 + ")/" + "n" * 50 + "!"),
        ("n" * 200 + "/", "n" * 200 + ")/(2F!"),
    ],
)
def test_names_are_what_is_written_in_buckets_already(key: str, name: str) -> None:
    assert (object_name(key), key_of(name)) == (name, key)


@given(KEYS)
def test_a_name_is_one_that_every_s3_takes(key: str) -> None:
    name = object_name(key)

    assert len(name) <= s3_names.NAME_BYTES_MAX <= 1024 - 128
    assert re.fullmatch(r"[-A-Za-z0-9._=~!()/]+", name)
    assert all(0 < len(segment) <= 255 for segment in name.split("/"))
    assert not {".", ".."} & set(name.split("/"))


@given(KEYS)
def test_a_name_tells_its_key_or_that_it_is_cut(key: str) -> None:
    name = object_name(key)

    assert is_object(name)
    assert key_of(name) == (None if is_cut(name) else key)
    assert not is_object(key_object(name))


@given(KEYS, KEYS)
@example("a", "a/b")
@example("a/b", "a-/b")
@example("_", "`")
def test_names_are_in_the_order_of_their_keys(first: str, second: str) -> None:
    names = object_name(first), object_name(second)

    assert (names[0] == names[1]) == (first == second)
    if not cut_head(names[0]) or cut_head(names[0]) != cut_head(names[1]):
        assert (names[0] < names[1]) == (first < second)


@given(KEYS, KEYS, TEXT)
def test_a_prefix_begins_the_names_of_its_keys_alone(prefix: str, other: str, rest: str) -> None:
    begin = name_prefix(prefix)

    assert object_name(prefix + rest).startswith(begin)
    if not is_cut(begin):
        assert object_name(other).startswith(begin) == other.startswith(prefix)


@given(KEYS, KEYS)
def test_no_object_is_the_directory_of_another(first: str, second: str) -> None:
    assert not object_name(second).startswith(f"{object_name(first)}/")


@given(st.text("ab(2E)=_~!/Fg0", max_size=30))
@example("(2e!")
@example("(2E")
@example("a//b!")
@example("~C3!")
@example("_0")
def test_a_name_that_is_not_ours_has_no_key(name: str) -> None:
    key = key_of(name)

    assert key is None or object_name(key) == name


def test_long_keys_that_begin_alike_are_cut_alike_and_differ() -> None:
    names = [object_name("n" * 4096 + end) for end in ("", "a", "b")]

    assert len(set(names)) == 3
    assert {cut_head(name) for name in names} == {name_prefix("n" * 4096)}
    assert all(name < key_object(name) for name in names)


def test_a_key_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="limit 16384"):
        object_name("n" * (KEY_BYTES_MAX + 1))
