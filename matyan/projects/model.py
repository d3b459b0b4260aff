"""ParamTree: the union of the params of many runs. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

EXAMPLE: Final = "__example_type__"


class ParamTree:
    """The union of the params of many runs: which paths there are, with the type of one example each."""

    def __init__(self) -> None:
        self._children: dict[str, ParamTree] = {}
        self._example: str | None = None

    def add(self, value: Any) -> None:
        """Add the params of a run, or a value of them."""
        if isinstance(value, dict):
            self._add_children(value.items())
            return
        self._example = f"<class '{type(value).__name__}'>"
        if isinstance(value, list):
            self._add_children(enumerate(value))

    def tree(self) -> dict[str, Any]:
        """Return the union: a leaf is `{"__example_type__": "<class 'float'>"}`, a list has its elements too."""
        example = {} if self._example is None else {EXAMPLE: self._example}
        return {**example, **{key: child.tree() for key, child in self._children.items()}}

    def _add_children(self, children: Iterable[tuple[Any, Any]]) -> None:
        for key, value in children:
            self._children.setdefault(str(key), ParamTree()).add(value)
