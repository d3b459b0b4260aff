"""The one place where keys are made, and read again; `subspaces.py` has the map of them.

Every key begins with the project; what belongs to no project begins with the empty text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from matyan.engines.kv.protocol import KeyRange
from matyan.engines.kv.tuples import pack, unpack
from matyan.ids import Project, RunId, RunNumber
from matyan.store.subspaces import Subspace

_SYSTEM: Final = ""
_SEVEN_BYTES: Final = 0x1B
"""First byte of a packed integer of seven bytes, see `engines/kv/tuples.py`."""
_TIME_BYTES: Final = 8
"""Of such a one; of a number, the first byte tells its length."""
MOMENT_US_MAX: Final = 2**60
"""Microseconds of 36,000 years."""
_HOT_KEYS_MAX: Final = 65_536
"""Keys of sequences being written are asked for with every slice."""

CONTENTS: Final = (
    Subspace.SUMMARIES,
    Subspace.POINTS,
    Subspace.ITEMS,
    Subspace.TERMINALS,
    Subspace.SYSTEM_PARAMS,
    Subspace.RUN_NOTES,
)
"""What only a run's own number leads to, in the order of `run_contents`."""
PREVIEW: Final = 0
SMALL_BLOCKS: Final = 2**31
"""Added to the number of a block that waits to be merged, so that those and the tail stand together."""
TAIL: Final = 2**32 - 1


def name_digest(name: str) -> bytes:
    """Return 16 bytes that stand for a name of any length in keys."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def last_number(key: bytes) -> int:
    """Return the number that ends a key: a run number, a step."""
    number = unpack(key)[-1]
    assert isinstance(number, int)
    return number


def last_text(key: bytes) -> str:
    """Return the text that ends a key: a run id."""
    text = unpack(key)[-1]
    assert isinstance(text, str)
    return text


def children(prefix: bytes) -> KeyRange:
    """Return the range of all tuples that continue the packed tuple `prefix`."""
    return KeyRange(prefix + b"\x00", prefix + b"\xff")


@lru_cache
def subspace(project: Project, space: Subspace) -> bytes:
    """Return the common beginning of a subspace's keys."""
    return pack((project, int(space)))


# ---- system


def applied(log_id: str, topic: str, partition: int) -> bytes:
    """Key of a partition's applied offset."""
    return pack((_SYSTEM, int(Subspace.APPLIED), log_id, topic, partition))


def dead_letter(log_id: str, topic: str, partition: int, offset: int, index: int) -> bytes:
    """Key of one dead letter."""
    return pack((_SYSTEM, int(Subspace.DEAD_LETTERS), log_id, topic, partition, offset, index))


def dead_letters() -> KeyRange:
    """Range of all dead letters."""
    return children(pack((_SYSTEM, int(Subspace.DEAD_LETTERS))))


def cursor(name: str) -> bytes:
    """Key of where a job stands."""
    return pack((_SYSTEM, int(Subspace.CURSORS), name))


def dead_letter_retry(log_id: str, topic: str, partition: int, offset: int, index: int) -> bytes:
    """Key of the request that a dead letter be tried again."""
    return pack((_SYSTEM, int(Subspace.DEAD_LETTER_RETRIES), log_id, topic, partition, offset, index))


def dead_letter_retries() -> KeyRange:
    """Range of all these requests."""
    return children(pack((_SYSTEM, int(Subspace.DEAD_LETTER_RETRIES))))


def dead_letter_place(key: bytes) -> tuple[str, str, int, int, int]:
    """Return log id, topic, partition, offset and index of a dead letter's key, or of the request for its retry."""
    log_id, topic, partition, offset, index = unpack(key)[2:]
    assert isinstance(log_id, str)
    assert isinstance(topic, str)
    assert isinstance(partition, int)
    assert isinstance(offset, int)
    assert isinstance(index, int)
    return log_id, topic, partition, offset, index


def outbox(topic: str) -> bytes:
    """Beginning of what waits to be appended to a topic; a versionstamp and a name follow."""
    return pack((_SYSTEM, int(Subspace.OUTBOX), topic))


def gateway(log_id: str, topic: str, partition: int, source: str) -> bytes:
    """Key of what is applied of a gateway's records in a partition."""
    return pack((_SYSTEM, int(Subspace.GATEWAYS), log_id, topic, partition, source))


def gateways() -> KeyRange:
    """Range of what is known of all gateways."""
    return children(pack((_SYSTEM, int(Subspace.GATEWAYS))))


def lease(name: str) -> bytes:
    """Key of who may do what `name` stands for."""
    return pack((_SYSTEM, int(Subspace.LEASES), name))


# ---- runs


def run_counter(project: Project) -> bytes:
    """Key of the next run number."""
    return pack((project, int(Subspace.RUN_COUNTER)))


def cleared_runs(project: Project) -> bytes:
    """Key of how many of the numbers given out belong to no run any more."""
    return pack((project, int(Subspace.CLEARED_RUNS)))


