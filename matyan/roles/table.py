"""Part, NEEDS, AFTER, ROLES: which parts run together, in what order. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from graphlib import TopologicalSorter
from typing import Final


class Part(StrEnum):
    """A piece of the product that a role may run."""

    KV = "kv"
    LOG = "log"
    BLOB = "blob"
    OPS = "ops"
    REST = "rest"
    GATEWAY = "gateway"
    FOLLOW = "follow"
    INGEST = "ingest"
    RELAY = "relay"
    CONTROL = "control"
    SWEEP = "sweep"
    HTTP = "http"


NEEDS: Final[Mapping[Part, tuple[Part, ...]]] = {
    Part.KV: (),
    Part.LOG: (),
    Part.BLOB: (),
    Part.OPS: (),
    Part.REST: (Part.KV, Part.LOG, Part.BLOB),
    Part.GATEWAY: (Part.LOG, Part.BLOB),
    Part.FOLLOW: (Part.KV, Part.LOG),
    Part.INGEST: (Part.KV, Part.LOG, Part.BLOB),
    Part.RELAY: (Part.KV, Part.LOG),
    Part.CONTROL: (Part.KV, Part.LOG, Part.BLOB),
    Part.SWEEP: (Part.KV, Part.LOG, Part.BLOB),
    Part.HTTP: (Part.OPS,),
}
"""What a part cannot do without: named here, it is started too, before it."""

AFTER: Final[Mapping[Part, tuple[Part, ...]]] = {
    Part.GATEWAY: (Part.FOLLOW,),
    Part.HTTP: (Part.REST, Part.GATEWAY, Part.INGEST, Part.RELAY, Part.CONTROL, Part.SWEEP),
}
"""Order only, when both are there: the door opens last and closes first."""

LOCAL: Final = "local"

ROLES: Final[Mapping[str, tuple[Part, ...]]] = {
    LOCAL: (Part.REST, Part.GATEWAY, Part.INGEST, Part.RELAY, Part.CONTROL, Part.SWEEP, Part.HTTP),
    "serve": (Part.REST, Part.HTTP),
    "frontier": (Part.GATEWAY, Part.FOLLOW, Part.HTTP),
    "ingest": (Part.INGEST, Part.HTTP),
    "control": (Part.RELAY, Part.CONTROL, Part.SWEEP, Part.HTTP),
}
"""Role -> the parts it asks for. `matyan up` is LOCAL; the others share engines that several machines reach."""

COMPONENTS: Final[Mapping[str, str]] = {"frontier": "frontier"}
"""Role -> what `/version/` calls it, where that is not `backend`."""

APART: Final = tuple(role for role in ROLES if role != LOCAL)


def start_order(role: str) -> tuple[Part, ...]:
    """Return the parts of `role` and all they need, each after its NEEDS and its AFTER."""
    wanted = set(ROLES[role])
    while missing := {need for part in wanted for need in NEEDS[part]} - wanted:
        wanted |= missing
    graph = {part: {*NEEDS[part], *AFTER.get(part, ())} & wanted for part in Part if part in wanted}
    return tuple(TopologicalSorter(graph).static_order())
