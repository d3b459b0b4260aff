"""Dead letters: what could not be applied, with its reason, kept until it is applied after all or somebody drops it.

A retry is a request in the store: whoever has the log appends the letter's content again, marked with the letter's
place, and the worker that applies it clears the letter in the same transaction. So a letter is applied at most once,
however often it is appended, and gone only when it is applied or dropped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.limits import SCAN_ROWS_MAX
from matyan.store import keyspace, outbox
from matyan.store.outbox import OutboxEntry
from matyan.store.records import RecordCodec
from matyan.store.scans import scan_all
from matyan.wire.messages import Origin
from matyan.wire.topics import DEAD_LETTERS

EXCERPT_BYTES_MAX: Final = 4096
REASON_CHARACTERS_MAX: Final = 4096
BLOB_PREFIX: Final = "deadletters/"
"""Begins the keys of blobs that hold letters whose excerpt is not all."""
_ID_BYTES: Final = 10


class DeadLetter(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """Something the store could not take.

    `index` is the place of a command in its record; -1 is the record itself, -2 - n what stood at n and was unreadable.
    """

    topic: str
    partition: int
    offset: int
    index: int
    project: str
    run_id: str
    reason: str
    excerpt: bytes
    """The first EXCERPT_BYTES_MAX bytes of what was refused."""
    received_ms: int
    log_id: str = ""
    blob_key: str | None = None
    """Where all of it lies when the excerpt is not all."""
    writer: str = ""
    """Who sent it: see `Envelope.writer`."""
    refused_ms: int = 0
    """When it was refused last."""
    retries: int = 0
    """How often it was tried again and refused again."""
    retry_fault: str = ""
    """Why the last request for a retry came to nothing; empty when it was tried, or none was made."""

    @property
    def origin(self) -> Origin:
        """Where in the log it was refused first."""
        return Origin(self.log_id, self.topic, self.partition, self.offset, self.index)

    @property
    def id(self) -> str:
        """A short name, the same for ever."""
        return id_of(self.origin)


class Retry(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """That somebody wants a letter to be tried again."""

    asked_ms: int
    is_sent: bool = False
    """Whether the log has it again."""


class Asked(NamedTuple):
    """A request for a retry, and the letter it is about; None when that is gone."""

    origin: Origin
    retry: Retry
    letter: DeadLetter | None


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What other systems are told of a letter: the value of a record of `data-ingestion-dead`, as JSON."""

    id: str
    log_id: str
    topic: str
    partition: int
    offset: int
    index: int
    project: str
    run_id: str
    reason: str
    received_ms: int
    refused_ms: int
    retries: int
    payload: str | None
    """Base64 of what was refused; None when it is too long, and lies in a blob."""
    payload_blob: str | None
    """Key of that blob."""


_codec: Final = RecordCodec(DeadLetter)
_retries: Final = RecordCodec(Retry)


def id_of(origin: Origin) -> str:
    """Return a name that can be typed: 16 characters of base 32."""
    digest = hashlib.blake2b(msgspec.msgpack.encode(origin), digest_size=_ID_BYTES).digest()
    return base64.b32encode(digest).decode().lower()


def put(tx: KvTransaction, letter: DeadLetter) -> None:
    """Store a letter, in the transaction that moves past it, and have it told."""
    replace(tx, letter)
    entry = OutboxEntry(time_ms=letter.refused_ms, key=letter.id.encode(), value=_notice(letter))
    outbox.put(tx, DEAD_LETTERS, entry, name=letter.id.encode())


def replace(tx: KvTransaction, letter: DeadLetter) -> None:
    """Store what has changed of a letter."""
    tx.put(_key(letter.origin), _codec.encode(letter))


def clear(tx: KvTransaction, origin: Origin) -> None:
    """Forget a letter and any request for its retry; its blob is the caller's."""
    tx.clear(_key(origin))
    tx.clear(_retry_key(origin))


def get_many(reader: KvReader, origins: Sequence[Origin]) -> list[DeadLetter | None]:
    """Return the letter of each place, None where there is none."""
    values = reader.get_many([_key(origin) for origin in origins])
    return [None if value is None else _codec.decode(value) for value in values]


def read(reader: KvReader) -> list[DeadLetter]:
    """Return all letters, oldest first of each partition; for stores known to hold few."""
    return [_codec.decode(value) for _, value in scan_all(reader, *keyspace.dead_letters())]


def read_page(reader: KvReader, after: Origin | None, *, rows_max: int = SCAN_ROWS_MAX) -> list[DeadLetter]:
    """Return the letters behind a place, oldest first of each partition."""
    begin, end = keyspace.dead_letters()
    rows = reader.scan(begin if after is None else _key(after) + b"\x00", end, rows_max=rows_max)
    return [_codec.decode(value) for _, value in rows]


# ---- retries


def ask(tx: KvTransaction, origin: Origin, now_ms: int) -> bool:
    """Ask for a letter to be tried again; return whether there is one."""
    (letter,) = get_many(tx, [origin])
    if letter is None:
        return False
    if letter.retry_fault:
        replace(tx, msgspec.structs.replace(letter, retry_fault=""))
    tx.put(_retry_key(origin), _retries.encode(Retry(asked_ms=now_ms)))
    return True


def read_asked(reader: KvReader, after: Origin | None, *, rows_max: int) -> list[Asked]:
    """Return requests for retries behind a place, those that are sent included, with their letters."""
    begin, end = keyspace.dead_letter_retries()
    rows = reader.scan(begin if after is None else _retry_key(after) + b"\x00", end, rows_max=rows_max)
    origins = [Origin(*keyspace.dead_letter_place(key)) for key, _ in rows]
    letters = get_many(reader, origins)
    return [
        Asked(origin, _retries.decode(value), letter)
        for origin, (_, value), letter in zip(origins, rows, letters, strict=True)
    ]


def is_asked(reader: KvReader, origin: Origin) -> bool:
    """Return whether a retry is under way."""
    return reader.get(_retry_key(origin)) is not None


def note_sent(tx: KvTransaction, origin: Origin) -> None:
    """Note that the log has a letter again, unless it has been applied, or dropped, meanwhile."""
    value = tx.get(_retry_key(origin))
    if value is not None:
        tx.put(_retry_key(origin), _retries.encode(msgspec.structs.replace(_retries.decode(value), is_sent=True)))


def note_fault(tx: KvTransaction, origin: Origin, fault: str) -> None:
    """Note that a letter cannot be tried again, and why."""
    (letter,) = get_many(tx, [origin])
    tx.clear(_retry_key(origin))
    if letter is not None:
        replace(tx, msgspec.structs.replace(letter, retry_fault=fault))


def _key(origin: Origin) -> bytes:
    return keyspace.dead_letter(origin.log_id, origin.topic, origin.partition, origin.offset, origin.index)


def _retry_key(origin: Origin) -> bytes:
    return keyspace.dead_letter_retry(origin.log_id, origin.topic, origin.partition, origin.offset, origin.index)


def _notice(letter: DeadLetter) -> bytes:
    payload = None if letter.blob_key else base64.b64encode(letter.excerpt).decode()
    values = {name: getattr(letter, name) for name in Notice.__struct_fields__ if not name.startswith("payload")}
    return msgspec.json.encode(Notice(**values, payload=payload, payload_blob=letter.blob_key))
