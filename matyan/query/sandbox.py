"""What bounds a running query: its budget, and the weight of its values.

The invariants: every value that query text can make weighs at most SIZE_MAX units, nests at most DEPTH_MAX deep and
hashes at most COLLIDING_MAX values whose hashes its author could choose, so no single operation in C (comparison,
sorting, repr, hash, formatting) takes longer than a few milliseconds; whatever repeats spends steps, which bounds
memory; and the processor time of one evaluation has an end, however little its steps say of it.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from matyan.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SIZE_MAX: Final = 10_000
"""Units that a value made by a query weighs at most: elements, 16 characters, 64 bits of an integer."""
DEPTH_MAX: Final = 100
CHARACTERS_PER_UNIT: Final = 16
BITS_PER_UNIT: Final = 64
INT_BITS_MAX: Final = 1024
"""As far as a double reaches, too."""
HASH_BITS: Final = sys.hash_info.modulus.bit_length() - 1
"""Up to here, an integer is its own hash; of longer ones, any number have the same."""
COLLIDING_MAX: Final = 500
"""Values whose hashes may all be the same in one set or dict: as many squared is what it takes to make it."""
STEPS_MAX: Final = 200_000
SECONDS_MAX: Final = 30.0
EVALUATION_SECONDS_MAX: Final = 0.05
"""Processor time; an ordinary evaluation takes a few microseconds."""
_STEPS_PER_LOOK: Final = 32
"""Steps between two looks at the clock."""

_OWN_HASH: Final = frozenset({str, bytes, float, bool, type(None)})
"""Types of whose values nobody finds many with one hash: randomized, or too few."""
_FLAT_CONTAINERS: Final = frozenset({list, tuple, set, frozenset})


class QueryBudgetError(InvalidArgumentError):
    """The query took more time or steps than it may; its remaining rows were not looked at.

    The caller's fault: the same request would end the same way, another query would not.
    """


class OversizeError(ValueError):
    """One evaluation asked for a value that is too large; as any evaluation error, it only loses the row."""


class Budget:
    """How much one search may spend. Belongs to one thread."""

    __slots__ = ("_checkpoint", "_deadline", "_first_checkpoint", "_processor_end", "clock", "left", "steps")

    def __init__(
        self, *, seconds: float = SECONDS_MAX, steps: int = STEPS_MAX, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start the clock.

        Args:
            seconds: for the whole search, from now on.
            steps: for one evaluation (a step is about 0.1 µs of work and 250 bytes of memory at most).
            clock: seconds that never go back.
        """
        self.clock = clock
        """Seconds that never go back."""
        self._deadline = clock() + seconds
        self.steps = steps
        self.left = steps
        """Of the evaluation that runs, or ran last."""
        self._first_checkpoint = max(steps - _STEPS_PER_LOOK, 0)
        self._checkpoint = 0
        self._processor_end: float | None = None
        """When the evaluation's processor time ends, in this thread's; None until its first look at the clock."""

    def begin_row(self) -> None:
        """Grant the steps of the next evaluation.

        Raises:
            QueryBudgetError: the deadline has passed.
        """
        self.left = self.steps
        self._processor_end = None
        self._check_deadline()
        self._checkpoint = self._first_checkpoint

    def spend(self, steps: int) -> None:
        """Take steps.

        Raises:
            QueryBudgetError: none are left, or the deadline has passed.
        """
        self.left -= steps
        if self.left < self._checkpoint:
            self._look()

    def _look(self) -> None:
        if self.left < 0:
            raise QueryBudgetError(f"one evaluation of the query takes more than {self.steps} steps")
        self._check_deadline()
        now = time.thread_time()
        if self._processor_end is None:
            self._processor_end = now + EVALUATION_SECONDS_MAX
        elif now > self._processor_end:
            raise QueryBudgetError(f"one evaluation of the query takes more than {EVALUATION_SECONDS_MAX} s")
        self._checkpoint = max(self.left - _STEPS_PER_LOOK, 0)

    def _check_deadline(self) -> None:
        if self.clock() > self._deadline:
            raise QueryBudgetError(
                "the query took longer than it may: let it select fewer runs, or ask for less of them"
            )


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
    elif kind is range:
        return 1 + len(item)
    elif kind is slice:
        below += (item.start, item.stop, item.step)
    elif kind is partial:
        below += item.args
    elif isinstance(item, Proxy):
        below.append(item.contents())
    return 1


def check_hashes(values: Iterable[object]) -> None:
    """Refuse what takes too long to be put in one set or dict, because its hashes may all be the same.

    Raises:
        OversizeError: more than COLLIDING_MAX are of a kind whose hashes can be chosen.
    """
    if sum(map(_is_colliding, values)) > COLLIDING_MAX:
        raise OversizeError(f"a set or dict of more than {COLLIDING_MAX} tuples or other values that are no plain ones")


def _is_colliding(value: Any) -> bool:
    kind = type(value)
    return kind not in _OWN_HASH and not (kind is int and value.bit_length() <= HASH_BITS)
