"""Params: a chain of one-key objects is a path, what ends it replaces the subtree, and the later assignment wins."""

from typing import Any

import pytest

from matyan.ingestion.editing import set_path


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        ({}, {"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 1}}}),
        ({"h": {"lr": 1, "b": 2}}, {"h": {"lr": 3}}, {"h": {"lr": 3, "b": 2}}),
        ({"h": {"old": 1}}, {"h": {"lr": 1, "b": 2}}, {"h": {"lr": 1, "b": 2}}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
        ({"a": {}}, {"a": {"b": 2}}, {"a": {"b": 2}}),
        ({"a": {"b": 2}}, {"a": 1}, {"a": 1}),
        ({"a": {"b": 2}}, {"a": {}}, {"a": {}}),
        ({"a": [1]}, {"a": {"b": {"c": None}}}, {"a": {"b": {"c": None}}}),
        ({"x": 1, "y": {"z": 1}}, {"y": 2, "w": 3}, {"x": 1, "y": 2, "w": 3}),
        ({"x": 1}, {}, {"x": 1}),
    ],
)
def test_params_are_set_by_path(before: dict[Any, Any], value: dict[str, Any], after: dict[Any, Any]) -> None:
    set_path(before, value)

    assert before == after
