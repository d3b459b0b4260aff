"""Stored objects -> what clients read, also of objects that are damaged."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.sequences.model import Bucket, Item
from matyan.sequences.values import LIST_BUCKETS, OBJECT_BUCKETS, record_value
from matyan.wire.codec import decode_tree, encode_tree
from matyan.wire.trees import encode_tree_records
from tests.support import treestream

EVERYTHING = range(100)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
FIELDS = ("type", "caption", "format", "width", "height", "s3_key", "data", "bin_count", "range", "source", "version")
damaged_objects = st.dictionaries(st.sampled_from(FIELDS), json_values) | json_values


def name_key(s3_key: object) -> str:
    return f"uri of {s3_key}" if isinstance(s3_key, str) else "nothing"


def read(bucket: Bucket, *objects: Any, positions: range = EVERYTHING) -> Any:
    return record_value(bucket, Item(list(objects)), positions, name_key)


def test_an_image() -> None:
    stored = {"type": "image", "format": "PNG", "caption": "a", "width": 8, "height": None, "s3_key": "r/seq/x/0.png"}

    assert read(Bucket.IMAGES, stored) == [
        {
            "caption": "a",
            "format": "PNG",
            "width": 8,
            "height": None,
            "blob_uri": "uri of r/seq/x/0.png",
            "index": 0,
        }
    ]


def test_an_audio() -> None:
    stored = {"type": "audio", "format": "wav", "caption": "", "rate": 8000, "s3_key": "r/seq/x/0.wav"}

    expected = {"caption": "", "format": "wav", "blob_uri": "uri of r/seq/x/0.wav", "index": 0}
    assert read(Bucket.AUDIOS, stored) == [expected]


def test_positions_select_objects_of_a_list() -> None:
    texts = [{"data": str(position)} for position in range(7)]

    found = read(Bucket.TEXTS, *texts, positions=range(1, 6, 2))

    assert found == [{"data": "1", "index": 1}, {"data": "3", "index": 3}, {"data": "5", "index": 5}]


def test_positions_beyond_the_list_cost_nothing() -> None:
    assert read(Bucket.TEXTS, {"data": "a"}, positions=range(2**62)) == [{"data": "a", "index": 0}]
    assert read(Bucket.TEXTS, {"data": "a"}, positions=range(1, 5)) == []


@pytest.mark.parametrize(
    "data",
    [[1, 2.5, 0], struct.pack("<3d", 1, 2.5, 0), struct.pack("<3d", 1, 2.5, 0).hex()],
    ids=["list", "bytes", "hexadecimal"],
)
def test_weights_of_a_distribution_are_doubles(data: Any) -> None:
    found = read(Bucket.DISTRIBUTIONS, {"bin_count": 3, "range": [1, 3.5], "data": data})

    assert (found["bin_count"], found["range"]) == (3, [1.0, 3.5])
    assert found["data"].dtype == np.float64
    assert found["data"].tolist() == [1.0, 2.5, 0.0]


def test_a_figure_is_json_text_for_browsers() -> None:
    plot = {"data": [{"y": [1.0, math.nan, math.inf, 10**30]}], "layout": {"title": "é"}}

    found = read(Bucket.FIGURES, {"type": "figure", "data": plot})

    assert list(found) == ["source", "format", "version", "data"]
    assert json.loads(found["data"]) == {"data": [{"y": [1.0, None, None, 10**30]}], "layout": {"title": "é"}}


def test_a_figure_that_is_text_already_stays_as_it_is() -> None:
    stored = {"source": "plotly", "format": "raw_json", "version": "5.22.0", "data": '{"data": [] }'}

    assert read(Bucket.FIGURES, stored) == stored


@pytest.mark.parametrize("bucket", OBJECT_BUCKETS)
@pytest.mark.parametrize("value", [None, [], "text", {"data": 1}], ids=["none", "empty", "text", "no list"])
def test_a_record_without_objects_is_an_empty_list_or_a_neutral_object(bucket: Bucket, value: Any) -> None:
    found = record_value(bucket, Item(value), EVERYTHING, name_key)

    assert (found == []) == (bucket in LIST_BUCKETS)
    assert encode_tree_records({"run": found})


@pytest.mark.parametrize("bucket", OBJECT_BUCKETS)
@given(damaged=damaged_objects)
def test_a_damaged_object_has_every_field_and_can_be_sent(bucket: Bucket, damaged: Any) -> None:
    stored = decode_tree(encode_tree(damaged))
    whole = read(bucket, {})

    found = read(bucket, stored)

    one, other = (found[0], whole[0]) if bucket in LIST_BUCKETS else (found, whole)
    assert list(one) == list(other)
    ((_, tree),) = treestream.trees(encode_tree_records({"run": found}))
    assert len(tree) == len(found)
    if bucket == Bucket.FIGURES and not isinstance(stored, dict):
        assert json.loads(tree["data"]) == {}


def test_numbers_that_are_none_become_null_or_neutral() -> None:
    (image,) = read(Bucket.IMAGES, {"width": math.nan, "height": True, "caption": 3, "format": None})
    distribution = read(Bucket.DISTRIBUTIONS, {"bin_count": "8", "range": [1], "data": [1, "x"]})

    assert (image["width"], image["height"], image["caption"], image["format"]) == (None, None, "", "")
    assert image["blob_uri"] == "nothing"
    assert (distribution["bin_count"], distribution["range"]) == (0, [0.0, 1.0])
    assert distribution["data"].tolist() == []
