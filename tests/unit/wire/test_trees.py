"""The tree stream against the vectors of the real Aim, and the decisions that the vectors leave open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.errors import InvalidArgumentError
from matyan.wire.streams import Mark, decode_path, decode_records, decode_value, fold
from matyan.wire.trees import EMPTY_KEY, begin_blob, encode_path, encode_tree_records, encode_value, progress
from tests.support import treestream

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "golden" / "codec-vectors.json").read_text())


def build(notation: Any) -> Any:
    """Make the Python value of a vector's input."""
    kind = notation["t"]
    simple: dict[str, Callable[[], Any]] = {
        "none": lambda: None,
        "bool": lambda: notation["v"],
        "int": lambda: int(notation["v"]),
        "float": lambda: (
            float(np.frombuffer(bytes.fromhex(notation["ieee_le"]), "<f8")[0])
            if "ieee_le" in notation
            else float(notation["v"])
        ),
        "str": lambda: notation["v"],
        "bytes": lambda: bytes.fromhex(notation["hex"]),
        "list": lambda: [build(item) for item in notation["v"]],
        "tuple": lambda: tuple(build(item) for item in notation["v"]),
        "path": lambda: tuple(build(item) for item in notation["v"]),
        "dict": lambda: {build(key): build(value) for key, value in notation["v"]},
        "numpy": lambda: np.array([build(item) for item in notation["v"]], dtype=notation["dtype"]),
        "array-flag": lambda: Mark.LIST,
        "object-flag": lambda: Mark.OBJECT,
        "set": lambda: {1},
        "complex": lambda: 1j,
    }
    return simple[kind]()


ENCODERS: dict[str, Callable[[Any], bytes]] = {
    "value": encode_value,
    "path": encode_path,
    "tree": encode_tree_records,
    "stream": lambda trees: b"".join(encode_tree_records(tree) for tree in trees),
}


def vectors(*, errors: bool) -> list[Any]:
    chosen = [vector for vector in VECTORS if vector["kind"].endswith("-error") is errors]
    assert chosen
    return [pytest.param(vector, id=vector["name"].replace(" ", "-")) for vector in chosen]


@pytest.mark.parametrize("vector", vectors(errors=False))
def test_bytes_are_those_of_the_vectors(vector: dict[str, Any]) -> None:
    notation = vector["input"]
    value = [build(item) for item in notation] if isinstance(notation, list) else build(notation)

    assert ENCODERS[vector["kind"]](value).hex() == vector["hex"]


@pytest.mark.parametrize("vector", vectors(errors=True))
def test_what_the_vectors_refuse_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        ENCODERS[vector["kind"].removesuffix("-error")](build(vector["input"]))


@pytest.mark.parametrize("vector", [vector for vector in vectors(errors=False) if vector.values[0]["kind"] == "tree"])
def test_records_of_the_vectors_are_read_as_written(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])

    again = b""
    for path, value in decode_records(data):
        for part in (encode_path(path), encode_value(value)):
            again += len(part).to_bytes(4, "little") + part

    assert again == data


def test_an_integer_beyond_64_bit_is_sent_as_decimal_text() -> None:
    assert fold(decode_records(encode_tree_records({"r": {"seed": 2**70, "n": -(2**63) - 1}}))) == [
        ("r", {"seed": "1180591620717411303424", "n": "-9223372036854775809"})
    ]


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"": 2, "b": 1}, {EMPTY_KEY: 2, "b": 1}),
        ({"": 2, EMPTY_KEY: 1}, {EMPTY_KEY: 1}),
        ({"": {"": {}}}, {EMPTY_KEY: {EMPTY_KEY: {}}}),
    ],
)
def test_an_empty_key_is_never_sent_empty(tree: Any, expected: Any) -> None:
    assert treestream.trees(encode_tree_records({"r": tree})) == [("r", expected)]


def test_an_array_that_is_not_of_numbers_is_null_and_one_of_two_dimensions_is_refused() -> None:
    assert fold(decode_records(encode_tree_records({"r": {"a": np.array([None, "x"], dtype=object)}}))) == [
        ("r", {"a": None})
    ]
    with pytest.raises(InvalidArgumentError):
        encode_tree_records({"r": np.zeros((2, 2))})


def test_a_big_endian_or_sliced_array_is_sent_as_little_endian_doubles() -> None:
    for array in (np.array([1.5, 2.5], dtype=">f8"), np.array([1.5, 0, 2.5, 0])[::2]):
        assert encode_tree_records({"a": array}) == encode_tree_records({"a": np.array([1.5, 2.5])})


def test_numpy_scalars_and_subclasses_are_sent_as_what_they_stand_for() -> None:
    class Words(str):
        __slots__ = ()

    odd = {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": Words("w"), "e": np.longdouble(2)}

    assert encode_tree_records(odd) == encode_tree_records({"a": 0.5, "b": 3, "c": True, "d": "w", "e": 2.0})


def test_lists_longer_than_the_prepared_indexes_keep_their_order() -> None:
    items = list(range(1000))

    assert fold(decode_records(encode_tree_records({"r": items}))) == [("r", items)]


@pytest.mark.parametrize("numbers", [(3, 7, 24), (0, 0, 0), (123_456, 99, 2**40)])
def test_progress_is_a_pair_under_a_numbered_key(numbers: tuple[int, int, int]) -> None:
    number, *pair = numbers

    assert fold(decode_records(progress(*numbers))) == [(f"progress_{number}", pair)]
    assert progress(*numbers) == encode_tree_records({f"progress_{number}": pair})


def test_a_key_of_a_lone_surrogate_does_not_break_the_stream() -> None:
    assert fold(decode_records(encode_tree_records({"r": {"\ud800": "\udfff"}}))) == [("r", {"?": "?"})]


@pytest.mark.parametrize("cut", [1, 5, 10, 20])
def test_a_cut_stream_is_refused_by_the_reader(cut: int) -> None:
    data = encode_tree_records({"abc": 1, "def": {"g": [1.5]}})

    with pytest.raises(InvalidArgumentError):
        list(decode_records(data[:-cut]))


@pytest.mark.parametrize("value", [b"\x0f", b"\x02\x00", b"\x01", b"\x04\xff"])
def test_values_with_unknown_tags_or_wrong_lengths_are_refused(value: bytes) -> None:
    with pytest.raises(InvalidArgumentError):
        decode_value(value)


@pytest.mark.parametrize("path", [b"abc", b"\xfe\x00", b"\xfe" + bytes(8), b"a\xfe\xfe", b"\xfe" + bytes(8) + b"x"])
def test_paths_that_end_within_a_key_are_refused(path: bytes) -> None:
    with pytest.raises(InvalidArgumentError):
        decode_path(path)


keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.integers(-(2**63), 2**63 - 1)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
)
trees = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=30)


@given(st.dictionaries(keys, trees, max_size=4))
def test_trees_come_back_as_they_went(tree: dict[str | int, Any]) -> None:
    assert dict(fold(decode_records(encode_tree_records(tree)))) == tree


@given(st.dictionaries(keys, trees, min_size=1, max_size=4))
def test_an_independent_decoder_reads_the_same(tree: dict[str | int, Any]) -> None:
    assert dict(treestream.trees(encode_tree_records(tree))) == tree


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 300])
def test_a_blob_begun_and_followed_by_its_content_is_its_record(content: bytes) -> None:
    assert begin_blob(("uri", 3), len(content)) + content == encode_tree_records({"uri": {3: content}})
