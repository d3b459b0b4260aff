"""Worlds for queries: what Hypothesis does to a project, with the values that `query_grammar` asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from hypothesis import strategies as st

from matyan.catalog import repository as catalog
from matyan.engines.kv.protocol import KvTransaction
from tests.support import query_grammar as grammar
from tests.support.index_world import IndexWorld

Operation = Callable[[IndexWorld], Any]

RUNS: Final = st.sampled_from([f"r{number}" for number in range(9)])
_PARAMS: Final = st.dictionaries(st.sampled_from(grammar.KEYS), st.sampled_from(grammar.VALUES), max_size=4)
_SECONDS: Final = st.sampled_from(grammar.CREATED_SECONDS)
_VALUES: Final = st.lists(st.sampled_from(grammar.METRIC_VALUES), min_size=1, max_size=3)


def operation(
    name: str, /, *arguments: st.SearchStrategy[Any], **fields: st.SearchStrategy[Any]
) -> st.SearchStrategy[Operation]:
    """Return calls of a world's method with these arguments."""
    return st.builds(
        lambda given, named: lambda world: getattr(world, name)(*given, **named),
        st.tuples(*arguments),
        st.fixed_dictionaries(fields),
    )


def _create(runs: st.SearchStrategy[str]) -> st.SearchStrategy[Operation]:
    return operation("create", runs, _PARAMS, _SECONDS, st.none() | _SECONDS)


def operations(runs: st.SearchStrategy[str] = RUNS) -> st.SearchStrategy[Operation]:
    """Return changes of these runs."""
    return st.one_of(
        _create(runs),
        _create(runs),
        operation("set_params", runs, _PARAMS),
        operation("edit", runs, name=st.sampled_from(grammar.NAMES)),
        operation("edit", runs, archived=st.booleans()),
        operation("edit", runs, active=st.booleans()),
        operation("edit", runs, experiment=st.sampled_from(grammar.EXPERIMENTS)),
        operation("end", runs, st.none() | _SECONDS),
        operation("tag", runs, st.sampled_from(grammar.TAGS)),
        operation("track", runs, st.sampled_from(grammar.METRICS), st.sampled_from(grammar.CONTEXTS), _VALUES),
        operation("track", runs, st.sampled_from(grammar.METRICS), st.sampled_from(grammar.CONTEXTS), _VALUES),
        operation("bring", runs, st.sampled_from(grammar.METRICS), _VALUES),
        operation("track_text", runs, st.sampled_from(grammar.METRICS)),
        operation("settle"),
        operation("delete", runs),
        operation("free"),
    )


_CHANGED: Final = st.builds(
    lambda name, archived: {"name": name} if archived is None else {"archived": archived},
    st.sampled_from(["renamed", "prod"]),
    st.none() | st.booleans(),
)


_CHANGES_OF_TAGS: Final = st.builds(
    lambda name, change: lambda world: change_tag(world, name, change), st.sampled_from(grammar.TAGS), _CHANGED
)
_BEGINNINGS: Final = [_create(st.just(f"r{number}")) for number in range(7)]
_CHANGES: Final = st.lists(operations() | _CHANGES_OF_TAGS, max_size=20)


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    """Return the beginnings of some runs, then changes, among them of tags."""
    begun = _BEGINNINGS[: draw(st.integers(2, len(_BEGINNINGS)))]
    return [*map(draw, begun), *draw(_CHANGES)]


def change_tag(world: IndexWorld, name: str, fields: dict[str, Any]) -> None:
    """Rename a tag, unless another has the name, or hide it or show it again."""

    def write(tx: KvTransaction) -> None:
        known = catalog.tags.find(tx, world.project, name)
        if known is not None and ("name" not in fields or catalog.tags.find(tx, world.project, fields["name"]) is None):
            catalog.tags.replace(tx, world.project, known, msgspec.structs.replace(known, **fields))

    world.kv.write(write, durable=False)
