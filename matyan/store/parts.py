"""One transaction for many rows, or several when they are too large for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.errors import TooLargeError

R = TypeVar("R")
T = TypeVar("T")


def write_in_parts(
    kv: KvEngine, rows: Sequence[R], write: Callable[[KvTransaction, Sequence[R]], T], *, durable: bool = True
) -> Iterator[T]:
    """Yield what `write` returns for all rows, or for halves of them, quarters, ... where a transaction is too small.

    Raises:
        TooLargeError: a single row is too large.
    """
    try:
        yield kv.write(lambda tx: write(tx, rows), durable=durable)
    except TooLargeError:
        if len(rows) == 1:
            raise
        middle = len(rows) // 2
        yield from write_in_parts(kv, rows[:middle], write, durable=durable)
        yield from write_in_parts(kv, rows[middle:], write, durable=durable)
