"""Cursors: where jobs stand that look at more than fits one run of them, so that another process can go on there."""

from __future__ import annotations

from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.store import keyspace


def get(reader: KvReader, name: str) -> bytes:
    """Return where a job stands; empty at the beginning of a pass."""
    return reader.get(keyspace.cursor(name)) or b""


def put(tx: KvTransaction, name: str, place: bytes) -> None:
    """Note where a job stands; an empty place is the beginning."""
    if place:
        tx.put(keyspace.cursor(name), place)
    else:
        tx.clear(keyspace.cursor(name))
