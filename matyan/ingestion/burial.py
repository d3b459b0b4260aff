"""Records of deleted runs are dropped: which ones, and what their files still need. Pure but for one read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.ids import Project, RunId
from matyan.ingestion.batches import Piece, Spoilt
from matyan.runs import tombstones
from matyan.runs.tombstones import LATE_NOTE_SECONDS, Deletion, Due, Tombstone
from matyan.wire.messages import BlobRef
from matyan.wire.tables import PointTable

RunKey = tuple[Project, RunId]
Tombstones = Mapping[RunKey, Tombstone]

_HOUR_MS: Final = 3_600_000


class Burial(NamedTuple):
    """What is left of a slice without its dead."""

    pieces: Sequence[Piece]
    spoilt: Sequence[Spoilt]
    dropped: int
    """Commands of deleted runs."""
    uploads: Sequence[tuple[Project, Due]]
    """Files that arrived for runs already deleted, to be freed within the hour."""
    late: Mapping[RunKey, Tombstone]
    """Tombstones as they are to be: with the news that a client still sends."""


def runs_of(pieces: Sequence[Piece]) -> list[RunKey]:
    """Return the runs that a slice is about, each once."""
    named = (piece.envelope for piece in pieces if piece.envelope.run_id)
    return list(dict.fromkeys((Project(one.project), RunId(one.run_id)) for one in named))


def read_tombstones(reader: KvReader, runs: Sequence[RunKey]) -> Tombstones:
    """Return the tombstones of those runs that were ever deleted, in one round trip."""
    found = tombstones.get_many(reader, runs)
    return {run: tombstone for run, tombstone in zip(runs, found, strict=True) if tombstone is not None}


def bury(pieces: Sequence[Piece], spoilt: Sequence[Spoilt], log_id: str, graves: Tombstones) -> Burial:
    """Take out of a slice what belongs to deleted runs."""
    if not graves:
        return Burial(pieces, spoilt, 0, (), {})
    dead = [piece for piece in pieces if _grave_of(piece, log_id, graves) is not None]
    buried = {piece.offset for piece in dead}
    return Burial(
        pieces=[piece for piece in pieces if piece.offset not in buried],
        spoilt=[one for one in spoilt if one.offset not in buried],
        dropped=sum(piece.end - piece.begin for piece in dead),
        uploads=[_upload(piece, graves) for piece in dead if _names_files(piece)],
        late=_late(dead, graves),
    )


def note_burial(tx: KvTransaction, burial: Burial) -> None:
    """Have files freed that came for deleted runs; note on tombstones that a client goes on."""
    for project, due in burial.uploads:
        tombstones.schedule(tx, project, due)
    for (project, run_id), tombstone in burial.late.items():
        tombstones.put(tx, project, run_id, tombstone)


def _key_of(piece: Piece) -> RunKey:
    return Project(piece.envelope.project), RunId(piece.envelope.run_id)


def _grave_of(piece: Piece, log_id: str, graves: Tombstones) -> Tombstone | None:
    tombstone = graves.get(_key_of(piece))
    return tombstone if tombstone is not None and tombstone.buries(*piece.place(log_id)) else None


def _late(dead: Sequence[Piece], graves: Tombstones) -> Mapping[RunKey, Tombstone]:
    """Return tombstones that have to say that records still come; most say it already, for this hour."""
    found: dict[RunKey, Tombstone] = {}
    for piece in dead:
        run, received = _key_of(piece), piece.envelope.received_ms / 1000
        tombstone = graves[run]
        if not tombstone.is_cleared and received >= tombstone.touched_at_seconds + LATE_NOTE_SECONDS:
            found[run] = msgspec.structs.replace(tombstone, late_at_seconds=received)
    return found


def _names_files(piece: Piece) -> bool:
    commands = piece.own_commands
    return not isinstance(commands, PointTable) and any(isinstance(command, BlobRef) for command in commands)


def _upload(piece: Piece, graves: Tombstones) -> tuple[Project, Due]:
    """Return a deletion that is due at the next full hour: one an hour, however many files a client goes on to send."""
    project, run_id = _key_of(piece)
    tombstone = graves[project, run_id]
    due_ms = -(-piece.envelope.received_ms // _HOUR_MS) * _HOUR_MS
    deletion = Deletion(run_id=run_id, deleted_at_seconds=tombstone.deleted_at_seconds, is_late=True)
    return project, Due(due_ms, tombstone.number, deletion)
