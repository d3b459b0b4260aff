"""Quiet sequences are stored as compactly as they go: a periodic job, resumable and harmless to repeat."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial
from typing import Final

from matyan.clock import Clock
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.ids import Project, RunNumber
from matyan.runs import repository as runs
from matyan.runs import signs
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket
from matyan.sequences.repository import SequenceRef
from matyan.store import keyspace
from matyan.store.parts import write_in_parts
from matyan.store.scans import scan_pages
from matyan.store.subspaces import Subspace

QUIET_SECONDS: Final = 60.0
"""A run that has sent nothing for so long is settled although it has not ended."""
_SEQUENCES_PER_TRANSACTION: Final = 50
_TOKEN_BYTES: Final = 8


def settle_quiet_runs(kv: KvEngine, project: Project, clock: Clock, *, all_runs: bool = False) -> int:
    """Settle every run that has ended or fallen quiet (or simply all); return how many."""
    quiet_before_ms = (clock.now_seconds() - QUIET_SECONDS) * 1000
    settled = 0
    for rows in scan_pages(kv, *keyspace.children(keyspace.subspace(project, Subspace.UNSETTLED_RUNS))):
        for key, value in rows:
            number = RunNumber(keyspace.last_number(key))
            is_quiet = signs.decode_ms(value) < quiet_before_ms
            if all_runs or is_quiet or _has_ended(kv, project, number):
                _settle_run(kv, project, number, key)
                settled += 1
    return settled


def _has_ended(kv: KvEngine, project: Project, number: RunNumber) -> bool:
    (document,) = kv.read(lambda reader: runs.read_documents(reader, project, [number]))
    return document is None or not document.active


def _settle_run(kv: KvEngine, project: Project, number: RunNumber, key: bytes) -> None:
    token = secrets.token_bytes(_TOKEN_BYTES)
    value = kv.write(partial(_mark, key=key, token=token), durable=False)
    if value is None:
        return
    (summaries,) = kv.read(lambda reader: sequences.list_summaries(reader, project, [number], Bucket.METRIC))
    refs = [SequenceRef(number, summary.key) for summary in summaries]
    for at in range(0, len(refs), _SEQUENCES_PER_TRANSACTION):
        part = refs[at : at + _SEQUENCES_PER_TRANSACTION]
        for _ in write_in_parts(kv, part, partial(_settle_sequences, project=project), durable=False):
            pass  # each part is written when it is asked for
    # Points that came meanwhile have set the key anew, without the mark, and it stays.
    kv.write(partial(_forget, project=project, number=number, key=key, value=value), durable=False)


def _mark(tx: KvTransaction, *, key: bytes, token: bytes) -> bytes | None:
    value = tx.get(key)
    if value is None:
        return None  # the run was deleted
    value = signs.marked(value, token)
    tx.put(key, value)
    return value


def _forget(tx: KvTransaction, *, project: Project, number: RunNumber, key: bytes, value: bytes) -> None:
    if tx.get(key) != value:
        return
    tx.clear(key)
    if tx.get(keyspace.active_run(project, number)) is not None:
        signs.note(tx, project, number, signs.decode_ms(value))


def _settle_sequences(tx: KvTransaction, refs: Sequence[SequenceRef], *, project: Project) -> None:
    for ref in refs:
        sequences.settle(tx, project, ref)
