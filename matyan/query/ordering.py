"""The order of a run search: `sort` text -> fields and directions -> sorted rows. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from matyan.errors import InvalidArgumentError
from matyan.ids import RunNumber
from matyan.runs.model import Run


class Field(enum.StrEnum):
    """What runs can be sorted by."""

    RUN = enum.auto()
    EXPERIMENT = enum.auto()
    HASH = enum.auto()
    DATE = enum.auto()
    DURATION = enum.auto()
    DESCRIPTION = enum.auto()
    CREATOR = enum.auto()


class Order(msgspec.Struct, frozen=True):
    """One entry of `sort`."""

    field: Field
    order: Literal["asc", "desc"] = "asc"


NEWEST_FIRST: Final = (Order(Field.DATE, "desc"),)
"""The order in which the store lists runs, so that nothing is to be sorted."""


class SortRow(NamedTuple):
    """A run among those to be sorted, in little memory."""

    keys: tuple[Any, ...]
    """One per order."""
    number: RunNumber


def parse_orders(text: str) -> tuple[Order, ...]:
    """Return what to sort by, the most significant first.

    A field that comes again decides nothing more and is dropped. Nothing, and an empty list, is NEWEST_FIRST.

    Raises:
        InvalidArgumentError: it is no JSON list of `{"field", "order"}`, or names an unknown field or order.
    """
    if not text.strip():
        return NEWEST_FIRST
    try:
        orders = msgspec.json.decode(text, type=list[Order])
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidArgumentError(f'sort is a JSON list of {{"field", "order"}}: {error}') from error
    distinct: dict[Field, Order] = {}
    for order in orders:
        distinct.setdefault(order.field, order)
    return tuple(distinct.values()) or NEWEST_FIRST


class Ordering:
    """Sorts runs at one moment: runs that have not ended last until then."""

    def __init__(self, orders: Sequence[Order], *, now_seconds: float) -> None:
        self._orders = orders
        self._now_seconds = now_seconds

    def keys(self, run: Run) -> tuple[Any, ...]:
        """Return what the run is sorted by."""
        return tuple(_KEYS[order.field](run, self._now_seconds) for order in self._orders)

    def sort(self, rows: list[SortRow]) -> None:
        """Sort in place; rows that are equal in every respect keep their order, whatever the direction."""
        for place in reversed(range(len(self._orders))):
            is_falling = self._orders[place].order == "desc"
            rows.sort(key=lambda row, place=place: row.keys[place], reverse=is_falling)  # type: ignore[misc]  # mypy cannot infer a lambda with a default


def _duration(run: Run, now_seconds: float) -> float:
    end = run.document.end_time_seconds
    return (now_seconds if end is None else end) - run.document.created_at_seconds


_KEYS: Final[Mapping[Field, Callable[[Run, float], Any]]] = {
    # Python compares texts by code point, as the contract wants it.
    Field.RUN: lambda run, _: run.name,
    Field.EXPERIMENT: lambda run, _: "" if run.experiment is None else run.experiment.name,
    Field.HASH: lambda run, _: run.document.hash,
    Field.DATE: lambda run, _: run.document.created_at_seconds,
    Field.DURATION: _duration,
    Field.DESCRIPTION: lambda run, _: run.document.description or "",
    # Nobody tells who created a run: all are equal.
    Field.CREATOR: lambda _, __: "",
}
