"""The index made anew from what it is about, and proven equal to it; both while others write.

Making anew: the index is marked incomplete, so nobody reads it; all entries are cleared; then each run gets its own,
in a transaction that also reads what they are made from. Writers go on: what they change of a run they change of its
entries too, before its turn (its turn finds the newer state) or after. How far it is stands in the store and moves in
the transaction of each step, so it may be interrupted, and several processes may work at it.

Verifying: a first pass computes what each run should have, looks whether it is there, and counts what is; a second
counts all entries by run. Where the counts differ something may be left over, or a writer has been there: these runs
are looked at one by one, in a transaction each, so writers cannot cause false alarm.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from matyan.engines.kv.protocol import KeyRange, KvEngine, KvReader, KvTransaction, Pair
from matyan.ids import Project, RunNumber
from matyan.runs import entries
from matyan.runs import repository as runs
from matyan.runs.repository import Listed
from matyan.sequences import repository as sequences
from matyan.store import cursors, indexes, keyspace
from matyan.store.parts import write_in_parts
from matyan.store.scans import scan_all, scan_pages

logger = logging.getLogger(__name__)

_CURSOR: Final = "reindex/"
_TOKEN_BYTES: Final = 8
"""Each time of making the index anew has a token, so that a process that slept does not meddle with the next."""
_CLEARING: Final = b"c"
_BUILDING: Final = b"b"
_CLEARED_PER_TRANSACTION: Final = 5_000
_RUNS_PER_TRANSACTION: Final = 50
_SEQUENCES_PER_TRANSACTION: Final = 200
"""Of one run."""
_DIFFERENCES_KEPT: Final = 10


class Difference(NamedTuple):
    """An entry that is not as it should be."""

    key: bytes
    is_missing: bool
    """Else it is left over."""

    def described(self, project: Project) -> str:
        """Return it as a line for people."""
        place = self.key[len(keyspace.index(project)) : -indexes.NUMBER_BYTES]
        what = "missing" if self.is_missing else "left over"
        return f"{what}: run {indexes.number_of(self.key)}, {indexes.describe(place)}"


class Verdict(NamedTuple):
    """What verifying found."""

    runs: int
    entries: int
    """That should be there."""
    missing: int
    left_over: int
    examples: Sequence[Difference]
    is_complete: bool
    """Whether the index is marked complete: without that nobody uses it."""

    @property
    def is_good(self) -> bool:
        """Whether the index is what it should be."""
        return self.is_complete and not (self.missing or self.left_over)


# ---- making anew


def begin(kv: KvEngine, project: Project) -> None:
    """Begin to make the index anew, unless that was begun and not ended: then it goes on there."""
    kv.write(partial(_begin, project=project, token=secrets.token_bytes(_TOKEN_BYTES)))


def complete(kv: KvEngine, project: Project, *, seconds_max: float) -> bool:
    """Work for about `seconds_max` seconds at an index that is not complete; return whether it is: a periodic job.

    A store of an earlier release has none, or one of another form. Until it is complete, queries look at every run.
    """
    if kv.read(lambda reader: indexes.is_complete(reader, project)):
        return True
    if not kv.read(lambda reader: cursors.get(reader, _CURSOR + project)):
        logger.warning(
            "queries are slow until the index is made, which begins now; `matyan reindex` makes it faster",
            extra={"project": project},
        )
        begin(kv, project)
    if not go_on(kv, project, seconds_max=seconds_max):
        return False
    logger.info("the index is complete", extra={"project": project})
    return True


def go_on(kv: KvEngine, project: Project, *, seconds_max: float = math.inf) -> bool:
    """Work for about `seconds_max` seconds at what was begun; return whether it is done."""
    ends = time.monotonic() + seconds_max
    while _step(kv, project):
        if time.monotonic() >= ends:
            return False
    return True


def _begin(tx: KvTransaction, *, project: Project, token: bytes) -> None:
    if not cursors.get(tx, _CURSOR + project):
        indexes.set_incomplete(tx, project)
        cursors.put(tx, _CURSOR + project, token + _CLEARING)


def _step(kv: KvEngine, project: Project) -> bool:
    """Do one transaction's work, or that on some runs; return whether something is left."""
    place = kv.read(lambda reader: cursors.get(reader, _CURSOR + project))
    if place[_TOKEN_BYTES:] == _CLEARING:
        kv.write(partial(_clear, project=project, place=place), durable=False)
    elif place:
        _build(kv, project, place)
    return bool(place)


