"""BUILD: one build function per part, and the order in which a role calls them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from matyan.roles import background, engines, served
from matyan.roles.context import Context
from matyan.roles.runner import Build, Built
from matyan.roles.table import Part, start_order

BUILD: Final[Mapping[Part, Callable[[Context], Built]]] = {
    Part.KV: engines.build_kv,
    Part.LOG: engines.build_log,
    Part.BLOB: engines.build_blob,
    Part.OPS: served.build_ops,
    Part.REST: served.build_rest,
    Part.GATEWAY: served.build_gateway,
    Part.FOLLOW: background.build_follow,
    Part.INGEST: background.build_ingest,
    Part.RELAY: background.build_relay,
    Part.CONTROL: background.build_control,
    Part.SWEEP: background.build_sweep,
    Part.HTTP: served.build_http,
}


def builds(role: str, context: Context) -> Sequence[Build]:
    """Return the build functions of a role, in the order to call them."""
    return [functools.partial(BUILD[part], context) for part in start_order(role)]
