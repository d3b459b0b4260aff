"""Experiment, Tag: named records that runs refer to."""

from __future__ import annotations

import msgspec


class Experiment(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """A named group of runs; every run has at most one."""

    id: str
    """UUID text."""
    name: str
    description: str | None = None
    archived: bool = False
    created_at_seconds: float = 0.0


class Tag(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """A label that runs carry; archived tags are hidden from runs and queries."""

    id: str
    name: str
    color: str | None = None
    description: str | None = None
    archived: bool = False
    created_at_seconds: float = 0.0