def _clear(tx: KvTransaction, *, project: Project, place: bytes) -> None:
    if cursors.get(tx, _CURSOR + project) != place:
        return  # somebody else is further
    begin, end = keyspace.children(keyspace.index(project))
    rows = tx.scan(begin, end, rows_max=_CLEARED_PER_TRANSACTION)
    if rows:
        tx.clear_range(begin, rows[-1][0] + b"\x00")
    else:
        cursors.put(tx, _CURSOR + project, place[:_TOKEN_BYTES] + _BUILDING)


def _build(kv: KvEngine, project: Project, place: bytes) -> None:
    """Index the next runs, the newest first: those that come meanwhile have their entries from the start."""
    after = place[_TOKEN_BYTES + len(_BUILDING) :] or None
    listed = kv.read(lambda reader: runs.list_newest(reader, project, after=after, rows_max=_RUNS_PER_TRANSACTION))
    numbers = [each.number for each in listed]
    for unfinished in (
        write_in_parts(kv, numbers, partial(_build_runs, project=project), durable=False) if numbers else ()
    ):
        for number, begin in unfinished:
            _build_sequences(kv, project, number, begin)
    kv.write(partial(_move, project=project, place=place, to=listed))


def _move(tx: KvTransaction, *, project: Project, place: bytes, to: Sequence[Listed]) -> None:
    if cursors.get(tx, _CURSOR + project) != place:
        return  # somebody else was faster
    if to:
        cursors.put(tx, _CURSOR + project, place[:_TOKEN_BYTES] + _BUILDING + to[-1].position)
    else:
        cursors.put(tx, _CURSOR + project, b"")
        indexes.set_complete(tx, project)


def _build_runs(tx: KvTransaction, numbers: Sequence[RunNumber], *, project: Project) -> list[tuple[RunNumber, bytes]]:
    """Index runs; return those with more sequences than are done here, and from which key on."""
    found = zip(numbers, runs.read_documents(tx, project, numbers), strict=True)
    alive = [(number, document) for number, document in found if document is not None]
    for number, document in alive:
        indexes.replace(tx, project, number, {}, entries.entries_of(document))
    ranges = [_summaries(project, number) for number, _ in alive]
    pages = tx.scan_many(ranges, rows_max=_SEQUENCES_PER_TRANSACTION)
    unfinished = []
    for (number, _), page in zip(alive, pages, strict=True):
        sequences.index_anew(tx, project, number, page)
        if len(page) == _SEQUENCES_PER_TRANSACTION:
            unfinished.append((number, page[-1][0] + b"\x00"))
    return unfinished


def _build_sequences(kv: KvEngine, project: Project, number: RunNumber, begin: bytes) -> None:
    """Index the sequences of a run from a key on."""
    end = _summaries(project, number).end
    while rows := kv.write(
        partial(_index_page, project=project, number=number, where=KeyRange(begin, end)), durable=False
    ):
        begin = rows[-1][0] + b"\x00"


def _index_page(tx: KvTransaction, *, project: Project, number: RunNumber, where: KeyRange) -> list[Pair]:
    rows = tx.scan(*where, rows_max=_SEQUENCES_PER_TRANSACTION)
    sequences.index_anew(tx, project, number, rows)
    return rows


def _summaries(project: Project, number: RunNumber) -> KeyRange:
    return keyspace.children(keyspace.summaries(project, number))


# ---- verifying


