"""Pure parts of the answers about a run."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.errors import InvalidArgumentError
from matyan.http.answers import json_bytes
from matyan.http.dialect import AIM
from matyan.runs.views import buckets_of, finite, record_tree
from matyan.sequences.model import Bucket, Item

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8"))
TREES = st.recursive(
    LEAVES, lambda child: st.lists(child) | st.dictionaries(st.text(st.characters(codec="utf-8")), child)
)


@given(TREES)
def test_finite_tree_is_json_and_differs_in_nothing_else(tree: object) -> None:
    read = json.loads(json_bytes(finite(tree)), parse_constant=pytest.fail)

    assert read == json.loads(
        json.dumps(tree), parse_constant=lambda name: {"Infinity": "inf", "-Infinity": "-inf"}.get(name, name)
    )


def test_words_of_the_contract_stand_for_what_json_lacks() -> None:
    assert finite([math.nan, math.inf, -math.inf, 1.0]) == ["NaN", "inf", "-inf", 1.0]


def test_kinds_are_those_asked_for_in_order_and_once() -> None:
    assert buckets_of(["images", "metric", "images"]) == (Bucket.IMAGES, Bucket.METRIC)
    assert buckets_of([]) == tuple(Bucket)


@pytest.mark.parametrize("word", ["bad", "", "METRIC"])
def test_word_that_is_no_kind_is_refused(word: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"'{word}' is not a valid Sequence"):
        buckets_of([word])


@pytest.mark.parametrize(("level", "name"), [(10, "DEBUG"), (50, "CRITICAL"), (0, "Level 0"), (25, "Level 25")])
def test_levels_have_names(level: int, name: str) -> None:
    assert record_tree(Item({"message": "m", "log_level": level, "timestamp": 1.0}), AIM)["log_level"] == name


@pytest.mark.parametrize("value", [None, "text", {}, {"message": 5}])
def test_record_of_any_form_has_a_message_that_is_text(value: object) -> None:
    assert isinstance(record_tree(Item(value, time_ms=1500), AIM)["message"], str)
