"""Experiment, Tag: named records that runs refer to."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from matyan.ids import RunNumber


class RunPlace(NamedTuple):
    """Where a run stands in the order of creation."""

    created_us: int
    """Microseconds since 1970-01-01 UTC."""
    number: RunNumber


class Experiment(msgspec.Struct, array_like=True, frozen=True, kw_only=True, gc=False):
    """A named group of runs; every run has at most one."""

    id: str
    """UUID text."""
    name: str
    description: str | None = None
    archived: bool = False
    created_at_seconds: float = 0.0


class Tag(msgspec.Struct, array_like=True, frozen=True, kw_only=True, gc=False):
    """A label that runs carry; archived tags are hidden from runs and queries."""

    id: str
    name: str
    color: str | None = None
    description: str | None = None
    archived: bool = False
    created_at_seconds: float = 0.0


class EntityDeletion(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """An experiment or tag that is gone while some of its runs may still refer to it."""

    id: str
    deletes_runs: bool
    """Whether its runs are deleted too, or only lose it."""
