"""KvWrapper: what an engine around another begins from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from matyan.engines.kv.protocol import KvEngine, KvReader, KvTransaction

T = TypeVar("T")


class KvWrapper:
    """A KvEngine that hands every call on to another; a subclass says what it does besides."""

    def __init__(self, engine: KvEngine) -> None:
        self.engine = engine

    def read(self, fn: Callable[[KvReader], T]) -> T:
        """Run `fn` on a snapshot and return its result."""
        return self.engine.read(fn)

    def write(self, fn: Callable[[KvTransaction], T], *, durable: bool = True) -> T:
        """Run `fn`, commit, and return its result."""
        return self.engine.write(fn, durable=durable)

    def sync(self) -> None:
        """Return when every commit made before this call survives the loss of power."""
        self.engine.sync()

    def tend(self) -> None:
        """Do the engine's own housekeeping."""
        self.engine.tend()

    def close(self) -> None:
        """Release everything."""
        self.engine.close()
