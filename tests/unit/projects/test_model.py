"""The union of params."""

from __future__ import annotations

from typing import Any

import pytest

from matyan.projects.model import ParamTree


def leaf(kind: str) -> dict[str, str]:
    return {"__example_type__": f"<class '{kind}'>"}


def union(*trees: Any) -> dict[str, Any]:
    whole = ParamTree()
    for tree in trees:
        whole.add(tree)
    return whole.tree()


@pytest.mark.parametrize(
    ("value", "kind"), [(1, "int"), (1.0, "float"), ("x", "str"), (True, "bool"), (None, "NoneType"), ([], "list")]
)
def test_leaf_tells_the_type_of_an_example(value: object, kind: str) -> None:
    assert union({"a": value}) == {"a": leaf(kind)}


def test_list_has_its_elements_up_to_the_longest() -> None:
    assert union({"a": [1]}, {"a": ["x", {"b": 1}]}) == {
        "a": {**leaf("list"), "0": leaf("str"), "1": {"b": leaf("int")}},
    }


def test_path_that_is_a_leaf_here_and_a_tree_there_is_both() -> None:
    assert union({"a": {"b": 1}}, {"a": 5}) == {"a": {**leaf("int"), "b": leaf("int")}}


def test_empty_tree_and_integer_keys_are_kept() -> None:
    assert union({}) == {}
    assert union({"a": {}, 3: 1}) == {"a": {}, "3": leaf("int")}


def test_param_of_a_run_may_bear_the_name_of_the_mark() -> None:
    assert union({"a": 1}, {"a": {"__example_type__": {"x": 1}}}) == {"a": {"__example_type__": {"x": leaf("int")}}}