def verify(kv: KvEngine, project: Project) -> Verdict:
    """Compare the index with what it should be. Reads everything and changes nothing."""
    is_complete = kv.read(lambda reader: indexes.is_complete(reader, project))
    wanted = missing = 0
    right: Counter[RunNumber] = Counter()
    examples: list[Difference] = []
    for number in _all_runs(kv, project):
        for checked in _check_run(kv, project, number):
            right[number] += checked.found
            wanted += checked.wanted
            missing += len(checked.wrong)
            examples += [Difference(key, is_missing=True) for key in checked.wrong]
        del examples[_DIFFERENCES_KEPT:]
    suspects = {number for number, count in _count_by_run(kv, project).items() if count != right[number]}
    left_over = 0
    for key in _left_over(kv, project, suspects) if suspects else ():
        left_over += 1
        if len(examples) < 2 * _DIFFERENCES_KEPT:
            examples.append(Difference(key, is_missing=False))
    return Verdict(len(right), wanted, missing, left_over, examples, is_complete)


def _all_runs(kv: KvEngine, project: Project) -> Iterator[RunNumber]:
    after: bytes | None = None
    while listed := kv.read(partial(runs.list_newest, project=project, after=after)):
        yield from (each.number for each in listed)
        after = listed[-1].position


class _Checked(NamedTuple):
    """Some entries of a run."""

    wanted: int
    found: int
    wrong: list[bytes]
    """Keys that are not there, or have another value."""


def _check_run(kv: KvEngine, project: Project, number: RunNumber) -> Iterator[_Checked]:
    """Yield which entries a run should have and has, in parts of a transaction each."""
    yield kv.read(lambda reader: _check(reader, project, number, _of_document(reader, project, number)))
    begin, end = _summaries(project, number)
    while True:

        def look(reader: KvReader, begin: bytes = begin) -> tuple[list[Pair], _Checked]:
            rows = reader.scan(begin, end, rows_max=_SEQUENCES_PER_TRANSACTION)
            is_settled = reader.get(keyspace.unsettled_run(project, number)) is None
            return rows, _check(reader, project, number, sequences.stored_entries(rows, is_settled=is_settled))

        rows, checked = kv.read(look)
        if not rows:
            return
        yield checked
        begin = rows[-1][0] + b"\x00"


def _check(reader: KvReader, project: Project, number: RunNumber, wanted: dict[bytes, bytes]) -> _Checked:
    keys = [indexes.entry_key(project, place, number) for place in wanted]
    stored = reader.get_many(keys)
    wrong = [key for key, value, there in zip(keys, wanted.values(), stored, strict=True) if value != there]
    return _Checked(len(keys), len(keys) - stored.count(None), wrong)


def _of_document(reader: KvReader, project: Project, number: RunNumber) -> dict[bytes, bytes]:
    (document,) = runs.read_documents(reader, project, [number])
    return {} if document is None else entries.entries_of(document)


def _pages(kv: KvEngine, project: Project) -> Iterator[list[Pair]]:
    return scan_pages(kv, *keyspace.children(keyspace.index(project)))


def _count_by_run(kv: KvEngine, project: Project) -> Counter[RunNumber]:
    """Return how many entries there are of each run."""
    found: Counter[RunNumber] = Counter()
    for rows in _pages(kv, project):
        numbers, counts = np.unique([indexes.number_of(key) for key, _ in rows], return_counts=True)
        found.update(dict(zip(map(RunNumber, numbers.tolist()), counts.tolist(), strict=True)))
    return found


def _left_over(kv: KvEngine, project: Project, suspects: set[RunNumber]) -> Iterator[bytes]:
    """Yield the entries of runs that should not be there."""
    found: dict[RunNumber, list[bytes]] = {}
    for rows in _pages(kv, project):
        for key, _ in rows:
            number = indexes.number_of(key)
            if number in suspects:
                found.setdefault(number, []).append(key)
    for number, keys in found.items():
        yield from kv.read(partial(_unwanted, project=project, number=number, keys=keys))


def _unwanted(reader: KvReader, *, project: Project, number: RunNumber, keys: Sequence[bytes]) -> list[bytes]:
    """Return which of some entries of a run are there and should not be."""
    is_settled = reader.get(keyspace.unsettled_run(project, number)) is None
    summaries = scan_all(reader, *_summaries(project, number))
    wanted = _of_document(reader, project, number) | sequences.stored_entries(summaries, is_settled=is_settled)
    known = {indexes.entry_key(project, place, number) for place in wanted}
    return [
        key for key, value in zip(keys, reader.get_many(keys), strict=True) if value is not None and key not in known
    ]
