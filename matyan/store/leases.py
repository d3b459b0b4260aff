"""Leases: one holder of a name at a time, until it is released or expires.

The expiry only says when others may take a lease. Whether a write under it is still right is decided in the write's
own transaction, by `require`: a holder that slept past its expiry finds another's record there and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.errors import LeaseLostError
from matyan.store import keyspace
from matyan.store.records import RecordCodec


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One holding of a lease, by which its holder knows it again."""

    name: str
    process: str
    """A random text of the process that holds it."""
    turn: int
    """Which of that process's holdings this is; no two have the same."""


class LeaseRecord(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """What is stored of a lease."""

    process: str
    turn: int
    number: int
    """The fencing number: greater for every new holder for as long as the name is not forgotten."""
    expires_at_seconds: float
    """From this moment on anybody may take it; 0 when it was released."""

    def belongs_to(self, claim: Claim) -> bool:
        """Return whether this is the holding meant by `claim`."""
        return (self.process, self.turn) == (claim.process, claim.turn)


_codec: Final = RecordCodec(LeaseRecord)


def get(reader: KvReader, name: str) -> LeaseRecord | None:
    """Return the record of a name; None when nobody ever held it, or it was forgotten."""
    value = reader.get(keyspace.lease(name))
    return None if value is None else _codec.decode(value)


def acquire(tx: KvTransaction, claim: Claim, *, now_seconds: float, seconds: float) -> int | None:
    """Take a lease for `seconds`; return its fencing number, or None when another holding of it lasts."""
    found = get(tx, claim.name)
    if found is not None:
        if found.belongs_to(claim):
            return found.number  # the first attempt was committed, though its answer was lost
        if now_seconds < found.expires_at_seconds:
            return None
    number = 1 if found is None else found.number + 1
    _put(tx, claim, number, now_seconds + seconds)
    return number


def renew(tx: KvTransaction, claims: Sequence[Claim], *, now_seconds: float, seconds: float) -> list[bool]:
    """Hold leases for another `seconds`; return for each whether it is still ours. One that expired untaken is."""
    values = tx.get_many([keyspace.lease(claim.name) for claim in claims])
    kept: list[bool] = []
    for claim, value in zip(claims, values, strict=True):
        found = None if value is None else _codec.decode(value)
        is_ours = found is not None and found.belongs_to(claim)
        if found is not None and is_ours:
            _put(tx, claim, found.number, now_seconds + seconds)
        kept.append(is_ours)
    return kept


def release(tx: KvTransaction, claim: Claim, *, forget: bool = False) -> None:
    """Let others take a lease at once; nothing when it is not ours.

    `forget` clears the record too, for names that nobody may ever ask for again; fencing numbers begin anew.
    """
    found = get(tx, claim.name)
    if found is None or not found.belongs_to(claim):
        return
    if forget:
        tx.clear(keyspace.lease(claim.name))
    else:
        _put(tx, Claim(name=claim.name, process="", turn=0), found.number, 0.0)


def require(tx: KvTransaction, claim: Claim) -> None:
    """Make a transaction depend on a lease: it is committed only if nobody else has taken the lease until then.

    Raises:
        LeaseLostError: somebody has, or it was released.
    """
    found = get(tx, claim.name)
    if found is None or not found.belongs_to(claim):
        raise LeaseLostError(f"the lease {claim.name!r} is held by another process by now")


def _put(tx: KvTransaction, claim: Claim, number: int, expires_at_seconds: float) -> None:
    record = LeaseRecord(process=claim.process, turn=claim.turn, number=number, expires_at_seconds=expires_at_seconds)
    tx.put(keyspace.lease(claim.name), _codec.encode(record))
