"""Records that come again: found by their source's numbers, left out of a slice before it is applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from matyan.engines.kv.protocol import KvEngine
from matyan.engines.log.protocol import TopicPartition
from matyan.ingestion.batches import Piece, Spoilt
from matyan.store import gateways
from matyan.store.gateways import Numbers
from matyan.store.offsets import Applied
from matyan.wire.messages import Envelope

SOURCES_MAX: Final = 1024
"""Sources remembered for a partition; the store knows the others."""


class Fresh(NamedTuple):
    """A slice whose repeats are records of nothing: the position moves past them, and that is all."""

    pieces: Sequence[Piece]
    spoilt: Sequence[Spoilt]
    repeated: int
    """Records that were applied before."""


class Repeats:
    """What is applied of each source, as far as one worker has got. Belongs to its thread.

    What it remembers is true as long as the position of the partition is: whoever finds that the position moved
    forgets the partition.
    """

    def __init__(self, *, kv: KvEngine, log_id: str) -> None:
        self._kv = kv
        self._log_id = log_id
        self._known: dict[TopicPartition, dict[str, Numbers]] = {}

    def forget(self, partition: TopicPartition) -> None:
        """Ask the store again for everything of a partition."""
        self._known.pop(partition, None)

    def leave_out(self, partition: TopicPartition, pieces: Sequence[Piece], spoilt: Sequence[Spoilt]) -> Fresh:
        """Empty the records that are applied already, or stand in the slice before.

        A record applied in part is not: its number counts from its last command on.
        """
        sources = {piece.envelope.gateway for piece in pieces if piece.envelope.is_numbered}
        if not sources:
            return Fresh(pieces, spoilt, 0)
        repeated = _repeated(pieces, self._states(partition, sources))
        if not repeated:
            return Fresh(pieces, spoilt, 0)
        return Fresh(
            [_emptied(piece) if piece.offset in repeated else piece for piece in pieces],
            [one for one in spoilt if one.offset not in repeated],
            len(repeated),
        )

    def applied_by(
        self, partition: TopicPartition, pieces: Sequence[Piece], end: Applied, now_ms: int
    ) -> Mapping[str, Numbers]:
        """Return what is applied of the slice's sources when it has been applied up to `end`."""
        whole = [piece.envelope for piece in pieces if piece.envelope.is_numbered and piece.offset < end.offset]
        states = self._states(partition, {envelope.gateway for envelope in whole})
        for envelope in whole:
            states[envelope.gateway] = states[envelope.gateway].plus(envelope.number, now_ms)
        return states

    def remember(self, partition: TopicPartition, applied: Mapping[str, Numbers]) -> None:
        """Take notice of what the store holds of sources, now that a transaction has stored it."""
        known = self._known.setdefault(partition, {})
        for source, numbers in applied.items():
            known.pop(source, None)
            known[source] = numbers
        while len(known) > SOURCES_MAX:
            del known[next(iter(known))]  # the one that was applied longest ago

    def _states(self, partition: TopicPartition, sources: set[str]) -> dict[str, Numbers]:
        """Return what is applied of each source."""
        known = self._known.get(partition, {})
        states = {source: known[source] for source in sources & known.keys()}
        unknown = sorted(sources - known.keys())
        if unknown:
            read = self._kv.read(lambda reader: gateways.get_many(reader, self._log_id, partition, unknown))
            found = dict(zip(unknown, read, strict=True))
            self.remember(partition, found)
            states |= found
        return states


def _repeated(pieces: Sequence[Piece], states: dict[str, Numbers]) -> set[int]:
    """Return the offsets of records that are applied, or come a second time here; `states` is used up."""
    found: set[int] = set()
    for piece in pieces:
        source, number = piece.envelope.gateway, piece.envelope.number
        if not piece.envelope.is_numbered:
            continue
        if states[source].has(number):
            found.add(piece.offset)
        else:
            states[source] = states[source].plus(number, 0)
    return found


def _emptied(piece: Piece) -> Piece:
    return Piece(piece.offset, Envelope(1, "", "", piece.envelope.received_ms, "", b""), (), 0, 0)
