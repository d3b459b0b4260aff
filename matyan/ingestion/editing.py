"""Commands that change a run's document: one function each, in a table."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import msgspec

from matyan.catalog import repository as catalog
from matyan.catalog.model import Experiment, RunPlace, Tag
from matyan.engines.kv.protocol import KvTransaction
from matyan.ids import Project, RunId, RunNumber, check_label
from matyan.ingestion.batches import Event
from matyan.runs import repository as runs
from matyan.runs import signs
from matyan.runs.entries import shape_digest
from matyan.runs.model import SYSTEM_PARAMS, Artifact, RunDocument
from matyan.sequences import terminal
from matyan.wire.codec import decode_tree, encode_tree
from matyan.wire.messages import AddTag, BlobRef, Command, CreateRun, FinishRun, LogHparams, RemoveTag, SetRunProperty
from matyan.wire.moments import moment_ms

DEFAULT_EXPERIMENT: Final = "default"
"""Where a run belongs until somebody says otherwise, as in Aim: the UI needs an experiment to show."""

RUNNING: Final[Mapping[str, Any]] = {"active": True, "end_time_seconds": None, "crashed": False}


class RunEditor:
    """A run in the middle of a transaction: what was read of it, and what has changed."""

    def __init__(
        self,
        tx: KvTransaction,
        project: Project,
        number: RunNumber | None,
        document: RunDocument,
        ids: Mapping[str, str],
    ) -> None:
        self.tx = tx
        self.project = project
        self.document = document
        self._number = number
        self._ids = ids
        self._dirty = number is None
        self._params: dict[Any, Any] | None = None
        self._terminal: terminal.Terminal | None = None

    @property
    def number(self) -> RunNumber:
        """The run's number; a new run is stored when it is first asked for."""
        if self._number is None:
            self._number = runs.create(self.tx, self.project, self.document)
            if self.document.experiment_id is not None:
                catalog.experiments.link(self.tx, self.project, self.document.experiment_id, self.place)
        return self._number

    @property
    def place(self) -> RunPlace:
        """Where the run stands in the order of creation."""
        return self.document.place(self.number)

    @property
    def params(self) -> dict[Any, Any]:
        """The params tree without system params, to be changed in place."""
        self._dirty = True
        if self._params is None:
            self._params = decode_tree(self.document.params)
        return self._params

    def is_news(self, event: Event, name: str) -> bool:
        """Return whether a queued property is younger than the last edit of it through REST."""
        mark = self.document.edits.get(name)
        return mark is None or mark.log_id != event.log_id or event.offset >= mark.end_offset

    def change(self, event: Event, **fields: Any) -> None:
        """Set fields of the document."""
        self._dirty = True
        self.document = msgspec.structs.replace(self.document, updated_at_seconds=event.received_ms / 1000, **fields)

    def revive(self) -> None:
        """Set a run going again that counted as crashed, unless somebody has decided otherwise since."""
        signs.clear_crashed(self.tx, self.project, RunId(self.document.hash))
        if self.document.crashed:
            self._dirty = True
            self.document = msgspec.structs.replace(self.document, **RUNNING)

    def terminal(self) -> terminal.Terminal:
        """Return the state of the terminal log, to be changed in place."""
        if self._terminal is None:
            self._terminal = terminal.get(self.tx, self.project, self.number)
        return self._terminal

    def join(self, event: Event, name: str) -> None:
        """Move the run to the experiment of this name, which is made when unknown."""
        experiment = catalog.experiments.find(self.tx, self.project, check_label(name, "experiment name"))
        if experiment is None:
            experiment = Experiment(id=self._ids[name], name=name, created_at_seconds=event.received_ms / 1000)
            catalog.experiments.put(self.tx, self.project, experiment)
        before = self.document.experiment_id
        if before == experiment.id:
            return
        if before is not None:
            catalog.experiments.unlink(self.tx, self.project, before, self.place)
        self.change(event, experiment_id=experiment.id)
        if self._number is not None:
            catalog.experiments.link(self.tx, self.project, experiment.id, self.place)

    def place_default(self, received_ms: int) -> None:
        """Put a run that belongs nowhere into the default experiment."""
        if self.document.experiment_id is None:
            self.join(Event(CreateRun(), "", received_ms, "", 0), DEFAULT_EXPERIMENT)

    def tag(self, event: Event, name: str) -> None:
        """Attach the tag of this name, which is made when unknown."""
        tag = catalog.tags.find(self.tx, self.project, check_label(name, "tag name"))
        if tag is None:
            tag = Tag(id=self._ids[name], name=name, created_at_seconds=event.received_ms / 1000)
            catalog.tags.put(self.tx, self.project, tag)
        if tag.id not in self.document.tag_ids:
            self.change(event, tag_ids=(*self.document.tag_ids, tag.id))
            catalog.tags.link(self.tx, self.project, tag.id, self.place)

    def untag(self, event: Event, name: str) -> None:
        """Detach the tag of this name, if it is attached."""
        tag = catalog.tags.find(self.tx, self.project, name)
        if tag is not None and tag.id in self.document.tag_ids:
            self.change(event, tag_ids=tuple(tag_id for tag_id in self.document.tag_ids if tag_id != tag.id))
            catalog.tags.unlink(self.tx, self.project, tag.id, self.place)

    def save(self) -> None:
        """Write what has changed."""
        number = self.number
        if self._params is not None:
            self.document.params = encode_tree(self._params)
        if self._dirty:
            runs.put(self.tx, self.project, number, self.document)
        if self._terminal is not None:
            terminal.put(self.tx, self.project, number, self._terminal)


