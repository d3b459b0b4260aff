"""What bounds a running query: its budget, and the weight of its values.

The invariant: every value that query text can make weighs at most SIZE_MAX units and nests at most DEPTH_MAX deep, so
no single operation in C (comparison, repr, hash, formatting) takes long; and whatever repeats spends steps.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from matyan.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE_MAX: Final = 10_000
"""Units that a value made by a query weighs at most: elements, 16 characters, 64 bits of an integer."""
DEPTH_MAX: Final = 100
CHARACTERS_PER_UNIT: Final = 16
BITS_PER_UNIT: Final = 64
INT_BITS_MAX: Final = 1024
"""As far as a double reaches, too."""
STEPS_MAX: Final = 200_000
SECONDS_MAX: Final = 30.0
_STEPS_PER_LOOK: Final = 64
"""Steps between two looks at the clock."""

_FLAT_CONTAINERS: Final = frozenset({list, tuple, set, frozenset})


class QueryBudgetError(InvalidArgumentError):
    """The query took more time or steps than it may; its remaining rows were not looked at.

    The caller's fault: the same request would end the same way, another query would not.
    """


class OversizeError(ValueError):
    """One evaluation asked for a value that is too large; as any evaluation error, it only loses the row."""


class Budget:
    """How much one search may spend. Belongs to one thread, but `cancel` may come from any."""

    __slots__ = ("_checkpoint", "_clock", "_deadline", "_left", "_steps")

    def __init__(
        self, *, seconds: float = SECONDS_MAX, steps: int = STEPS_MAX, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start the clock.

        Args:
            seconds: for the whole search, from now on.
            steps: for one evaluation (a step is about 0.1 µs of work and 16 bytes of memory at most).
            clock: seconds that never go back.
        """
        self._clock = clock
        self._deadline = clock() + seconds
        self._steps = steps
        self._left = steps
        self._checkpoint = 0

    def begin_row(self) -> None:
        """Grant the steps of the next evaluation.

        Raises:
            QueryBudgetError: the deadline has passed.
        """
        self._left = self._steps
        self._look()

    def spend(self, steps: int) -> None:
        """Take steps.

        Raises:
            QueryBudgetError: none are left, or the deadline has passed.
        """
        self._left -= steps
        if self._left < self._checkpoint:
            self._look()

    def cancel(self) -> None:
        """Make the next step fail: nobody waits for the result any more."""
        self._deadline = float("-inf")

    def _look(self) -> None:
        if self._left < 0:
            raise QueryBudgetError(f"one evaluation of the query takes more than {self._steps} steps")
        if self._clock() > self._deadline:
            raise QueryBudgetError(
                "the query took longer than it may: let it select fewer runs, or ask for less of them"
            )
        self._checkpoint = max(self._left - _STEPS_PER_LOOK, 0)


class Proxy:
    """A value that query text reaches only through these methods, never through Python's own attributes."""

    __slots__ = ()

    def get_attribute(self, name: str) -> object:
        """Return what `.name` means."""
        raise NotImplementedError

    def get_item(self, key: object) -> object:
        """Return what `[key]` means."""
        raise TypeError(f"not subscriptable with {key!r}")

    def plain(self) -> object:
        """Return the value that operators see."""
        raise TypeError("not a value")

    def contents(self) -> object:
        """Return what is weighed."""
        return None


def plain(value: object) -> Any:
    """Return the value behind a proxy, or the value itself."""
    return value.plain() if isinstance(value, Proxy) else value


def weigh(value: object) -> int:
    """Return the units of a value with all that it holds, or more than SIZE_MAX as soon as it is too large or deep."""
    total = 0
    level: list[object] = [value]
    for _ in range(DEPTH_MAX):
        below: list[object] = []
        for item in level:
            total += _weigh_item(item, below)
            if total + len(below) > SIZE_MAX:
                return SIZE_MAX + 1
        if not below:
            return total
        level = below
    return SIZE_MAX + 1


def _weigh_item(item: Any, below: list[object]) -> int:
    """Return the units of the item alone, and put what it holds below (unless that alone is too much)."""
    kind = type(item)
    if kind is str or kind is bytes:
        return 1 + len(item) // CHARACTERS_PER_UNIT
    if kind is int:
        return 1 + int(item.bit_length()) // BITS_PER_UNIT
    if kind in _FLAT_CONTAINERS or kind is dict:
        if len(item) > SIZE_MAX:
            return SIZE_MAX + 1
        below.extend(item)
        if kind is dict:
            below.extend(item.values())
    elif kind is slice:
        below += (item.start, item.stop, item.step)
    elif kind is partial:
        below += item.args
    elif isinstance(item, Proxy):
        below.append(item.contents())
    return 1
