"""Run, RunDocument: what is known of a run besides its sequences."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from matyan.catalog.model import Experiment, RunPlace, Tag
from matyan.ids import RunId, RunNumber
from matyan.wire.codec import decode_tree

SYSTEM_PARAMS: Final = "__system_params"
EMPTY_TREE: Final = b"\x80"


class Artifact(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A file of a run; `path` is unique in it."""

    path: str
    uri: str
    content_type: str = "application/octet-stream"
    origin: str = ""
    """Where the file lay on the machine that uploaded it, if somebody said so."""


class EditMark(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The place in a log at which somebody changed or deleted a run: what stands before it is older."""

    log_id: str
    end_offset: int
    """Of the run's partition, at that moment."""


class RunDocument(msgspec.Struct, array_like=True, kw_only=True, gc=False):
    """The stored form of a run: one value. Params are kept encoded and decoded only when somebody asks.

    It cannot be part of a cycle, and a hundred thousand of them are half a scan's work for the garbage collector.
    """

    hash: str
    name: str | None = None
    description: str | None = None
    experiment_id: str | None = None
    tag_ids: tuple[str, ...] = ()
    """In order of attachment."""
    created_at_seconds: float = 0.0
    end_time_seconds: float | None = None
    updated_at_seconds: float = 0.0
    archived: bool = False
    active: bool = True
    params: bytes = EMPTY_TREE
    """msgpack of the params tree, without system params."""
    has_system_params: bool = False
    artifacts: tuple[Artifact, ...] = ()
    edits: dict[str, EditMark] = {}
    """Property -> when it was last edited through REST: what the run itself queued before that is older."""
    crashed: bool = False
    """Whether it is inactive because nothing was heard of it for long; the next data sets it going again."""
    system_shape: bytes = b""
    """What the index knows the system params by; empty where nobody said."""

    def place(self, number: RunNumber) -> RunPlace:
        """Return where the run stands in the order of creation; the time of creation never changes."""
        return RunPlace(int(self.created_at_seconds * 1_000_000), number)


def name_of(document: RunDocument) -> str:
    """Return the name of a run, or `Run: <hash>` when none was given."""
    return f"Run: {document.hash}" if document.name is None else document.name


class Run(msgspec.Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """A run as read: its document with experiment and tags resolved. Not to be changed: searches share it."""

    number: RunNumber
    document: RunDocument
    experiment: Experiment | None
    tags: tuple[Tag, ...]
    """Attached tags that are not archived, in order of attachment."""
    raw_system_params: bytes | None = None
    """msgpack of the system params, if they were read."""

    @property
    def hash(self) -> RunId:
        """The run id."""
        return RunId(self.document.hash)

    @property
    def name(self) -> str:
        """The name, or `Run: <hash>` when none was given."""
        return name_of(self.document)

    @property
    def params(self) -> dict[str, Any]:
        """The params tree, system params included when they were read.

        Decoded anew each time: the tree is five times as large as its encoded form, and runs stay in memory.
        """
        tree: dict[str, Any] = decode_tree(self.document.params)
        if self.raw_system_params is not None:
            tree[SYSTEM_PARAMS] = decode_tree(self.raw_system_params)
        return tree
