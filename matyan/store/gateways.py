"""Which of a source's records are applied, part of every worker transaction: what may come twice is applied once.

A source numbers what it appends to a partition: 1, 2, 3 and so on. Gateways do, whose spill may bring a record again
(docs/decisions/0020-spill.md). The numbers are kept beside the applied offset and guarded by it: both are written in
the transaction that applies the records, which fails when the offset is not the expected one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from matyan.engines.kv.protocol import KvEngine, KvReader, KvTransaction, Pair
from matyan.engines.log.protocol import TopicPartition
from matyan.store import keyspace
from matyan.store.records import RecordCodec
from matyan.store.scans import scan_pages

MISSING_MAX: Final = 256
"""Gaps remembered for a source. A source's records come in order, so what was overtaken is what its log refused; when
there are more gaps than this, what the oldest one lacks is given up."""


class Gap(NamedTuple):
    """Numbers `begin <= number < end` that have not come."""

    begin: int
    end: int


class Numbers(msgspec.Struct, frozen=True, array_like=True):
    """What of one source is applied to one partition: all up to `highest` but for the gaps."""

    highest: int = 0
    missing: tuple[Gap, ...] = ()
    """In rising order, apart from each other."""
    seen_ms: int = 0
    """When a record of the source was applied last: milliseconds since 1970-01-01 UTC, the worker's clock."""

    def has(self, number: int) -> bool:
        """Return whether the record of this number is applied, or given up."""
        return number <= self.highest and self._place_of(number) < 0

    def plus(self, number: int, now_ms: int) -> Numbers:
        """Return what holds when the record of this number has been applied."""
        if self.has(number):
            return self
        if number > self.highest:
            missing = self.missing
            if number > self.highest + 1:
                missing = (*missing, Gap(self.highest + 1, number))[-MISSING_MAX:]
            return Numbers(number, missing, now_ms)
        place = self._place_of(number)
        begin, end = self.missing[place]
        rest = tuple(gap for gap in (Gap(begin, number), Gap(number + 1, end)) if gap.begin < gap.end)
        missing = (*self.missing[:place], *rest, *self.missing[place + 1 :])
        return Numbers(self.highest, missing[-MISSING_MAX:], now_ms)

    def _place_of(self, number: int) -> int:
        """Return the place of the gap that holds a number, or -1."""
        place = bisect_right(self.missing, number, key=_begin_of) - 1
        return place if place >= 0 and number < self.missing[place].end else -1


_codec: Final = RecordCodec(Numbers)


def get_many(reader: KvReader, log_id: str, partition: TopicPartition, sources: Sequence[str]) -> list[Numbers]:
    """Return what is applied of each source, in one round trip; nothing of one that is not known."""
    values = reader.get_many([keyspace.gateway(log_id, *partition, source) for source in sources])
    return [Numbers() if value is None else _codec.decode(value) for value in values]


def put(tx: KvTransaction, log_id: str, partition: TopicPartition, applied: Mapping[str, Numbers]) -> None:
    """Store what is applied now, in the transaction that applies it."""
    for source, numbers in applied.items():
        tx.put(keyspace.gateway(log_id, *partition, source), _codec.encode(numbers))


def forget_gateways(kv: KvEngine, before_ms: int) -> int:
    """Forget sources of which nothing was applied since `before_ms`; return how many.

    What comes again of such a source after that is applied again.
    """
    return sum(_forget_old(kv, pairs, before_ms) for pairs in scan_pages(kv, *keyspace.gateways()))


def _forget_old(kv: KvEngine, pairs: Sequence[Pair], before_ms: int) -> int:
    old = [key for key, value in pairs if _codec.decode(value).seen_ms < before_ms]
    if not old:
        return 0

    def clear(tx: KvTransaction) -> int:
        # Read again: a source may have come back since.
        still = [
            key
            for key, value in zip(old, tx.get_many(old), strict=True)
            if value is not None and _codec.decode(value).seen_ms < before_ms
        ]
        for key in still:
            tx.clear(key)
        return len(still)

    return kv.write(clear, durable=False)


def _begin_of(gap: Gap) -> int:
    return gap.begin
