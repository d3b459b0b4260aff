"""What the index holds of a sequence: that a run has it, and, once it is settled, the values of a metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from matyan.engines.kv.protocol import KvTransaction
from matyan.ids import Project, RunNumber
from matyan.sequences.model import Bucket, Indexed, Summary
from matyan.store import indexes
from matyan.store.indexes import NONE_CODE, Kind

NO_VALUES: Final = Indexed()
_KINDS: Final[Mapping[Kind, str]] = {Kind.LAST: "last", Kind.MINIMUM: "minimum", Kind.MAXIMUM: "maximum"}


def values_of(summary: Summary) -> Indexed:
    """Return what the index holds of a sequence that is settled; objects have no values."""
    if summary.bucket != Bucket.METRIC:
        return NO_VALUES
    return Indexed(summary.last, summary.minimum, summary.maximum)


def entries_of(summary: Summary, indexed: Indexed | None) -> dict[bytes, bytes]:
    """Return place and value of each entry of a sequence of which so much is indexed; None for nothing at all."""
    if indexed is None:
        return {}
    own = indexes.sequence_field(Kind.SEQUENCE, summary.bucket, summary.name, summary.context)
    # A digest in the key leads nowhere: the record can be found by its own.
    is_long = indexes.is_shortened(summary.name) or indexes.is_shortened(summary.context)
    found = {own + NONE_CODE: summary.key.digest() if is_long else b""}
    if indexed == NO_VALUES:
        return found
    for kind, attribute in _KINDS.items():
        value = getattr(indexed, attribute)
        code = None if value is None else indexes.code_of(value)
        if code is not None:
            found[bytes((kind,)) + own[1:] + code] = b""
    return found


def rewrite(tx: KvTransaction, project: Project, number: RunNumber, summary: Summary, now: Indexed) -> None:
    """Write all entries of a sequence, whether or not they are there, and clear others that it may have."""
    before, wanted = entries_of(summary, summary.indexed), entries_of(summary, now)
    indexes.replace(tx, project, number, dict.fromkeys(before.keys() - wanted.keys(), b""), wanted)


def update(
    tx: KvTransaction,
    project: Project,
    number: RunNumber,
    summary: Summary,
    before: Indexed | None,
    now: Indexed | None,
) -> None:
    """Bring the entries of a sequence up to date."""
    indexes.replace(tx, project, number, entries_of(summary, before), entries_of(summary, now))