def run_number(project: Project, run_id: RunId) -> bytes:
    """Key of a run id's number."""
    return pack((project, int(Subspace.RUN_NUMBERS), run_id))


def run_document(project: Project, number: RunNumber) -> bytes:
    """Base of a run's document."""
    return subspace(project, Subspace.RUNS) + pack((number,))


def run_documents(project: Project, first: RunNumber, last: RunNumber) -> KeyRange:
    """Range of the documents of two runs and of those that have numbers between theirs."""
    return KeyRange(run_document(project, first), run_document(project, last) + b"\xff")


def document_numbers(bases: Sequence[bytes], at: int) -> list[RunNumber]:
    """Return the numbers of the runs whose documents have these bases, in which they begin at `at`.

    A scan asks this of every run, as of `place_number_array`.
    """
    digits = map(itemgetter(slice(at + 1, None)), bases)
    return cast("list[RunNumber]", list(map(int.from_bytes, digits)))


def system_params(project: Project, number: RunNumber) -> bytes:
    """Base of a run's system params."""
    return pack((project, int(Subspace.SYSTEM_PARAMS), number))


def run_by_time(project: Project, created_us: int, number: RunNumber) -> bytes:
    """Key of a run in the order of creation."""
    return pack((project, int(Subspace.RUNS_BY_TIME), created_us, number))


def place_numbers(keys: Sequence[bytes], at: int) -> list[RunNumber]:
    """Return the numbers of keys that end with a creation time, from `at` on, and a run number."""
    return cast("list[RunNumber]", place_number_array(keys, at).tolist())


def place_number_array(keys: Sequence[bytes], at: int) -> NDArray[np.uint64]:
    """Return the numbers of keys that end with a creation time, from `at` on, and a run number.

    A scan asks this of every run, and to unpack the whole key takes a hundred times as long: only times before 1978 or
    after 4253, which a client's clock may say, have not seven bytes. Behind these, what is left of keys of one length
    are numbers of one length.
    """
    if len(set(map(len, keys))) == 1:
        table = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1)
        if (table[:, at] == _SEVEN_BYTES).all():
            return _numbers_of(table[:, at + _TIME_BYTES + 1 :])
    return np.array(
        [
            int.from_bytes(key[at + _TIME_BYTES + 1 :], "big") if key[at] == _SEVEN_BYTES else last_number(key)
            for key in keys
        ],
        np.uint64,
    )


