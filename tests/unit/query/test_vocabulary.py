"""What a query can name: only what the contract lists, and never a module."""

from __future__ import annotations

from types import ModuleType
from typing import Final

import pytest

from matyan.query.guards import Guards
from matyan.query.moments import LocalTime
from matyan.query.sandbox import Budget, Proxy
from matyan.query.vocabulary import Namespace, make_guards, make_names, read_attribute

CONTRACT: Final = frozenset(
    {
        *("datetime", "timedelta", "sorted", "min", "max", "sum", "any", "all", "abs", "bool", "callable", "chr"),
        *("complex", "divmod", "float", "hash", "hex", "id", "int", "isinstance", "issubclass", "len", "oct", "ord"),
        *("pow", "range", "list", "tuple", "repr", "round", "slice", "str", "set", "frozenset"),
        *("math", "random", "string", "same_type", "test", "reorder", "whrandom"),
    }
)


@pytest.fixture
def guards() -> Guards:
    guards = make_guards(Budget())
    guards.step()
    return guards


def test_the_names_are_those_of_the_contract_and_the_exceptions(guards: Guards) -> None:
    names = make_names(guards)
    others = {name for name, value in names.items() if not _is_exception(value)}

    assert others == CONTRACT


def _is_exception(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def test_no_name_stands_for_a_module(guards: Guards) -> None:
    names = make_names(guards)
    tables = [value for value in names.values() if isinstance(value, Namespace)]
    members = [member for table in tables for member in table._members.values()]

    assert tables
    assert not any(isinstance(value, ModuleType | type(guards)) for value in [*names.values(), *members])


def test_an_exception_cannot_be_made(guards: Guards) -> None:
    for value in make_names(guards).values():
        if _is_exception(value):
            with pytest.raises(TypeError, match="not for calling"):
                guards.call(value, 1)


@pytest.mark.parametrize(
    "value",
    ["x", 1, True, 1.5, 1j, [], (), range(1), slice(1), set(), frozenset(), {}, LocalTime(2024, 1, 1)],
    ids=repr,
)
def test_only_listed_attributes_of_plain_values_can_be_read(value: object) -> None:
    hidden = [name for name in dir(value) if name.startswith("_")]

    assert all(read_attribute(value, name) is None for name in [*hidden, "format", "format_map", "mro", "append"])


@pytest.mark.parametrize("value", [None, len, lambda: 0, type, object(), (x for x in "a"), ValueError, Guards])
def test_anything_else_has_no_attributes(value: object) -> None:
    assert all(read_attribute(value, name) is None for name in dir(value))


def test_a_table_of_functions_gives_none_for_what_it_does_not_have(guards: Guards) -> None:
    table = make_names(guards)["math"]

    assert isinstance(table, Proxy)
    assert table.get_attribute("prod") is None
