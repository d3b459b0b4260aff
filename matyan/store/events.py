"""Control events on their way out: written in the transaction that makes them true."""

from __future__ import annotations

from typing import NamedTuple

from matyan.engines.kv.protocol import KvTransaction
from matyan.ids import make_id
from matyan.store import outbox
from matyan.store.outbox import OutboxEntry
from matyan.wire.events import Payload, encode_event
from matyan.wire.topics import CONTROL_EVENTS


class Occasion(NamedTuple):
    """What an event needs that no transaction may make: it might run twice."""

    event_id: str
    time_seconds: float


def make_occasion(now_seconds: float) -> Occasion:
    """Return an occasion for one event, to be made before its transaction."""
    return Occasion(make_id(), now_seconds)


def announce(tx: KvTransaction, payload: Payload, occasion: Occasion) -> None:
    """Have an event told after the commit, at least once; never without the commit."""
    entry = OutboxEntry(
        time_ms=int(occasion.time_seconds * 1000),
        key=payload.subject.encode(),
        value=encode_event(payload, event_id=occasion.event_id, time_seconds=occasion.time_seconds),
    )
    outbox.put(tx, CONTROL_EVENTS, entry, name=occasion.event_id.encode())