def _numbers_of(digits: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return what rows of up to eight bytes say, the greatest digit first."""
    filled = np.zeros((len(digits), 8), np.uint8)
    filled[:, filled.shape[1] - digits.shape[1] :] = digits
    return filled.view(">u8").ravel().astype(np.uint64)


def run_by_time_place(key: bytes) -> tuple[int, RunNumber]:
    """Return creation time and number of a key of `run_by_time`."""
    created_us, number = unpack(key)[-2:]
    assert isinstance(created_us, int)
    assert isinstance(number, int)
    return created_us, RunNumber(number)


def created_us_array(keys: Sequence[bytes], at: int) -> NDArray[np.int64]:
    """Return the creation times in keys of `run_by_time`, where they begin at `at`.

    Those that no calendar reaches are brought to MOMENT_US_MAX from 1970.
    """
    parts = list(map(itemgetter(slice(at, at + _TIME_BYTES)), keys))
    if set(map(itemgetter(0), parts)) <= {_SEVEN_BYTES}:  # as in `place_number_array`
        table = np.frombuffer(b"".join(parts), np.uint8).reshape(-1, _TIME_BYTES)
        return _numbers_of(table[:, 1:]).astype(np.int64)
    moments = (run_by_time_place(key)[0] for key in keys)
    return np.array([min(max(moment, -MOMENT_US_MAX), MOMENT_US_MAX) for moment in moments], np.int64)


def active_run(project: Project, number: RunNumber) -> bytes:
    """Key that exists while a run is active."""
    return pack((project, int(Subspace.ACTIVE_RUNS), number))


def last_seen(project: Project, number: RunNumber) -> bytes:
    """Key of when a run was heard of last, as far as `unsettled_run` does not tell."""
    return pack((project, int(Subspace.LAST_SEEN), number))


def crashed_run(project: Project, run_id: RunId) -> bytes:
    """Key that exists while a run counts as crashed."""
    return pack((project, int(Subspace.CRASHED_RUNS), run_id))


def unsettled_run(project: Project, number: RunNumber) -> bytes:
    """Key that exists while a run has points that are not yet stored as compactly as they can be."""
    return pack((project, int(Subspace.UNSETTLED_RUNS), number))


def tombstone(project: Project, run_id: RunId) -> bytes:
    """Key of what is known of a deleted run."""
    return pack((project, int(Subspace.TOMBSTONES), run_id))


def deletion(project: Project, due_ms: int, number: RunNumber) -> bytes:
    """Key of the note that a run has something left to free, in the order in which it is due."""
    return pack((project, int(Subspace.DELETIONS), due_ms, number))


def deletion_place(key: bytes) -> tuple[int, RunNumber]:
    """Return due time and run number of a key of `deletion`."""
    due_ms, number = unpack(key)[-2:]
    assert isinstance(due_ms, int)
    assert isinstance(number, int)
    return due_ms, RunNumber(number)


def deletions_until(project: Project, now_ms: int) -> KeyRange:
    """Range of the deletions that are due."""
    return KeyRange(
        children(subspace(project, Subspace.DELETIONS)).begin, pack((project, int(Subspace.DELETIONS), now_ms + 1))
    )


def run_contents(project: Project, number: RunNumber) -> tuple[KeyRange, ...]:
    """Ranges of everything that only a run's own number leads to, its document not included.

    Summaries come first: who finds none writes no points either.
    """
    prefixes = [pack((project, int(space), number)) for space in CONTENTS]
    return tuple(KeyRange(prefix, prefix + b"\xff") for prefix in prefixes)


# ---- sequences


def summaries(project: Project, number: RunNumber) -> bytes:
    """Beginning of a run's summaries."""
    return pack((project, int(Subspace.SUMMARIES), number))


def summaries_of(project: Project, number: RunNumber, bucket: int) -> bytes:
    """Beginning of a run's summaries of one kind."""
    return pack((project, int(Subspace.SUMMARIES), number, bucket))


@lru_cache(_HOT_KEYS_MAX)
def summary(project: Project, number: RunNumber, bucket: int, digest: bytes) -> bytes:
    """Key of a sequence's summary."""
    return pack((project, int(Subspace.SUMMARIES), number, bucket, digest))


@lru_cache(_HOT_KEYS_MAX)
def points(project: Project, number: RunNumber, digest: bytes) -> bytes:
    """Beginning of a scalar sequence's blocks.

    To be continued by four bytes, big-endian: PREVIEW, the number of a chunk or of a small block, or TAIL.
    """
    return pack((project, int(Subspace.POINTS), number, digest))


def items(project: Project, number: RunNumber, bucket: int, digest: bytes) -> bytes:
    """Beginning of an object sequence's items."""
    return pack((project, int(Subspace.ITEMS), number, bucket, digest))


def item(project: Project, number: RunNumber, bucket: int, digest: bytes, step: int) -> bytes:
    """Base of one item."""
    return pack((project, int(Subspace.ITEMS), number, bucket, digest, step))


def terminal(project: Project, number: RunNumber) -> bytes:
    """Key of the state of a run's terminal log."""
    return pack((project, int(Subspace.TERMINALS), number))


# ---- catalog


def entity(project: Project, space: Subspace, entity_id: str) -> bytes:
    """Key of an experiment or tag."""
    return pack((project, int(space), entity_id))


def entity_name(project: Project, space: Subspace, name: str) -> bytes:
    """Key that leads from a name to an id."""
    return pack((project, int(space), name_digest(name)))


def entity_run(project: Project, space: Subspace, entity_id: str, created_us: int, number: RunNumber) -> bytes:
    """Key that says that a run belongs to an experiment or carries a tag, in the order of creation."""
    return pack((project, int(space), entity_id, created_us, number))


def entity_run_place(key: bytes) -> tuple[int, RunNumber]:
    """Return creation time and number of the run that a key of `entity_run` names."""
    created_us, number = unpack(key)[-2:]
    assert isinstance(created_us, int)
    assert isinstance(number, int)
    return created_us, RunNumber(number)


# ---- documents


def note_counter(project: Project) -> bytes:
    """Key of the next note number."""
    return pack((project, int(Subspace.NOTE_COUNTER)))


def notes(project: Project, space: Subspace, owner: str | RunNumber) -> bytes:
    """Beginning of the notes of a run or experiment."""
    return pack((project, int(space), owner))


def note(project: Project, space: Subspace, owner: str | RunNumber, number: int) -> bytes:
    """Base of one note."""
    return pack((project, int(space), owner, number))


# ---- indexes


@lru_cache
def index(project: Project) -> bytes:
    """Beginning of all entries of the index."""
    return pack((project, int(Subspace.INDEX)))


def index_state(project: Project) -> bytes:
    """Key of the version in which the index is complete."""
    return pack((project, int(Subspace.INDEX_STATE)))


# ---- changes


def changes(project: Project) -> bytes:
    """Beginning of the notes of what was changed; a versionstamp and what it was follow."""
    return pack((project, int(Subspace.CHANGES)))


# ---- transfer


def import_progress(project: Project, source: str, run_id: RunId) -> bytes:
    """Base of the progress of a run's import; the empty run id stands for what belongs to no run."""
    return pack((project, int(Subspace.IMPORTS), source, run_id))