def set_path(tree: dict[Any, Any], value: Mapping[Any, Any]) -> None:
    """Set params: while an object has exactly one key it is a path, what ends it replaces the subtree there.

    An object of several keys at the top sets each of them. Whatever stands in the way of a path gives way to it.
    `value` itself is never changed, now or by a later call: a transaction may be run again from the same commands.
    """
    value = copy.deepcopy(value)
    if len(value) != 1:
        tree.update(value)
        return
    ((key, below),) = value.items()
    while isinstance(below, dict) and len(below) == 1:
        inner = tree.get(key)
        if not isinstance(inner, dict):
            inner = tree[key] = {}
        tree = inner
        ((key, below),) = below.items()
    tree[key] = below


def _create(run: RunEditor, event: Event) -> None:
    edits = {name: mark for name, mark in run.document.edits.items() if name != "active"}
    run.change(event, edits=edits, **RUNNING)
    terminal.begin_life(run.terminal(), event.writer)


def _set_property(run: RunEditor, event: Event) -> None:
    command = cast("SetRunProperty", event.command)
    if command.name is not None and run.is_news(event, "name"):
        run.change(event, name=check_label(command.name, "run name"))
    if command.description is not None and run.is_news(event, "description"):
        run.change(event, description=command.description)
    if command.archived is not None and run.is_news(event, "archived"):
        run.change(event, archived=command.archived)
    if command.experiment is not None and run.is_news(event, "experiment"):
        run.join(event, command.experiment)


def _set_params(run: RunEditor, event: Event) -> None:
    value = dict(cast("LogHparams", event.command).value)
    system = value.pop(SYSTEM_PARAMS, None)
    if value:
        set_path(run.params, value)
    if isinstance(system, dict):
        (stored,) = runs.get_system_params(run.tx, run.project, [run.number])
        tree = {SYSTEM_PARAMS: {} if stored is None else decode_tree(stored)}
        set_path(tree, {SYSTEM_PARAMS: system})
        runs.put_system_params(run.tx, run.project, run.number, encode_tree(tree[SYSTEM_PARAMS]))
        run.change(event, has_system_params=True, system_shape=shape_digest(tree[SYSTEM_PARAMS]))
    elif system is not None:
        run.params[SYSTEM_PARAMS] = system


def _add_tag(run: RunEditor, event: Event) -> None:
    run.tag(event, cast("AddTag", event.command).tag_name)


def _remove_tag(run: RunEditor, event: Event) -> None:
    run.untag(event, cast("RemoveTag", event.command).tag_name)


def _add_artifact(run: RunEditor, event: Event) -> None:
    command = cast("BlobRef", event.command)
    if command.artifact_path.startswith("seq/"):
        return  # the bytes of a tracked image or audio; its item names the key
    others = tuple(known for known in run.document.artifacts if known.path != command.artifact_path)
    fresh = Artifact(command.artifact_path, command.s3_key, command.content_type)
    run.change(event, artifacts=(*others, fresh))


def _finish(run: RunEditor, event: Event) -> None:
    ended_ms = moment_ms(cast("FinishRun", event.command).client_datetime, event.received_ms)
    run.change(event, active=False, end_time_seconds=ended_ms / 1000, crashed=False)


EDITS: Final[Mapping[type[Command], Callable[[RunEditor, Event], None]]] = {
    CreateRun: _create,
    SetRunProperty: _set_property,
    LogHparams: _set_params,
    AddTag: _add_tag,
    RemoveTag: _remove_tag,
    BlobRef: _add_artifact,
    FinishRun: _finish,
}
